"""The loopback of a new network namespace, brought up without all of `netlink`, and without `_socket` (see `linepair`), which a start does not need."""

from __future__ import annotations

import _struct
import os

from sampan.kernel.libc import KernelError, by_machine, raw

_SYS_SOCKET = by_machine(41, 198)
_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC = 16, 3, 0o2000000
_NETLINK_ROUTE = 0
_RTM_NEWLINK = 16
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR = 2
_IFF_UP = 1
_LOOPBACK = 1
"""The loopback's index: the first link of every network namespace."""


def bring_up() -> None:
    """Bring up `lo` in this process' network namespace. Raises `KernelError`."""
    message = _struct.pack(
        "=IHHIIBBHiII", 32, _RTM_NEWLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0, 0, 0, 0, _LOOPBACK, _IFF_UP, _IFF_UP
    )
    fd = raw(_SYS_SOCKET, "socket(AF_NETLINK)", "", _AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        os.write(fd, message)
        reply = os.read(fd, 4096)
    finally:
        os.close(fd)
    (kind,) = _struct.unpack_from("=H", reply, 4)
    (number,) = _struct.unpack_from("=i", reply, 16) if kind == _NLMSG_ERROR else (0,)
    if number:
        raise KernelError(-number, "netlink(RTM_NEWLINK)", "lo")
