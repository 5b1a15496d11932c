"""A container that is stuck, by its shim or by a process that SIGKILL does not end: it holds up no other, and says so itself."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import System

from support.command import Command
from support.fuse import SilentDisk, is_stuck, silent_disk
from support.patience import eventually, patience
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(240)]

SLEEP = ["sleep", "1000"]


def facts(root: Root, box: Container) -> dict[str, int]:
    """What the newest start's monitor has written of itself."""
    newest = max((root.root / "containers" / box.id / "starts").iterdir(), key=lambda p: int(p.name))
    found: dict[str, int] = json.loads((newest / "started").read_text())
    return found


def seconds(action: Callable[[], object]) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def looking(engine: sampan.Engine, silent: SilentDisk, name: str) -> Container:
    """A container that waits for the silent disk."""
    box = engine.containers.create(
        "base", ["cat", f"/silent/{name}"], name=name, volumes=[f"{silent.place}:/silent"], network="none"
    )
    box.start()
    silent.await_lookup()
    return box


def lost_with_a_stuck_process(root: Root, engine: sampan.Engine, silent: SilentDisk, name: str) -> Container:
    box = looking(engine, silent, name)
    known = facts(root, box)
    os.kill(known["monitor"], signal.SIGKILL)
    os.kill(known["pid"], signal.SIGKILL)
    eventually(lambda: is_stuck(known["pid"]), what="its process does not die")
    return box


def test_containers_that_cannot_be_ended_delay_no_other_command(
    root: Root, cli: Command, engine: sampan.Engine, tmp_path: Path
) -> None:
    """Their monitors were killed, and their processes wait for a disk: every listing tried for a second each to end them."""
    other = engine.containers.create("base", SLEEP, name="other", network="none")
    with silent_disk(tmp_path / "silent") as silent:
        stuck = [lost_with_a_stuck_process(root, engine, silent, f"stuck{n}") for n in range(6)]
        for args in (
            ("ps",),
            ("ps", "-a"),
            ("start", "other"),
            ("inspect", "other", "stuck0"),
            ("exec", "other", "true"),
            ("run", "--rm", "--network", "none", "base", "true"),
            ("stats", "--no-stream"),
            ("events", "--since", "1m", "--until", "0s"),
            ("stop", "-t", "0", "other"),
            ("system", "df"),
            ("container", "prune", "-f"),  # takes `other` away, and none of these
        ):
            assert seconds(lambda args=args: cli(*args).ok()) < patience(5.5), args
        assert {c.name for c in engine.containers.list(all=True)} == {box.name for box in stuck}
        assert other.id not in [c.id for c in engine.containers.list(all=True)]
    for box in stuck:
        eventually(lambda box=box: box.inspect()["State"]["ExitCode"] == 255, what="it is settled when it can be")
        box.remove()


@pytest.mark.long
def test_a_process_that_does_not_die_is_told_and_its_exit_code_is_kept(
    root: Root, cli: Command, engine: sampan.Engine, tmp_path: Path
) -> None:
    with silent_disk(tmp_path / "silent") as silent:
        box = looking(engine, silent, "box")
        pid = facts(root, box)["pid"]
        refused = cli("stop", "-t", "0", "box")
        assert refused.code == 1
        assert f"processes do not die: {pid} (in uninterruptible sleep" in refused.err
        assert "Errno" not in refused.err
        refused = cli("pause", "box")
        assert "its processes do not stop within 5 s" in refused.err
        assert "Errno" not in refused.err
        assert box.status == "running"
    eventually(lambda: box.status == "exited")
    assert box.wait() == 137
    assert engine.system.check() == []


def test_an_exec_that_does_not_die_costs_no_exit_code(root: Root, engine: sampan.Engine, tmp_path: Path) -> None:
    """In the host's pid namespace an exec outlives its container; the monitor waited for it for ever, and its code was lost."""
    with silent_disk(tmp_path / "silent") as silent:
        box = engine.containers.create(
            "base", ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done"],
            name="box", pid_mode="host", volumes=[f"{silent.place}:/silent"], network="none"
        )  # fmt: skip
        box.start()
        eventually(lambda: list(box.logs()))
        box.exec_start(["cat", "/silent/x"], detach=True).close()
        silent.await_lookup()
        box.stop(timeout=30)
        assert box.inspect()["State"]["ExitCode"] == 7
        with pytest.raises(System, match=r"some of its processes cannot be killed"):
            box.remove()
        assert [c.name for c in engine.containers.list(all=True)] == ["box"], "it is not hidden half removed"
        assert engine.containers.prune()["ContainersDeleted"] == []
    eventually(lambda: engine.containers.prune()["ContainersDeleted"] == [box.id])


def test_a_shim_that_is_stopped(root: Root, cli: Command, engine: sampan.Engine, tmp_path: Path) -> None:
    """Nothing waits for it without end: what needs it says so, what does not need it works, and `stop` lets it go on."""
    mark = tmp_path / "marks"
    mark.mkdir()
    box = engine.containers.create(
        "base", SLEEP, name="box", stop_signal="KILL", volumes=[f"{mark}:/marks"], network="none"
    )
    box.start()
    shim = facts(root, box)["monitor"]
    os.kill(shim, signal.SIGSTOP)
    for args in (("exec", "box", "touch", "/marks/late"), ("attach", "box")):
        refused = cli(*args, timeout=30)
        assert refused.code != 0
        assert f"its shim, process {shim}, has not answered for" in refused.err
        assert f"it is stopped, kill -CONT {shim} lets it go on" in refused.err
    for args in (
        ("ps",),
        ("inspect", "box"),
        ("top", "box"),
        ("logs", "box"),
        ("stats", "--no-stream", "box"),
        ("pause", "box"),
        ("unpause", "box"),
        ("update", "--pids-limit", "90", "box"),
        ("run", "--rm", "--network", "none", "base", "true"),
    ):
        assert seconds(lambda args=args: cli(*args).ok()) < patience(5), args
    os.kill(shim, signal.SIGCONT)
    box.exec(["true"])
    assert os.listdir(mark) == [], "an exec whose command has gone away is not begun"
    os.kill(shim, signal.SIGSTOP)
    assert seconds(lambda: cli("stop", "box").ok()) < patience(8)
    assert box.inspect()["State"]["ExitCode"] == 137, "and not 255, as of a monitor that had to be killed"
