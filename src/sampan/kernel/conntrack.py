"""Connections that the kernel tracks (nfnetlink_conntrack): what it remembers of datagrams outlives the rules that translated them.

Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import _socket
import struct

from sampan.kernel import netlink
from sampan.kernel.libc import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

_SUBSYSTEM = 1  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = 1, 2
_TUPLE_ORIGINAL, _ZONE, _ID = 1, 18, 12
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_NUMBER, _DESTINATION_PORT = 1, 3
_DESTINATION = {_socket.AF_INET: 2, _socket.AF_INET6: 4}
_ROOM = 4 << 20
"""Bytes that may wait: a busy host has many connections."""

UDP = 17


def forget_datagrams(addresses: Container[str], ports: Container[int]) -> int:
    """Forget the connections of UDP that were asked for at one of these addresses and ports; how many.

    In the network namespace of the calling thread. 0 where the kernel does not tell of connections. Raises KernelError.
    """
    try:
        socket = netlink.Socket(netlink.NETFILTER)
    except OSError:
        return 0
    with socket:
        socket.make_room(_ROOM)
        return sum(_forget(socket, family, addresses, ports) for family in _DESTINATION)


def _forget(socket: netlink.Socket, family: int, addresses: Container[str], ports: Container[int]) -> int:
    head = struct.pack(">BBH", family, 0, 0)
    try:
        found = socket.dump("netlink(IPCTNL_MSG_CT_GET)", _SUBSYSTEM << 8 | _GET, head)
    except KernelError:
        return 0
    count = 0
    for body in found:
        entry = netlink.attributes(body, 4)
        if not _is_wanted(entry, family, addresses, ports):
            continue
        named = [(kind, entry[kind]) for kind in (_TUPLE_ORIGINAL, _ZONE, _ID) if kind in entry]
        nested = {_TUPLE_ORIGINAL: netlink.NESTED}
        what = b"".join(netlink.attribute(kind | nested.get(kind, 0), data) for kind, data in named)
        try:
            socket.request("netlink(IPCTNL_MSG_CT_DELETE)", _SUBSYSTEM << 8 | _DELETE, head + what)
            count += 1
        except KernelError:
            pass  # it ended by itself
    return count


def _is_wanted(entry: dict[int, bytes], family: int, addresses: Container[str], ports: Container[int]) -> bool:
    asked = netlink.attributes(entry.get(_TUPLE_ORIGINAL, b""))
    protocol = netlink.attributes(asked.get(_TUPLE_PROTOCOL, b""))
    destination = netlink.attributes(asked.get(_TUPLE_IP, b"")).get(_DESTINATION[family], b"")
    return (
        protocol.get(_NUMBER) == bytes([UDP])
        and int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big") in ports
        and len(destination) in (4, 16)
        and _socket.inet_ntop(family, destination) in addresses
    )
