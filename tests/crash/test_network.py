"""kill -9 at every step of what a start makes of a network, and an end takes away: the next command finds all consistent."""

from __future__ import annotations

import os

import pytest
from tests.crash.test_containers import SLEEP, Crashes, Killer, child, of_the_engine, remove_by_force, steps_of

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


@pytest.mark.long
def test_making_a_network(root: Root) -> None:
    """What a maker that was killed left goes with the next one, and no subnet is lost to it."""
    made = root.root / "networks"

    def create(engine: sampan.Engine) -> None:
        engine.networks.create("front", IPAM={"Config": [{"Subnet": "10.99.8.0/24"}]})

    with root.engine() as engine:
        engine.networks.list()  # the default one is there
        before = sorted(os.listdir(made))
        count = steps_of(root, create, of_the_engine)
        engine.networks.get("front").remove()
    assert count > 4
    left = 0
    for step in range(count):
        status = child(root, Killer(step, of_the_engine), create)
        assert os.WIFSIGNALED(status), status
        left += any(name.startswith((".lock-", ".tmp-")) for name in os.listdir(made))
        with root.engine() as engine:
            if "front" not in [network.name for network in engine.networks.list()]:
                create(engine)
            else:  # it is there, and the next one takes what is left of its making
                engine.networks.create("other").remove()
            assert len([name for name in os.listdir(made) if name.startswith(".")]) == 0, step
            engine.networks.get("front").remove()
    assert left > 2
    assert sorted(os.listdir(made)) == before
