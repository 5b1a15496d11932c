"""rtnetlink, in network namespaces of the test's own; what was made is looked at with ip(8) of iproute2."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.kernel import links, namespaces, netlink
from sampan.kernel.libc import KernelError

pytestmark = pytest.mark.root


class Namespace:
    """A network namespace that is held by a descriptor, with a socket in it."""

    def __init__(self) -> None:
        before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.unshare(namespaces.FLAGS["network"])
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.socket = netlink.Socket()
        finally:
            namespaces.setns(before, namespaces.FLAGS["network"])
            os.close(before)

    def ip(self, *args: str) -> list[dict[str, Any]]:
        command = ["nsenter", f"--net=/proc/self/fd/{self.fd}", "ip", "-d", "-j", *args]
        out = subprocess.run(command, pass_fds=[self.fd], capture_output=True, check=True, text=True).stdout
        found: list[dict[str, Any]] = json.loads(out or "[]")
        return [entry for entry in found if entry]

    def succeeds(self, *command: str) -> bool:
        whole = ["nsenter", f"--net=/proc/self/fd/{self.fd}", *command]
        return subprocess.run(whole, pass_fds=[self.fd], capture_output=True, check=False).returncode == 0

    def close(self) -> None:
        self.socket.close()
        os.close(self.fd)


@pytest.fixture
def here() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


@pytest.fixture
def there() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


def index(namespace: Namespace, name: str) -> int:
    link = links.find(namespace.socket, name)
    assert link is not None, name
    return link.index


def test_a_bridge_keeps_its_address_and_mtu(here: Namespace) -> None:
    links.add_bridge(here.socket, "br0", mac="02:42:00:00:00:01", mtu=1400)
    (shown,) = here.ip("link", "show", "br0")
    assert (shown["address"], shown["mtu"]) == ("02:42:00:00:00:01", 1400)
    assert shown["linkinfo"]["info_kind"] == "bridge"
    assert shown["linkinfo"]["info_data"]["mcast_snooping"] == 0
    found = links.find(here.socket, "br0")
    assert found is not None
    assert (found.kind, found.mac, found.mtu, found.up) == ("bridge", "02:42:00:00:00:01", 1400, False)
    with pytest.raises(KernelError, match=r"netlink\(RTM_NEWLINK, bridge\) 'br0': File exists") as raised:
        links.add_bridge(here.socket, "br0")
    assert raised.value.errno == errno.EEXIST


def test_two_namespaces_talk_over_a_veth_and_a_bridge(here: Namespace, there: Namespace) -> None:
    links.add_bridge(here.socket, "br0")
    bridge = index(here, "br0")
    links.add_address(here.socket, bridge, "10.9.8.1", 24)
    links.set_up(here.socket, bridge)
    links.add_veth(here.socket, "veth0", "peer0", there.fd, mac="02:42:0a:09:08:02", mtu=1400, master=bridge)
    assert {link.name for link in links.list_links(there.socket)} >= {"lo", "peer0"}
    peer = index(there, "peer0")
    links.set_link(there.socket, peer, name="eth0")
    links.add_address(there.socket, peer, "10.9.8.2", 24)
    links.set_up(there.socket, peer)
    links.add_route(there.socket, gateway="10.9.8.1", index=peer)
    (shown,) = there.ip("addr", "show", "eth0")
    assert (shown["address"], shown["mtu"], shown["operstate"]) == ("02:42:0a:09:08:02", 1400, "UP")
    (inet,) = (a for a in shown["addr_info"] if a["family"] == "inet")
    assert (inet["local"], inet["prefixlen"], inet["broadcast"]) == ("10.9.8.2", 24, "10.9.8.255")
    (default,) = (r for r in there.ip("route") if r["dst"] == "default")
    assert (default["gateway"], default["dev"]) == ("10.9.8.1", "eth0")
    (port,) = here.ip("link", "show", "veth0")
    assert (port["master"], port["operstate"]) == ("br0", "UP")
    assert there.succeeds("busybox", "ping", "-c", "1", "-W", "2", "10.9.8.1")


def test_addresses_and_routes_are_listed_and_taken_away(here: Namespace) -> None:
    links.add_bridge(here.socket, "d0")
    d0 = index(here, "d0")
    links.set_up(here.socket, d0)
    for address, prefix in (("10.1.0.1", 16), ("fd00:1::1", 64)):
        links.add_address(here.socket, d0, address, prefix)
    links.add_route(here.socket, "10.2.0.0", 16, gateway="10.1.0.9", metric=7)
    links.add_route(here.socket, "10.3.0.0", 24, index=d0)
    links.add_route(here.socket, gateway="fd00:1::9", metric=5)
    listed = {(a.address, a.prefix) for a in links.list_addresses(here.socket) if a.index == d0}
    assert listed >= {("10.1.0.1", 16), ("fd00:1::1", 64)}
    routes = {(r.destination, r.prefix, r.gateway, r.metric) for r in links.list_routes(here.socket) if r.index == d0}
    assert {("10.1.0.0", 16, "", 0), ("10.2.0.0", 16, "10.1.0.9", 7), ("10.3.0.0", 24, "", 0)} <= routes
    assert ("", 0, "fd00:1::9", 5) in routes
    for _ in range(2):  # what is gone is fine
        links.delete_route(here.socket, "10.2.0.0", 16, gateway="10.1.0.9", metric=7)
        links.delete_address(here.socket, d0, "10.1.0.1", 16)
        links.delete_address(here.socket, d0, "fd00:1::1", 64)
    assert not any(r.metric == 7 for r in links.list_routes(here.socket))
    assert [a for a in links.list_addresses(here.socket) if a.address in ("10.1.0.1", "fd00:1::1")] == []
    with pytest.raises(KernelError, match=r"RTM_NEWROUTE.*'default/0'"):
        links.add_route(here.socket, gateway="192.0.2.1")


def test_ports_of_a_bridge_that_do_not_see_each_other(here: Namespace) -> None:
    links.add_bridge(here.socket, "br0")
    links.set_up(here.socket, index(here, "br0"))
    ends = [Namespace(), Namespace()]
    try:
        for number, end in enumerate(ends):
            links.add_veth(here.socket, f"v{number}", "eth0", end.fd, master=index(here, "br0"))
            eth0 = index(end, "eth0")
            links.add_address(end.socket, eth0, f"10.5.0.{number + 1}", 24)
            links.set_up(end.socket, eth0)
        assert ends[0].succeeds("busybox", "ping", "-c", "1", "-W", "2", "10.5.0.2")
        for number in range(2):
            links.set_port(here.socket, index(here, f"v{number}"), isolated=True, hairpin=True)
        (shown,) = here.ip("link", "show", "v0")
        assert shown["linkinfo"]["info_slave_data"]["isolated"] is True
        assert shown["linkinfo"]["info_slave_data"]["hairpin"] is True
        assert not ends[0].succeeds("busybox", "ping", "-c", "1", "-W", "1", "10.5.0.2")
    finally:
        for end in ends:
            end.close()


def test_a_link_without_an_ipv6_address_of_its_own(here: Namespace, there: Namespace) -> None:
    links.add_veth(here.socket, "v0", "eth0", there.fd)
    eth0 = index(there, "eth0")
    links.no_link_local(there.socket, eth0)
    links.set_up(there.socket, eth0)
    (shown,) = there.ip("addr", "show", "eth0")
    assert shown["addr_info"] == []


def test_macvlan_on_a_device(here: Namespace, there: Namespace) -> None:
    links.add_bridge(here.socket, "parent")
    links.add_macvlan(here.socket, "mv0", index(here, "parent"), "bridge", there.fd, mac="02:42:00:00:00:07")
    found = links.find(there.socket, "mv0")
    assert found is not None
    assert (found.kind, found.mac) == ("macvlan", "02:42:00:00:00:07")
    (shown,) = there.ip("link", "show", "mv0")
    assert shown["linkinfo"]["info_data"]["mode"] == "bridge"


def test_ipvlan_works_or_the_kernel_says_that_it_has_none(here: Namespace, there: Namespace) -> None:
    links.add_bridge(here.socket, "parent")

    def add() -> None:
        links.add_ipvlan(here.socket, "iv0", index(here, "parent"), "l2", "bridge", there.fd)

    if here.succeeds("ip", "link", "add", "by-ip", "link", "parent", "type", "ipvlan"):
        add()
        (shown,) = there.ip("link", "show", "iv0")
        assert shown["linkinfo"]["info_data"]["mode"] == "l2"
    else:
        with pytest.raises(KernelError, match=r"ipvlan.*'iv0': Operation not supported"):
            add()


def test_what_is_gone_can_be_deleted_and_is_not_found(here: Namespace) -> None:
    links.add_bridge(here.socket, "d0")
    d0 = index(here, "d0")
    assert links.name_of(here.socket, d0) == "d0"
    links.delete(here.socket, d0, "d0")
    links.delete(here.socket, d0, "d0")
    assert links.find(here.socket, "d0") is None
    assert links.name_of(here.socket, d0) == ""


def test_a_veth_ends_with_the_namespace_of_its_peer(here: Namespace) -> None:
    other = Namespace()
    links.add_veth(here.socket, "v0", "eth0", other.fd)
    other.close()
    for _ in range(200):
        if links.find(here.socket, "v0") is None:
            return
        os.sched_yield()
        subprocess.run(["sleep", "0.02"], check=True)
    raise AssertionError("the link is still there")


def test_the_kernel_s_own_words_are_in_the_error(here: Namespace) -> None:
    links.add_bridge(here.socket, "d0")
    with pytest.raises(KernelError) as raised:
        links.set_link(here.socket, index(here, "d0"), mtu=3)
    assert raised.value.errno == errno.EINVAL
    assert "mtu" in str(raised.value).lower()


def test_five_hundred_links_are_listed(here: Namespace) -> None:
    for number in range(500):
        links.add_bridge(here.socket, f"d{number}")
    assert sum(link.name.startswith("d") for link in links.list_links(here.socket)) == 500


def test_an_attribute_that_is_too_long_is_refused() -> None:
    assert len(netlink.attribute(1, bytes(0xFFFB))) == 0x10000
    with pytest.raises(ValueError, match="too long"):
        netlink.attribute(1, bytes(0xFFFC))


def test_attributes_are_read_back() -> None:
    data = netlink.text(1, "abc") + netlink.u32(2, 7) + netlink.nested(3, netlink.u8(1, 5))
    found = netlink.attributes(data)
    assert (netlink.to_text(found[1]), found[2], netlink.attributes(found[3])) == ("abc", b"\7\0\0\0", {1: b"\5"})
    assert netlink.attributes(b"\1\0\0\0" + data) == {}, "a length that is less than a header ends the list"
