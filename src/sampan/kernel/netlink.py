"""Netlink: messages to the kernel's network, made of attributes, and what it answers.

A socket belongs to the network namespace in which it was made, for as long as it is open: who has one can configure that
namespace from anywhere. Sources: netlink(7), rtnetlink(7), Documentation/userspace-api/netlink/intro.rst of Linux.
"""

from __future__ import annotations

import _socket
import struct

from sampan.kernel.libc import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

ROUTE, NETFILTER = 0, 12
"""Protocols: links, addresses and routes; nf_tables."""

REQUEST, MULTI, ACK, ROOT, MATCH = 0x1, 0x2, 0x4, 0x100, 0x200
DUMP = ROOT | MATCH
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
"""Flags of a request (struct nlmsghdr)."""

NESTED = 0x8000
"""The bit of an attribute's type that says that it is made of attributes."""

_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_TYPE_MASK = 0x3FFF
_CAPPED, _EXTENDED = 0x100, 0x200  # flags of an error message: without the request; with attributes
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG
_RECEIVE = 1 << 17
"""Bytes; more than any message of the kernel's (it makes dumps of at most 32 KiB)."""


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes. Raises ValueError for more than its length can say (class CVE-2021-43784)."""
    length = _ATTRIBUTE.size + len(data)
    if length > 0xFFFF:
        raise ValueError(f"a netlink attribute of {len(data)} bytes is too long")
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that is made of others."""
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A string with its end."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def big_u16(kind: int, value: int) -> bytes:
    """In the network's byte order."""
    return attribute(kind, struct.pack(">H", value))


def big_u32(kind: int, value: int) -> bytes:
    """In the network's byte order, as everything of nf_tables."""
    return attribute(kind, struct.pack(">I", value))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes from `start` on by type; of several of one type the last one counts."""
    # By hand, for a look at a host's links and routes takes hundreds of them apart, and not by `each_attribute`.
    found: dict[int, bytes] = {}
    size, unpack = _ATTRIBUTE.size, _ATTRIBUTE.unpack_from
    last = len(data) - size
    while start <= last:
        length, kind = unpack(data, start)
        if length < size:
            break
        found[kind & _TYPE_MASK] = data[start + size : start + length]
        start += length + (-length & 3)
    return found


def each_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The same in order, for lists, whose entries have one type."""
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + length]
        start += length + (-length % 4)


def to_text(data: bytes) -> str:
    """A string attribute."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def message(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    """A message with its header, padded."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, flags, sequence, 0) + body + bytes(-length % 4)


class Socket:
    """A conversation with the kernel about one network namespace: the one that the calling thread is in now."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)  # errors come with a sentence
        self._sequence = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def next(self) -> int:
        """The next message's sequence number, by which its answer is known."""
        self._sequence += 1
        return self._sequence

    def make_room(self, size: int) -> None:
        """Let a request have this many bytes, and its answers; as many as may be without CAP_NET_ADMIN over the machine."""
        for forced, usual in ((_SO_SNDBUFFORCE, _socket.SO_SNDBUF), (_SO_RCVBUFFORCE, _socket.SO_RCVBUF)):
            try:
                self._socket.setsockopt(_socket.SOL_SOCKET, forced, size)
            except PermissionError:
                self._socket.setsockopt(_socket.SOL_SOCKET, usual, size)

    def send(self, data: bytes) -> None:
        """Messages that were made with `message`. Raises `KernelError` (EMSGSIZE) for more than there is room for."""
        try:
            self._socket.send(data)
        except OSError as e:
            raise KernelError(e.errno or 0, "send(AF_NETLINK)") from None

    def request(self, name: str, kind: int, body: bytes, flags: int = 0, subject: str = "") -> list[bytes]:
        """Ask for something and wait until it is done: the bodies of what came back before that was said.

        `name` and `subject` go into the error. Raises `KernelError`.
        """
        sequence = self.next()
        self._socket.send(message(kind, REQUEST | ACK | flags, body, sequence))
        return self.receive(sequence, name, subject)

    def receive(self, sequence: int, name: str, subject: str = "") -> list[bytes]:
        """The bodies of the answers to a message, until its end is told. Raises `KernelError`, which names it."""
        bodies: list[bytes] = []
        while True:
            for answered, kind, flags, body in self._messages():
                if answered != sequence:
                    continue  # of a request that was given up
                if kind not in (_ERROR, _DONE):
                    bodies.append(body)
                    continue
                refused = _refused(body, flags)
                if refused is not None:
                    raise refused.named(name, subject)
                return bodies

    def answers(self, first: int, last: int) -> list[NetlinkError]:
        """What was refused of a batch, whose messages have these sequence numbers, of which the last asked for an answer.

        `first` is the batch's beginning, which is answered only if all of it is refused.
        """
        refusals: dict[int, NetlinkError] = {}
        answer = False
        while not answer:
            for answered, kind, flags, body in self._messages():
                if kind != _ERROR or not first <= answered <= last:
                    continue
                refused = _refused(body, flags)
                if refused is not None:
                    refused.sequence = answered
                    refusals[answered] = refused
                if answered == first:
                    return [*refusals.values()]
                answer = answer or answered == last
        return [refusals[number] for number in sorted(refusals)]

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What comes next: sequence number, type, flags and body of each message."""
        data = self._socket.recv(_RECEIVE)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, answered, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size:
                return
            yield answered, kind, flags, data[at + _HEADER.size : at + length]
            at += length + (-length % 4)

    def dump(self, name: str, kind: int, body: bytes, subject: str = "") -> list[bytes]:
        """All objects of a kind. Raises `KernelError`."""
        return self.request(name, kind, body, DUMP, subject)


class NetlinkError(KernelError):
    """What the kernel refused, with its own words where it has some (`detail`). sequence: of the message."""

    detail: str = ""
    sequence: int = 0

    def named(self, name: str, subject: str) -> NetlinkError:
        """The same, with what was asked."""
        error = NetlinkError(self.errno or 0, name, subject)
        error.detail, error.sequence = self.detail, self.sequence
        return error

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.detail})" if self.detail else super().__str__()


def _refused(body: bytes, flags: int) -> NetlinkError | None:
    """The error that an error message, or the end of a dump, tells; None if it tells of success."""
    if len(body) < 4:
        return None
    (number,) = struct.unpack_from("=i", body)
    if not number:
        return None
    error = NetlinkError(-number, "netlink")
    if flags & _EXTENDED and len(body) >= 4 + _HEADER.size:
        # Behind the errno the header of what was asked, and all of it unless it was left out.
        (length,) = struct.unpack_from("=I", body, 4)
        start = 4 + (_HEADER.size if flags & _CAPPED else length + (-length % 4))
        error.detail = to_text(attributes(body, start).get(_ERROR_TEXT, b""))
    return error
