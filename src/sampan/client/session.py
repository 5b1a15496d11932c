"""Requests to one server: connections that are kept and shared by threads, the version of the API, answers and refusals.

A connection belongs to one request at a time. One whose answer was read to its end waits for the next request; of those that wait,
few are kept. One over which a stream goes, or that was taken over, is never used again.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import threading
from urllib.parse import quote, urlencode

from sampan import jsontext
from sampan.client import failures, hijack
from sampan.errors import System, Unavailable
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Protocol, Self

    from sampan.client.address import Address

    class Readable(Protocol):
        def read(self, size: int, /) -> bytes: ...

    Query = Mapping[str, Any]
    """Texts, numbers, truth values, lists of texts; None for what is not asked for."""
    Body = bytes | Readable | Mapping[str, Any] | None

NEWEST = (1, 51)
"""The version of the API whose shapes are read here; an older server is spoken to in its own."""
_PIECE = 256 << 10
_KEPT = 8
_CONNECT_SECONDS = 30.0
_BROKEN = (OSError, http.client.HTTPException)


class Answer(Struct):
    """The whole answer to a request. headers: names in lower case."""

    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        """The document that it is. Raises System if it is none."""
        try:
            return jsontext.loads(self.data)
        except ValueError as e:
            raise System(f"the server's answer is no JSON document: {e}") from None


class Connection(http.client.HTTPConnection):
    """HTTP to an address, whichever kind it is."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.host or "localhost", address.port or None)
        self._address = address

    def connect(self) -> None:
        """Raises Unavailable."""
        self.sock = dial(self._address)


