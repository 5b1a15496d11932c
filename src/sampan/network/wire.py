"""What is said to a keeper: one message each, with descriptors, over a socket of packets.

    command                                          keeper
       | LISTEN {} + listening socket, lock -------->   the first message of one that was just started
       | ADD {container, start, what} + descriptors ->  what is to be kept for a container; see `keeperlink`
       | MORE {container, start, what} + descriptors -> beside what it has of that start; also where one message takes no more descriptors
       | LOOK {} ----------------------------------->   endpoints have changed (it would see it by itself a moment later)
       |<- LOOKED {} --------------------------------   done, and everything before it
       | LINE {container} + a shim's line ----------->   from a keeper that was started when there was one already

A descriptor of ADD may be one end of a pair whose other end the container's shim has: its end is the container's, and the
keeper's end makes the shim start another one (`shim.keeperwatch`), which gets such an end as its first descriptor.
"""

from __future__ import annotations

import _struct

from sampan import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Sequence
    from typing import Any
else:
    import _socket

LISTEN, ADD, MORE, LOOK, LOOKED, LINE = "listen", "add", "more", "look", "looked", "line"
"""Kinds of messages."""
LINK, NAMESPACE, UDP, TCP, PORT = "link", "namespace", "udp", "tcp", "port"
"""What a descriptor is: the shim's line, the container's network namespace, its sockets for names, a published port."""

DESCRIPTORS = 200
"""In one message; the kernel takes 253 (SCM_MAX_FD)."""
_ROOM = 1 << 17
"""Bytes of a message."""


def pair() -> tuple[Any, Any]:
    """Two connected sockets."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def send(connection: Any, kind: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
    """Send one message. Raises OSError: EPIPE or ECONNRESET when the keeper has gone."""
    data = jsontext.dumps({"kind": kind, **fields})
    rights = _struct.pack(f"{len(descriptors)}i", *descriptors)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if descriptors else []
    connection.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL)


def receive(connection: Any) -> tuple[dict[str, Any], list[int]] | None:
    """The next message with its descriptors, which are the caller's now; None at the end. Raises OSError, ValueError for no message."""
    room = _socket.CMSG_SPACE(4 * (DESCRIPTORS + 8))
    data, ancillary, flags, _ = connection.recvmsg(_ROOM, room, _socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            descriptors += _struct.unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    if not data and not descriptors:
        return None
    message = jsontext.loads(data)
    if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC) or not isinstance(message, dict):
        # With a full table of descriptors the kernel leaves out what finds no room, and says so.
        message = {"kind": "truncated", **(message if isinstance(message, dict) else {}), "truncated": True}
    return message, descriptors
