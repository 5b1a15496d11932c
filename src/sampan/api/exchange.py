"""One request and its answer, as handlers see them. h11 is behind this and nowhere else.

    exchange.query.flag("all")                     what was asked
    exchange.json_body()                           or exchange.body.read(n), while the answer goes on already
    exchange.reply(200, {...})                     the whole answer
    exchange.start(200, {...}); .write(b""); .end()   one that goes on: chunked, or until the connection's end for HTTP/1.0
    exchange.hijack("application/...")             the connection itself, from here on no HTTP

Of one exchange only one thread may write. `on_gone` calls back from the server's own thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import termios
import threading
import time
from email.utils import formatdate

import h11

import sampan
from sampan import jsontext
from sampan.api import versions
from sampan.api.failures import ClientGone, Refused
from sampan.api.http import has_gone
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any

    from sampan.api.log import Log
    from sampan.api.query import Query

MAX_JSON = 16 << 20
"""Bytes of a body that is read as a whole; streams have no bound but what their reader sets."""
BODY_SECONDS = 300.0
"""After which a body of which nothing more comes is given up."""
_HEADER_READ_SECONDS = 0.05
_AF_UNIX = 1
_PIECE = 256 << 10
_WITHOUT_LENGTH = frozenset((204, 304))
"""Statuses of answers that never have a body (RFC 9110, 8.6)."""
_OTHERWISE = frozenset(("connection", "expect"))
"""Fields of a request after which the connection may have to end with the answer, which is h11's to say."""
_RAW = "application/vnd.docker.raw-stream"


