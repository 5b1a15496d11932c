"""The server for names of one container: its two sockets, and what a hostile client could do to them.

Over UDP nothing is held for a client: what its socket does not take is lost, as on any network. Over TCP, each connection has
bounds for how many questions wait, how many bytes it does not read, and how long it says nothing.
"""

from __future__ import annotations

import _socket
import _struct
import errno
import os

from sampan.network import dnsmessage, loop, names
from sampan.network.dnsmessage import REFUSED, SERVFAIL, Malformed, Question, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.network.budget import Budget
    from sampan.network.forward import Forwarder, Server
    from sampan.network.loop import Loop, Timer
    from sampan.network.members import Directory

_AT_ONCE = 32
"""Datagrams that are served before other containers have their turn."""
MOST_CONNECTIONS = 64
"""Of one container; the one that said nothing for longest makes room for a new one."""
IDLE_SECONDS = 10.0
_MOST_WAITING = 32
"""Questions of one connection that wait for their answers; it is not read meanwhile."""
_MOST_UNREAD = 1 << 17
"""Bytes of answers that a client may leave unread before its questions are no longer read."""
_PER_TURN = 4
"""Questions of one connection that are served before others have their turn."""
_PAUSE_SECONDS = 0.2


class NameServer:
    """Answers one container."""

    def __init__(
        self,
        loop_: Loop,
        container: str,
        sockets: tuple[Any, Any],
        directory: Directory,
        forwarder: Forwarder,
        servers: Callable[[tuple[str, ...]], list[Server]],
        budget: Budget,
        failed: Callable[[BaseException], None],
    ) -> None:
        """sockets: UDP and TCP, ours from here on. servers: those to ask instead of us, of the container's own or the host's."""
        self._loop = loop_
        self._container = container
        self._udp, self._tcp = sockets
        self._directory = directory
        self._forwarder = forwarder
        self._servers = servers
        self._budget = budget
        self._failed = failed
        self._connections: dict[Connection, None] = {}
        self._closed = False
        for each in sockets:
            each.setblocking(False)
        loop_.watch(self._udp.fileno(), loop.READ, self._receive)
        loop_.watch(self._tcp.fileno(), loop.READ, self._accept)

    @property
    def ports(self) -> tuple[int, int]:
        """Of UDP and of TCP, in the container's namespace."""
        return self._udp.getsockname()[1], self._tcp.getsockname()[1]

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for each in (self._udp, self._tcp):
            self._loop.forget(each.fileno())
            each.close()
        for connection in list(self._connections):
            connection.close()

    def ask(self, data: bytes, stream: bool, reply: Callable[[bytes], None]) -> None:
        """Answer one message, now or later; not at all if it is none."""
        try:
            question = Question(data)
        except Refused as e:
            reply(dnsmessage.failure(data, e.rcode))
            return
        except Malformed:
            return
        try:
            self._answer(question, stream, reply)
        except Exception as e:
            self._failed(e)
            reply(dnsmessage.answer(question, SERVFAIL))

    def _answer(self, question: Question, stream: bool, reply: Callable[[bytes], None]) -> None:
        if question.is_transfer:
            reply(dnsmessage.answer(question, REFUSED))
            return
        view = names.View(self._directory, self._container)
        limit = dnsmessage.LARGEST if stream else question.size
        local = names.local_answer(view, question, limit)
        if local is not None:
            reply(local)
        elif not view.may_ask_others:
            reply(dnsmessage.answer(question, SERVFAIL))
        else:

            def fit(answer: bytes) -> None:
                reply(answer if stream else dnsmessage.fitting(answer, question))

            self._forwarder.ask(self._container, question, self._servers(view.servers), stream, fit)

    # UDP

    def answer_waiting(self) -> None:
        """What has come over UDP until now."""
        self._receive(0)

    def _receive(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, client = self._udp.recvfrom(dnsmessage.LARGEST)
            except OSError:
                return  # no more, or word of an answer that nobody took
            self.ask(data, False, lambda answer, to=client: self._send(answer, to))  # type: ignore[misc]

    def _send(self, answer: bytes, client: Any) -> None:
        if self._closed:
            return
        try:
            self._udp.sendto(answer, client)
        except OSError:
            pass  # it does not read, or has gone

    # TCP

    def _accept(self, _events: int) -> None:
        try:
            fd, _ = self._tcp._accept()
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._pause()
            return
        if len(self._connections) >= MOST_CONNECTIONS:
            next(iter(self._connections)).close()
        if not self._budget.take(self._container):
            os.close(fd)
            return
        self._connections[Connection(self._loop, _socket.socket(fileno=fd), self)] = None

    def _pause(self) -> None:
        """Out of descriptors: whoever connects waits, instead of waking us for ever."""
        self._loop.forget(self._tcp.fileno())
        self._loop.after(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.watch(self._tcp.fileno(), loop.READ, self._accept)

    def spoke(self, connection: Connection) -> None:
        """The connection said something: it is the last to make room."""
        self._connections.pop(connection, None)
        self._connections[connection] = None

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._budget.give(self._container)


class Connection:
    """One client over TCP: messages with their length before them, as many as it likes, one after the other or not."""

    def __init__(self, loop_: Loop, connection: Any, server: NameServer) -> None:
        connection.setblocking(False)
        self._loop = loop_
        self._socket: Any = connection
        self._server = server
        self._received = bytearray()
        self._unsent = bytearray()
        self._waiting = 0
        self._at_end = self._serving = self._later = False
        self._timer: Timer = loop_.after(IDLE_SECONDS, self.close)
        self._watch()

    def _watch(self) -> None:
        if self._socket is None:
            return
        events = loop.WRITE if self._unsent else 0
        if self._may_take and not self._at_end and not self._later:
            events |= loop.READ
        self._loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & loop.WRITE:
                self._flush()
            if self._socket is not None and events & loop.READ:
                self._read()
            elif events & loop.GONE:
                self.close()
        except OSError:
            self.close()
        self._watch()

    def _read(self) -> None:
        data = self._socket.recv(1 << 14)
        self._received += data
        self._at_end = not data
        self._serve()
        self._end_if_done()

    def _serve(self) -> None:
        """Take a few whole messages; with more of them here, others have their turn before."""
        if self._serving or self._later:
            return  # an answer that was there at once: the loop below goes on
        self._serving = True
        try:
            for _ in range(_PER_TURN):
                if not self._take_message():
                    return
        finally:
            self._serving = False
        self._later = True
        self._loop.after(0, self._go_on)

    def _go_on(self) -> None:
        self._later = False
        self._serve()
        self._end_if_done()
        self._watch()

    @property
    def _may_take(self) -> bool:
        return self._waiting < _MOST_WAITING and len(self._unsent) < _MOST_UNREAD

    def _take_message(self) -> bool:
        """Take one; False if there is no whole one, or no more may wait."""
        if self._socket is None or not self._may_take or len(self._received) < 2:
            return False
        length = int.from_bytes(self._received[:2], "big")
        if len(self._received) < 2 + length:
            return False
        message = bytes(self._received[2 : 2 + length])
        del self._received[: 2 + length]
        if length < dnsmessage.HEADER or message[2] & 0x80:
            self.close()  # not a question: whoever sends that does not mean us
            return False
        self._server.spoke(self)
        self._rest()
        self._waiting += 1
        self._server.ask(message, True, self._answered)
        return True

    def _rest(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.after(IDLE_SECONDS, self.close)

    def _answered(self, answer: bytes) -> None:
        if self._socket is None:
            return
        self._waiting -= 1
        self._unsent += _struct.pack("!H", len(answer)) + answer
        try:
            self._flush()
        except OSError:
            self.close()
        self._watch()

    def _flush(self) -> None:
        try:
            while self._unsent and self._socket is not None:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        self._serve()  # those that had to wait
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._at_end and not (self._waiting or self._unsent or self._later or self._serving):
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._timer.cancel()
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._server.forget(self)
