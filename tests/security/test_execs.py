"""A process that is on its way into a container (docs/adr/0018): how many there are for an exec, and what of it can be seen in there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.kernel import capabilities, namespaces
from sampan.kernel.libc import KernelError, by_machine, raw
from sampan.runtime import defaults
from sampan.shim import protocol

from support.box import (
    Box,
    Boxes,
)
from support.boxes import box, children, directory
from support.child import in_child
from support.command import Command
from support.patience import eventually, patience
from support.roots import Root
from support.subordinate import Machine, machine

__all__ = ["box", "directory", "machine"]

pytestmark = [pytest.mark.root]

SLEEP = ["sleep", "1000"]
SPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time", "user")


@contextlib.contextmanager
def clones(monitor: int, tmp_path: Path) -> Iterator[list[str]]:
    """The calls by which a monitor and its processes make others meanwhile."""
    log = tmp_path / f"clones-{time.monotonic_ns()}"
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", log, "-e", "trace=clone,clone3,fork,vfork", "-p", str(monitor)]
    )
    found: list[str] = []
    try:
        eventually(lambda: tracer(monitor) != "0", what="strace is there")
        yield found
    finally:
        strace.terminate()
        strace.wait()
        # Of a call that was interrupted by another process' line the second half has no arguments.
        found += re.findall(r"^\d+ +(clone3?|v?fork)\(", log.read_text(), re.MULTILINE)


def tracer(pid: int) -> str:
    return next(
        line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("TracerPid")
    )


def monitor_of(container: Container) -> int:
    return int(Path(f"/proc/{container.inspect()['State']['Pid']}/status").read_text().partition("PPid:")[2].split()[0])


def count(container: Container, tmp_path: Path, **options: object) -> int:
    """How many processes one exec takes."""
    with clones(monitor_of(container), tmp_path) as found:
        assert container.exec(["true"], **options).exit_code == 0  # type: ignore[arg-type]
    return len(found)


def running(engine: sampan.Engine, **options: object) -> Container:
    container = engine.containers.create("base", SLEEP, network="none", **options)  # type: ignore[arg-type]
    container.start()
    return container


@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ({}, 1),
        ({"cap_drop": ["ALL"], "user": "1000"}, 1),
        ({"cap_add": ["SYS_PTRACE"]}, 2),
        ({"cap_add": ["SYS_ADMIN"]}, 2),
        ({"cap_add": ["ALL"], "cap_drop": ["SYS_ADMIN"]}, 2),
        ({"privileged": True}, 2),
        ({"pid_mode": "host"}, 2),
        ({"oom_score_adj": 300, "init": True, "read_only": True}, 1),
    ],
)
def test_how_many_processes_it_takes(
    engine: sampan.Engine, tmp_path: Path, options: dict[str, object], processes: int
) -> None:
    container = running(engine, **options)
    score_of_monitor = Path(f"/proc/{monitor_of(container)}/oom_score_adj")
    before = score_of_monitor.read_text()
    assert count(container, tmp_path) == processes
    shown = container.exec(
        ["sh", "-c", "cat /proc/self/oom_score_adj; for n in /proc/self/ns/*; do readlink /proc/$$/ns/${n##*/}; done"]
    )
    score, *spaces = shown.stdout.split()
    init = container.inspect()["State"]["Pid"]
    assert set(spaces) == {os.readlink(f"/proc/{init}/ns/{name}") for name in os.listdir(f"/proc/{init}/ns")}
    assert int(score) == options.get("oom_score_adj", 0)
    assert score_of_monitor.read_text() == before


def test_after_a_privileged_exec_there_are_two(engine: sampan.Engine, tmp_path: Path) -> None:
    container = running(engine)
    assert count(container, tmp_path) == 1
    assert count(container, tmp_path, privileged=True) == 2
    assert count(container, tmp_path) == 2
    container.stop(timeout=0)
    container.start()
    assert count(container, tmp_path) == 1, "nobody of the run before is there"


def test_after_another_has_joined_its_processes_there_are_two(engine: sampan.Engine, tmp_path: Path) -> None:
    donor = running(engine, name="donor")
    assert count(donor, tmp_path) == 1
    joined = running(engine, pid_mode="container:donor", cap_add=["SYS_PTRACE"])
    assert count(donor, tmp_path) == 2
    assert count(joined, tmp_path) == 2
    joined.remove(force=True)
    assert count(donor, tmp_path) == 2, "it may have left something running"


def test_with_a_user_namespace_its_capabilities_do_not_count(
    machine: Machine, root: Root, engine: sampan.Engine, tmp_path: Path
) -> None:
    machine(
        "run",
        "-d",
        "--name",
        "box",
        "--userns",
        "private",
        "--cap-add",
        "SYS_PTRACE",
        "--network",
        "none",
        "base",
        *SLEEP,
    ).ok()
    container = engine.containers.get("box")
    assert count(container, tmp_path) == 1
    init = container.inspect()["State"]["Pid"]
    shown = container.exec(
        ["sh", "-c", "for n in /proc/self/ns/*; do readlink /proc/$$/ns/${n##*/}; done; id -u; cat /proc/self/uid_map"]
    ).stdout.split()
    assert shown[-4:-1] == ["0", "0", Path(f"/proc/{init}/uid_map").read_text().split()[1]]
    assert set(shown[:-4]) == {os.readlink(f"/proc/{init}/ns/{name}") for name in os.listdir(f"/proc/{init}/ns")}


def test_who_joins_its_processes_waits_for_one_that_is_being_born(box: Boxes) -> None:
    """The monitor's lock on the directory goes over to the child, which closes it with the rest; and without it nobody is born there."""
    one = box(*SLEEP)
    one.start().close()
    fd = os.open(one.run_directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        waiting = threading.Thread(target=one.handle.share_pids)
        waiting.start()
        eventually(lambda: os.path.exists(f"{one.run_directory}/{protocol.SHARED_FILE}"))
        waiting.join(0.2)
        assert waiting.is_alive()
        fcntl.flock(fd, fcntl.LOCK_UN)
        waiting.join(patience(10))
        assert not waiting.is_alive()
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert one.exec("true").code == 0, "by two processes"
    finally:
        os.close(fd)


# who is in there


_SYS_PTRACE = by_machine(101, 117)
_PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000


class Spy:
    """What a process of the container can see of those that are on their way to their program."""

    def __init__(self) -> None:
        self.met = 0
        self.found: dict[str, str] = {}

    def look(self) -> None:
        own = {name: Path(f"/proc/self/{name}").read_bytes() for name in ("mountinfo", "net/dev", "net/unix")}
        for name in os.listdir("/proc"):
            if name.isdigit() and self._is_stage(name):
                self.met += 1
                for what, question in self._questions(name, own).items():
                    try:
                        answer = question()
                    except (OSError, KernelError):
                        continue
                    # It may have become its program meanwhile, which is the container's.
                    if answer and self._is_stage(name):
                        self.found[what] = answer[:300]

    @staticmethod
    def _is_stage(pid: str) -> bool:
        try:
            return b"shim/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    @staticmethod
    def _questions(pid: str, own: dict[str, bytes]) -> dict[str, Callable[[], str]]:
        def differs(name: str) -> str:
            now = Path(f"/proc/{pid}/{name}").read_bytes()
            return "" if now in (own[name], b"") else str(now)

        def seize() -> str:
            raw(_SYS_PTRACE, "ptrace", "", _PTRACE_SEIZE, int(pid), 0, 0)
            # Out of hand again: its end would be ours to wait for.
            raw(_SYS_PTRACE, "ptrace", "", _PTRACE_INTERRUPT, int(pid), 0, 0)
            os.waitpid(int(pid), _WALL)
            raw(_SYS_PTRACE, "ptrace", "", _PTRACE_DETACH, int(pid), 0, 0)
            return "it was seized"

        links = ("root", "cwd", "exe", *(f"ns/{name}" for name in SPACES))
        questions: dict[str, Callable[[], str]] = {
            name: lambda name=name: os.readlink(f"/proc/{pid}/{name}") for name in links
        }  # type: ignore[misc]
        questions.update({name: lambda name=name: differs(name) for name in own})  # type: ignore[misc]
        # Their numbers are root's to see, where they lead to is not.
        questions["fd"] = lambda: str([os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")])
        questions["environ"] = lambda: str(Path(f"/proc/{pid}/environ").read_bytes())
        questions["maps"] = lambda: Path(f"/proc/{pid}/maps").read_text()
        questions["mem"] = lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)) or "it was opened"  # type: ignore[func-returns-value]
        questions["ptrace"] = seize
        return questions


def spy(init: int, powers: tuple[str, ...], until: int) -> tuple[int, dict[str, str]]:
    """Be a process of root in the container with these capabilities, until the pipe `until` is at its end: how often it met one, and what it found."""
    pidfd = os.pidfd_open(init)
    namespaces.setns(pidfd, sum(namespaces.FLAGS[kind] for kind in ("mount", "pid", "network", "ipc", "uts")))
    os.set_blocking(until, False)

    def watch() -> tuple[int, dict[str, str]]:
        wanted = capabilities.mask(powers)
        capabilities.drop_bounding(wanted)
        capabilities.set_all(wanted, wanted)
        one = Spy()
        while True:
            one.look()
            with contextlib.suppress(BlockingIOError):
                if not os.read(until, 1):
                    return one.met, one.found

    return in_child(watch)


def spied(one: object, powers: tuple[str, ...], work: Callable[[], object]) -> tuple[int, dict[str, str]]:
    """What a spy finds while the work is done."""
    reading, writing = os.pipe()
    seen: list[tuple[int, dict[str, str]]] = []

    def child() -> tuple[int, dict[str, str]]:
        os.close(writing)
        return spy(one.init, powers, reading)  # type: ignore[attr-defined]

    thread = threading.Thread(target=lambda: seen.append(in_child(child)))
    thread.start()
    try:
        work()
    finally:
        os.close(writing)
        thread.join(patience(60))
        os.close(reading)
    return seen[0]


def execs(one: object, number: int, **how: object) -> Callable[[], None]:
    def work() -> None:
        for _ in range(number):
            assert one.exec("true", **how).code == 0  # type: ignore[attr-defined]

    return work


@pytest.mark.core
@pytest.mark.parametrize("alone", [True, False])
def test_one_without_the_power_to_trace_finds_nothing_of_the_host(box: Boxes, alone: bool) -> None:
    one = box(*SLEEP)
    one.start().close()
    met, found = spied(one, defaults.CAPABILITIES, execs(one, 100, alone=alone))
    assert met > 20, "it was there"
    assert found == {}


def test_one_with_that_power_finds_what_the_test_looks_for(box: Boxes) -> None:
    """So that the test above says something."""
    one = box(*SLEEP)
    one.start().close()
    met, found = spied(one, (*defaults.CAPABILITIES, "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"), execs(one, 100))
    assert met > 20
    assert {"root", "fd", "maps", "environ"} <= set(found)


# what comes in between


STOPS = "while :; do for p in /proc/[0-9]*; do grep -q shim/__main__ $p/cmdline 2>/dev/null && kill -STOP ${p#/proc/}; done; done"

# Not process 1, which that is itself: to stop it does nothing and is no error.
ONE_STOP = STOPS.replace("/proc/[0-9]*", "/proc/[2-9]* /proc/1?*").replace("#/proc/};", "#/proc/} && exec sleep 600;")


def stopped(one: Box) -> set[int]:
    """Those of the monitor's children that do not go on."""
    return {pid for pid in children(one.monitor) if state(pid) == "T"}


def stop_some(one: Box) -> list[threading.Thread]:
    """Execs until `STOPS` in the container has caught one on its way; who waits for them."""
    deadline = time.monotonic() + patience(60)
    waiting: list[threading.Thread] = []
    while not stopped(one) and time.monotonic() < deadline:
        waiting.append(threading.Thread(target=ignore, args=(lambda: one.exec("true"),)))
        waiting[-1].start()
        time.sleep(0.05)
    assert stopped(one), "one was stopped on its way"
    return waiting


def test_one_that_is_stopped_is_gone_before_there_is_somebody_who_could_take_it_over(box: Boxes) -> None:
    one = box("sh", "-c", ONE_STOP)
    one.start().close()
    waiting = stop_some(one)
    before = stopped(one)
    one.exec_start("sleep", "60", powerful=True, detach=True).close()
    eventually(lambda: "sleep" in {comm(pid) for pid in children(one.monitor)})
    assert not before & stopped(one)
    one.kill()
    for thread in waiting:
        thread.join(patience(20))


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_process_that_is_stopped_by_root_of_the_container_harms_only_itself(box: Boxes) -> None:
    one = box("sh", "-c", STOPS)
    one.start().close()
    stuck = stop_some(one)
    begun = time.monotonic()
    one.attach().close()
    assert time.monotonic() - begun < patience(2), "the monitor answers"
    os.kill(one.init, 9)
    for thread in stuck:
        thread.join(patience(20))
    assert one.handle.wait_monitor(patience(10))


def ignore(work: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        work()


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_monitor_that_may_not_come_back_does_not_go() -> None:
    """In a user namespace of its own it could enter the container's, and then not its own network, which is the machine's."""

    def try_it() -> tuple[int, list[str]]:
        spaces = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net")]
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNS) if hasattr(os, "unshare") else namespaces.unshare(
            namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS
        )
        spaces[0] = os.readlink("/proc/self/ns/mnt")
        try:
            namespaces.born_inside(os.pidfd_open(os.getpid()), lambda: 1 // 0)
        except KernelError as e:
            assert [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net")] == spaces
            return e.errno or 0, spaces
        return 0, []

    assert in_child(try_it)[0] == 1, "EPERM, before it has gone anywhere"


def test_one_that_comes_back_is_where_it_was(tmp_path: Path) -> None:
    """With another root, too; and after a clone that fails."""

    def try_it() -> list[object]:
        namespaces.private_mounts()
        os.chroot("/")
        os.chdir("/")
        here = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "pid_for_children", "net")]
        pid = os.fork()
        if pid == 0:
            namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
            time.sleep(1000)
        try:
            eventually(lambda: os.readlink(f"/proc/{pid}/ns/net") != here[3])
            there = os.pidfd_open(pid)
            was: list[str] = []

            def clone() -> int:
                was.append(os.readlink("/proc/self/ns/net"))
                return 7

            assert namespaces.born_inside(there, clone) == 7
            assert was == [os.readlink(f"/proc/{pid}/ns/net")]
            with pytest.raises(ZeroDivisionError):
                namespaces.born_inside(there, lambda: 1 // 0)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        with pytest.raises(KernelError):
            namespaces.born_inside(there, lambda: 7)
        return [
            [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "pid_for_children", "net")] == here,
            os.getcwd(),
        ]

    assert in_child(try_it) == [True, "/"]


def test_a_paused_container_takes_none(engine: sampan.Engine, cli: Command) -> None:
    container = running(engine)
    container.pause()
    with pytest.raises(sampan.errors.Conflict, match="paused"):
        container.exec(["true"])
    container.unpause()
    assert container.exec(["true"]).exit_code == 0
