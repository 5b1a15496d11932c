"""macvlan, ipvlan and VLANs on the wires of a host: each a network namespace."""

from __future__ import annotations

import os

import pytest

from sampan.errors import System
from sampan.kernel import links
from sampan.network import bridge, firewall
from sampan.oci.network import (
    Endpoint,
    Pool,
)

from support.wires import HOST, OUTSIDE, World, network, world

__all__ = ["world"]

pytestmark = pytest.mark.root


@pytest.mark.core
def test_macvlan_on_the_second_hosts_wire(world: World) -> None:
    net = network(driver="macvlan", link="eth0", pools=(Pool("203.0.113.0/24", OUTSIDE),))
    made = world._new()
    endpoint = Endpoint(
        container="a" * 64, start=1, id="b" * 64, interface="eth0", link="", mac="02:42:cb:00:71:05",
        address="203.0.113.5", prefix=24, gateway=OUTSIDE,
    )  # fmt: skip
    master = world.host.call(lambda: bridge.ensure(world.host.links, net))
    with made.entered():
        bridge.attach(world.host.links, made.links, made.fd, net, endpoint, master)
        bridge.route(made.links, net, endpoint)
    made.serve(80, "macvlan")
    assert world.outside.ask("203.0.113.5", 80) == "macvlan"
    assert "type" not in world.host.call(lambda: (firewall.restore(net, lambda: [endpoint]), world.host.ruleset())[1])


def test_a_macvlan_without_parent_gets_one_that_goes_with_it(world: World) -> None:
    net = network(driver="macvlan", link="dm-000000000000")
    try:
        world.host.call(lambda: bridge.ensure(world.host.links, net))
        assert links.find(world.host.links, "dm-000000000000") is not None
    except System as e:
        assert "this kernel has no such links" in str(e)  # noqa: PT017
    world.host.call(lambda: bridge.tear_down(world.host.links, net))
    assert links.find(world.host.links, "dm-000000000000") is None
    with pytest.raises(System, match="needs the link nowhere0, which this host does not have"):
        bridge.ensure(world.host.links, network(driver="macvlan", link="nowhere0"))


@pytest.mark.core
def test_ipvlan_in_both_modes_or_words_for_why_not(world: World) -> None:
    """Of mode l3 nobody is told by ARP: its addresses are none of the wire's own subnet, and whoever wants them has a route by the host."""
    world.outside.run("ip", "route", "add", "10.88.0.0/24", "via", HOST)
    for mode, address, gateway in (("l2", "203.0.113.5", OUTSIDE), ("l3", "10.88.0.6", "")):
        net = network(driver="ipvlan", link="eth0", options={"ipvlan_mode": mode})
        made = world._new()
        endpoint = Endpoint(
            container="a" * 64, start=1, id=os.urandom(32).hex(), interface="eth0", link="", mac="",
            address=address, prefix=24, gateway=gateway,
        )  # fmt: skip
        try:
            with made.entered():
                bridge.attach(world.host.links, made.links, made.fd, net, endpoint, world.host.index("eth0"))
                bridge.route(made.links, net, endpoint)
        except System as e:
            assert "this kernel has no such links" in str(e)  # noqa: PT017
            return
        made.serve(80, mode)
        assert world.outside.ask(address, 80) == mode
        assert made.run("ip", "route", "show", "default").stdout


@pytest.mark.core
def test_a_vlan_of_a_device_is_made_and_removed_or_words_for_why_not(world: World) -> None:
    net = network(0).replace(driver="macvlan", link="eth0.50", options={"parent": "eth0.50"})
    try:
        made = world.host.call(lambda: bridge.ensure(world.host.links, net))
    except System as e:
        assert "this kernel has no such links" in str(e)  # noqa: PT017
    else:
        found = links.find(world.host.links, "eth0.50")
        assert found is not None
        assert (found.index, found.kind, found.up, bridge.is_ours(found, net.id)) == (made, "vlan", True, True)
        assert world.host.call(lambda: bridge.ensure(world.host.links, net)) == made
    world.host.call(lambda: bridge.tear_down(world.host.links, net))
    assert links.find(world.host.links, "eth0.50") is None
    missing = net.replace(link="eth7.50")
    with pytest.raises(System, match="needs the link eth7, which this host does not have"):
        world.host.call(lambda: bridge.ensure(world.host.links, missing))
