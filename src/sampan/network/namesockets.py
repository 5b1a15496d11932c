"""The sockets on which names are asked for in a container: 127.0.0.11, port 53, in its network namespace.

They do not take port 53: a container may have a server of its own for names on all addresses. They have any port, and a
table of nf_tables in the container's namespace leads what is sent to 127.0.0.11:53 there. Where the kernel has no
nf_tables, they have port 53.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import System
from sampan.kernel import namespaces, nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Callable
    from typing import Any
else:
    import _socket

ADDRESS, PORT = "127.0.0.11", 53
TABLE = "sampan-names"
_IP_FREEBIND = 15
_WAITING = 128
"""TCP connections that wait to be accepted."""
_BUFFER = 1 << 20
"""Bytes of questions that wait: what comes while a keeper's interpreter starts."""
_NO_NFTABLES = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT, errno.EAFNOSUPPORT, errno.EPERM)


class NameSockets:
    """A container's sockets for names, and its network namespace."""

    def __init__(self, namespace: int, udp: Any, tcp: Any) -> None:
        """`namespace` is ours from here on."""
        self.namespace = namespace
        self.udp = udp
        self.tcp = tcp

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1


def open_sockets(namespace: int, within: Callable[[int, Callable[[], Any]], Any] | None = None) -> NameSockets:
    """Make the sockets in the network namespace that the descriptor `namespace` is, which stays the caller's.

    Whatever led to others there is replaced. `within` runs a function in it; without one, a thread does. The loopback link may still
    be down. Raises System.
    """
    own = os.dup(namespace)
    try:
        udp, tcp = (within or _in_thread)(own, _open)
    except OSError as e:
        os.close(own)
        words = f"{getattr(e, 'syscall', '')} {(e.strerror or str(e)).lower()}".strip()
        raise System(f"cannot listen on {ADDRESS}:{PORT} in the container's network namespace: {words}") from None
    except BaseException:
        os.close(own)
        raise
    return NameSockets(own, udp, tcp)


def _in_thread(namespace: int, function: Callable[[], Any]) -> Any:
    def body() -> Any:
        namespaces.setns(namespace, namespaces.CLONE_NEWNET)
        return function()

    return namespaces.in_thread(body)


def _open() -> tuple[Any, Any]:
    opened: list[Any] = []
    try:
        udp = _bound(_socket.SOCK_DGRAM, 0, opened)
        tcp = _bound(_socket.SOCK_STREAM, 0, opened)
        try:
            lead(udp.getsockname()[1], tcp.getsockname()[1])
        except OSError as e:
            if e.errno not in _NO_NFTABLES:
                raise
            for taken in opened:
                taken.close()
            udp, tcp = _bound(_socket.SOCK_DGRAM, PORT, opened), _bound(_socket.SOCK_STREAM, PORT, opened)
        udp.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _BUFFER)
        tcp.listen(_WAITING)
    except BaseException:
        for left in opened:
            left.close()
        raise
    return udp, tcp


def _bound(kind: int, port: int, opened: list[Any]) -> Any:
    made = _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    opened.append(made)
    made.setsockopt(_socket.SOL_IP, _IP_FREEBIND, 1)  # the loopback link may be down
    if port and kind == _socket.SOCK_STREAM:
        made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)  # connections of a killed keeper's linger
    made.bind((ADDRESS, port))
    return made


def lead(udp: int, tcp: int) -> None:
    """Have what goes out to the address' port 53 go to these ports, in this thread's network namespace: one table, which replaces
    the one that is there. Raises OSError.
    """
    address = bytes(int(part) for part in ADDRESS.split("."))
    with nft.connect() as socket:
        batch = nft.Batch()
        # Only where there is one: what was deleted makes closing the socket wait for the kernel's grace period, 10 ms.
        if nft.has_table(socket, TABLE):
            batch.delete_table(TABLE)
        batch.add_table(TABLE)
        batch.add_base_chain(TABLE, "output", "nat", nft.OUTPUT, nft.DSTNAT)
        for protocol, port in ((nft.UDP, udp), (nft.TCP, tcp)):
            batch.add_rule(
                TABLE, "output", nft.destination(address, 32), nft.protocol(protocol), nft.destination_port(PORT),
                nft.dnat(address, port), comment=str(port),
            )  # fmt: skip
        batch.commit(socket)


def leads_to(udp: int, tcp: int) -> bool:
    """Whether questions come to these ports, in this thread's network namespace."""
    if PORT in (udp, tcp):
        return True  # no table leads there
    with nft.connect() as socket:
        return [rule.comment for rule in nft.list_rules(socket, TABLE)] == [str(udp), str(tcp)]
