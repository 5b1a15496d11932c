"""Between the user's standard streams and a container's: one poll loop, no thread, nothing that blocks, nothing lost.

    standard input --read--> detach keys --send--> attachment --receive--> queue --write--> standard output, error

Each side is read only when the other has taken what came before. Blocking anywhere would be a circle: a program that waits
for us to read its output does not read its input, and we would wait for it to do so.
"""

from __future__ import annotations

import os
import select
import stat

from sampan.cli import signals, terminal
from sampan.cli.output import WriteFailed
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sampan.engine.interface import Attachment


INPUT_CHUNK = 32768
"""Bytes that are sent at once. A stream socket is writable when at most a quarter of its buffer (212992 bytes by default) is
used (linux/net/unix/af_unix.c, unix_writable): a chunk never blocks once poll has said so."""

PIPE_CHUNK = 4096
"""Bytes that a pipe takes without blocking once poll calls it writable (pipe(7), PIPE_BUF)."""


class Ended(Struct):
    """How it ended.

    how: "exited" (the container told its exit code), "closed" (the connection ended without one), "detached" (by the keys),
    "signalled" (this process was told to end), "unread" (nobody reads our standard output any more).
    code: the exit code, or the signal's number.
    """

    how: str
    code: int = 0


class Streams(Struct):
    """Which streams are joined. outputs: kind of frame -> our descriptor; what is not in it is thrown away."""

    outputs: Mapping[int, int]
    stdin: bool = False
    terminal: bool = False
    detach_keys: bytes = b""