class Body:
    """A request's body as a file that is read once, whatever its framing is. Raises ClientGone where it breaks off."""

    def __init__(self, connection: h11.Connection, sock: socket.socket) -> None:
        self._connection = connection
        self._socket = sock
        self._rest = b""
        self.at_end = False

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, as soon as there are some; all that is left for -1; nothing at the end."""
        if size < 0:
            parts = []
            while part := self.read(_PIECE):
                parts.append(part)
            return b"".join(parts)
        while not self._rest and not self.at_end:
            self._next()
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def _next(self) -> None:
        try:
            event = self._connection.next_event()
        except h11.RemoteProtocolError as e:
            # Without what it was that cannot be read, which h11 quotes as Python does.
            raise Refused(400, f"malformed request body: {str(e).partition(': bytearray')[0]}") from None
        if event is h11.NEED_DATA:
            if self._connection.they_are_waiting_for_100_continue:
                go_on = self._connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                _send(self._socket, go_on or b"")
            self._connection.receive_data(self._receive())
        elif isinstance(event, h11.Data):
            self._rest = bytes(event.data)
        else:
            self.at_end = True

    def _receive(self) -> bytes:
        self._socket.settimeout(BODY_SECONDS)
        try:
            return self._socket.recv(_PIECE)
        except TimeoutError:
            raise Refused(408, f"nothing of the request's body came for {BODY_SECONDS:.0f} seconds") from None
        except OSError:
            raise ClientGone from None
        finally:
            self._socket.settimeout(None)


class Exchange:
    """See the module. id: of this request in the log. version: of the API that the client speaks."""

    def __init__(
        self,
        identifier: str,
        request: h11.Request,
        connection: h11.Connection,
        sock: socket.socket,
        log: Log,
        watch: Callable[[socket.socket, Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.id = identifier
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("latin-1")
        self.headers: Mapping[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers
        }
        """Names in lower case."""
        self.http = request.http_version.decode("ascii")
        self.log = log
        self.body = Body(connection, sock)
        self.status = 0
        """Of the answer, 0 until it is begun."""
        self.ended = False
        self.hijacked = False
        self.plain = False
        """Whether it was answered past h11, which does not know of it."""
        self.begun = time.monotonic()
        self.path = ""
        self.query: Query
        self.version = versions.NEWEST
        self._connection = connection
        self._socket = sock
        self._watch = watch

    # what was asked

    def at_least(self, major: int, minor: int) -> bool:
        """Whether the client speaks this version of the API or a later one."""
        return self.version >= (major, minor)

    def json_body(self, empty: bool = False) -> dict[str, Any]:
        """The body as a JSON object; {} for none at all where `empty` allows it.

        Its declared type is judged as Docker does: none, or application/json. Raises InvalidParameter.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        text = self._bounded()
        if not text.strip():
            if empty:
                return {}
            raise InvalidParameter("invalid JSON: got EOF while reading request body")
        if kind and kind != "application/json" and not (empty and kind == "text/plain"):
            raise InvalidParameter(f"unsupported Content-Type header ({kind}): must be 'application/json'")
        try:
            document = jsontext.loads(text)
        except ValueError as e:
            raise InvalidParameter(f"invalid JSON: {e}") from None
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise InvalidParameter("invalid JSON: the body is no object")
        return document

    def _bounded(self) -> bytes:
        parts, total = [], 0
        while part := self.body.read(_PIECE):
            total += len(part)
            if total > MAX_JSON:
                raise Refused(413, f"the request's body has more than {MAX_JSON} bytes")
            parts.append(part)
        return b"".join(parts)

    @property
    def gone(self) -> bool:
        """Whether the client has closed its side. On TCP one whose machine has vanished is noticed by a failed write only."""
        return has_gone(self._socket)

    def on_gone(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, once and from another thread, when the client has closed its side; what is returned takes that back.

        For handlers that wait for something else than the client.
        """
        return self._watch(self._socket, callback)

    def leaving(self) -> Leaving:
        """The same as something to poll for; to be closed."""
        return Leaving(self)

    # the answer

    def reply(self, status: int, document: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer: a JSON document, or without one no body at all."""
        kind, data = None, b""
        if document is not None:
            kind, data = "application/json", jsontext.dumps(document) + b"\n"
        if headers or not self._is_plain():
            self.send(status, data, kind, headers)
        else:
            self._send_plainly(status, data, kind)

    def _is_plain(self) -> bool:
        """Whether nothing about the request has a say in how an answer is sent that is there as a whole."""
        return self.http == "1.1" and self.method not in ("HEAD", "CONNECT") and _OTHERWISE.isdisjoint(self.headers)

    def _send_plainly(self, status: int, data: bytes, kind: str | None) -> None:
        """As `send`, by hand: h11 would judge each of our own fields, at half of what all of HTTP costs a request."""
        lines = [f"HTTP/1.1 {status} {_reason(status)}"]
        lines += [f"{name}: {value}" for name, value in self.common_headers().items()]
        if kind is not None:
            lines.append(f"Content-Type: {kind}")
        if status not in _WITHOUT_LENGTH:
            lines.append(f"Content-Length: {len(data)}")
        self.status = status
        self.ended = self.plain = True
        _send(self._socket, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + data)

    def send(
        self, status: int, data: bytes, kind: str | None = "text/plain", headers: Mapping[str, str] | None = None
    ) -> None:
        """A whole answer of any kind. To a HEAD the fields are sent and the body is not."""
        fields = dict(headers or {})
        if kind is not None:
            fields["Content-Type"] = kind
        if status not in _WITHOUT_LENGTH:
            fields["Content-Length"] = str(len(data))
        pieces = self._head(status, fields)
        if data and self.method != "HEAD":
            pieces += self._connection.send(h11.Data(data=data)) or b""
        pieces += self._connection.send(h11.EndOfMessage()) or b""
        self.ended = True
        _send(self._socket, pieces)

    def start(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """The head of an answer whose body comes by `write`. It is sent at once: clients wait for it."""
        _send(self._socket, self._head(status, dict(headers or {})))

    def write(self, data: bytes) -> None:
        """A part of the body. Blocks while the client does not read. Raises ClientGone."""
        if data and self.method != "HEAD":
            parts = self._connection.send_with_data_passthrough(h11.Data(data=data)) or []
            _send(self._socket, b"".join(parts))

    def end(self, data: bytes = b"") -> None:
        """The body is whole, with `data` as its last part: one write, which wakes the client once."""
        pieces = b""
        if data and self.method != "HEAD":
            pieces = self._connection.send(h11.Data(data=data)) or b""
        self.ended = True
        _send(self._socket, pieces + (self._connection.send(h11.EndOfMessage()) or b""))

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        self.status = status
        fields = {**self.common_headers(), **headers}
        response = h11.Response(
            status_code=status, headers=list(fields.items()), reason=_reason(status).encode("ascii")
        )
        return bytes(self._connection.send(response) or b"")

    def common_headers(self) -> dict[str, str]:
        """What is on every answer: clients negotiate by `Api-Version` and look at the others in passing."""
        return {
            "Api-Version": versions.text(versions.NEWEST),
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"sampan/{sampan.__version__} (linux)",
            "X-Request-Id": self.id,
            "Date": _date(int(time.time())),
        }

    # the connection itself

    @property
    def wants_upgrade(self) -> bool:
        return bool(self.headers.get("upgrade"))

    def hijack(self, kind: str = _RAW, wait: bool = True) -> tuple[socket.socket, bytes]:
        """Take the connection over: the header is sent, and what follows on either side is no HTTP any more.

        kind: the Content-Type. wait: without it the caller calls `await_reader` before it sends anything. The socket, and what
        of the client's stream came already. The server closes the socket when the handler returns. Raises ClientGone.
        """
        sock, early = self.take_over()
        upgrade = self.wants_upgrade
        self.status = 101 if upgrade else 200
        lines = ["HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK", f"Content-Type: {kind}"]
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
        # Not by h11: to it an answer without a length is chunked, and this is none of its protocols.
        lines += [f"{name}: {value}" for name, value in self.common_headers().items()]
        _send(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if wait:
            self.await_reader()
        return sock, early

    def await_reader(self) -> None:
        """See `_await_reader`; of a connection that was taken over."""
        _await_reader(self._socket)

    def send_raw(self, data: bytes) -> None:
        """Bytes over a connection that was taken over. Raises ClientGone."""
        _send(self._socket, data)

    def take_over(self) -> tuple[socket.socket, bytes]:
        """As `hijack`, for a protocol whose first answer the handler sends itself (websocket)."""
        self.body.read()
        early = bytes(self._connection.trailing_data[0])
        self.hijacked = self.ended = True
        return self._socket, early


class Leaving:
    """A descriptor that is readable once the client has closed its side."""

    def __init__(self, exchange: Exchange) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._forget = exchange.on_gone(self._tell)

    def fileno(self) -> int:
        return self._fd

    def wait(self, seconds: float) -> bool:
        """Wait for that, or for so long; whether the client has gone."""
        return bool(select.select([self._fd], [], [], seconds)[0])

    def close(self) -> None:
        self._forget()
        with self._lock:
            os.close(self._fd)
            self._fd = -1

    def _tell(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)


def _await_reader(sock: socket.socket) -> None:
    """Wait a moment until the client has read the header, and nothing else with it.

    docker-py reads it through a buffer, and the stream past that buffer: what came along is lost to it. A unix socket says how much
    was not read yet (SIOCOUTQ, unix(7)); TCP only what was not acknowledged.
    """
    if sock.family != _AF_UNIX:
        return
    deadline = time.monotonic() + _HEADER_READ_SECONDS
    unread = bytearray(4)
    while time.monotonic() < deadline:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, unread)
        if not any(unread):
            return
        time.sleep(0.0001)


_last_date = (0, "")


def _date(now: int) -> str:
    """A time as HTTP writes it (RFC 9110, 5.6.7). It changes once a second, and costs as much as all other fields together."""
    global _last_date
    last, text = _last_date
    if last != now:
        text = formatdate(now, usegmt=True)
        _last_date = now, text
    return text


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        raise ClientGone from None


_reasons: dict[int, str] = {}


def _reason(status: int) -> str:
    found = _reasons.get(status)
    if found is None:
        from http import HTTPStatus

        try:
            found = HTTPStatus(status).phrase
        except ValueError:
            found = ""
        _reasons[status] = found
    return found
