"""The connections to other hosts that are open, for another thread to hang up.

A thread that waits for a silent host sits in a system call for as long as its time limit says. What brings it back
at once is the end of its connection: shutdown(2) ends a connect(2), a handshake, a read and a write alike, and leaves the descriptor
to the thread that uses it.
"""

from __future__ import annotations

import socket
import threading
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class Stopped(Exception):
    """Somebody has given up meanwhile: whoever waits for another host is to end."""


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

    def check(self) -> None:
        """Raises `Stopped` after `hang_up`: a body without a length seems to be at its end then."""
        if self._hung_up:
            raise Stopped


class Line:
    """What a connection of `http.client`, or of a library that extends it, does otherwise: goes before it in a list of bases."""

    lines: Lines
    _handle: socket.socket | None = None

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
            self.lines.add(self.sock)  # type: ignore[attr-defined]
        finally:
            self._let_go()

    def dial(
        self, address: tuple[str, int], timeout: Any, family: int = 0, options: Iterable[tuple[int, int, int]] = ()
    ) -> socket.socket:
        """As socket.create_connection, but that the socket is known while it connects. timeout, options: as sockets take them.

        Raises the error of the last of the addresses if none takes a connection.
        """
        error: OSError | None = None
        for kind, style, protocol, _, where in socket.getaddrinfo(*address, family, socket.SOCK_STREAM):
            try:
                sock = socket.socket(kind, style, protocol)
            except OSError as e:
                error = e  # there is no such family here
                continue
            try:
                sock.settimeout(timeout)
                for option in options:
                    sock.setsockopt(*option)
                self._hold(sock)
                sock.connect(where)
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
