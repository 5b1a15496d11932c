"""kill -9 at every recorded step of create, start, stop and rm: the next command finds all consistent, nothing is left.

Each scenario runs in a child whose observer kills at the n-th event: the child itself, as when the command line is
killed, or the process that is about to do the step, as when a shim or one of its children is. The steps of the shim's
processes wait for the observer's leave, so that "at a step" means just before it. The parent then looks with a fresh
engine, as the next command would.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import NotFound, SampanError, StartFailed
from sampan.kernel import cgroup
from sampan.kernel.files import lock_directory
from sampan.runtime import conversation
from sampan.runtime.sealed import SHIM
from sampan.steps.trace import Event

from support.patience import eventually
from support.reboot import reboot
from support.roots import Leftovers, Root

pytestmark = [pytest.mark.root, pytest.mark.patience(400)]

SLEEP = ["sleep", "1000"]


def strides(often: int, seldom: int) -> pytest.MarkDecorator:
    """What has many steps, or long ones, is killed at every few of them here and by `make test-long` more often."""
    return pytest.mark.parametrize(
        "stride", [pytest.param(often, marks=pytest.mark.long, id="every"), pytest.param(seldom, id="some")]
    )


every = strides(1, 15)
Action = Callable[[sampan.Engine], object]


class Killer:
    """Kills at the n-th event that `chosen` wants: "self", the "actor" of the step, or the container's "monitor".

    `at` of -1 kills never and counts.
    """

    def __init__(self, at: int, chosen: Callable[[Event], bool], whom: str = "self") -> None:
        self.at = at
        self.seen = 0
        self._chosen = chosen
        self._whom = whom
        self._monitor = 0

    def __call__(self, event: Event) -> None:
        if event.stage == "monitor":
            self._monitor = event.pid
        if not self._chosen(event):
            return
        if self.seen == self.at:
            os.kill(self._victim(event), signal.SIGKILL)
        self.seen += 1

    def _victim(self, event: Event) -> int:
        if self._whom == "self":
            return os.getpid()
        return self._monitor if self._whom == "monitor" else event.pid


def children(parent: int) -> Iterator[tuple[int, list[int]]]:
    """The children of a process: (pid, its numbers in the pid namespaces that it is in, ours first)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            lines = (entry / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        status = dict(line.split(":", 1) for line in lines)
        if int(status["PPid"]) == parent:
            yield int(entry.name), [int(number) for number in status["NSpid"].split()]


def of_the_engine(event: Event) -> bool:
    return event.stage == "engine"


def of_the_shim(event: Event) -> bool:
    # Begun ones only: what is finished was told when all was over.
    return event.stage != "engine" and not event.finished


def child(root: Root, killer: Killer, action: Action) -> int:
    """Run the action in a child; its wait status. An error of the engine's is an outcome like any other."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with root.engine(observer=killer) as engine:
                action(engine)
            status = 0
        except SampanError:
            status = 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def steps_of(root: Root, action: Action, chosen: Callable[[Event], bool]) -> int:
    """How many events the action has that `chosen` wants: it is run once, in this process."""
    counter = Killer(-1, chosen)
    with root.engine(observer=counter) as engine:
        action(engine)
    return counter.seen


class Crashes:
    """One scenario: `prepare` makes what `action` works on; every kill is followed by a look and a cleaning."""

    def __init__(self, root: Root, prepare: Action, action: Action) -> None:
        self.root = root
        self.prepare = prepare
        self.action = action
        self.before: Leftovers = root.state()

    def at_every_step(
        self,
        chosen: Callable[[Event], bool],
        check: Callable[[list[Container]], None],
        whom: str = "self",
        stride: int = 1,
    ) -> int:
        """Kill at each step there is, or at every `stride`th; the number of all."""
        self._prepare()
        number = steps_of(self.root, self.action, chosen)
        self._clean("the first run")
        for at in range(0, number, stride):
            self._prepare()
            status = child(self.root, Killer(at, chosen, whom), self.action)
            killed = os.WIFSIGNALED(status)
            assert killed or os.WEXITSTATUS(status) in (0, 2), f"step {at}: the action failed"
            assert killed == (whom == "self"), f"step {at}: the wrong one was killed"
            with self.root.engine() as engine:
                # What the next command finds: whole containers.
                found = engine.containers.list(all=True)
                for container in found:
                    assert container.inspect()["State"]["Status"] in ("created", "running", "exited"), f"step {at}"
                check(found)
            self._clean(f"step {at}")
        return number

    def _prepare(self) -> None:
        with self.root.engine() as engine:
            self.prepare(engine)

    def _clean(self, when: str) -> None:
        with self.root.engine() as engine:
            for container in engine.containers.list(all=True):
                container.remove(force=True)
            assert engine.containers.list(all=True) == []
        # A killed process is gone a moment after its container is.
        eventually(lambda: not self.before.left(), seconds=5, what=f"nothing left after {when}: {self.before.left()}")


@pytest.fixture
def ready(root: Root) -> Root:
    """The session's root with everything made that is made once: image, layers, init layer."""
    with root.engine() as engine:
        engine.containers.create("base", SLEEP, network="none").remove()
    return root


def nothing(_engine: sampan.Engine) -> None:
    pass


def make(engine: sampan.Engine) -> None:
    engine.containers.create("base", SLEEP, name="box", network="none")


def make_and_start(engine: sampan.Engine) -> None:
    engine.containers.create("base", SLEEP, name="box", network="none").start()


def start(engine: sampan.Engine) -> None:
    engine.containers.get("box").start()


def stop(engine: sampan.Engine) -> None:
    engine.containers.get("box").stop(timeout=0)


def remove(engine: sampan.Engine) -> None:
    engine.containers.get("box").remove()


def remove_by_force(engine: sampan.Engine) -> None:
    engine.containers.get("box").remove(force=True)


def update(engine: sampan.Engine) -> None:
    engine.containers.get("box").update(memory="64m", memory_swap="96m", pids_limit=60, restart_policy="on-failure:2")


@strides(1, 4)
def test_update(ready: Root, stride: int) -> None:
    """Killed anywhere in it, what is written down is the old or the new, and the same update completes it."""
    wanted = [64 << 20, 96 << 20, 60, "on-failure"]

    def recorded(box: Container) -> list[object]:
        host = box.inspect()["HostConfig"]
        return [*(host[field] for field in ("Memory", "MemorySwap", "PidsLimit")), host["RestartPolicy"]["Name"]]

    def check(found: list[Container]) -> None:
        (box,) = found
        assert box.status == "running"
        assert recorded(box) in ([0, 0, None, "no"], wanted)
        with ready.engine() as engine:
            update(engine)
        assert recorded(box) == wanted

    Crashes(ready, make_and_start, update).at_every_step(of_the_engine, check, stride=stride)


@strides(7, 60)
def test_boot(ready: Root, stride: int) -> None:
    """Killed anywhere in it, the next one completes it: what was to be started runs, once, and nothing else does."""
    policies = {"one": "always", "two": "unless-stopped", "three": "on-failure", "four": "no"}

    def prepare(engine: sampan.Engine) -> None:
        for name, policy in policies.items():
            engine.containers.create("base", SLEEP, name=name, restart_policy=policy, network="none").start()
        reboot(ready)

    def boot(engine: sampan.Engine) -> None:
        assert [str(error) for _, error in engine.containers.boot() if error is not None] == []

    def check(_found: list[Container]) -> None:
        # A start that was killed halfway has its own shim to clean up behind it.
        with ready.engine() as engine:
            boot(engine)
            found = {c.name: c for c in engine.containers.list(all=True)}
            assert {n: c.status for n, c in found.items()} == {**dict.fromkeys(policies, "running"), "four": "exited"}
            before = {n: c.inspect()["State"]["Pid"] for n, c in found.items()}
            boot(engine)
            assert {n: c.inspect()["State"]["Pid"] for n, c in found.items()} == before

    crashes = Crashes(ready, prepare, boot)
    crashes.at_every_step(of_the_engine, check, stride=stride)


def shims() -> set[int]:
    """The processes that were executed as shims of this package: those of other tests too."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(SHIM) in (entry / "cmdline").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def at_the_other_end(control: Any) -> set[int]:
    """The shims that hold the other end of this socket: the one it was made for, and those that forked it a moment ago."""
    ours = str(os.fstat(control.fileno()).st_ino)
    lines = subprocess.run(["ss", "-xH"], capture_output=True, text=True, check=True).stdout.splitlines()
    (theirs,) = (words[5] for words in map(str.split, lines) if words[7] == ours)
    return {pid for pid in shims() if f"socket:[{theirs}]" in open_files(pid)}


def open_files(pid: int) -> set[str]:
    try:
        return {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()  # it has ended, or closed one meanwhile


def test_a_command_that_is_killed_when_its_plan_is_on_the_way(ready: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim comes after the start was settled as lost: it begins nothing, and leaves the next start alone."""
    with ready.engine() as engine:
        make(engine)
    send, told = conversation._send, ready.directory / "shim"

    def send_and_die(control: Any, data: bytes, fds: list[int]) -> None:
        (shim,) = eventually(lambda: {pid for pid in at_the_other_end(control) if not is_child(pid)})
        os.kill(shim, signal.SIGSTOP)
        told.write_text(str(shim))
        send(control, data, fds)
        os.kill(os.getpid(), signal.SIGKILL)

    def is_child(pid: int) -> bool:
        return any(child == pid for child, _ in children(os.getpid()))

    monkeypatch.setattr(conversation, "_send", send_and_die)
    assert os.WIFSIGNALED(child(ready, Killer(-1, nothing_chosen), start))
    monkeypatch.undo()
    shim = int(told.read_text())
    told.unlink()
    with ready.engine() as engine:
        (box,) = engine.containers.list(all=True)
        settled = box.inspect()["State"]
        assert (settled["Running"], settled["ExitCode"]) == (False, 255)
        os.kill(shim, signal.SIGCONT)
        eventually(lambda: shim not in shims(), what="the shim has gone")
        assert box.inspect()["State"] == settled
        start(engine)
        assert box.status == "running"
        box.remove(force=True)


def test_a_child_of_a_killed_monitor_that_goes_on_for_a_step(ready: Root) -> None:
    """The next command waits until it has ended, and takes away what it made meanwhile: a cgroup was left behind."""
    with ready.engine() as engine:
        make(engine)
        box = engine.containers.get("box")
        assert os.WIFEXITED(child(ready, Killer(0, of_the_shim, "monitor"), start))
        # Its monitor was killed before it had children: this process is one, from here on.
        (directory,) = (ready.root / "containers" / box.id / "starts").iterdir()
        (directory / "exit.json").unlink(missing_ok=True)
        held = lock_directory(str(directory))
        assert held >= 0
        made = [Path(d) for d in cgroup.detect().directories(f"{ready.cgroup_parent}/{box.id}")]
        settling = threading.Thread(target=lambda: box.inspect())
        settling.start()
        time.sleep(0.2)
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
        os.close(held)
        settling.join()
        assert box.inspect()["State"]["ExitCode"] == 255
        assert [path for path in made if path.exists()] == []
        box.remove()


def nothing_chosen(_event: Event) -> bool:
    return False


@strides(1, 4)
def test_create(ready: Root, stride: int) -> None:
    def check(found: list[Container]) -> None:
        assert [c.status for c in found] in ([], ["created"])
        if not found:
            # The name is free again.
            with ready.engine() as engine:
                make(engine)

    assert Crashes(ready, nothing, make).at_every_step(of_the_engine, check, stride=stride) >= 20


@strides(1, 2)
def test_start_whose_command_is_killed_at_its_own_steps(ready: Root, stride: int) -> None:
    def check(found: list[Container]) -> None:
        (box,) = found
        if box.status != "running":
            # An interrupted start can be repeated.
            box.start()
        assert box.exec(["echo", "works"]).stdout == "works\n"

    assert Crashes(ready, make, start).at_every_step(of_the_engine, check, stride=stride) >= 6


@every
def test_start_whose_command_is_killed_while_the_shim_works(ready: Root, stride: int) -> None:
    """The shim goes on without its launcher: the container comes up, and nobody has to be told."""

    def check(found: list[Container]) -> None:
        (box,) = found
        eventually(lambda: box.status == "running", what="the container runs")
        assert box.exec(["echo", "works"]).stdout == "works\n"

    assert Crashes(ready, make, start).at_every_step(of_the_shim, check, stride=stride) >= 50


@every
@pytest.mark.parametrize("whom", ["actor", "monitor"])
def test_start_whose_shim_or_child_is_killed(ready: Root, whom: str, stride: int) -> None:
    """Whichever of its processes dies, the start fails or the container ends; both are written down."""

    def check(found: list[Container]) -> None:
        (box,) = found
        state = box.inspect()["State"]
        assert state["ExitCode"] != 0
        assert state["Status"] == "created"
        assert state["Error"]

    assert Crashes(ready, make, start).at_every_step(of_the_shim, check, whom, stride) >= 50


@strides(1, 3)
def test_stop(ready: Root, stride: int) -> None:
    def check(found: list[Container]) -> None:
        (box,) = found
        if box.status == "running":
            box.stop(timeout=0)
        assert box.wait() == 137

    assert Crashes(ready, make_and_start, stop).at_every_step(of_the_engine, check, stride=stride) >= 4


@strides(1, 3)
def test_remove(ready: Root, stride: int) -> None:
    def check(found: list[Container]) -> None:
        assert [c.status for c in found] in ([], ["created"])

    assert Crashes(ready, make, remove).at_every_step(of_the_engine, check, stride=stride) >= 10


@strides(1, 8)
def test_remove_of_a_running_one(ready: Root, stride: int) -> None:
    def check(found: list[Container]) -> None:
        assert [c.status for c in found] in ([], ["running"], ["exited"])

    assert Crashes(ready, make_and_start, remove_by_force).at_every_step(of_the_engine, check, stride=stride) >= 14


@strides(1, 12)
def test_run_with_rm(ready: Root, stride: int) -> None:
    def check(found: list[Container]) -> None:
        # Killed between create and start it stays as created, as with Docker; else it ends and goes by itself.
        for container in found:
            if container.status == "running":
                continue
            assert container.status == "created"

    def run(engine: sampan.Engine) -> None:
        engine.containers.run("base", ["true"], network="none")

    assert Crashes(ready, nothing, run).at_every_step(of_the_engine, check, stride=stride) >= 30


@strides(1, 3)
def test_rename(ready: Root, stride: int) -> None:
    """The container has the one name or the other, and the other one is free."""

    def check(found: list[Container]) -> None:
        (box,) = found
        other = {"box": "new", "new": "box"}[box.name]
        with ready.engine() as engine:
            assert engine.containers.get(box.name).id == box.id
            with pytest.raises(NotFound):
                engine.containers.get(other)
            engine.containers.create("base", SLEEP, name=other, network="none").remove()
            assert engine.system.check() == []

    def rename(engine: sampan.Engine) -> None:
        engine.containers.get("box").rename("new")

    assert Crashes(ready, make, rename).at_every_step(of_the_engine, check, stride=stride) >= 6


@strides(1, 3)
def test_recovery_itself(ready: Root, stride: int) -> None:
    """The command that finishes what another left may be killed as well."""

    def leave_halves(engine: sampan.Engine) -> None:
        # A create without a record, a start without a monitor, a remove without its parts. (`create` finishes what it meets.)
        engine.containers.create("base", SLEEP, name="second", network="none")
        engine.containers.create("base", SLEEP, name="third", network="none")
        child(ready, Killer(8, of_the_engine), make)
        child(ready, Killer(3, of_the_engine), lambda e: e.containers.get("third").start())
        child(ready, Killer(6, of_the_engine), lambda e: e.containers.get("second").remove())

    def listing(engine: sampan.Engine) -> None:
        engine.containers.list(all=True)

    def check(found: list[Container]) -> None:
        assert [c.name for c in found] == ["third"]
        (third,) = found
        assert third.status == "created"

    assert Crashes(ready, leave_halves, listing).at_every_step(of_the_engine, check, stride=stride) >= 6


def test_the_error_of_a_killed_start_says_what_happened(ready: Root) -> None:
    with ready.engine(observer=Killer(30, of_the_shim, "actor")) as engine:
        make(engine)
        with pytest.raises(StartFailed, match=r"killed|shim"):
            start(engine)
        remove(engine)
        with pytest.raises(NotFound):
            engine.containers.get("box")
