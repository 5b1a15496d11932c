"""kill -9 at every recorded step of a create and a start with volumes: none ever counts as full that is half filled."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sampan
from sampan.steps.trace import Event

from support.imagestore import archive, disk
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(400)]

FILES: dict[str, bytes | None] = {"data": None, **{f"data/{n}": b"x" * n for n in range(5)}, "data/sub": None}
NAMES = sorted(["0", "1", "2", "3", "4", "sub"])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Root]:
    """A root in memory with an image that has something at /data."""
    with disk(tmp_path / "disk", "64m") as place:
        root = Root(place / "store")
        root.cli("import", "-c", 'CMD ["x"]', "-c", "VOLUME /data", "-", "full", input=archive(FILES)).ok()
        # What is made once is there: the init layer, the unpacked image.
        root.cli("create", "--name", "first", "full").ok()
        root.cli("rm", "-v", "first").ok()
        yield root
        root.delete()


def killed_at(root: Root, at: int, action: Callable[[sampan.Engine], object]) -> bool:
    """Run the action in a child that kills itself at its n-th step; whether it got that far."""
    seen = -1

    def killer(_event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with root.engine(observer=killer) as engine:
                action(engine)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    ended = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0
    return os.WIFSIGNALED(ended)


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long, id="every"), pytest.param(5, id="some")])
@pytest.mark.parametrize("binds", [["vol:/data"], []], ids=["named", "anonymous"])
def test_create(small: Root, binds: list[str], stride: int) -> None:
    def create(engine: sampan.Engine) -> None:
        engine.containers.create("full", volumes=binds)

    at, before = 0, small.state()
    while killed_at(small, at, create):
        with small.engine() as engine:
            # The next one that wants it finds it whole, or empty and fills it.
            made = engine.containers.create("full", volumes=["vol:/data"] if binds else [])
            (point,) = made.inspect()["Mounts"]
            assert sorted(os.listdir(point["Source"])) == NAMES, f"step {at}"
            assert sorted(os.listdir(Path(point["Source"]).parent)) == [".copy.lock", "_data", "volume.json"]
            for container in engine.containers.list(all=True):
                (point,) = container.inspect()["Mounts"]
                assert sorted(os.listdir(point["Source"])) == NAMES, f"step {at}"
                container.remove(volumes=True)
            for volume in engine.volumes.list():
                assert volume.name == "vol", f"step {at}: an anonymous volume is left"
                volume.remove()
        assert before.left() == [], f"step {at}"
        at += stride
    assert at > 30
    before.check()
    with small.engine() as engine:
        for volume in engine.volumes.list():
            volume.remove()


def test_a_start_completes_what_was_being_moved(small: Root) -> None:
    small.cli("create", "--name", "box", "-v", "vol:/data", "full").ok()
    volume = small.root / "volumes/vol"
    # As a process leaves it that is killed after the first entry.
    filled = volume / ".sampan-filled"
    (filled / "tree").mkdir(parents=True)
    (filled / "top").mkdir()
    (filled / "subpath").write_bytes(b"")
    for name in NAMES[1:]:
        (volume / "_data" / name).rename(filled / "tree" / name)
    small.cli("start", "box")  # its program is none, and is not what is looked at
    assert sorted(os.listdir(volume / "_data")) == NAMES
    assert sorted(os.listdir(volume)) == [".copy.lock", "_data", "volume.json"]
    small.cli("rm", "box").ok()
