"""A network's keeper: a process of its own between namespaces, as the commands that start containers use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.networks import Box, Host, ask
from support.patience import eventually

pytestmark = pytest.mark.root


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def answers(box: Box, name: str) -> list[str]:
    """The addresses of a name, none while nobody answers."""
    try:
        return ask(box, name, timeout=1).addresses
    except (ConnectionRefusedError, TimeoutError):
        return []


def test_names_are_answered_from_the_first_moment_and_the_keeper_leaves_with_the_last_endpoint(host: Host) -> None:
    place = host.network("mynet")
    web, db = host.box("web"), host.box("db")
    host.put(place, db)
    host.join(place, web, "web", "www")
    # Its interpreter may not be there yet: the question waits in the socket.
    assert ask(web, "db").addresses == [db.address]
    host.join(place, db)
    assert ask(db, "WWW").addresses == ask(db, "web.mynet").addresses == [web.address]
    pid = host.keeper_pid(place)
    for box in (web, db):
        box.end()
        host.drop(place, box)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert not os.path.exists(place.socket)


def test_a_container_may_have_a_server_of_its_own_on_port_53(host: Host) -> None:
    place = host.network()
    box = host.box("dns")
    host.join(place, box)
    own = box.socket()
    own.bind(("0.0.0.0", 53))
    assert ask(box, "dns").addresses == [box.address]
    own.close()


def test_a_killed_keeper_is_replaced_by_the_next_command_which_restores_the_others(host: Host) -> None:
    place = host.network()
    web, db = host.box("web"), host.box("db")
    host.join(place, web)
    assert ask(web, "web").addresses == [web.address]
    host.kill_keeper(place)
    host.join(place, db)
    eventually(lambda: answers(web, "db") == [db.address])
    eventually(lambda: answers(db, "web") == [web.address])
