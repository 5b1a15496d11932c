"""kill -9 at every step of a verb: an end and a removal are told once, whoever finishes them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

import sampan
from sampan.steps.trace import Event

from support.patience import eventually
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]

Action = Callable[[sampan.Engine], object]


@pytest.fixture
def ready(session_root: Root) -> Iterator[Root]:
    before = session_root.state()
    yield session_root
    before.check()


def killed(root: Root, at: int, action: Action) -> bool:
    """Run the action in a child that dies at event `at` of its trace; whether it came to that."""
    left = at

    def observe(event: Event) -> None:
        nonlocal left
        if event.stage == "engine":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with root.engine(observer=observe) as engine:
                action(engine)
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert status == 0
    return False


def told(engine: sampan.Engine, container_id: str) -> list[str]:
    with engine.events("0", time.time(), {"container": container_id}) as stream:
        return [event["Action"] for event in stream]


def test_a_removal_is_told_once(ready: Root) -> None:
    at = 0
    while True:
        with ready.engine() as engine:
            box = engine.containers.create("base", ["true"], network="none")
            again = killed(ready, at, lambda e, id=box.id: e.containers.get(id).remove())  # type: ignore[misc]
            if box.id in [one.id for one in engine.containers.list(all=True)]:
                box.remove()
            assert told(engine, box.id) == ["create", "destroy"], f"after a kill at event {at}"
        if not again:
            break
        at += 1
    assert at > 10


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long, id="every"), pytest.param(13, id="some")])
def test_the_end_of_a_lost_container_is_told_once(ready: Root, stride: int) -> None:
    at = 0
    while True:
        with ready.engine() as engine:
            box = engine.containers.create("base", ["sleep", "600"], network="none")
            box.start()
            with open(f"/proc/{box.inspect()['State']['Pid']}/status") as file:
                shim = int(next(line for line in file if line.startswith("PPid:")).split()[1])
            os.kill(shim, signal.SIGKILL)
            eventually(lambda shim=shim: not os.path.exists(f"/proc/{shim}"))  # type: ignore[misc]
            again = killed(ready, at, lambda e: e.containers.list(all=True))
            assert box.status == "exited"
            assert told(engine, box.id) == ["create", "start", "die"], f"after a kill at event {at}"
            box.remove()
        if not again:
            break
        at += stride
    assert at > 5


def test_a_start_and_its_end_are_told_although_the_command_was_killed(ready: Root) -> None:
    at = 0
    while True:
        with ready.engine() as engine:
            box = engine.containers.create("base", ["true"], network="none")
            again = killed(ready, at, lambda e, id=box.id: e.containers.get(id).start())  # type: ignore[misc]
            box.wait()
            ran = box.inspect()["State"]["StartedAt"] != "0001-01-01T00:00:00Z"
            expected = ["create", "start", "die"] if ran else ["create"]
            assert told(engine, box.id) == expected, f"after a kill at event {at}"
            box.remove()
        if not again:
            break
        at += 1
    assert at > 5
