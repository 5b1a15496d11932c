"""kill -9 of whoever makes a restart: the monitor in its back-off, the reaper at each of its steps. It is made once, and counted once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

import sampan
from sampan.errors import SampanError
from sampan.steps.trace import Event

from support.patience import eventually, patience
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]


class Failing:
    """A container that fails at once, and is restarted, until it is allowed to run."""

    def __init__(self, root: Root, engine: sampan.Engine, place: Path) -> None:
        self.go = place / "go"
        self.go.unlink(missing_ok=True)
        script = "echo up; test -e /place/go && exec sleep 1000; exit 3"
        self.box = engine.containers.create(
            "base", ["sh", "-c", script], restart_policy="always", volumes=[f"{place}:/place"], network="none"
        )
        self.box.start()
        self.directory = root.root / "containers" / self.box.id

    @property
    def count(self) -> int:
        return int(self.box.inspect()["RestartCount"])

    def runs(self) -> int:
        return b"".join(entry.data for entry in self.box.logs()).decode().count("up\n")

    def newest(self) -> Path:
        return max(self.directory.glob("starts/[0-9]*"), key=lambda path: int(path.name))

    def monitor(self) -> int:
        return int(json.loads((self.newest() / "started").read_text())["monitor"])

    def rest(self, at_least: int) -> int:
        """Wait until it rests before restart number `at_least`, or a later one: which one."""
        eventually(lambda: self.box.status == "restarting" and self.count >= at_least, 30, "a long back-off")
        return self.count

    def orphan(self, at_least: int = 3) -> int:
        """Kill its monitor while it rests, and let it run from now on; the number of the restart that is due."""
        while True:
            due, monitor = self.rest(at_least), self.monitor()
            os.kill(monitor, signal.SIGKILL)
            eventually(lambda monitor=monitor: not alive(monitor))
            if not (self.newest() / "started").exists() or (self.newest() / "exit.json").exists():
                self.go.touch()
                return due
            at_least = due + 1  # the back-off ended in this very moment: the next command finds it lost


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def settled(failing: Failing) -> bool:
    """Whether it runs; asking is what makes a restart that nobody is at work on."""
    return failing.box.status == "running"


@pytest.mark.core
def test_the_monitor_is_killed_in_its_back_off(root: Root, engine: sampan.Engine, tmp_path: Path) -> None:
    failing = Failing(root, engine, tmp_path)
    due = failing.orphan()
    number = int(failing.newest().name)
    eventually(partial(settled, failing), 20, "the next command has it restarted")
    assert failing.count == due
    assert int(failing.newest().name) == number + 1


@pytest.mark.parametrize("stride", [pytest.param(9, marks=pytest.mark.long, id="many"), pytest.param(27, id="some")])
def test_the_reaper_is_killed_at_its_steps(root: Root, engine: sampan.Engine, tmp_path: Path, stride: int) -> None:
    """It makes the restart as `carry_on` does, here in a child that is killed at every few steps of it."""
    steps = []

    def carry_on(failing: Failing, at: int) -> None:
        number, seen = int(failing.newest().name), itertools.count()

        def observe(event: Event) -> None:
            if event.finished:
                return
            steps.append(at)
            if next(seen) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        with root.engine(observer=observe) as own:
            own.containers.get(failing.box.id).carry_on(number, -1)

    # Once to the end, in this process: how many steps there are.
    failing = Failing(root, engine, tmp_path)
    due = failing.orphan()
    carry_on(failing, -1)
    assert (failing.box.status, failing.count) == ("running", due)
    failing.box.remove(force=True)
    # All of its own, and some of those that its shim does meanwhile.
    assert len(steps) > 20
    for at in (*range(0, 6, stride // 9), *range(6, len(steps), stride)):
        failing = Failing(root, engine, tmp_path)
        due, number = failing.orphan(), int(failing.newest().name)
        pid = os.fork()
        if pid == 0:
            try:
                carry_on(failing, at)
            except SampanError:
                pass
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        eventually(partial(settled, failing), 20, f"killed at step {at}: it runs")
        assert failing.count == due, f"step {at}"
        # The one that was killed may have taken a number.
        assert int(failing.newest().name) in (number + 1, number + 2), f"step {at}"
        failing.box.remove(force=True)


@pytest.mark.parametrize("delay", [0, 0.01, 0.03, 0.06])
def test_the_process_that_was_the_monitor_is_killed_when_it_makes_the_restart(
    root: Root, engine: sampan.Engine, tmp_path: Path, delay: float
) -> None:
    failing = Failing(root, engine, tmp_path)
    due, monitor = failing.rest(4), failing.monitor()
    failing.go.touch()

    def is_reaper() -> bool:
        try:
            return b"reaper.py" in Path(f"/proc/{monitor}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return True

    deadline = time.monotonic() + patience(20)
    while not is_reaper():  # not by `eventually`: it lives for some 50 ms
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    try:
        os.kill(monitor, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was quicker
    eventually(partial(settled, failing), 20, "it runs")
    # If it had come to rest once more in between, that was one restart more; never one that was not made.
    assert failing.count >= due
    assert failing.count - due <= 1
    eventually(lambda: failing.runs() == failing.count + 1, what="each restart was a run")


def test_restart_by_hand_of_one_that_rests(root: Root, engine: sampan.Engine, tmp_path: Path) -> None:
    """At once, and it counts from the beginning."""
    failing = Failing(root, engine, tmp_path)
    failing.rest(6)
    failing.go.touch()
    begun = time.monotonic()
    failing.box.restart()
    assert time.monotonic() - begun < patience(2)
    assert (failing.box.status, failing.count) == ("running", 0)
    eventually(lambda: failing.runs() >= 7)
    runs = failing.runs()
    time.sleep(0.5)
    assert failing.runs() == runs


@pytest.mark.long
def test_the_back_off_begins_anew_after_a_long_run(engine: sampan.Engine) -> None:
    """A run of more than ten seconds: told by the events' times.

    It comes when the next pause would be of 6.4 seconds: however slow the machine is, that differs from one of 0.1.
    """
    script = "echo x >> /runs; test $(wc -l < /runs) -ne 7 || sleep 10.5; exit 1"
    box = engine.containers.create("base", ["sh", "-c", script], restart_policy="on-failure:8", network="none")
    box.start()
    eventually(lambda: box.status == "exited" and box.inspect()["RestartCount"] == 8, 120, "the last run has ended")
    with engine.events(since="5m", until="0s", filters={"container": box.id, "event": ["die", "start"]}) as events:
        marks = [(event["Action"], event["timeNano"] / 1e9) for event in events]
    assert [action for action, _ in marks] == ["start", "die"] * 9
    gaps = [marks[at + 1][1] - marks[at][1] for at in range(1, len(marks) - 1, 2)]
    for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 0.1, 0.2), strict=True):
        assert least <= gap, gaps
    assert gaps[6] < 6.4 > gaps[7], gaps
