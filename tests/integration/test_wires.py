"""What `network/` makes on a host, tried with real packets: a host, containers and a second host, each a network namespace."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sampan.errors import Conflict, System
from sampan.kernel import links
from sampan.network import bridge, firewall, parameters, ports
from sampan.oci.network import (
    BRIDGE,
    OPTION_BRIDGE,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MODE,
    OPTION_MODE6,
    OPTION_MTU,
    Endpoint,
    Network,
    Pool,
    PublishedPort,
)

from support.netns import Host, connect
from support.patience import eventually

pytestmark = pytest.mark.root

SUBNET, SUBNET6 = "10.77.0", "fd77::"
OUTSIDE = "203.0.113.9"
HOST = "203.0.113.1"


def network(number: int = 0, **fields: object) -> Network:
    pools = (Pool(f"10.{77 + number}.0.0/24", f"10.{77 + number}.0.1"),)
    values = {"id": f"{number:02x}" * 32, "name": f"net{number}", "driver": BRIDGE, "created": "", "pools": pools}
    return Network(**{**values, "link": f"br{number}", **fields})  # type: ignore[arg-type]


class World:
    """A host with a way to a second host outside, and containers on networks of it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.host, self.outside = self._new(), self._new()
        connect(self.host, self.outside, ("eth0", "eth0"), (HOST, OUTSIDE))
        self.host.run("ip", "route", "add", "default", "via", OUTSIDE)
        self.host.call(lambda: parameters.write("ipv4/ip_forward", "1"))
        self.endpoints: dict[str, list[Endpoint]] = {}

    def _new(self) -> Host:
        made = Host()
        self._stack.callback(made.close)
        return made

    def container(self, net: Network, last: int, *published: PublishedPort, gateway: bool = True) -> Host:
        made = self._new()
        number = int(net.id[:2], 16)
        endpoint = Endpoint(
            container=f"{number:02x}{last:02x}" * 16,
            start=1,
            id=os.urandom(32).hex(),
            interface="eth0",
            link="",
            mac=f"02:42:0a:4d:{number:02x}:{last:02x}",
            address=f"10.{77 + number}.0.{last}",
            prefix=24,
            gateway="" if net.internal else f"10.{77 + number}.0.1",
            address6=f"{SUBNET6}{last:x}" if net.ipv6 else "",
            prefix6=64,
            gateway6=f"{SUBNET6}1" if net.ipv6 else "",
            ports=published,
        )
        endpoint = endpoint.replace(link=bridge.link_name(endpoint.id))
        self.endpoints.setdefault(net.id, []).append(endpoint)
        master = self.host.call(lambda: bridge.ensure(self.host.links, net))
        with made.entered():
            bridge.attach(self.host.links, made.links, made.fd, net, endpoint, master)
            if gateway:
                bridge.route(made.links, net, endpoint)
        self.apply(net)
        return made

    def apply(self, net: Network) -> None:
        self.host.call(lambda: firewall.restore(net, lambda: self.endpoints.get(net.id, [])))


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def web(port: int = 8080, address: str = "0.0.0.0", protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(80, protocol, address, port)


def test_a_published_port_is_reached_from_everywhere_and_nothing_else_is(world: World) -> None:
    net = network()
    server, client = world.container(net, 2, web()), world.container(net, 3)
    server.serve(80, "web")
    assert world.host.ask("127.0.0.1", 8080) == "web"
    assert world.host.ask("127.9.9.9", 8080) == "web"
    assert world.host.ask(HOST, 8080) == "web"
    assert world.host.ask("10.77.0.1", 8080) == "web"
    assert world.host.ask("10.77.0.2", 80) == "web"
    assert world.outside.ask(HOST, 8080) == "web"
    assert client.ask("10.77.0.2", 80) == "web"
    assert client.ask(HOST, 8080) == "web", "a neighbour, by the host's address"
    assert client.ask("10.77.0.1", 8080) == "web", "a neighbour, by the gateway"
    assert server.ask(HOST, 8080) == "web", "itself, by the host's address"
    # Outside there is a way to the subnet, and still no way in but the published one.
    world.outside.run("ip", "route", "add", "10.77.0.0/24", "via", HOST)
    assert world.outside.ask("10.77.0.2", 80) == ""
    assert world.outside.ask("10.77.0.2", 8080) == ""


def test_a_container_reaches_the_outside_with_the_hosts_address(world: World) -> None:
    client = world.container(network(), 2)
    world.outside.start("socat", "TCP4-LISTEN:99,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR")
    world.outside.await_listener(99)
    assert client.ask(OUTSIDE, 99) == HOST


def test_without_masquerading_the_container_keeps_its_address(world: World) -> None:
    client = world.container(network(options={OPTION_MASQUERADE: "false"}), 2)
    world.outside.run("ip", "route", "add", "10.77.0.0/24", "via", HOST)
    world.outside.start("socat", "TCP4-LISTEN:99,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR")
    world.outside.await_listener(99)
    assert client.ask(OUTSIDE, 99) == "10.77.0.2"


def test_what_is_published_for_the_host_only_is_not_for_its_neighbours(world: World) -> None:
    """Also not for one that puts a packet for 127.0.0.1 on the wire, to a host that would take it."""
    net = network()
    server = world.container(net, 2, web(address="127.0.0.1"))
    server.serve(80, "web")
    world.host.serve(8080, "the socket that is held", "127.0.0.1")
    assert world.host.ask("127.0.0.1", 8080) == "web"
    assert world.outside.ask(HOST, 8080) == ""
    mac = world.host.run("ip", "-br", "link", "show", "eth0").stdout.split()[2]
    world.host.call(lambda: parameters.write("ipv4/conf/eth0/route_localnet", "1"))
    world.outside.call(lambda: parameters.write("ipv4/conf/all/route_localnet", "1"))
    world.outside.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    world.outside.run("ip", "route", "add", "127.0.0.1/32", "dev", "eth0", "src", OUTSIDE)
    world.outside.run("ip", "neigh", "replace", "127.0.0.1", "lladdr", mac, "dev", "eth0", "nud", "permanent")
    assert world.outside.ask("127.0.0.1", 8080) == ""
    world.host.run("nft", "delete", "table", "inet", bridge.table_name(net.id))
    assert world.outside.ask("127.0.0.1", 8080) == "the socket that is held", "so it was the table that stopped it"


def test_a_container_does_not_reach_the_hosts_loopback_by_its_bridge(world: World) -> None:
    net = network()
    container = world.container(net, 2, web())
    world.host.serve(99, "private", "127.0.0.1")
    mac = world.host.run("ip", "-br", "link", "show", "br0").stdout.split()[2]
    container.call(lambda: parameters.write("ipv4/conf/all/route_localnet", "1"))
    container.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    container.run("ip", "route", "add", "127.0.0.1/32", "dev", "eth0", "src", "10.77.0.2")
    container.run("ip", "neigh", "replace", "127.0.0.1", "lladdr", mac, "dev", "eth0", "nud", "permanent")
    assert container.ask("127.0.0.1", 99) == ""
    world.host.run("nft", "delete", "table", "inet", bridge.table_name(net.id))
    assert container.ask("127.0.0.1", 99) == "private", "so it was the table that stopped it"


def test_networks_do_not_reach_each_other_but_by_what_is_published(world: World) -> None:
    one, two = network(0), network(1)
    server, stranger = world.container(one, 2, web()), world.container(two, 2)
    server.serve(80, "web")
    server.serve(81, "private")
    assert stranger.ask("10.77.0.2", 80) == ""
    assert stranger.ask("10.77.0.2", 81) == ""
    assert stranger.ask(HOST, 8080) == "web"
    assert stranger.run("ping", "-c1", "-W1", "10.77.0.2", check=False).returncode


def test_an_internal_network_reaches_itself_and_nothing_else(world: World) -> None:
    net = network(internal=True)
    one, two = world.container(net, 2, web()), world.container(net, 3)
    one.serve(80, "web")
    world.outside.serve(99, "outside")
    assert two.ask("10.77.0.2", 80) == "web"
    two.run("ip", "route", "add", "default", "via", "10.77.0.1")
    assert two.ask(OUTSIDE, 99) == ""
    assert world.outside.ask(HOST, 8080) == "", "nothing is published of it"


@pytest.mark.parametrize("filtered", [True, False], ids=["br-netfilter", "no-br-netfilter"])
def test_without_icc_neighbours_meet_by_published_ports_only(world: World, filtered: bool) -> None:
    net = network(options={OPTION_ICC: "false"})
    world.host.run("sh", "-c", f"echo {int(filtered)} > /proc/sys/net/bridge/bridge-nf-call-iptables || true")
    server, client = world.container(net, 2, web()), world.container(net, 3)
    server.serve(80, "web")
    world.host.serve(8080, "proxy")
    assert client.ask("10.77.0.2", 80) == ""
    assert client.ask(HOST, 8080) == "proxy"
    assert world.host.ask("10.77.0.2", 80) == "web"
    assert world.outside.ask(HOST, 8080) == "web"


@pytest.mark.parametrize("filtered", [True, False], ids=["br-netfilter", "no-br-netfilter"])
def test_hairpin(world: World, filtered: bool) -> None:
    world.host.run("sh", "-c", f"echo {int(filtered)} > /proc/sys/net/bridge/bridge-nf-call-iptables || true")
    net = network()
    server, client = world.container(net, 2, web()), world.container(net, 3)
    server.serve(80, "web")
    assert (server.ask(HOST, 8080), client.ask(HOST, 8080)) == ("web", "web")


@pytest.mark.parametrize("mode", ["routed", "nat-unprotected"])
def test_gateway_modes_that_let_the_containers_own_addresses_be_reached(world: World, mode: str) -> None:
    """Without a socket of the host's `routed` publishes what is reached at the container: the rest of it is closed, but it can be pinged."""
    net = network(options={OPTION_MODE: mode})
    routed = mode == "routed"
    ports = (PublishedPort(80, "tcp", "0.0.0.0", 0),) if routed else (web(),)
    server, other = world.container(net, 2, *ports), world.container(network(1), 2)
    for port in (80, 81):
        server.serve(port, f"web{port}")
    world.outside.run("ip", "route", "add", "10.77.0.0/24", "via", HOST)
    world.outside.start("socat", "TCP4-LISTEN:99,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR")
    world.outside.await_listener(99)
    assert world.outside.ask("10.77.0.2", 80) == "web80"
    assert world.outside.ask("10.77.0.2", 81) == ("" if routed else "web81")
    assert world.outside.ask(HOST, 8080) == ("" if routed else "web80")
    assert server.ask(OUTSIDE, 99) == ("10.77.0.2" if routed else HOST), "as whom it asks"
    assert world.outside.run("busybox", "ping", "-c", "1", "-W", "1", "10.77.0.2", check=False).returncode == 0
    assert other.ask("10.77.0.2", 81) == "", "networks do not reach each other"
    if routed:  # the next one's rules are added to these, and taken away alone
        third = world.container(net, 3)
        third.serve(80, "third")
        endpoint = world.endpoints[net.id][1].replace(ports=ports)
        assert world.outside.ask("10.77.0.3", 80) == ""
        world.host.call(lambda: firewall.enter(net, endpoint, list))
        assert world.outside.ask("10.77.0.3", 80) == "third"
        world.host.call(lambda: firewall.leave(net, endpoint, list))
        assert world.outside.ask("10.77.0.3", 80) == ""
        assert world.outside.ask("10.77.0.2", 80) == "web80"


@pytest.mark.long
def test_each_family_has_its_gateway_mode(world: World) -> None:
    pools = (Pool("10.77.0.0/24", "10.77.0.1"), Pool("fd77::/64", "fd77::1"))
    net = network(ipv6=True, pools=pools, options={OPTION_MODE6: "routed"})
    server = world.container(net, 2, web(), PublishedPort(80, "tcp", "::", 0))
    server.serve(80, "four")
    server.start("socat", "TCP6-LISTEN:80,fork,reuseaddr,ipv6only", "SYSTEM:echo six")
    server.await_listener(80, "-6Htln")
    for side, name, address in ((world.host, "eth0", "fd99::1"), (world.outside, "eth0", "fd99::9")):
        side.run("ip", "addr", "add", f"{address}/64", "dev", name, "nodad")
    world.host.call(lambda: parameters.write("ipv6/conf/all/forwarding", "1"))
    for subnet, via in (("10.77.0.0/24", HOST), ("fd77::/64", "fd99::1")):
        world.outside.run("ip", "route", "add", subnet, "via", via)
    assert world.outside.ask("fd77::2", 80) == "six"
    assert world.outside.ask("fd99::1", 8080) == ""
    assert world.outside.ask("10.77.0.2", 80) == ""
    assert world.outside.ask(HOST, 8080) == "four"


def test_an_isolated_network_has_no_way_to_its_own_host(world: World) -> None:
    pools = (Pool("10.77.0.0/24"),)
    net = network(internal=True, pools=pools, options={OPTION_MODE: "isolated"})
    server, client = world.container(net, 1, gateway=False), world.container(net, 2, gateway=False)
    server.serve(80, "web")
    world.host.serve(99, "host")
    assert client.ask("10.77.0.1", 80) == "web", "the first address is a container's"
    assert client.ask(HOST, 99) == ""
    assert world.host.ask("10.77.0.1", 80) == ""
    assert world.host.run("ip", "-br", "-4", "addr", "show", "br0").stdout == ""


def test_udp_is_published(world: World) -> None:
    net = network()
    server = world.container(net, 2, web(protocol="udp"))
    server.answer_datagrams(80, "udp")
    for who, where in ((world.outside, HOST), (world.host, "127.0.0.1"), (world.host, HOST)):
        done = who.run("sh", "-c", f"echo x | socat -t1 - UDP4:{where}:8080")
        assert done.stdout == "udp\n", where


def test_who_sends_datagrams_from_one_port_reaches_whoever_has_the_port_now(world: World) -> None:
    """The kernel remembers where it led the first one, and its memory outlives the rules."""
    net, port = network(), web(protocol="udp")
    ask = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.bind(('', 7777))\n"
    ask += f"try: s.sendto(b'x', ('{HOST}', 8080)); print(s.recv(99).decode().strip())\nexcept OSError: print('nobody')"

    def answer() -> str:
        return world.outside.run(sys.executable, "-ISc", ask).stdout.strip()

    def forget() -> None:
        world.host.call(lambda: firewall.forget_datagrams([Endpoint("c", 1, "e", "eth0", "v", "m", ports=(port,))]))

    assert answer() == "nobody"
    for last in (2, 3):
        world.endpoints.clear()
        server = world.container(net, last, port)
        server.answer_datagrams(80, f"server {last}")
        forget()
        eventually(lambda last=last: answer() == f"server {last}", what="the one that has the port answers")  # type: ignore[misc]


def test_ipv6(world: World) -> None:
    net = network(ipv6=True, pools=(Pool("10.77.0.0/24", "10.77.0.1"), Pool(f"{SUBNET6}/64", f"{SUBNET6}1")))
    for side, address in ((world.host, "2001:db8::1"), (world.outside, "2001:db8::9")):
        side.run("ip", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
    world.host.call(lambda: parameters.allow_forwarding(net))
    server, client = world.container(net, 2, web(address="::"), web()), world.container(net, 3)
    server.start("socat", "TCP6-LISTEN:80,fork,reuseaddr", "SYSTEM:echo six")
    server.await_listener(80)
    # The second host's own addresses on the wire are looked for by everybody else for a second.
    eventually(lambda: "tentative" not in world.outside.run("ip", "-6", "addr").stdout)
    world.outside.start("socat", "TCP6-LISTEN:99,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR")
    world.outside.await_listener(99)
    assert client.ask(f"{SUBNET6}2", 80) == "six"
    assert world.outside.ask("2001:db8::1", 8080) == "six"
    assert world.host.ask("2001:db8::1", 8080) == "six"
    assert client.ask("2001:db8::1", 8080) == "six"
    assert client.ask("2001:db8::9", 99) == "[2001:0db8:0000:0000:0000:0000:0000:0001]"
    world.outside.run("ip", "route", "add", f"{SUBNET6}/64", "via", "2001:db8::1")
    assert world.outside.ask(f"{SUBNET6}2", 80) == ""


def test_there_is_no_ipv6_where_none_was_asked_for(world: World) -> None:
    """And a container that plays the router tells neither the host nor its neighbours anything (CVE-2020-13401, CVE-2024-32473)."""
    client = world.container(network(), 2)
    assert client.run("ip", "-6", "addr", "show", "dev", "eth0").stdout == ""
    assert world.host.run("ip", "-6", "addr", "show", "dev", "br0").stdout == ""
    assert world.host.call(lambda: parameters.read("ipv6/conf/br0/accept_ra")) == "0"
    assert client.call(lambda: parameters.read("ipv6/conf/eth0/accept_ra")) == "0"
    assert "::1" in client.run("ip", "-6", "addr", "show", "dev", "lo").stdout


def test_flushed_rules_come_back_as_they_were(world: World) -> None:
    net = network()
    world.container(net, 2, web()).serve(80, "web")
    before = world.host.ruleset()
    world.host.run("nft", "flush", "ruleset")
    assert world.outside.ask(HOST, 8080) == ""
    world.apply(net)
    assert (world.host.ruleset(), world.outside.ask(HOST, 8080)) == (before, "web")


@pytest.mark.parametrize("user_chain", [True, False], ids=["docker-user", "policy-only"])
def test_where_another_engine_forwards_nothing_two_rules_open_the_way_and_go_with_the_network(
    world: World, user_chain: bool
) -> None:
    world.host.run("iptables", "-P", "FORWARD", "DROP")
    if user_chain:
        world.host.run(
            "sh", "-c", "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER"
        )
    place = "DOCKER-USER" if user_chain else "FORWARD"
    before = world.host.run("iptables-save").stdout
    net = network()
    world.container(net, 2, web()).serve(80, "web")
    assert world.outside.ask(HOST, 8080) == "web"
    # iptables(8) still understands its own tables, and shows whose the rules are.
    shown = world.host.run("iptables", "-S", place).stdout
    assert f"-A {place} -o br0 -j ACCEPT" in shown or "--comment" in shown, shown
    for _ in range(2):
        world.apply(net)
    assert world.host.run("iptables", "-S", place).stdout == shown, "once, however often it is put right"
    world.host.call(lambda: firewall.remove(world.host.firewall, net))
    rules = [line for line in before.splitlines() if line.startswith("-A")]
    left = [line for line in world.host.run("iptables-save").stdout.splitlines() if line.startswith("-A")]
    assert left == rules
    assert "sampan" not in world.host.ruleset()


def test_other_engines_bridges_are_reached_by_what_they_publish_only(world: World) -> None:
    """The rules in DOCKER-USER come before Docker's own, and must not open what Docker keeps closed."""
    world.host.run("iptables", "-P", "FORWARD", "DROP")
    world.host.run("iptables", "-N", "DOCKER-USER")
    world.host.run("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")
    theirs = world._new()
    world.host.run("ip", "link", "add", "docker9", "type", "bridge")
    world.host.run("sh", "-c", "ip addr add 10.99.0.1/24 dev docker9; ip link set docker9 up")
    links.add_veth(world.host.links, "vethx", "eth0", theirs.fd, master=world.host.index("docker9"))
    theirs.run("sh", "-c", "ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.99.0.1")
    theirs.serve(80, "theirs")
    world.host.run(
        "iptables",
        "-A",
        "FORWARD",
        "-o",
        "docker9",
        "-m",
        "conntrack",
        "--ctstate",
        "RELATED,ESTABLISHED",
        "-j",
        "ACCEPT",
    )
    client = world.container(network(), 2, web())
    client.serve(80, "ours")
    assert client.ask("10.99.0.2", 80) == ""
    assert theirs.ask("10.77.0.2", 80) == ""
    assert theirs.ask(HOST, 8080) == "ours"
    world.host.run(
        "iptables",
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "8099",
        "-j",
        "DNAT",
        "--to",
        "10.99.0.2:80",
    )
    world.host.run("iptables", "-A", "FORWARD", "-o", "docker9", "-p", "tcp", "--dport", "80", "-j", "ACCEPT")
    assert client.ask(HOST, 8099) == "theirs"


def test_a_bridge_that_is_half_made_is_completed_and_one_of_somebody_else_refused(world: World) -> None:
    net = network(options={OPTION_MTU: "1400"})
    links.add_bridge(world.host.links, "br0", bridge.bridge_mac(net.id), 1400)
    world.container(net, 2)
    assert "10.77.0.1/24" in world.host.run("ip", "addr", "show", "br0").stdout
    assert "mtu 1400" in world.host.run("ip", "link", "show", "br0").stdout
    other = network(1, link="br0")
    with pytest.raises(Conflict, match="net1 needs the name br0"):
        world.container(other, 2)
    world.host.call(lambda: bridge.tear_down(world.host.links, other))
    assert links.find(world.host.links, "br0") is not None
    world.host.call(lambda: bridge.tear_down(world.host.links, net))
    assert links.find(world.host.links, "br0") is None
    world.host.call(lambda: bridge.tear_down(world.host.links, net))


def test_a_bridge_that_was_there_is_used_if_it_was_named_and_stays(world: World) -> None:
    world.host.run("ip", "link", "add", "own0", "type", "bridge")
    net = network(link="own0", options={OPTION_BRIDGE: "own0"})
    world.container(net, 2).serve(80, "web")
    assert world.host.ask("10.77.0.2", 80) == "web"
    world.host.call(lambda: bridge.tear_down(world.host.links, net))
    assert links.find(world.host.links, "own0") is not None


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


def test_the_bridge_has_no_address_and_packets_leave_with_the_one_that_was_chosen(world: World) -> None:
    world.host.run("ip", "addr", "add", "203.0.113.77/24", "dev", "eth0")
    net = network(0).replace(
        options={"com.docker.network.bridge.inhibit_ipv4": "true", "com.docker.network.host_ipv4": "203.0.113.77"}
    )
    container = world.container(net, 2)
    assert "inet 10." not in world.host.run("ip", "addr", "show", "dev", net.link).stdout
    world.host.run("ip", "addr", "add", "10.77.0.1/24", "dev", net.link)  # as somebody does who inhibits ours
    world.outside.start("socat", "TCP4-LISTEN:99,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR")
    world.outside.await_listener(99)
    assert container.ask(OUTSIDE, 99) == "203.0.113.77"


def test_disconnecting_and_other_default_routes(world: World) -> None:
    one, two = network(0), network(1)
    container = world.container(one, 2)
    second = Endpoint(
        container="c" * 64, start=1, id="d" * 64, interface="eth1", link="vethsecond", mac="02:42:0a:4e:00:07",
        address="10.78.0.7", prefix=24, gateway="10.78.0.1",
    )  # fmt: skip
    master = world.host.call(lambda: bridge.ensure(world.host.links, two))
    with container.entered():
        bridge.attach(world.host.links, container.links, container.fd, two, second, master)
        bridge.unroute(container.links)
        bridge.route(container.links, two, second)
    assert "via 10.78.0.1 dev eth1" in container.run("ip", "route", "show", "default").stdout
    for _ in range(2):
        bridge.detach(world.host.links, container.links, second)
    assert "eth1" not in container.run("ip", "link").stdout
    assert links.find(world.host.links, "vethsecond") is None


# ports


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


def test_nothing_of_a_world_without_rights_ends_in_a_traceback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise bridge.KernelError(errno.EPERM, "netlink(RTM_NEWLINK, bridge)", "br0")

    monkeypatch.setattr(links, "add_bridge", refused)
    with pytest.raises(System, match="networks need CAP_NET_ADMIN"):
        bridge.ensure(world.host.links, network())
