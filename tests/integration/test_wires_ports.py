"""How ports of a host are bound for containers: tried in a host of its own, a network namespace."""

from __future__ import annotations

import errno
import socket

import pytest

from sampan.errors import System
from sampan.network import ports

from support.wires import World, world

__all__ = ["world"]

pytestmark = pytest.mark.root


def test_a_port_is_bound_at_all_addresses_and_its_number_is_the_same(world: World) -> None:
    with world.host.entered():
        bound = ports.bind(ports.wishes({"80/tcp": [{"HostIp": "", "HostPort": ""}]}))
        try:
            assert [p.host_address for p in bound.ports] == ["0.0.0.0", "::"]
            assert len({p.host_port for p in bound.ports}) == 1
            with pytest.raises(ports.PortInUse) as raised:
                ports.bind_again(bound.ports[:1])
            number = bound.ports[0].host_port
            assert str(raised.value) == f"failed to bind host port 0.0.0.0:{number}/tcp: address already in use"
        finally:
            bound.close()
        ports.bind_again(bound.ports).close()


def test_of_a_range_the_first_free_port_is_taken_and_nothing_of_what_fails_is_kept(world: World) -> None:
    with world.host.entered(), socket.socket() as taken:
        taken.bind(("0.0.0.0", 8000))
        taken.listen()
        bound = ports.bind(ports.wishes({"80/tcp": [{"HostPort": "8000-8002"}], "81/tcp": [{"HostPort": "8000-8002"}]}))
        assert {(p.port, p.host_port) for p in bound.ports} == {(80, 8001), (81, 8002)}
        bound.close()
        with pytest.raises(ports.PortInUse):
            ports.bind(ports.wishes({"80/tcp": [{"HostPort": "9000"}], "81/tcp": [{"HostPort": "8000"}]}))
        ports.bind(ports.wishes({"80/tcp": [{"HostPort": "9000"}]})).close()


def test_an_address_of_somebody_else_is_refused_in_words(world: World) -> None:
    with (
        world.host.entered(),
        pytest.raises(System, match=r"failed to bind host port 198.51.100.1:80/tcp: cannot assign requested address"),
    ):
        ports.bind(ports.wishes({"80/tcp": [{"HostIp": "198.51.100.1", "HostPort": "80"}]}))


def test_sctp_is_bound_where_the_kernel_has_it(world: World) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        there = True
    except OSError as e:
        assert e.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)  # noqa: PT017
        there = False
    with world.host.entered():
        bound = ports.bind(ports.wishes({"80/sctp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}))
        assert [s is not None for s in bound.sockets] == [there]
        bound.close()


def test_every_exposed_port_is_published_after_those_that_name_one(world: World) -> None:
    wished = ports.wishes(
        {"80/tcp": [{"HostPort": ""}], "443/tcp": [{"HostPort": "8443"}]}, ["80/tcp", "53/udp", "9/tcp"]
    )
    assert [(w.port, w.protocol, w.first) for w in wished] == [
        (443, "tcp", 8443),
        (80, "tcp", 0),
        (9, "tcp", 0),
        (53, "udp", 0),
    ]
