"""Links, addresses and routes of a network namespace, by rtnetlink(7).

Every function takes the `netlink.Socket` of the namespace that it is about. What belongs to another one (the other end of a
veth) is named by a descriptor of that.
"""

from __future__ import annotations

import _socket
import errno
import struct

from sampan.kernel import netlink
from sampan.kernel.libc import KernelError
from sampan.kernel.netlink import Socket, nested, text, u8, u16, u32
from sampan.structs import Struct

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26

UP = 1
"""IFF_UP."""
LOOPBACK = 1
"""The loopback's index: the first link of every network namespace."""

# enum of linux/if_link.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
_IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_AF_SPEC, _IFLA_GROUP = 18, 28, 26, 27
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_BR_MCAST_SNOOPING = 23
_BRPORT_MODE, _BRPORT_ISOLATED = 4, 33
_VLAN_ID = 1
_MACVLAN_MODE, _IPVLAN_MODE, _IPVLAN_FLAGS = 1, 1, 2
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1

# linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_F_NODAD = 1, 2, 4, 8, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


class Link(Struct):
    """A network interface. mac: as text, "" for none. kind: "bridge", "veth", ..., "" for a device. master, parent: indexes, 0 for none.

    group: a number that whoever made it chose.
    """

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    kind: str
    master: int
    parent: int
    group: int = 0


class Address(Struct):
    """An address of a link; prefix: bits of its network."""

    index: int
    address: str
    prefix: int


class Route(Struct):
    """A route of the main table. destination: "" for the default one; gateway: "" for one to a link; metric: the lower, the better."""

    destination: str
    prefix: int
    gateway: str
    index: int
    metric: int


def family(address: str) -> int:
    """AF_INET or AF_INET6 by the looks of an address."""
    return int(_socket.AF_INET6 if ":" in address else _socket.AF_INET)


def pack_address(address: str) -> bytes:
    """An IP address as bytes. Raises OSError for what is none."""
    return _socket.inet_pton(family(address), address)


def unpack_address(data: bytes) -> str:
    """An IP address as text."""
    return _socket.inet_ntop(_socket.AF_INET6 if len(data) == 16 else _socket.AF_INET, data)


def pack_mac(mac: str) -> bytes:
    """A MAC address as bytes. Raises ValueError."""
    data = bytes(int(part, 16) for part in mac.split(":"))
    if len(data) != 6:
        raise ValueError(f"{mac!r} is no MAC address")
    return data


# links


def list_links(socket: Socket) -> list[Link]:
    """Every link of the namespace."""
    return [_link(body) for body in socket.dump("netlink(RTM_GETLINK)", GETLINK, _LINK.pack(0, 0, 0, 0, 0))]


def name_of(socket: Socket, index: int) -> str:
    """The name of a link, "" if there is none with this index."""
    try:
        body = _LINK.pack(0, 0, index, 0, 0)
        return _link(socket.request("netlink(RTM_GETLINK)", GETLINK, body, subject=str(index))[0]).name
    except KernelError as e:
        if e.errno == errno.ENODEV:
            return ""
        raise


def find(socket: Socket, name: str) -> Link | None:
    """A link by its name, None if there is none."""
    body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    try:
        return _link(socket.request("netlink(RTM_GETLINK)", GETLINK, body, subject=name)[0])
    except KernelError as e:
        if e.errno == errno.ENODEV:
            return None
        raise


def index_here(name: str) -> int:
    """The index of a link of the network namespace that the calling thread is in, without the machine's network lock (netdevice(7)).

    Raises `KernelError` (ENODEV).
    """
    try:
        return _socket.if_nametoindex(name)
    except OSError as e:
        raise KernelError(e.errno or errno.ENODEV, "ioctl(SIOCGIFINDEX)", name) from None


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = netlink.attributes(body, _LINK.size)
    info = netlink.attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=netlink.to_text(found[_IFLA_IFNAME]),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
        up=bool(flags & UP),
        kind=netlink.to_text(info.get(_INFO_KIND, b"")),
        master=_number(found.get(_IFLA_MASTER)),
        parent=_number(found.get(_IFLA_LINK)),
        group=_number(found.get(_IFLA_GROUP)),
    )


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "little" if _LITTLE else "big")


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def add_bridge(socket: Socket, name: str, mac: str = "", mtu: int = 0) -> None:
    """Make a bridge, down. With a MAC address of its own it does not take that of the port that comes and goes.

    Raises `KernelError` (EEXIST).
    """
    more = [netlink.attribute(_IFLA_ADDRESS, pack_mac(mac))] if mac else []
    more += [u32(_IFLA_MTU, mtu)] if mtu else []
    # Without snooping, multicast (neighbour discovery) reaches every port at once, as on a hub.
    _add(socket, name, "bridge", u8(_BR_MCAST_SNOOPING, 0), more)


