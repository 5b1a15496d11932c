"""The connections to a registry's hosts that are open, for another thread to hang up.

A thread that waits for a silent registry sits in a system call for as long as the registry's time limit says. What brings it back
at once is the end of its connection: shutdown(2) ends a connect(2), a handshake, a read and a write alike, and leaves the descriptor
to the thread that uses it.
"""

from __future__ import annotations

import socket
import threading
from weakref import WeakSet

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Lines:
    """For any thread. What is connected after `hang_up` is hung up at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hung_up = False
        # By weak references: a connection ends in many ways, of which the library tells nobody.
        self._open: WeakSet[socket.socket] = WeakSet()

    def add(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)
            if self._hung_up:
                _shut(sock)

    def close(self, sock: socket.socket) -> None:
        """Close one of them: not while it is hung up, when its number might be somebody else's already."""
        with self._lock:
            sock.close()

    def hang_up(self) -> None:
        """End all of them. Idempotent, and never waits."""
        with self._lock:
            self._hung_up = True
            for sock in list(self._open):
                _shut(sock)

    def pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """Pools whose connections are these lines: by the scheme, as `urllib3.PoolManager` has them."""

        class Plain(_Line, HTTPConnection):
            lines = self

        class Secure(_Line, HTTPSConnection):
            lines = self

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}


class _Line:
    """What a connection of the library does otherwise."""

    lines: Lines
    _handle: socket.socket | None = None

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
            self.lines.add(self.sock)  # type: ignore[attr-defined]
        finally:
            self._let_go()

    def _new_conn(self: Any) -> socket.socket:
        """As the library's, but that the socket is known while it connects."""
        try:
            return self._connected()  # type: ignore[no-any-return]
        except socket.gaierror as e:
            raise NameResolutionError(self.host, self, e) from e
        except TimeoutError as e:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from e
        except OSError as e:
            raise NewConnectionError(self, f"Failed to establish a new connection: {e}") from e

    def _connected(self: Any) -> socket.socket:
        """A connection to the first address that takes one. Raises the error of the last that does not."""
        error: OSError | None = None
        host = self._dns_host.strip("[]")
        found = socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as e:
                error = e  # there is no such family here
                continue
            try:
                sock.settimeout(self.timeout)
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                self._hold(sock)
                sock.connect(address)
                return sock
            except OSError as e:
                sock.close()
                error = e
        raise error or OSError("getaddrinfo returns an empty list")

    def _hold(self, sock: socket.socket) -> None:
        """Know a socket until it is connected. By a copy: TLS takes the descriptor out of it before its handshake."""
        self._let_go()
        self._handle = sock.dup()
        self.lines.add(self._handle)

    def _let_go(self) -> None:
        if self._handle is not None:
            self.lines.close(self._handle)
            self._handle = None


def _shut(sock: socket.socket) -> None:
    try:
        # Past TLS, whose state belongs to the thread that uses it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended by itself
