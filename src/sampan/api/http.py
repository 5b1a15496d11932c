"""The strict half of HTTP: what may go into h11, which is lax. RFC 9112, without what it only tolerates.

A server that reads a request in another way than a proxy before it, or than the author of the client thought, is how requests
are smuggled: what could be read in two ways is refused.
"""

from __future__ import annotations

import re
import select
import socket
import time

from sampan.api.failures import ClientGone, Refused

MAX_HEAD = 64 << 10
"""Bytes of the request line and the fields."""
MAX_FIELDS = 200
HEAD_SECONDS = 30.0
"""From a request's first byte to the end of its head."""

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([^\x00-\x20\x7f]{1,32768}) HTTP/(\d\.\d)")
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}:[^\x00-\x08\x0a-\x1f\x7f]*")
_PIECE = 64 << 10


def check_head(head: bytes) -> None:
    """Judge a head, its empty line included. Raises Refused."""
    lines = head[:-4].split(b"\r\n")
    if b"\r" in b"".join(lines) or b"\n" in b"".join(lines):
        raise Refused(400, "malformed request: a bare CR or LF")
    first = _LINE.fullmatch(lines[0])
    if first is None:
        raise Refused(400, "malformed request line")
    if first[3] not in (b"1.0", b"1.1"):
        raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken")
    if len(lines) - 1 > MAX_FIELDS:
        raise Refused(431, f"more than {MAX_FIELDS} header fields")
    names = []
    for line in lines[1:]:
        if line[:1] in (b" ", b"\t"):
            raise Refused(400, "malformed request: a folded header field")
        if _FIELD.fullmatch(line) is None:
            raise Refused(400, "malformed header field")
        names.append(line.partition(b":")[0].lower())
    _check_framing(names, first[3])


def _check_framing(names: list[bytes], version: bytes) -> None:
    """Where the body ends must be said in one way only."""
    if names.count(b"content-length") > 1 or names.count(b"transfer-encoding") > 1:
        raise Refused(400, "the length of the body is given twice")
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise Refused(400, "the body has both a Content-Length and a Transfer-Encoding")
        if version == b"1.0":
            raise Refused(400, "Transfer-Encoding is not HTTP/1.0")
    if names.count(b"host") > 1:
        raise Refused(400, "more than one Host")


def read_head(sock: socket.socket, before: bytes) -> tuple[bytes, bytes]:
    """The next request's head, and what came with it; two empty strings if the client closed the connection instead.

    before: what of it was read already. The whole head has `HEAD_SECONDS`. Raises Refused, ClientGone.
    """
    data = bytearray(before)
    deadline = time.monotonic() + HEAD_SECONDS
    while True:
        # An empty line or two before a request are to be ignored (RFC 9112, 2.2).
        while data[:2] == b"\r\n":
            del data[:2]
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            if end + 4 > MAX_HEAD:
                raise Refused(431, f"the request's head has more than {MAX_HEAD} bytes")
            return bytes(data[: end + 4]), bytes(data[end + 4 :])
        if len(data) > MAX_HEAD:
            raise Refused(431, f"the request's head has more than {MAX_HEAD} bytes")
        if b"\n" in data.replace(b"\r\n", b""):
            raise Refused(400, "malformed request: a bare LF")
        part = _receive(sock, deadline)
        if not part:
            if data:
                raise ClientGone
            return b"", b""
        data += part


def _receive(sock: socket.socket, deadline: float) -> bytes:
    if type(sock) is socket.socket:  # one with TLS takes no flags
        try:
            # Mostly it is there: that is why this thread was woken up.
            return sock.recv(_PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            raise ClientGone from None
    left = deadline - time.monotonic()
    if left <= 0:
        raise Refused(408, f"the request's head did not come within {HEAD_SECONDS:.0f} seconds")
    sock.settimeout(left)
    try:
        return sock.recv(_PIECE)
    except TimeoutError:
        raise Refused(408, f"the request's head did not come within {HEAD_SECONDS:.0f} seconds") from None
    except OSError:
        raise ClientGone from None
    finally:
        sock.settimeout(None)


def has_gone(sock: socket.socket) -> bool:
    """Whether the other side has closed its half, or all: who waits for an answer that is not a stream leaves by that."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
