"""The streams of a program over the API, as `sampan.runtime.handle.Attachment` has them on the machine itself.

The API says nothing of an exit code over such a connection: `ended` asks for it once the connection is at its end.
"""

from __future__ import annotations

import socket

from sampan.engine.results import STDERR, STDOUT
from sampan.errors import Conflict, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.client.hijack import Hijacked

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_KINDS = {1: STDOUT, 2: STDERR}
_HEADER = 8
_PIECE = 256 << 10


class Frames:
    """Docker's frames, cut out of what comes: kind of stream (1, 2), three zeros, length, bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are whole."""
        held = self._data
        held += data
        found, at = [], 0
        while len(held) - at >= _HEADER:
            end = at + _HEADER + int.from_bytes(held[at + 4 : at + _HEADER], "big")
            if len(held) < end:
                break
            found.append((held[at], bytes(held[at + _HEADER : end])))
            at = end
        del held[:at]
        return found


class RemoteAttachment:
    """A connection to a container's, or an exec's, streams: poll `fileno()` and `receive()`, or iterate."""

    def __init__(
        self,
        hijacked: Hijacked,
        ended: Callable[[], dict[str, Any] | None],
        resize: Callable[[int, int], object],
        exec_id: str = "",
    ) -> None:
        """ended: asks how the program ended; None if nobody knows."""
        self.exit: dict[str, Any] | None = None
        """{"exit_code": int} once the program has ended."""
        self.exec_id = exec_id
        self._socket = hijacked.socket
        self._frames = Frames() if hijacked.kind == MULTIPLEXED else None
        self._ended = ended
        self._resize = resize
        self._over = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> list[tuple[int, bytes]] | None:
        """What has come, in one read: (kind of stream, bytes); None at the end of the connection. The list may be empty."""
        if self._over:
            return None
        try:
            data = self._socket.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return []
        except ConnectionError:
            data = b""
        if not data:
            self._over = True
            self.exit = self._ended()
            return [] if self.exit is not None else None
        if self._frames is None:
            return [(STDOUT, data)]
        return [(_KINDS.get(stream, STDERR), body) for stream, body in self._frames.feed(data)]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while (frames := self.receive()) is not None:
            yield from frames

    def send(self, data: bytes) -> None:
        """Standard input. Blocks while the program does not take it; raises BrokenPipeError when it is gone."""
        self._socket.sendall(data)

    def close_stdin(self) -> None:
        """Standard input is at its end; output goes on."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size."""
        try:
            self._resize(rows, columns)
        except (Conflict, NotFound, Unavailable):
            pass  # it has ended: what the size is does not matter any more

    def detach(self) -> None:
        """Close the connection because its user has left, and the process is to go on."""
        self.close()

    def close(self) -> None:
        self._socket.close()
        self._over = True
