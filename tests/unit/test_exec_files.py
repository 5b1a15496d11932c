"""The files by which execs are known: found by id, and not kept without end."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from sampan.engine import exec as execs
from sampan.store.layout import ContainerPaths


def test_an_exec_is_found_while_it_runs_and_when_it_has_ended(tmp_path: Path) -> None:
    paths = ContainerPaths("c", str(tmp_path), str(tmp_path / "run"))
    assert paths.find_exec("a") is None
    (tmp_path / "run").mkdir()
    for name in ("exec-a", "ended-b.126", "exec-c.tmp", "attach.sock"):
        (tmp_path / "run" / name).touch()
    found, ended = paths.find_exec("a"), paths.find_exec("b")
    assert found is not None
    assert ended is not None
    assert (found.exit_code, ended.exit_code) == (None, 126)
    assert paths.find_exec("c") is None
    assert paths.find_exec("sock") is None
    assert paths.execs() == ["a"]


@pytest.mark.thorough
def test_the_oldest_of_many_are_forgotten(tmp_path: Path) -> None:
    for number in range(execs.KEPT_EXECS + 1):
        path = tmp_path / f"ended-{number}.0"
        path.touch()
        os.utime(path, (number, number))
    (tmp_path / "exec-running").touch()
    execs._forget_oldest(str(tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    newest = range(execs.KEPT_EXECS + 1 - execs.KEPT_EXECS // 2, execs.KEPT_EXECS + 1)
    assert left == {"exec-running", *(f"ended-{number}.0" for number in newest)}
    execs._forget_oldest(str(tmp_path / "gone"))


def test_the_place_in_an_id_by_which_an_exec_looks_is_random() -> None:
    """Not among the digits that are the container's: else none of its execs would look, or each."""
    record = SimpleNamespace(id="0" * 64)
    ids = [execs.new_exec_id(record) for _ in range(1000)]  # type: ignore[arg-type]
    assert 10 < sum(name.endswith(execs._LOOKS) for name in ids) < 200
