"""kill -9 at every step of what a start makes of a network, and an end takes away: the next command finds all consistent."""

from __future__ import annotations

import pytest
from tests.crash.test_containers import SLEEP, Crashes, remove_by_force

import sampan
from sampan.engine.containers import Container
from sampan.steps.trace import Event

from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(400)]

WORDS = ("network namespace", "endpoint", "link", "firewall", "interfaces", "bind ports", "hand over")


def of_a_network(event: Event) -> bool:
    return event.stage == "engine" and any(word in event.text for word in WORDS)


def make(engine: sampan.Engine) -> None:
    engine.containers.create("base", SLEEP, name="box", network="bridge")


def start(engine: sampan.Engine) -> None:
    engine.containers.get("box").start()


def make_and_start(engine: sampan.Engine) -> None:
    make(engine)
    start(engine)


def test_start(root: Root) -> None:
    """Also with the same bridge: whoever starts next completes what was begun."""

    def check(found: list[Container]) -> None:
        with root.engine() as engine:
            if found[0].status != "running":
                start(engine)
            (box,) = engine.containers.list()
            assert box.inspect()["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]

    assert Crashes(root, make, start).at_every_step(of_a_network, check) > 6


def test_removal(root: Root) -> None:
    Crashes(root, make_and_start, remove_by_force).at_every_step(of_a_network, lambda _: None)
