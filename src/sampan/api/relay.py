"""A connection that was taken over, joined with the streams of a container or of an exec, until one side ends.

One thread, one poll loop for both directions. The client's socket does not block; what the other side does not take yet is held, up to
a bound, and until it is taken nothing more is read: a client that does not read holds up the program as a full pipe would (or
its monitor's spill), and never this process's memory.

    client -> program    raw bytes; the end of them closes standard input, and output goes on
    program -> client    raw bytes of a terminal; else frames: kind (1 stdout, 2 stderr), three zeros, length, bytes

TLS and websockets have bytes that poll does not know of (`pending`), and one thread must do both their directions: this one does.
"""

from __future__ import annotations

import select
import ssl
import struct

from sampan.oci.detachkeys import DetachKeys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sampan.api.exchange import Exchange
    from sampan.engine.interface import Attachment

    class Client(Protocol):
        """What of a socket is used."""

        def fileno(self) -> int: ...
        def setblocking(self, flag: bool, /) -> None: ...
        def recv(self, size: int, /) -> bytes: ...
        def send(self, data: memoryview, /) -> int: ...


STREAMS = {32: 1, 33: 2}
"""A kind of frame of the monitor's (`STDOUT`, `STDERR`) and that of Docker's."""
SYSTEM_ERROR = 3
_MOST_HELD = 256 << 10
_PIECE = 64 << 10
_INPUT_PIECE = 16 << 10
"""Bytes of input sent at a time: less than a stream socket has room for when poll says that it has some."""
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL


RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def stream_type(exchange: Exchange, tty: bool) -> str:
    """The Content-Type of output: that it has frames is said since 1.42 only."""
    return MULTIPLEXED if not tty and exchange.at_least(1, 42) else RAW


def frame(stream: int, data: bytes) -> bytes:
    """Docker's multiplexed form of a piece of output."""
    return struct.pack(">BxxxL", stream, len(data)) + data


class Relay:
    """See the module."""

    def __init__(
        self,
        client: Client,
        attachment: Attachment,
        *,
        early: bytes = b"",
        stdin: bool = False,
        outputs: frozenset[int] = frozenset((1, 2)),
        tty: bool = False,
        detach_keys: bytes = b"",
    ) -> None:
        """early: what of the client's stream was read already. outputs: which of 1 and 2 the client wants."""
        self._client = client
        self._pending_of: Callable[[], int] | None = getattr(client, "pending", None)
        self._attachment = attachment
        self._input = bytearray(early) if stdin else bytearray()
        self._stdin = stdin
        self._outputs = outputs
        self._tty = tty
        self._keys = DetachKeys(detach_keys) if detach_keys else None
        if self._keys is not None and self._input:
            self._input = bytearray(self._keys.feed(bytes(self._input)))
        self._output: list[memoryview] = []
        self._held = 0
        self._reading_client = True
        self._client_ended = False
        self._stdin_open = stdin
        self._program_ended = False
        self._gone = False

    def run(self) -> None:
        """Until the program has ended and the client has all of it, or the client has gone, or it has typed the detach keys."""
        self._client.setblocking(False)
        try:
            while not self._over():
                if self._keys is not None and self._keys.seen and not self._input:
                    self._attachment.detach()
                    return
                self._step()
        finally:
            if self._gone:
                self._give_rest()
            self._attachment.close()
            if not self._gone:
                self._client.setblocking(True)

    def _over(self) -> bool:
        return self._gone or (self._program_ended and not self._output)

    def _step(self) -> None:
        poll = select.poll()
        client = select.POLLOUT if self._output else 0
        wants_input = self._reading_client and len(self._input) < _MOST_HELD
        if wants_input:
            client |= select.POLLIN
        poll.register(self._client.fileno(), client)
        program = 0
        if not self._program_ended and self._held < _MOST_HELD:
            program |= select.POLLIN
        if self._stdin_open and (self._input or self._client_ended):
            program |= select.POLLOUT
        if program:
            poll.register(self._attachment.fileno(), program)
        pending = wants_input and self._pending()
        for fd, events in poll.poll(0 if pending else None):
            if fd == self._client.fileno():
                self._client_ready(events, wants_input)
            else:
                self._program_ready(events)
        if pending:
            self._read_client()

    def _pending(self) -> bool:
        return self._pending_of is not None and self._pending_of() > 0

    def _give_rest(self) -> None:
        """Whoever sends and leaves at once has sent it: the program gets what it takes now."""
        poll = select.poll()
        poll.register(self._attachment.fileno(), select.POLLOUT)
        taken = [(self._attachment.fileno(), select.POLLOUT)]
        while self._stdin_open and self._input and poll.poll(0) == taken:
            self._feed()

    # the client

    def _client_ready(self, events: int, wants_input: bool) -> None:
        if events & select.POLLOUT:
            self._flush()
        if events & select.POLLIN and wants_input:
            self._read_client()
        elif events & _HUNG_UP:
            # Both halves are closed and nothing is left to be read. (On TCP only a failed write tells of one that vanished.)
            self._gone = True

    def _read_client(self) -> None:
        try:
            data = self._client.recv(_PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._gone = True
            return
        if not data:
            self._reading_client = False
            self._client_ended = True
            if self._keys is not None:
                self._input += self._keys.end()
            if not self._stdin_open:
                self._client_ended = False
        elif self._stdin_open:
            if self._keys is not None:
                data = self._keys.feed(data)
                self._reading_client = not self._keys.seen
            self._input += data

    def _flush(self) -> None:
        while self._output:
            data = self._output[0]
            try:
                sent = self._client.send(data)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                self._gone = True
                return
            self._held -= sent
            if sent < len(data):
                self._output[0] = data[sent:]
                return
            del self._output[0]

    # the program

    def _program_ready(self, events: int) -> None:
        if events & select.POLLOUT and not events & _HUNG_UP:
            self._feed()
        if events & (select.POLLIN | _HUNG_UP):
            self._receive()

    def _feed(self) -> None:
        try:
            if self._input:
                self._attachment.send(bytes(self._input[:_INPUT_PIECE]))
                del self._input[:_INPUT_PIECE]
            elif self._client_ended:
                self._client_ended = False
                self._stdin_open = False
                self._attachment.close_stdin()
        except OSError:
            # It is ending: what it still has to say is read, and its input thrown away.
            self._stdin_open = False
            self._input.clear()

    def _receive(self) -> None:
        frames = self._attachment.receive()
        if frames is None:
            self._program_ended = True
            return
        for kind, data in frames:
            stream = STREAMS.get(kind, 0)
            if data and stream in self._outputs:
                whole = data if self._tty else frame(stream, data)
                self._output.append(memoryview(whole))
                self._held += len(whole)
        if self._attachment.exit is not None:
            self._program_ended = True  # the exit code is the last frame
        if self._output:
            self._flush()
