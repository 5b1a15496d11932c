"""Taking a connection over: the request is written by hand, and what follows the answer's header is no HTTP any more.

`http.client` reads the header through a buffer, and what came along with it would be lost. Here it is looked at first and then taken, to
the byte; of TLS, where nothing can be looked at, it is read byte by byte, once for each program.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from http.client import HTTPException, parse_headers
from io import BytesIO

from sampan.client import failures
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_END = b"\r\n\r\n"
_LONGEST = 64 << 10
_PIECE = 64 << 10
_MOST_HELD = 256 << 10


class Hijacked(Struct):
    """A connection that was taken over. kind: the content type of what comes."""

    socket: socket.socket
    kind: str


def take(
    sock: socket.socket | ssl.SSLSocket, target: str, host: str, body: bytes, headers: Mapping[str, str]
) -> Hijacked:
    """Send a POST that asks for the connection. Raises what it was refused with, OSError and HTTPException."""
    fields = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "tcp",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    sock.sendall("\r\n".join(lines).encode("latin-1") + _END + body)
    status, found = _head(sock)
    if status not in (101, 200):
        raise failures.of_answer(status, found, _body(sock, int(found.get("content-length", "0"))))
    kind = found.get("content-type", "")
    return Hijacked(Pump(sock).start() if isinstance(sock, ssl.SSLSocket) else sock, kind)


def _head(sock: socket.socket) -> tuple[int, dict[str, str]]:
    data = b""
    while not data.endswith(_END):
        if len(data) > _LONGEST:
            raise HTTPException("the header has no end")
        data += _some(sock, data)
    first, _, rest = data.partition(b"\r\n")
    words = first.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise HTTPException("the answer is no HTTP")
    return int(words[1]), {name.lower(): value for name, value in parse_headers(BytesIO(rest)).items()}


def _some(sock: socket.socket, before: bytes) -> bytes:
    """What of the header is there, and nothing past its end."""
    if isinstance(sock, ssl.SSLSocket):
        data = sock.recv(1)
    else:
        seen = sock.recv(_PIECE, socket.MSG_PEEK)
        tail = before[-3:]
        at = (tail + seen).find(_END)
        data = sock.recv(len(seen) if at < 0 else at + len(_END) - len(tail))
    if not data:
        raise ConnectionResetError
    return data


def _body(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


class Pump:
    """A TLS connection as a plain socket, which a caller can poll, and of which each direction has an end of its own.

    TLS has bytes that poll does not know of, and one thread must do both its directions: this one does.
    """

    def __init__(self, secured: ssl.SSLSocket) -> None:
        self._secured = secured
        self._outer, self._inner = socket.socketpair()
        self._in = bytearray()
        self._out = bytearray()
        self._reading = self._taking = True

    def start(self) -> socket.socket:
        """The plain end. When it is closed, so is the connection."""
        self._secured.setblocking(False)
        self._inner.setblocking(False)
        threading.Thread(target=self._run, name="tls", daemon=True).start()
        return self._outer

    def _run(self) -> None:
        try:
            while self._reading or self._in:
                self._step()
        except OSError:
            pass  # either side has gone: the other one hears of it by the ends below
        finally:
            self._inner.close()
            self._secured.close()

    def _step(self) -> None:
        poll = select.poll()
        pending = self._reading and len(self._in) < _MOST_HELD and self._secured.pending() > 0
        wants = select.POLLIN if self._reading and len(self._in) < _MOST_HELD else 0
        poll.register(self._secured.fileno(), wants | (select.POLLOUT if self._out else 0))
        wants = select.POLLIN if self._taking and len(self._out) < _MOST_HELD else 0
        poll.register(self._inner.fileno(), wants | (select.POLLOUT if self._in else 0))
        ready = dict(poll.poll(0 if pending else None))
        inner = ready.get(self._inner.fileno(), 0)
        if pending or ready.get(self._secured.fileno(), 0) & ~select.POLLOUT:
            self._read()
        if inner & select.POLLIN:
            self._take()
        elif inner & (select.POLLHUP | select.POLLERR):
            raise ConnectionResetError
        if self._out:
            self._write()
        if self._in:
            del self._in[: self._give()]
        if not self._reading and not self._in:
            self._inner.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        try:
            data = self._secured.recv(_PIECE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self._in += data
        self._reading = bool(data)

    def _take(self) -> None:
        data = self._inner.recv(_PIECE)
        self._out += data
        self._taking = bool(data)
        if not data and not self._out:
            self._end_input()

    def _write(self) -> None:
        try:
            del self._out[: self._secured.send(self._out)]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if not self._out and not self._taking:
            self._end_input()

    def _end_input(self) -> None:
        """close_notify: the program's standard input ends, and its output goes on."""
        try:
            self._secured.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass

    def _give(self) -> int:
        try:
            return self._inner.send(self._in)
        except BlockingIOError:
            return 0
