"""kill -9 of a container's own processes at every step of its start: what was begun is gone, and the next start works.

Every step is announced before it runs and waits until the test lets it go on, or kills (see shim.protocol, BEGIN and GO).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import StartFailed
from sampan.kernel.files import lock_directory
from sampan.steps.trace import Event

from support import host
from support.box import Box, Boxes, boxes_below
from support.boxes import BOTH_LAUNCHERS, directory
from support.patience import eventually

__all__ = ["directory"]

pytestmark = [pytest.mark.root, pytest.mark.core, pytest.mark.patience(240)]

LAUNCHERS = BOTH_LAUNCHERS


@pytest.fixture
def boxes(directory: Path, request: pytest.FixtureRequest) -> Iterator[Boxes]:
    with boxes_below(directory, directory / "rootfs", getattr(request, "param", "exec")) as made:
        yield made


def everything(boxes: Boxes) -> Box:
    """A container whose start has every kind of step."""
    init = shutil.which("tini-static")
    assert init, "the tests need tini (scripts/packages)"
    config = {"Tty": True, "User": "user", "WorkingDir": "/made/for/it", "Domainname": "example.test"}
    host_config = {
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": ""},
        "Memory": 64 << 20,
        "PidsLimit": 50,
        "SecurityOpt": ["no-new-privileges"],
        "CgroupnsMode": "private",
        "GroupAdd": ["shared"],
    }
    return boxes("sleep", "600", config=config, host=host_config, init=init)


def steps_of(boxes: Boxes) -> list[Event]:
    """Every step that a start announces; the second one's, for the first makes the groups above its own."""
    for _ in range(2):
        announced: list[Event] = []
        one = everything(boxes)
        one.watch(
            lambda event, to=announced: to.append(event) if not event.finished and event.stage != "engine" else None
        )
        one.start().close()
        one.kill()
        one.close()
        boxes.forget(one)
    assert announced[0].stage == "monitor"
    assert {"monitor", "stage1", "stage2"} == {event.stage for event in announced}
    assert announced[-1].text.startswith("execve")
    return announced


class Killer:
    """Kills a process when the step with a given number is announced."""

    def __init__(self, at: int, choose: Callable[[Killer, Event], int]) -> None:
        self.at = at
        self.choose = choose
        self.seen: list[Event] = []

    @property
    def monitor(self) -> int:
        return self.seen[0].pid

    def __call__(self, event: Event) -> None:
        if event.finished or event.stage == "engine":
            return
        self.seen.append(event)
        if len(self.seen) == self.at + 1:
            os.kill(self.choose(self, event), signal.SIGKILL)


def start_and_kill(boxes: Boxes, at: int, choose: Callable[[Killer, Event], int]) -> tuple[Box, Killer]:
    one = everything(boxes)
    killer = Killer(at, choose)
    one.watch(killer)
    with pytest.raises(StartFailed):
        one.start()
    return one, killer


def nothing_runs(one: Box) -> None:
    eventually(lambda: not one.handle.alive(), what="the monitor's lock is free")
    eventually(lambda: not one.driver.processes(one.group), what="no process is in its cgroup")
    eventually(lambda: not host.processes(str(one.directory)), what="no process knows its directory")
    assert not host.mounts(one.directory)


def each_step(boxes: Boxes, stride: int, check: Callable[[int, Event], Any]) -> None:
    """`check` for every step, or every third but the last ones; all that fail are told, with the step."""
    problems = []
    steps = steps_of(boxes)
    for number, event in enumerate(steps):
        if number % stride and len(steps) - number > 8:
            continue
        try:
            check(number, event)
        except (AssertionError, pytest.fail.Exception) as e:
            problems.append(f"{number} {event.stage} {event.text}: {e}")
    assert not problems, "\n".join(problems)


STRIDES = pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.long)], ids=["some", "all"])


@STRIDES
def test_the_process_that_acts_is_killed_at_every_step(boxes: Boxes, stride: int) -> None:
    """The monitor, where it still is the one that acts; else it outlives the stages and cleans up after them."""

    def check(number: int, step: Event) -> None:
        one, killer = start_and_kill(boxes, number, lambda _, event: event.pid)
        assert killer.seen[-1].stage == step.stage
        nothing_runs(one)
        exited = one.handle.exited()
        if step.stage == "monitor":
            assert exited is None
            next_command(one)
        else:
            assert exited is not None
            assert exited["failed"] is True
            assert "was killed" in exited["error"]
        assert not one.groups_left()
        assert not os.path.exists(one.run_directory)
        one.close()
        boxes.forget(one)

    each_step(boxes, stride, check)


