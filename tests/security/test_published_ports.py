"""CVE-2025-54388: what is published for 127.0.0.1 was open to the neighbourhood after something had flushed the firewall.

The rules that lead to a container came back, and those that keep others away from it did not. A neighbour here does what one can: it has a route
to the containers' subnet, and puts packets for 127.0.0.1 on the wire, to a host that would take them (`route_localnet`).

Seen to fail with a weakened `network/rules.py`: without the rule of chain `guard` that is an endpoint's own; with `yield there, _DROP` of
`_forward` left out; with the rules of `guard` committed in a batch of their own behind the one that has those of `own` (`make` cut in two).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from tests.integration.test_wires import HOST, OUTSIDE, World, network, web

from sampan.kernel import netlink, nft
from sampan.network import bridge, firewall, guard, parameters
from sampan.oci.network import Network

pytestmark = pytest.mark.root

_NEWRULE, _NEWGEN = 6, 15  # NFT_MSG_*


@pytest.fixture
def world() -> Iterator[World]:
    """A host that has nothing but these rules to keep its neighbours from 127.0.0.1."""
    with ExitStack() as stack:
        world = World(stack)
        mac = world.host.run("ip", "-br", "link", "show", "eth0").stdout.split()[2]
        world.host.call(lambda: parameters.write("ipv4/conf/eth0/route_localnet", "1"))
        outside = world.outside
        outside.call(lambda: parameters.write("ipv4/conf/all/route_localnet", "1"))
        outside.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        outside.run("ip", "route", "add", "127.0.0.1/32", "dev", "eth0", "src", OUTSIDE)
        outside.run("ip", "neigh", "replace", "127.0.0.1", "lladdr", mac, "dev", "eth0", "nud", "permanent")
        outside.run("ip", "route", "add", "10.77.0.0/24", "via", HOST)
        world.host.serve(8080, "the socket that is held", "127.0.0.1")
        yield world


def told_with(world: World, change: Callable[[], object]) -> list[list[str]]:
    """The chains that get rules by `change`, for each moment at which all that came before holds at once."""
    listener = world.host.call(guard._listen)
    try:
        world.host.call(change)
        found: list[list[str]] = [[]]
        while True:
            try:
                data = listener.recv(1 << 16)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                length, kind = guard._HEADER.unpack_from(data, at)
                if kind & 0xFF == _NEWGEN:
                    found.append([])
                elif kind & 0xFF == _NEWRULE:
                    found[-1].append(netlink.to_text(netlink.attributes(data[at : at + length], 20)[2]))
                at += length + (-length % 4)
    finally:
        listener.close()


def assert_for_this_host_only(world: World) -> None:
    assert world.host.ask("127.0.0.1", 8080) == "web"
    assert world.outside.ask("127.0.0.1", 8080) == "", "by a packet for 127.0.0.1"
    assert world.outside.ask(HOST, 8080) == "", "by the host's address"
    assert world.outside.ask("10.77.0.2", 80) == "", "by the container's own"


def test_what_comes_back_after_a_flush_is_for_this_host_only_and_at_no_moment_for_others(world: World) -> None:
    net = network()
    world.container(net, 2, web(address="127.0.0.1")).serve(80, "web")
    assert_for_this_host_only(world)
    world.host.run("nft", "flush", "ruleset")
    assert world.outside.ask("10.77.0.2", 80) == "web", "so there is a way, if nothing is in it"
    assert world.outside.ask("127.0.0.1", 8080) == "the socket that is held"
    moments = told_with(world, lambda: world.apply(net))
    assert_for_this_host_only(world)
    assert [sorted(set(moment)) for moment in moments if moment] == [["forward", "guard", "leaving", "own"]]


def test_a_port_that_is_added_to_others_is_guarded_as_soon_as_it_leads_anywhere(world: World) -> None:
    net = network()
    world.container(net, 3, web(9090))
    server = world.container(net, 2, web(address="127.0.0.1"))
    server.serve(80, "web")
    new = world.endpoints[net.id][1]
    world.host.call(lambda: firewall.leave(net, new, lambda: world.endpoints[net.id][:1]))
    moments = told_with(world, lambda: firewall.enter(net, new, lambda: world.endpoints[net.id]))
    assert [sorted(moment) for moment in moments if moment] == [["guard", "own"]]
    assert_for_this_host_only(world)
    world.host.call(lambda: firewall.leave(net, new, lambda: world.endpoints[net.id][:1]))
    rules = world.host.call(lambda: _comments(net))
    assert new.container[:12] not in rules
    assert world.endpoints[net.id][0].container[:12] in rules


def _comments(net: Network) -> set[str]:
    with nft.connect() as socket:
        return {rule.comment for rule in nft.list_rules(socket, bridge.table_name(net.id))}
