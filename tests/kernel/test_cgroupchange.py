"""The order in which limits are changed, over files in a directory that stand for the kernel's."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sampan.kernel import cgroupchange
from sampan.kernel.cgroupmodel import Write

MEMORY, SWAP = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def names(changes: list[cgroupchange.Change]) -> list[str]:
    return [change.write.path.rpartition("/")[2] for change in changes]


@pytest.mark.parametrize(
    ("bounded", "bound", "before", "after", "first"),
    [
        (MEMORY, SWAP, (100, 200), (300, 400), SWAP),
        (MEMORY, SWAP, (300, 400), (100, 200), MEMORY),
        (MEMORY, SWAP, (100, 200), (100, -1), SWAP),
        (MEMORY, SWAP, (1 << 62, 1 << 62), (100, 200), MEMORY),
        (QUOTA, PERIOD, (-1, 100_000), (5_000, 50_000), QUOTA),
        (QUOTA, PERIOD, (50_000, 100_000), (150_000, 200_000), PERIOD),
    ],
)
def test_a_bound_grows_first_and_shrinks_last(
    tmp_path: Path, bounded: str, bound: str, before: tuple[int, int], after: tuple[int, int], first: str
) -> None:
    values = dict(zip((bounded, bound), before, strict=True))
    for name, value in values.items():
        (tmp_path / name).write_text(f"{value}\n")
    writes = [Write(f"{tmp_path}/{n}", str(v)) for n, v in zip((bounded, bound), after, strict=True)]
    for order in itertools.permutations(writes):
        changes = cgroupchange.ordered(order)
        assert names(changes)[0] == first
        assert {c.write.path: int(c.before) for c in changes} == {f"{tmp_path}/{n}": v for n, v in values.items()}


def test_what_may_fail_and_is_not_there_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "pids.max").write_text("max\n")
    writes = [Write(f"{tmp_path}/memory.swap.max", "5", required=False), Write(f"{tmp_path}/pids.max", "7")]
    assert names(cgroupchange.ordered(writes)) == ["pids.max"]


def test_going_back(tmp_path: Path) -> None:
    for name, text in (("pids.max", "max\n"), ("cpuset.cpus", "\n"), ("io.bfq.weight", "default 100\n8:0 200\n")):
        (tmp_path / name).write_text(text)
        (change,) = cgroupchange.ordered([Write(f"{tmp_path}/{name}", "3")])
        (tmp_path / name).write_text("3\n")
        change.undo()
        assert (tmp_path / name).read_text().splitlines()[0] == text.splitlines()[0]
