"""What `network/` makes on a host, tried with real packets: a host, containers and a second host, each a network namespace."""

from __future__ import annotations

import errno
import sys

import pytest

from sampan.errors import Conflict, System
from sampan.kernel import links
from sampan.network import bridge, firewall, parameters
from sampan.oci.network import (
    OPTION_BRIDGE,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MODE,
    OPTION_MODE6,
    OPTION_MTU,
    Endpoint,
    Pool,
    PublishedPort,
)

from support.patience import eventually
from support.wires import HOST, OUTSIDE, SUBNET6, World, network, web, world

__all__ = ["world"]

pytestmark = pytest.mark.root


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


def test_nothing_of_a_world_without_rights_ends_in_a_traceback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise bridge.KernelError(errno.EPERM, "netlink(RTM_NEWLINK, bridge)", "br0")

    monkeypatch.setattr(links, "add_bridge", refused)
    with pytest.raises(System, match="networks need CAP_NET_ADMIN"):
        bridge.ensure(world.host.links, network())
