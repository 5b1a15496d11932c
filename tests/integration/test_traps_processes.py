"""Faults that other engines had with the processes of a container, by the advisory where there is one (the others: test_traps)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from support.box import Box, Boxes
from support.boxes import box, children, directory, image
from support.patience import eventually, patience
from support.traps import descriptors, engine_files, script

__all__ = ["box", "directory", "image"]

pytestmark = [pytest.mark.root]


def test_a_fork_bomb_stays_within_its_limit(box: Boxes) -> None:
    one = box("sleep", "600", host={"PidsLimit": 40})
    one.start().close()
    bombs = [one.exec_start("sh", "-c", "while :; do sleep 600 & done") for _ in range(3)]
    eventually(lambda: len(one.driver.processes(one.group)) >= 35, what="the bombs have gone off")
    for _ in range(5):
        # A joining process is moved in, which no limit refuses on cgroup v1: it only cannot fork.
        assert len(one.driver.processes(one.group)) <= 40 + len(bombs)
        time.sleep(0.05)
    begun = time.monotonic()
    one.kill()
    assert time.monotonic() - begun < patience(5)
    assert not one.groups_left()


def test_a_limit_of_one_process_starts(box: Boxes) -> None:
    """Init joins `pids` as its last act before it becomes the program: nothing of ours counts."""
    one = box("sh", "-c", "echo alone; sleep 0; echo two", host={"PidsLimit": 1})
    output = one.run()
    assert output.out == b"alone\n", "the shell cannot fork"
    assert b"fork" in output.err


@pytest.mark.parametrize("user", ["", "1000"])
@pytest.mark.parametrize("init", [False, True])
def test_a_killed_shim_takes_its_container_along(box: Boxes, user: str, init: bool) -> None:
    one = box("sleep", "600", config={"User": user}, init=str(engine_files()[-1]) if init else "")
    one.start().close()
    joined = one.exec_start("sleep", "601")
    inside = one.driver.processes(one.group)
    assert len(inside) >= 2
    os.kill(one.monitor, signal.SIGKILL)
    eventually(lambda: not one.driver.processes(one.group), what="every process has ended")
    joined.close()
    assert not one.handle.alive()
    assert one.handle.exited() is None, "lost: the next command says so"
    _take_away(one)


def test_a_killed_shim_of_an_entrypoint_that_changed_its_user(box: Boxes, image: Path) -> None:
    """That clears the request to die: the next command kills the cgroup."""
    one = box("su", "user", "-c", "sleep 600", rootfs=image, host={"PidMode": "host"})
    one.start().close()
    eventually(
        lambda: b"sleep" in b"".join(Path(f"/proc/{p}/cmdline").read_bytes() for p in one.driver.processes(one.group))
    )
    os.kill(one.monitor, signal.SIGKILL)
    eventually(lambda: not one.handle.alive())
    _take_away(one)
    assert not one.driver.processes(one.group)


def _take_away(one: Box) -> None:
    """What the next command does with a lost container."""
    one.handle.kill_group(one.group)
    shutil.rmtree(one.run_directory)
    assert not one.groups_left()


LOOK = """
joins() { read name < $process/comm && [ "$name" = sampan-shim ]; }
leak() { joins && echo "$process $1" >> /leak; }  # else it has executed its program meanwhile, which may be seen
while :; do
  for process in /proc/[0-9]*; do
    joins || continue
    echo seen >> /seen
    readlink $process/fd/0 && leak fd
    readlink $process/exe && leak exe
    joins || continue
    readlink $process/root && leak root
    readlink $process/cwd && leak cwd
    joins || continue
    { read -r word; } < $process/environ && leak environ
    { read -r word; } < $process/maps && leak maps
    true 9< $process/mem && leak mem
  done
done > /dev/null 2>&1
"""


def test_cve_2016_9962_a_joining_process_cannot_be_looked_into(box: Boxes, image: Path) -> None:
    """Nor traced: ptrace asks the same question as /proc/PID/fd, and one more."""
    script(image / "look", LOOK)
    one = box("sh", "/look", rootfs=image)
    one.start().close()
    for _ in range(60):
        one.exec("true")
    one.kill()
    assert (one.upper / "seen").exists(), "it has seen some of them"
    leak = one.upper / "leak"
    assert not leak.exists(), leak.read_text()


def test_cve_2016_9962_a_joining_process_holds_nothing_of_the_monitors(box: Boxes) -> None:
    """Seen by the host's root, who sees all: what a container with ptrace could at most get, which is why it is made by two processes there."""
    one = box("sleep", "600")
    one.start().close()
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for pid in children(one.monitor):
                seen.update(_held_before_its_program(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        eventually(lambda: one.exec("true", alone=False).ok() == b"" and len(seen) > 0)
        for _ in range(30):
            one.exec("true", alone=False)
    finally:
        done.set()
        watcher.join()
    assert not [name for name in seen if "monitor.lock" in name or name.endswith("/log")]
    # The one pidfd is that of the container's own init, by which the namespaces were joined.
    assert {name for name in seen if name.startswith("anon_inode")} <= {"anon_inode:[pidfd]"}


def _held_before_its_program(pid: int) -> set[str]:
    """The descriptors of a process that is in the container's pid namespace and has not executed its program."""
    try:
        held = set(descriptors(pid).values())
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return set()  # it is gone
    inside = len(re.findall(r"\t\d+", status.split("NSpid:")[1].split("\n")[0])) > 1
    return held if inside and status.startswith("Name:\tsampan-shim\n") else set()


def test_cve_2020_15257_there_is_no_abstract_socket(box: Boxes) -> None:
    one = box("cat", "/proc/net/unix", host={"NetworkMode": "host"})
    assert b"@sampan" not in one.run().ok()
    assert not [line for line in one.log_lines() if "sampan" in line["log"] and "@" in line["log"]]
