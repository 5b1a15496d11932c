"""The standard streams of a container's process, those who listen to them, and the one poll loop that serves both."""

from __future__ import annotations

import _socket
import errno
import os
import select
import time

from sampan.kernel import process, tty
from sampan.shim import protocol
from sampan.shim.spill import CHUNK, Spill
from sampan.steps.base import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.logs import Log

CLIENT_LIMIT = 1 << 20
"""Bytes that wait in memory for a session's clients. Past its share of that a client is served from the session's spill; without
one, the program's output is no longer read (it then blocks in write).
"""
STDIN_LIMIT = 1 << 18
"""Bytes of standard input that wait for the program before its client is no longer read."""
LARGEST_PIPE = 1 << 20
"""Bytes that a pipe can hold at most (/proc/sys/fs/pipe-max-size, by default)."""


class Loop:
    """poll(2) with a function for each descriptor."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def run_once(self, timeout_ms: int | None) -> bool:
        """Serve what is ready; False if nothing was within the time."""
        ready = [(fd, events, self._handlers.get(fd)) for fd, events in self._poll.poll(timeout_ms)]
        for fd, events, handler in ready:
            # A handler before this one may have closed it, and another descriptor have got its number: what is said here is not about that one.
            if handler is not None and self._handlers.get(fd) is handler:
                handler(events)
        return bool(ready)


class Session:
    """One process with its streams: the container's own, or an exec's."""

    def __init__(
        self,
        loop: Loop,
        identifier: str,
        open_stdin: bool,
        stdin_once: bool,
        terminal: bool,
        log: Log | None = None,
        spill: Spill | None = None,
    ) -> None:
        """`spill`: where output waits for clients that do not keep up; without it the program waits for them."""
        self._loop = loop
        self.identifier = identifier
        self.open_stdin = open_stdin
        self.stdin_once = stdin_once
        self.terminal = terminal
        self.log = log
        self.spill = spill
        self.clients: list[Client] = []
        self.pid = 0
        self.pidfd = -1
        self.exit_code: int | None = None
        self._outputs: dict[int, tuple[int, str]] = {}  # descriptor -> (kind of frame, stream's name)
        self._input = -1
        self._input_buffer = b""
        self._input_ending = False
        self._peer = -1
        self._paused = False
        self._deadline = 0.0  # of the draining

    def prepare(self, ctx: Context) -> None:
        """Make the pipes, or take the pty that a step opened: ours here, the program's in `ctx`."""
        if self.terminal:
            # The peer stays open here too: a terminal whose last program has closed it for a moment is not at its end.
            self._input = ctx.fds.pop("terminal")
            self._peer = ctx.fds["console"]
            self._outputs[self._input] = (protocol.STDOUT, "stdout")
            os.set_blocking(self._input, False)
            return
        if self.open_stdin:
            ctx.fds["stdin"], self._input = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._input, False)
        else:
            ctx.fds["stdin"] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for name, kind in (("stdout", protocol.STDOUT), ("stderr", protocol.STDERR)):
            reading, ctx.fds[name] = os.pipe2(os.O_CLOEXEC)
            self._outputs[reading] = (kind, name)

    def began(self, pid: int, ctx: Context, ended: Callable[[Session], None]) -> None:
        """The program runs: close its ends of the pipes, listen to ours."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.close_program_ends(ctx)
        for fd in self._outputs:
            self._watch_output(fd)
        self._loop.watch(self.pidfd, select.POLLIN, lambda _: ended(self))

    def close_program_ends(self, ctx: Context) -> None:
        for name in ("stdin", "stdout", "stderr"):
            ctx.close(name)
        if self.terminal:
            ctx.fds.pop("console", None)  # kept as self._peer

    def _readable(self, fd: int, events: int) -> None:
        if fd == self._input and events & select.POLLOUT:
            self._feed()
        if not events & ~select.POLLOUT:
            return
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            data = b""  # a pty without a peer
        if data:
            self._deliver(fd, data)
            self.regulate()
        else:
            self._ended(fd)

    def _deliver(self, fd: int, data: bytes) -> None:
        kind, stream = self._outputs[fd]
        if self.log is not None:
            self.log.write(stream, data)
        frame = protocol.frame(kind, data)
        if self.spill is not None:
            self._divert(self.spill, frame)
        # Over a copy: a client that cannot be reached any more takes itself off the list.
        for client in tuple(self.clients):
            if client.wants(kind) and client.behind < 0:
                client.send(frame)

    def _divert(self, spill: Spill, frame: bytes) -> None:
        """Let those who have enough to take already go on from the spill, later and in the same order."""
        for client in self.clients:
            if client.behind < 0 and client.waiting + len(frame) > self._share():
                client.behind = spill.end
        if any(c.behind >= 0 for c in self.clients):
            spill.append(frame)

    def _share(self) -> int:
        return max(CHUNK, CLIENT_LIMIT // (len(self.clients) or 1))

    def _ended(self, fd: int) -> None:
        self._loop.forget(fd)
        _, stream = self._outputs.pop(fd)
        if self.log is not None:
            self.log.end(stream)
        if fd == self._input:
            self._input = -1
        os.close(fd)

    def regulate(self) -> None:
        """Read the program's output only while there is room for it: no byte is dropped, none piles up."""
        if self.spill is not None:
            self.spill.release(min((c.behind for c in self.clients if c.behind >= 0), default=-1))
            paused = self.spill.full
        else:
            paused = any(c.waiting > self._share() for c in self.clients)
        if paused != self._paused:
            self._paused = paused
            for fd in self._outputs:
                self._watch_output(fd)

    @property
    def stuck(self) -> bool:
        """The program waits for room on the disk, of which nothing tells us: `regulate` is to be called now and then."""
        return self._paused and self.spill is not None

    def _watch_output(self, fd: int) -> None:
        if not self.pid:
            return  # its program does not run yet: nobody hears of it before that is told
        events = 0 if self._paused else select.POLLIN
        if fd == self._input and self._input_buffer:
            events |= select.POLLOUT

        def ready(events: int) -> None:
            self._readable(fd, events)

        self._loop.watch(fd, events, ready)

    def begin_draining(self, seconds: float) -> None:
        """The program has ended: its streams are at their end too, or have until then to get there.

        They may not get there: what it left running in the background can hold them. A slow client still counts, for
        that can go on writing; where nobody is left to write, poll reports a hang-up and the rest, a pipe's worth, is
        read whether somebody is slow or not.
        """
        if self._peer >= 0:
            os.close(self._peer)
            self._peer = -1
        self._deadline = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Until the draining has to be over; 0 when it is."""
        return max(0.0, self._deadline - time.monotonic()) if self._outputs else 0.0

    def drain(self, seconds: float) -> None:
        """Read what the ended program left in its pipes, until they end or for a bounded time."""
        self.begin_draining(seconds)
        while self.seconds_left:
            self._loop.run_once(20)

    def _take_rest(self, fd: int) -> None:
        """What is in a pipe that did not come to its end in time, and no more."""
        os.set_blocking(fd, False)
        for _ in range(LARGEST_PIPE // CHUNK):
            try:
                data = os.read(fd, CHUNK)
            except OSError:
                return  # nothing, or a pty without a peer
            if not data:
                return
            self._deliver(fd, data)

    def close(self) -> None:
        """Let go of every descriptor."""
        for fd in list(self._outputs):
            self._take_rest(fd)
            self._ended(fd)
        self.end_input()
        for fd in (self.pidfd, self._peer):
            if fd >= 0:
                self._loop.forget(fd)
                os.close(fd)
        self.pidfd = self._peer = -1

    # standard input

    @property
    def takes_input(self) -> bool:
        """Whether there is room for more. Where standard input has ended there is: what comes is dropped, and a client that
        fed it goes on to send signals and sizes over the same connection.
        """
        return len(self._input_buffer) < STDIN_LIMIT

    def input(self, data: bytes) -> None:
        """Hand bytes to the program; nobody reads them if its standard input is closed."""
        if self._input >= 0 and not self._input_ending:
            self._input_buffer += data
            self._feed()

    def client_ended_input(self) -> None:
        """A client's standard input is at its end: the program's too, if it was only for one client."""
        if self.stdin_once and not self.terminal:
            self._input_ending = True
            self._feed()

    def _feed(self) -> None:
        try:
            while self._input_buffer and self._input >= 0:
                written = os.write(self._input, self._input_buffer[:CHUNK])
                self._input_buffer = self._input_buffer[written:]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: the program has closed its standard input; EIO: the pty's is gone
            self._input_buffer = b""
            self.end_input()
        if self._input >= 0 and self._input_ending and not self._input_buffer:
            self.end_input()
        if self._input >= 0:
            if self._input in self._outputs:
                self._watch_output(self._input)
            elif self._input_buffer:
                self._loop.watch(self._input, select.POLLOUT, lambda _: self._feed())
            else:
                self._loop.forget(self._input)
        for client in self.clients:
            client.regulate()

    def end_input(self) -> None:
        """Close the program's standard input (a pty is closed with its output)."""
        if self._input >= 0 and self._input not in self._outputs:
            self._loop.forget(self._input)
            os.close(self._input)
            self._input = -1

    def resize(self, rows: int, columns: int) -> None:
        if self.terminal and self._input >= 0:
            tty.set_size(self._input, rows, columns)

    def signal(self, number: int) -> None:
        try:
            if self.pidfd >= 0:
                process.signal_process(self.pidfd, number)
        except ProcessLookupError:
            pass

    def tell_exit(self, **report: Any) -> None:
        """Give everybody the exit code as their last frame."""
        for client in tuple(self.clients):  # each one leaves the list as it is served
            client.send(protocol.message(protocol.EXIT, **report))
            client.finish()