class Relay:
    """One attachment, joined to descriptors 0, 1 and 2.

    forward: what to do with a signal; None if signals end the relay (terminals) or are nobody's business here.
    """

    def __init__(
        self, attachment: Attachment, streams: Streams, caught: signals.Signals, forward: Callable[[int], None] | None
    ) -> None:
        self._attachment = attachment
        self._streams = streams
        self._signals = caught
        self._forward = forward
        self._keys = terminal.DetachKeys(streams.detach_keys) if streams.terminal and streams.detach_keys else None
        self._raw: terminal.RawMode | None = None
        self._input = b""
        self._reading_input = streams.stdin
        self._end_input = False
        self._resize = streams.terminal
        self._queue: list[tuple[_Output, memoryview]] = []
        self._outputs: dict[int, _Output] = {}
        self._poll = select.poll()
        self._watched: dict[int, int] = {}

    def run(self) -> Ended:
        """Relay until one of the ends. A terminal is given back as it was, also when an exception ends it."""
        try:
            if self._streams.terminal and self._streams.stdin and os.isatty(0):
                with terminal.RawMode(0) as self._raw:
                    return self._loop()
            return self._loop()
        finally:
            for output in self._outputs.values():
                output.close()

    def _loop(self) -> Ended:
        while True:
            for fd, events in self._wait():
                ended = self._serve(fd, events)
                if ended is not None:
                    return ended

    def _wait(self) -> list[tuple[int, int]]:
        """What is ready, of what there is something to do with: poll tells of an end again and again until it is taken."""
        wanted = {self._signals.fileno(): select.POLLIN}
        events = 0 if self._queue else select.POLLIN
        if self._input or self._end_input or self._resize:
            events |= select.POLLOUT
        if events:
            wanted[self._attachment.fileno()] = events
        if self._reading_input and not self._input:
            wanted[0] = select.POLLIN
        if self._queue:
            wanted[self._queue[0][0].fd] = select.POLLOUT
        for fd in self._watched.keys() - wanted.keys():
            self._poll.unregister(fd)
        for fd, events in wanted.items():
            if self._watched.get(fd) != events:
                self._poll.register(fd, events)
        self._watched = wanted
        return self._poll.poll()

    def _serve(self, fd: int, events: int) -> Ended | None:
        if fd == self._signals.fileno():
            return self._take_signals()
        if fd == self._attachment.fileno():
            if events & select.POLLOUT:
                self._send()
            if events & (select.POLLHUP | select.POLLERR):
                self._stop_sending()
            return self._receive() if events & ~select.POLLOUT and not self._queue else None
        if fd == 0 and self._reading_input:
            return self._read_input()
        return self._write()

    # signals

    def _take_signals(self) -> Ended | None:
        for number in self._signals.read():
            if number == signals.RESIZED:
                self._resize = self._streams.terminal
            elif number == signals.CONTINUED and self._raw is not None:
                self._raw.set()
            elif self._forward is not None:
                self._forward(number)
            elif number in signals.ENDING:
                return Ended("signalled", number)
        return None

    # from the user to the container

    def _read_input(self) -> Ended | None:
        try:
            data = os.read(0, INPUT_CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # EIO: the terminal was hung up
            data = b""
        if not data:
            self._reading_input = False
            self._end_input = True
        if self._keys is not None:
            data = self._keys.feed(data) if data else self._keys.end()
        self._input = data
        return Ended("detached") if self._keys is not None and self._keys.seen else None

    def _send(self) -> None:
        """One message, the only one that certainly fits: see `INPUT_CHUNK`."""
        try:
            if self._resize:
                self._resize = False
                size = terminal.size(1) or terminal.size(0)
                if size is not None and size != (0, 0):
                    self._attachment.resize(*size)
            elif self._input:
                data, self._input = self._input, b""
                self._attachment.send(data)
            elif self._end_input:
                self._end_input = False
                self._attachment.close_stdin()
        except OSError:
            self._stop_sending()

    def _stop_sending(self) -> None:
        """The other side is ending. What it still has to say is read until the connection's end."""
        self._reading_input = self._end_input = self._resize = False
        self._input = b""

    # from the container to the user

    def _receive(self) -> Ended | None:
        frames = self._attachment.receive()
        if frames is None:
            return Ended("closed")
        for kind, data in frames:
            fd = self._streams.outputs.get(kind)
            if fd is not None and data:
                self._queue.append((self._output(fd), memoryview(data)))
        return self._write()

    def _write(self) -> Ended | None:
        while self._queue:
            output, data = self._queue[0]
            try:
                written = output.write(data)
            except BrokenPipeError:
                return Ended("unread")
            if not written:
                return None
            if written < len(data):
                self._queue[0] = (output, data[written:])
            else:
                del self._queue[0]
        return self._finished()

    def _finished(self) -> Ended | None:
        """The exit code is the last frame: once all before it is written, nothing is left to be done."""
        report = self._attachment.exit
        return Ended("exited", int(report["exit_code"])) if report is not None and not self._queue else None

    def _output(self, fd: int) -> _Output:
        if fd not in self._outputs:
            self._outputs[fd] = _Output(fd)
        return self._outputs[fd]


class _Output:
    """A standard stream to write to without blocking.

    O_NONBLOCK belongs to what was opened, which the shell and others share with us: pipes and terminals are opened once more.
    Sockets, and what cannot be opened again, get small pieces when poll says that they fit.
    """

    def __init__(self, fd: int) -> None:
        self._name = "stdout" if fd == 1 else "stderr"
        self.fd = fd
        mode = os.fstat(fd).st_mode
        self._patient = stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            try:
                self.fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._patient = True
            except OSError:
                pass  # another user's, or a pipe without a reader, which the first write will tell
        self._own = self.fd != fd

    def write(self, data: memoryview) -> int:
        """As many bytes as go now. Raises BrokenPipeError when nobody reads any more, `WriteFailed` for any other reason."""
        try:
            if self._patient:
                return os.write(self.fd, data)
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            return os.write(self.fd, data[:PIPE_CHUNK]) if poll.poll(0) else 0
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise
        except OSError as e:
            raise WriteFailed(f"write /dev/{self._name}: {(e.strerror or str(e)).lower()}") from e

    def close(self) -> None:
        if self._own:
            os.close(self.fd)
