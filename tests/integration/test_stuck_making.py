"""Processes that are stuck on the way to their program: a container's own, an exec's, a probe's. They hold up nobody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import SampanError, StartFailed
from sampan.runtime import conversation
from sampan.shim import execs, launch

from support.command import Command
from support.fuse import SilentDisk, silent_disk
from support.patience import eventually, patience
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(240)]

SLEEP = ["sleep", "1000"]


def monitor_of(root: Root, box: Container) -> int:
    newest = max((root.root / "containers" / box.id / "starts").iterdir(), key=lambda p: int(p.name))
    return int(json.loads((newest / "started").read_text())["monitor"])


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def status(pid: int, field: str) -> str:
    """A field of /proc/PID/status; Z for the state of one that is gone."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(line for line in lines if line.startswith(f"{field}:")).split()[1]
    return "Z"


def is_stage(pid: int) -> bool:
    """A copy of its monitor still: it has not executed anything."""
    with contextlib.suppress(OSError):
        return b"shim/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def catch_stage(monitor: int, action: Callable[[], object]) -> int:
    """Stop a process that the monitor makes before it comes to its program; `action` has it make one (again and again)."""
    deadline = time.monotonic() + patience(60)
    while time.monotonic() < deadline:
        known = set(children(monitor))
        thread = threading.Thread(target=action)
        thread.start()
        while thread.is_alive() or set(children(monitor)) - known:
            for pid in set(children(monitor)) - known:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    # It goes on, and may come to its program, until it takes the signal.
                    eventually(lambda pid=pid: status(pid, "State") in ("T", "Z"), what="it stands still")
                    # Not in the moment in which it has made init's sibling and not yet said so: nobody knows of that then.
                    if is_stage(pid) and set(children(monitor)) == known | {pid}:
                        return pid
                    os.kill(pid, signal.SIGCONT)
                known.add(pid)
        thread.join()
    raise AssertionError("no process was caught on its way")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[SilentDisk]:
    with silent_disk(tmp_path / "silent") as disk:
        yield disk


def test_an_exec_that_is_stuck_holds_up_nobody(root: Root, engine: sampan.Engine, cli: Command) -> None:
    box = engine.containers.create(
        "base", ["sh", "-c", "while :; do echo tick; sleep 0.1; done"], name="box", network="none"
    )
    box.start()
    monitor = monitor_of(root, box)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            box.exec(["true"])
        except SampanError as e:
            errors.append(e)

    pid = catch_stage(monitor, run)
    begun = time.monotonic()
    # The shim answers others, starts what they ask for, and writes the log.
    assert box.exec(["echo", "here"]).stdout == "here\n"
    before = len(list(box.logs()))
    attachment = box.attach()
    attachment.receive()
    attachment.close()
    eventually(lambda: len(list(box.logs())) > before, what="the log goes on")
    assert time.monotonic() - begun < patience(8)
    assert box.status == "running"
    # And it is given up by itself, with its reason.
    eventually(lambda: errors, patience(execs.MAKING_SECONDS + 10), what="its client is told")
    assert isinstance(errors[0], StartFailed)
    assert "has not come to its program within 20 s and was killed: it was stopped" in str(errors[0])
    eventually(lambda: pid not in children(monitor), what="it is reaped")
    assert box.exec(["true"]).exit_code == 0


def test_the_end_of_a_container_does_not_wait_for_an_exec_that_is_stuck(root: Root, engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP, stop_signal="KILL", network="none")
    box.start()
    told: list[BaseException] = []

    def run() -> None:
        try:
            box.exec(["true"])
        except SampanError as e:
            told.append(e)

    catch_stage(monitor_of(root, box), run)
    begun = time.monotonic()
    box.stop()
    assert time.monotonic() - begun < patience(6)
    assert box.inspect()["State"]["ExitCode"] == 137
    eventually(lambda: told, what="the client of the exec is told")
    assert "the container has ended" in str(told[0])


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_an_exec_whose_first_process_ends_its_work_right_after_its_clone(
    root: Root, engine: sampan.Engine, end: signal.Signals
) -> None:
    """It never says who its child is. Whom nobody reaps keeps the container's pid namespace, and so `stop`, waiting."""
    # With a capability for which an exec takes two processes (docs/adr/0018).
    box = engine.containers.create("base", SLEEP, stop_signal="KILL", network="none", cap_add=["SYS_PTRACE"])
    box.start()
    monitor = monitor_of(root, box)
    init = set(children(monitor))
    told: list[object] = []

    def run() -> None:
        try:
            told.append(box.exec(SLEEP).exit_code)
        except SampanError as e:
            told.append(e)

    # It is held up where clone3 returns to it: its child is there, and it can have done nothing since.
    held = ["-e", "trace=clone3", "-e", "inject=clone3:delay_exit=2000000"]
    strace = subprocess.Popen(["strace", "-f", "-qq", "-o", os.devnull, "-p", str(monitor), *held])
    try:
        eventually(lambda: status(monitor, "TracerPid") != "0", what="strace is there")
        thread = threading.Thread(target=run)
        thread.start()
        eventually(lambda: len(set(children(monitor)) - init) == 2, what="both processes are there")
        first, second = sorted(set(children(monitor)) - init)
        os.kill(first, end)
    finally:
        strace.terminate()
        strace.wait()
    eventually(lambda: status(first, "State") in ("T", "Z"), what="the signal")
    begun = time.monotonic()
    box.stop()
    assert time.monotonic() - begun < patience(6)
    assert box.inspect()["State"]["ExitCode"] == 137
    thread.join(patience(60))
    assert told, "the client of the exec is told"
    assert not os.path.exists(f"/proc/{second}")