class Client:
    """Somebody at the other end of a socket: listens to a session, feeds it, asks for an exec."""

    def __init__(self, loop: Loop, connection: Any, commands: Callable[[Client, int, dict[str, Any]], None]) -> None:
        self._loop = loop
        self._socket = connection
        self._commands = commands
        self._reader = protocol.Reader()
        self._out = bytearray()
        self.behind = -1
        """Where in its session's spill what it is to hear begins; -1 if all that it has not heard is in memory."""
        self._after = b""  # what it is told when it has heard that
        self._finishing = False
        self.was_told = False
        """Everything was delivered, its session's end too."""
        self.settles = False
        """Once told, it does what an exit leaves to do: it started the container. One that listens (a log) may not."""
        self._events = select.POLLIN
        self.session: Session | None = None
        self.kinds: set[int] = set()
        self.feeds_stdin = False
        self.closed = False
        self.gone = False
        """It waits for no answer any more, though it may have said something before."""
        self._socket.setblocking(False)
        self._loop.watch(self._socket.fileno(), self._events, self._ready)

    def wants(self, kind: int) -> bool:
        return kind in self.kinds

    @property
    def waiting(self) -> int:
        """Bytes that this client has not taken yet, of those in memory."""
        return len(self._out)

    @property
    def is_served(self) -> bool:
        """It has taken everything."""
        return not self._out and self.behind < 0

    def join(self, session: Session, kinds: set[int], stdin: bool) -> None:
        self.session, self.kinds, self.feeds_stdin = session, kinds, stdin
        session.clients.append(self)

    def send(self, data: bytes) -> None:
        if self.behind >= 0:
            self._after += data
        elif not self.closed:
            self._out += data
            self._flush()

    def finish(self) -> None:
        """Close once everything has been taken."""
        self._finishing = True
        self._flush()

    def _flush(self) -> None:
        if self.closed:
            return
        try:
            self._send_waiting()
            if self.behind >= 0 and not self._out:
                # Once, and no more before the others have had their turn.
                self._catch_up()
                self._send_waiting()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._finishing and self.is_served:
            self.was_told = True
            self.close()
        else:
            self.regulate()

    def _send_waiting(self) -> None:
        while self._out:
            with memoryview(self._out) as view:
                sent = self._socket.send(view[:CHUNK])
            del self._out[:sent]

    def _catch_up(self) -> None:
        assert self.session is not None
        assert self.session.spill is not None
        frames, self.behind = self.session.spill.read(self.behind, self.kinds)
        self._out += frames
        if self.behind < 0:
            self._out += self._after
            self._after = b""

    def regulate(self) -> None:
        """Ask for what can be served: bytes from the client while its session takes them, room while some wait for it."""
        if self.closed:
            return
        events = 0
        if not self.feeds_stdin or self.session is None or self.session.takes_input:
            events |= select.POLLIN
        if not self.is_served:
            events |= select.POLLOUT
        if events != self._events:
            self._events = events
            self._loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        self.gone = bool(events & select.POLLHUP)
        if events & select.POLLOUT:
            self._flush()
            if self.session is not None:
                self.session.regulate()
        if not self.closed and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self.receive()

    def look(self) -> None:
        """Take what it has said already, as the loop would have it done, which also tells whether it has gone since."""
        poll = select.poll()
        poll.register(self._socket, self._events)
        for _, events in poll.poll(0):
            self._ready(events)

    def receive(self) -> None:
        """Take what it says."""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            for kind, body in self._reader.feed(data):
                self._take(kind, body)
                if self.closed:
                    return
        except Exception as e:
            # Whatever a client says harms only itself: a container's life must not hang on it.
            self.send(protocol.message(protocol.FAILED, message=f"bad message: {type(e).__name__}: {e}", exit_code=125))
            self.finish()

    def _take(self, kind: int, body: bytes) -> None:
        session = self.session
        if kind == protocol.STDIN:
            if session is not None and self.feeds_stdin:
                session.input(body)
        elif kind == protocol.CLOSE_STDIN:
            if session is not None and self.feeds_stdin:
                session.client_ended_input()
        elif kind == protocol.RESIZE:
            size = protocol.loads(body)
            if session is not None:
                session.resize(int(size["rows"]), int(size["columns"]))
        elif kind == protocol.SIGNAL:
            if session is not None:
                session.signal(int(protocol.loads(body)["signal"]))
        else:
            self._commands(self, kind, protocol.read_request(kind, body))

    def close(self) -> None:
        """The client has gone, or has all it came for. What it fed stays; its session goes on."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        session = self.session
        if session is not None:
            session.clients.remove(self)
            if self.feeds_stdin and not self._finishing:
                session.client_ended_input()
            session.regulate()


def listen(directory: str, name: str) -> Any:
    """A listening socket at directory/name. Bound by its short name: the whole may be longer than a sun_path."""
    s = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    os.chdir(directory)
    try:
        os.unlink(name)
    except FileNotFoundError:
        pass
    s.bind(name)
    s.listen(128)
    s.setblocking(False)
    os.chdir("/")
    return s