def add_veth(
    socket: Socket, name: str, peer: str, peer_namespace: int, mac: str = "", mtu: int = 0, master: int = 0
) -> None:
    """Make a pair of links: `name` here, up and a port of the bridge `master`; `peer` in another namespace, down, with `mac`.

    One request for all of it: each of them costs a lock of the whole machine's network. Raises `KernelError`.
    """
    mtus = [u32(_IFLA_MTU, mtu)] if mtu else []
    there = [text(_IFLA_IFNAME, peer), u32(_IFLA_NET_NS_FD, peer_namespace), *mtus]
    there += [netlink.attribute(_IFLA_ADDRESS, pack_mac(mac))] if mac else []
    other = nested(_VETH_INFO_PEER, _LINK.pack(0, 0, 0, 0, 0) + b"".join(there))
    more = [*mtus, *([u32(_IFLA_MASTER, master)] if master else [])]
    _add(socket, name, "veth", other, more, UP)


def add_macvlan(socket: Socket, name: str, parent: int, mode: str, namespace: int, mac: str = "") -> None:
    """Make a link with a MAC address of its own on the device `parent`, in another namespace. mode: of `MACVLAN_MODES`."""
    more = [u32(_IFLA_LINK, parent), u32(_IFLA_NET_NS_FD, namespace)]
    more += [netlink.attribute(_IFLA_ADDRESS, pack_mac(mac))] if mac else []
    _add(socket, name, "macvlan", u32(_MACVLAN_MODE, MACVLAN_MODES[mode]), more)


def add_ipvlan(socket: Socket, name: str, parent: int, mode: str, flag: str, namespace: int) -> None:
    """Make a link with an IP address of its own on the device `parent`, in another namespace."""
    data = u16(_IPVLAN_MODE, IPVLAN_MODES[mode]) + u16(_IPVLAN_FLAGS, IPVLAN_FLAGS[flag])
    _add(socket, name, "ipvlan", data, [u32(_IFLA_LINK, parent), u32(_IFLA_NET_NS_FD, namespace)])


def add_vlan(socket: Socket, name: str, parent: int, vlan: int, group: int) -> None:
    """Make the link of a VLAN (802.1Q, 1 to 4094) on the device `parent`, in a group by which it is known later."""
    _add(socket, name, "vlan", u16(_VLAN_ID, vlan), [u32(_IFLA_LINK, parent), u32(_IFLA_GROUP, group)])


def add_dummy(socket: Socket, name: str, mac: str = "") -> None:
    """Make a link that leads nowhere: the parent of a macvlan that is to stay on the machine."""
    _add(socket, name, "dummy", b"", [netlink.attribute(_IFLA_ADDRESS, pack_mac(mac))] if mac else [])


def _add(socket: Socket, name: str, kind: str, data: bytes, more: list[bytes], flags: int = 0) -> None:
    info = nested(_IFLA_LINKINFO, text(_INFO_KIND, kind), *([nested(_INFO_DATA, data)] if data else []))
    body = _LINK.pack(0, 0, 0, flags, flags) + text(_IFLA_IFNAME, name) + b"".join(more) + info
    socket.request(f"netlink(RTM_NEWLINK, {kind})", NEWLINK, body, netlink.CREATE | netlink.EXCL, name)


def set_up(socket: Socket, index: int, name: str = "", up: bool = True) -> None:
    """Bring a link up or down. Raises `KernelError`."""
    body = _LINK.pack(0, 0, index, UP if up else 0, UP)
    socket.request("netlink(RTM_NEWLINK)", NEWLINK, body, subject=name or str(index))


def set_link(
    socket: Socket, index: int, name: str = "", mac: str = "", mtu: int = 0, master: int = -1, namespace: int = -1
) -> None:
    """Change what is given of a link: another name, address, MTU, bridge (0: none), namespace. Raises `KernelError`."""
    changes = [text(_IFLA_IFNAME, name)] if name else []
    changes += [netlink.attribute(_IFLA_ADDRESS, pack_mac(mac))] if mac else []
    changes += [u32(_IFLA_MTU, mtu)] if mtu else []
    changes += [u32(_IFLA_MASTER, master)] if master >= 0 else []
    changes += [u32(_IFLA_NET_NS_FD, namespace)] if namespace >= 0 else []
    body = _LINK.pack(0, 0, index, 0, 0) + b"".join(changes)
    socket.request("netlink(RTM_NEWLINK)", NEWLINK, body, subject=name or str(index))


def no_link_local(socket: Socket, index: int) -> None:
    """Let a link have no IPv6 address by itself when it comes up."""
    spec = nested(_IFLA_AF_SPEC, nested(_socket.AF_INET6, u8(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)))
    socket.request("netlink(RTM_NEWLINK)", NEWLINK, _LINK.pack(0, 0, index, 0, 0) + spec, subject=str(index))


def set_port(socket: Socket, index: int, hairpin: bool | None = None, isolated: bool | None = None) -> None:
    """Change a bridge's port. hairpin: a frame may leave by the port that it came by. isolated: none goes to another isolated port."""
    changes = [] if hairpin is None else [u8(_BRPORT_MODE, int(hairpin))]
    changes += [] if isolated is None else [u8(_BRPORT_ISOLATED, int(isolated))]
    body = _LINK.pack(_socket.AF_BRIDGE, 0, index, 0, 0) + nested(_IFLA_PROTINFO, *changes)
    socket.request("netlink(RTM_SETLINK)", SETLINK, body, subject=str(index))


