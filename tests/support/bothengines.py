"""The engine of this machine, and the same by way of `sampan serve`: what a program is promised of one it is promised of both.

A test module takes `engine`, with `server` and whichever of the others it needs, by importing them, and names them in its `__all__`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import sampan

from support.apiserver import Server, serving
from support.roots import Root

if TYPE_CHECKING:
    from sampan.engine.interface import ContainerInterface, EngineInterface

SLEEP = ["sleep", "1000"]


@pytest.fixture(scope="module")
def server(session_root: Root) -> Iterator[Server]:
    with serving(session_root) as found:
        found.warm_up()
        yield found
        assert "Traceback" not in found.log


@pytest.fixture(scope="module", params=["local", "remote"])
def engine(request: pytest.FixtureRequest, session_root: Root, server: Server) -> Iterator[EngineInterface]:
    before = session_root.state()
    made: EngineInterface = session_root.engine() if request.param == "local" else sampan.connect(server.url)
    yield made
    made.close()
    before.check()


@pytest.fixture(scope="module")
def box(engine: EngineInterface) -> Iterator[ContainerInterface]:
    """A container that runs, for whoever does not change its state."""
    made = engine.containers.create(
        "base", SLEEP, name="box", environment={"A": "1"}, working_dir="/srv", user="1000:1001", network="none"
    )
    made.start()
    yield made
    made.remove(force=True)


@pytest.fixture
def made(engine: EngineInterface) -> Iterator[list[ContainerInterface]]:
    """Containers that are removed after the test."""
    found: list[ContainerInterface] = []
    yield found
    for one in found:
        one.remove(force=True)
