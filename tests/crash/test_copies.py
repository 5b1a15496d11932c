"""kill -9 of a copy at every recorded step: no mount is left and no lock, the volume's own mount goes with the next command, and
the container starts."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import sampan
from sampan.steps.trace import Event

from support import host
from support.imagestore import archive
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]


class Killer:
    """Kills its own process at the n-th event of the engine."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def __call__(self, event: Event) -> None:
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1


def put(engine: sampan.Engine) -> None:
    engine.containers.get("box").put_archive("/vol", archive({"new": b"1"}))


def get(engine: sampan.Engine) -> None:
    with engine.containers.get("box").get_archive("/vol")[1] as pieces:
        assert b"kept" in b"".join(pieces)


def killed_at(root: Root, at: int, action: Callable[[sampan.Engine], None]) -> bool:
    """Do it in a child that is killed at a step; False if it had fewer steps than that."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with root.engine(observer=Killer(at)) as engine:
                action(engine)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"step {at}: it failed"
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("action", [put, get])
@pytest.mark.parametrize("running", [False, True])
def test_a_copy(new_root: Root, tmp_path: Path, action: Callable[[sampan.Engine], None], running: bool) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device/kept").write_text("kept")
    options = {"type": "none", "o": "bind", "device": str(tmp_path / "device")}
    with new_root.engine() as engine:
        engine.volumes.create("vol", driver_opts=options)
        box = engine.containers.create("base", ["sleep", "1000"], name="box", network="none", volumes=["vol:/vol"])
        if running:
            box.start()
        mounted = host.mounts(new_root.directory)
        at = 0
        while killed_at(new_root, at, action):
            # What the volume's driver had mounted on the host is the next command's to take away.
            engine.volumes.create("vol")
            assert host.mounts(new_root.directory) == mounted, f"left by step {at}"
            assert not [p for p in host.processes(str(new_root.directory)).values() if "pytest" in p], (
                f"left by step {at}"
            )
            assert box.stat_path("/vol/kept").size == 4, f"step {at}"
            at += 1
        assert at >= (4 if running else 12)
        if not running:
            box.start()
        assert box.exec(["cat", "/vol/kept"]).stdout == "kept"
        box.remove(force=True)
        assert engine.system.check() == []
        engine.volumes.get("vol").remove()