def delete(socket: Socket, index: int, name: str = "") -> None:
    """Remove a link, a veth with its other end; one that is gone is fine. Takes 20 ms of the machine's network lock."""
    try:
        body = _LINK.pack(0, 0, index, 0, 0)
        socket.request("netlink(RTM_DELLINK)", DELLINK, body, subject=name or str(index))
    except KernelError as e:
        if e.errno != errno.ENODEV:
            raise


# addresses


def add_address(socket: Socket, index: int, address: str, prefix: int) -> None:
    """Give a link an address in a network of `prefix` bits. Raises `KernelError` (EEXIST)."""
    packed, kind = pack_address(address), family(address)
    found = [netlink.attribute(_IFA_LOCAL, packed), netlink.attribute(_IFA_ADDRESS, packed)]
    if kind == _socket.AF_INET and prefix < 31:
        every = int.from_bytes(packed, "big") | ((1 << (32 - prefix)) - 1)
        found.append(netlink.attribute(_IFA_BROADCAST, every.to_bytes(4, "big")))
    if kind == _socket.AF_INET6:
        # Whoever gave the address knows that it is nobody else's: it can be used at once.
        found.append(u32(_IFA_FLAGS, _IFA_F_NODAD))
    body = _ADDRESS.pack(kind, prefix, 0, _SCOPE_UNIVERSE, index) + b"".join(found)
    flags = netlink.CREATE | netlink.EXCL
    socket.request("netlink(RTM_NEWADDR)", NEWADDR, body, flags, f"{address}/{prefix}")


def delete_address(socket: Socket, index: int, address: str, prefix: int) -> None:
    """Take an address from a link; one that it has not is fine."""
    packed = pack_address(address)
    body = _ADDRESS.pack(family(address), prefix, 0, 0, index) + netlink.attribute(_IFA_LOCAL, packed)
    try:
        socket.request("netlink(RTM_DELADDR)", DELADDR, body, subject=f"{address}/{prefix}")
    except KernelError as e:
        if e.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
            raise


def list_addresses(socket: Socket) -> list[Address]:
    """Every address of the namespace."""
    found = []
    for body in socket.dump("netlink(RTM_GETADDR)", GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _, prefix, _, _, index = _ADDRESS.unpack_from(body)
        attributes = netlink.attributes(body, _ADDRESS.size)
        data = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if data:
            found.append(Address(index, unpack_address(data), prefix))
    return found


# routes


def add_route(
    socket: Socket, destination: str = "", prefix: int = 0, gateway: str = "", index: int = 0, metric: int = 0
) -> None:
    """Add a route: to a network or, without `destination`, to everywhere; by a gateway, by a link, or both.

    Raises `KernelError` (EEXIST, ENETUNREACH).
    """
    scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
    kind = family(destination or gateway)
    head = _ROUTE.pack(kind, prefix, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    shown = f"{destination or 'default'}/{prefix}"
    body = head + _route(destination, gateway, index, metric)
    socket.request("netlink(RTM_NEWROUTE)", NEWROUTE, body, netlink.CREATE | netlink.EXCL, shown)


def delete_route(
    socket: Socket, destination: str = "", prefix: int = 0, gateway: str = "", index: int = 0, metric: int = 0
) -> None:
    """Take a route away; one that is not there is fine."""
    kind = family(destination or gateway)
    body = _ROUTE.pack(kind, prefix, 0, 0, _RT_TABLE_MAIN, 0, 255, 0, 0) + _route(destination, gateway, index, metric)
    try:
        socket.request("netlink(RTM_DELROUTE)", DELROUTE, body, subject=f"{destination or 'default'}/{prefix}")
    except KernelError as e:
        if e.errno != errno.ESRCH:
            raise


def _route(destination: str, gateway: str, index: int, metric: int) -> bytes:
    parts = [netlink.attribute(_RTA_DST, pack_address(destination))] if destination else []
    parts += [netlink.attribute(_RTA_GATEWAY, pack_address(gateway))] if gateway else []
    parts += [u32(_RTA_OIF, index)] if index else []
    parts += [u32(_RTA_PRIORITY, metric)] if metric else []
    return b"".join(parts)


def list_routes(socket: Socket) -> list[Route]:
    """The unicast routes of the main table."""
    found = []
    for body in socket.dump("netlink(RTM_GETROUTE)", GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
        if kind != _RTN_UNICAST:
            continue  # most are the kernel's, of the host's own addresses
        attributes = netlink.attributes(body, _ROUTE.size)
        if (_number(attributes.get(_RTA_TABLE)) or table) != _RT_TABLE_MAIN:
            continue
        destination, gateway = attributes.get(_RTA_DST), attributes.get(_RTA_GATEWAY)
        found.append(
            Route(
                destination=unpack_address(destination) if destination else "",
                prefix=prefix,
                gateway=unpack_address(gateway) if gateway else "",
                index=_number(attributes.get(_RTA_OIF)),
                metric=_number(attributes.get(_RTA_PRIORITY)),
            )
        )
    return found