def test_a_probe_that_is_stuck_on_its_way_counts_at_its_timeout(root: Root, engine: sampan.Engine) -> None:
    check = {"test": "sleep 0.05", "interval": "100ms", "timeout": "6s", "retries": 1}
    box = engine.containers.create("base", SLEEP, healthcheck=check, network="none")
    box.start()
    eventually(lambda: box.health == "healthy")
    monitor = monitor_of(root, box)
    begun = time.monotonic()
    pid = catch_stage(monitor, lambda: time.sleep(0.05))
    begun = time.monotonic()
    eventually(lambda: box.health == "unhealthy", patience(12))
    assert time.monotonic() - begun > 5
    entry = next(e for e in box.inspect()["State"]["Health"]["Log"] if e["ExitCode"])
    assert (entry["ExitCode"], entry["Output"]) == (-1, "Health check exceeded timeout (6s)")
    eventually(lambda: pid not in children(monitor), what="it was killed")
    eventually(lambda: box.health == "healthy", what="the next one is well")


@pytest.mark.long
def test_a_start_that_is_stuck_says_where(root: Root, engine: sampan.Engine, cli: Command, silent: SilentDisk) -> None:
    """Its working directory is on a disk that does not answer; SIGKILL does not end what waits there."""
    args = ("--network", "none", "--name", "box", "-v", f"{silent.place}:/silent", "-w", "/silent/x")
    begun = time.monotonic()
    done = cli("run", "-d", *args, "base", "true", timeout=180)
    assert done.code == 125
    assert "did not get past step" in done.err
    assert f"of stage2 within {launch.START_SECONDS:.0f} s and was killed" in done.err
    assert "a disk or a file system that it needs does not answer" in done.err
    assert time.monotonic() - begun < launch.START_SECONDS + patience(40)


def test_a_shim_that_is_stopped_in_the_middle_of_a_start(
    root: Root, engine: sampan.Engine, cli: Command, silent: SilentDisk
) -> None:
    args = ("--network", "none", "--name", "box", "-v", f"{silent.place}:/silent", "-w", "/silent/x")
    cli("create", *args, "base", "true").ok()
    with cli.start("start", "box", stderr=-1) as starting:
        silent.await_lookup()
        box = engine.containers.get("box")
        assert box.status == "created"
        (shim,) = holders(root.root / "containers" / box.id / "monitor.lock")
        os.kill(shim, signal.SIGSTOP)
        _, told = starting.communicate(timeout=patience(60))
    assert starting.returncode == 1
    assert f"the container's shim, process {shim}, did not answer for".encode() in told
    assert b"was killed: it was stopped" in told
    assert not Path(f"/proc/{shim}").exists()


def test_a_start_that_is_stuck_can_be_interrupted_and_nothing_is_lost(
    root: Root, engine: sampan.Engine, cli: Command, silent: SilentDisk
) -> None:
    args = ("--network", "none", "--name", "box", "-v", f"{silent.place}:/silent", "-w", "/silent/x")
    cli("create", *args, "base", "true").ok()
    with cli.start("start", "box", stderr=-1) as starting:
        silent.await_lookup()
        starting.send_signal(signal.SIGINT)
        starting.communicate(timeout=patience(20))
    assert starting.returncode in (130, -2)
    assert cli("ps", "-a", "--format", "{{.Names}}").ok().out == "box\n"
    assert conversation._SILENT_SECONDS > launch.START_SECONDS


def holders(path: Path) -> list[int]:
    """The processes with a lock on a file (/proc/locks)."""
    wanted = f":{path.stat().st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(words[4]) for words in lines if words[1] == "POSIX" and words[5].endswith(wanted)]