@STRIDES
def test_the_monitor_is_killed_at_every_step(boxes: Boxes, stride: int) -> None:
    """Whatever the stages do at that moment: they notice, and end before the program begins."""

    def check(number: int, _step: Event) -> None:
        one, _ = start_and_kill(boxes, number, lambda killer, _: killer.monitor)
        nothing_runs(one)
        assert one.handle.exited() is None, "lost: the next command writes that down"
        assert one.handle.started() is None
        next_command(one)
        one.close()
        boxes.forget(one)

    each_step(boxes, stride, check)


def next_command(one: Box) -> None:
    """What the engine does with a container that was lost (engine.settle)."""
    one.handle.kill_group(one.group)
    shutil.rmtree(one.run_directory, ignore_errors=True)
    assert not one.groups_left()


def test_whoever_is_at_work_on_a_start_can_be_seen(boxes: Boxes) -> None:
    """A child that has not noticed yet that its monitor was killed goes on to make cgroups: one more of them was left behind."""
    one = everything(boxes)
    held: list[bool] = []

    def look(event: Event) -> None:
        if not event.finished and event.stage in ("stage1", "clone", "stage2"):
            fd = lock_directory(str(one.start_directory))
            held.append(fd < 0)
            if fd >= 0:
                os.close(fd)

    one.watch(look)
    one.start().close()
    assert len(held) > 50
    assert all(held)
    eventually(
        lambda: (fd := lock_directory(str(one.start_directory))) >= 0 and (os.close(fd) or True), what="it is let go"
    )
    one.kill()


def test_after_any_of_them_the_same_container_starts(boxes: Boxes) -> None:
    steps = steps_of(boxes)
    for number in range(0, len(steps), 12):
        one, _ = start_and_kill(boxes, number, lambda _, event: event.pid)
        nothing_runs(one)
        next_command(one)
        one.watch(lambda _: None)
        one.facts = one.facts.replace(watched=False)
        shutil.rmtree(one.start_directory)
        one.start_directory.mkdir()
        one.start().close()
        assert one.exec("cat", "/proc/1/cmdline").ok().startswith(b"/sbin/docker-init")
        one.kill()
        one.close()
        boxes.forget(one)


def test_a_launcher_that_is_killed_at_any_step_leaves_a_container_that_runs(boxes: Boxes) -> None:
    """It is the shim's from the moment that it has the plan."""
    steps = steps_of(boxes)
    for number in range(0, len(steps), 9):
        one = everything(boxes)
        pid = os.fork()
        if pid == 0:
            try:
                one.watch(Killer(number, lambda _killer, _event: os.getpid()))
                one.start()
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        eventually(one.handle.started, what="it runs")
        assert one.exec("id", "-un", user={"username": "nobody", "additionalGroups": []}).ok() == b"nobody\n"
        one.kill()
        one.close()
        boxes.forget(one)


def test_the_monitor_is_killed_around_the_end_of_its_container(boxes: Boxes) -> None:
    """The exit code is there whole, or not at all: then the container is lost, which the next command writes down."""
    codes = set()
    for delay in range(12):
        one = boxes("sh", "-c", "read x; exit 7", open_stdin=True, stdin_once=True)
        attachment = one.start()
        attachment.close_stdin()
        time.sleep(delay * 0.003)
        monitor = one.monitor
        try:
            os.kill(monitor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        eventually(lambda one=one: not one.handle.alive())
        exited = one.handle.exited()
        codes.add(exited["exit_code"] if exited is not None else None)
        next_command(one)
        nothing_runs(one)
        attachment.close()
        one.close()
        boxes.forget(one)
    assert codes <= {7, None}
    assert None in codes


def test_a_killed_monitor_loses_no_line_that_was_whole(boxes: Boxes) -> None:
    one = boxes("sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; done")
    one.start().close()
    eventually(lambda: one.log.exists() and one.log.stat().st_size > 100_000)
    os.kill(one.monitor, signal.SIGKILL)
    eventually(lambda: not one.driver.processes(one.group))
    *lines, last = one.log.read_text().split("\n")
    import json

    texts = [json.loads(line)["log"] for line in lines]
    assert texts == [f"line {n}\n" for n in range(1, len(texts) + 1)]
    # A write that is killed ends at a page (the kernel looks for it there), and with it what the last record has.
    following = f'{{"log":"line {len(texts) + 1}\\n","stream":"stdout","time":"'
    assert last[: len(following)] == following[: len(last)]
    next_command(one)
