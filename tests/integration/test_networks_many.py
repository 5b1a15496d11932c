"""Many containers of one network at once: addresses, reachability, names, and nothing left."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sampan.kernel import links, netlink

from support import host as machine
from support.asking import ask, socket_in
from support.patience import eventually, patience
from support.roots import Root

if TYPE_CHECKING:
    import sampan

pytestmark = pytest.mark.root

AT_ONCE = 8


def test_names_are_answered_at_a_thousand_questions_a_second(new_root: Root) -> None:
    with new_root.engine() as engine:
        engine.networks.create("front")
        with _running(engine, "front", 8) as found:
            addresses = {name: address for name, (_, address) in found.items()}
            asked = ask([pid for pid, _ in found.values()], addresses, rate=1000, seconds=2)
        assert (asked.sent, asked.lost, asked.wrong) == (2000, 0, [])
        engine.networks.get("front").remove()


@pytest.mark.alone
@pytest.mark.long
def test_a_hundred_at_once_reach_each_other_and_leave_nothing(new_root: Root) -> None:
    with new_root.engine() as engine:
        bridge = engine.networks.get("bridge").attrs
        link, gateway = bridge["Options"]["com.docker.network.bridge.name"], bridge["IPAM"]["Config"][0]["Gateway"]
        with _running(engine, "bridge", 100, at_once=100) as found:
            assert len({address for _, address in found.values()}) == 100
            sockets = {address: socket_in(pid) for pid, address in found.values()}
            for address, one in sockets.items():
                one.bind((address, 7777))
                one.settimeout(patience(10))
            _each_reaches_the_next(sockets)
            for address in sockets:
                _is_refused(sockets[address], gateway)
            for one in sockets.values():
                one.close()
            with netlink.Socket() as host:
                assert links.find(host, link) is not None
        with netlink.Socket() as host:
            assert links.find(host, link) is None
        assert not list((new_root.root / "networks").glob("*/endpoints/*"))
    eventually(lambda: not machine.processes(str(new_root.directory)), what="no process is left")


def _each_reaches_the_next(sockets: dict[str, socket.socket]) -> None:
    """In a ring, and back: a whole mesh would be more neighbours than the kernel remembers (gc_thresh3)."""
    addresses = list(sockets)
    for at, address in enumerate(addresses):
        there = addresses[(at + 1) % len(addresses)]
        sockets[address].sendto(address.encode(), (there, 7777))
    for at, address in enumerate(addresses):
        data, sender = sockets[address].recvfrom(64)
        assert data.decode() == sender[0] == addresses[at - 1]
        sockets[address].sendto(b"answer", sender)
    for at, address in enumerate(addresses):
        assert sockets[address].recvfrom(64) == (b"answer", (addresses[(at + 1) % len(addresses)], 7777))


def _is_refused(one: socket.socket, gateway: str) -> None:
    """The host answers that nobody listens there: it was reached."""
    one.connect((gateway, 9))
    one.settimeout(0.3)
    deadline = time.monotonic() + patience(30)
    while True:
        try:
            one.send(b"x")
            one.recv(64)
        except ConnectionRefusedError:
            return
        except TimeoutError:
            pass  # the kernel bounds how many it tells in a second: ask again
        assert time.monotonic() < deadline, f"{gateway} answers nobody"


@contextmanager
def _running(
    engine: sampan.Engine, network: str, count: int, at_once: int = AT_ONCE
) -> Iterator[dict[str, tuple[int, str]]]:
    """Containers that were started at once: pid and address by name."""
    made = [engine.containers.create("base", "sleep 1000", name=f"c{n}", network=network) for n in range(count)]
    try:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda one: one.start(), made))
        shown = [one.inspect() for one in made]
        yield {
            one["Name"].lstrip("/"): (one["State"]["Pid"], one["NetworkSettings"]["Networks"][network]["IPAddress"])
            for one in shown
        }
    finally:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one: one.remove(force=True), made))