def dial(address: Address) -> socket.socket | ssl.SSLSocket:
    """A connection. Raises Unavailable."""
    sock: socket.socket | None = None
    try:
        if address.path:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(_CONNECT_SECONDS)
            sock.connect(address.path)
        else:
            sock = socket.create_connection((address.host, address.port), _CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls is not None:
                sock = address.tls.wrap_socket(sock, server_hostname=address.host)
        sock.settimeout(None)
        return sock
    except OSError as e:
        if sock is not None:
            sock.close()
        reason = (getattr(e, "strerror", None) or str(e)).lower()
        raise Unavailable(f"cannot connect to {address.url}: {reason}: is `sampan serve` running there?") from None


class Session:
    """See the module. May be used by many threads. Opens nothing before the first request."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._version: tuple[int, int] | None = None

    # requests

    def ask(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A request and its whole answer. body: bytes and streams as they are, anything else as JSON. Raises what it was refused with."""
        with self.stream(method, path, query, body, headers) as stream:
            return Answer(stream.status, stream.headers, stream.read())

    def json(self, method: str, path: str, query: Query | None = None, body: Body = None) -> Any:
        """The document that a request is answered with."""
        return self.ask(method, path, query, body).json

    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Stream:
        """A request whose answer is read piece by piece; to be closed. Raises what it was refused with."""
        target = self._target(path, query)
        fields, data = _sent(body, headers)
        connection, response = self._exchange(method, target, data, fields)
        stream = Stream(self, connection, response)
        if response.status >= 300:
            with stream:
                raise failures.of_answer(stream.status, stream.headers, stream.read())
        return stream

    def hijack(
        self, path: str, query: Query | None = None, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> hijack.Hijacked:
        """A POST after which the connection is the streams of a program. Raises what it was refused with."""
        fields, data = _sent(body, headers)
        assert data is None or isinstance(data, bytes)
        target = self._target(path, query)
        sock = dial(self.address)
        try:
            return hijack.take(sock, target, self.address.host or "localhost", data or b"", fields)
        except _BROKEN as e:
            sock.close()
            raise self.lost(e) from None
        except BaseException:
            sock.close()
            raise

    def _exchange(
        self, method: str, target: str, data: bytes | Readable | None, fields: Mapping[str, str]
    ) -> tuple[Connection, http.client.HTTPResponse]:
        connection, fresh = self._connection()
        try:
            return connection, self._asked(connection, method, target, data, fields)
        except _BROKEN as e:
            connection.close()
            # A server that ends while we ask has closed what it had kept; what changes something is not asked twice.
            if fresh or method not in ("GET", "HEAD"):
                raise self.lost(e) from None
        except BaseException:
            connection.close()
            raise
        connection = Connection(self.address)
        try:
            return connection, self._asked(connection, method, target, data, fields)
        except _BROKEN as e:
            connection.close()
            raise self.lost(e) from None

    def _asked(
        self,
        connection: Connection,
        method: str,
        target: str,
        data: bytes | Readable | None,
        fields: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        sent: bytes | Iterable[bytes] | None = data if data is None or isinstance(data, bytes) else _pieces(data)
        try:
            connection.request(method, target, sent, dict(fields), encode_chunked=sent is not None and sent is not data)
        except (BrokenPipeError, ConnectionResetError):
            # It was refused before all of it was read: the answer says why, if there is one.
            if connection.sock is None:
                raise
            response = connection.response_class(connection.sock, method=method)
            response.begin()
            response.will_close = True
            return response
        return connection.getresponse()

    def lost(self, error: Exception) -> Unavailable:
        """What a broken connection is told as."""
        reason = getattr(error, "strerror", None) or "it ended in the middle"
        return Unavailable(f"the connection to {self.address.url} is lost: {str(reason).lower()}")

    # versions

    def _target(self, path: str, query: Query | None) -> str:
        major, minor = self.version
        target = f"/v{major}.{minor}{quote(path, safe='/:@', errors='surrogateescape')}"
        pairs = _query(query or {})
        return f"{target}?{urlencode(pairs, errors='surrogateescape')}" if pairs else target

    @property
    def version(self) -> tuple[int, int]:
        """That both sides speak; the first request asks the server for its own. Raises Unavailable."""
        if self._version is None:
            connection, response = self._exchange("GET", "/_ping", None, {})
            with Stream(self, connection, response) as stream:
                found = re.fullmatch(r"(\d+)\.(\d+)", stream.headers.get("api-version", ""))
                stream.read()
            if found is None:
                raise Unavailable(f"{self.address.url} is no server of Docker's Engine API")
            self._version = min(NEWEST, (int(found[1]), int(found[2])))
        return self._version

    # connections

    def _connection(self) -> tuple[Connection, bool]:
        """A connection, and whether it is a new one."""
        while True:
            with self._lock:
                if not self._idle:
                    return Connection(self.address), True
                connection = self._idle.pop()
            if not _readable(connection.sock):
                return connection, False
            connection.close()  # nothing was asked: it is its end

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            if connection.sock is not None and len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the connections that wait. May be called twice; the next request opens another one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class Stream:
    """An answer that is read as it comes. `close` ends it, from any thread; so does its end."""

    def __init__(self, session: Session, connection: Connection, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._session = session
        self._connection = connection
        self._response = response
        self._lock = threading.Lock()
        self._reading = False
        self._ended = False
        self._rest = b""

    def read(self) -> bytes:
        """All that is left."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.piece():
            yield piece

    def piece(self) -> bytes:
        """What has come, as soon as there is something; nothing at the end. Raises Unavailable if it breaks off."""
        with self._lock:
            if self._ended:
                return b""
            self._reading = True
        try:
            piece = self._response.read1(_PIECE)
        except (*_BROKEN, ValueError, AttributeError) as e:
            closed = self._read_over(last=True)
            self._connection.close()
            if closed:
                return b""  # by another thread
            raise self._session.lost(e) from None
        if self._read_over(last=not piece):
            self._connection.close()
            return b""
        return piece or self._at_end()

    def _read_over(self, last: bool) -> bool:
        """Nobody reads in this moment; whether it was closed meanwhile. last: there is nothing more to be read."""
        with self._lock:
            closed, self._ended, self._reading = self._ended, self._ended or last, False
            return closed

    def _at_end(self) -> bytes:
        # Of a body with a length `read1` does not say that it breaks off.
        broken, last = bool(self._response.length), self._response.will_close
        self._response.close()
        if not broken and not last:
            self._session.give_back(self._connection)
            return b""
        self._connection.close()
        if broken:
            raise self._session.lost(http.client.IncompleteRead(b""))
        return b""

    def exactly(self, size: int) -> bytes:
        """So many bytes; fewer at the end."""
        parts, left = [self._rest], size - len(self._rest)
        while left > 0 and (piece := self.piece()):
            parts.append(piece)
            left -= len(piece)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]

    def lines(self) -> Iterator[bytes]:
        """Lines, without their ends and without empty ones."""
        rest = b""
        for piece in self:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                if line.strip():
                    yield line
        if rest.strip():
            yield rest

    def documents(self) -> Iterator[dict[str, Any]]:
        """JSON objects, one a line. Raises what a line with "error" says."""
        for line in self.lines():
            try:
                document = jsontext.loads(line)
            except ValueError as e:
                raise System(f"the server's answer is no JSON document: {e}") from None
            if "error" in document:
                raise failures.of_line(document)
            yield document

    def close(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            sock = self._connection.sock
            if self._reading and sock is not None:
                # Whoever reads wakes up, and closes it.
                try:
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    pass
                return
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def filters(wanted: Mapping[str, str | bool | Sequence[str]] | None) -> str | None:
    """Filters as a query has them."""
    if not wanted:
        return None
    return jsontext.dumps({name: _values(value) for name, value in wanted.items()}).decode("ascii")


def _values(value: str | bool | Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _query(query: Query) -> list[tuple[str, str]]:
    """Names with values; what is None, False or empty was not asked for."""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        if value is None or value is False or value == "":
            continue
        if value is True:
            pairs.append((name, "1"))
        elif isinstance(value, str | int):
            pairs.append((name, str(value)))
        else:
            pairs += [(name, text) for text in value]
    return pairs


def _sent(body: Body, headers: Mapping[str, str] | None) -> tuple[dict[str, str], bytes | Readable | None]:
    fields = dict(headers or {})
    if body is None or isinstance(body, bytes):
        return fields, body
    if hasattr(body, "read"):
        fields["Transfer-Encoding"] = "chunked"
        return fields, body
    fields["Content-Type"] = "application/json"
    return fields, jsontext.dumps(body)


def _pieces(stream: Readable) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
