"""Questions that a network's records do not answer: they are forwarded to other servers, and what these say is kept for a while.

Each question goes out from a socket of its own, connected with the server, under a random id: an answer counts if it comes from
that server to that port with that id and question (RFC 5452). The first server is asked first; one that is silent is not waited for longer
than a moment before the next is asked beside it; one that fails is passed over at once.
"""

from __future__ import annotations

import _socket
import _struct
import errno
import os
import time

from sampan.network import dnsmessage, loop
from sampan.network.dnsmessage import NOERROR, NXDOMAIN, SERVFAIL, Answer, Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.network.budget import Budget
    from sampan.network.loop import Loop, Timer

    Reply = Callable[[bytes], None]
    Within = Callable[[Callable[[], Any]], Any]

PORT = 53
OVERTAKE_SECONDS = 0.5
"""That a server may be silent before the next one is asked beside it."""
ROUNDS = 2
"""How often each server is asked over UDP."""
PATIENCE_SECONDS = 4.0
"""For all servers together: a little less than a client waits (resolv.conf(5): 5 seconds)."""
MOST_PENDING, MOST_PENDING_OF_ONE = 2048, 512
"""Questions that wait for servers: of all containers, and of one."""
MOST_WAITING = 64
"""That wait for one and the same answer."""
CACHE_ENTRIES, CACHE_BYTES = 2000, 4 << 20
LONGEST_SECONDS = 3600
"""That an answer is kept, whatever it says."""
AVOID_SECONDS = 10.0
"""For which a server that did not answer is asked last."""

_TRANSIENT = (errno.EAGAIN, errno.EINTR)


class Server:
    """A server that questions are forwarded to. within: runs a function in the network namespace from which it is asked."""

    __slots__ = ("address", "family", "origin", "within")

    def __init__(self, address: str, within: Within | None, origin: str) -> None:
        """Raises OSError, ValueError for what is no address. origin: the namespace's name, by which answers are kept apart."""
        host, _, zone = address.partition("%")
        self.family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
        _socket.inet_pton(self.family, host)
        if self.family == _socket.AF_INET6:
            number = (int(zone) if zone.isdecimal() else _socket.if_nametoindex(zone)) if zone else 0
            self.address: Any = (host, PORT, 0, number)
        else:
            self.address = (host, PORT)
        self.within = within
        self.origin = origin

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.address, self.origin)

    def connect(self, kind: int) -> Any:
        """A socket that is connected with it, or about to be. Raises OSError."""
        return self._connect(kind) if self.within is None else self.within(lambda: self._connect(kind))

    def _connect(self, kind: int) -> Any:
        made = _socket.socket(self.family, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        try:
            made.connect(self.address)
        except BlockingIOError:
            pass
        except BaseException:
            made.close()
            raise
        return made


class Cache:
    """Answers by what was asked, for as long as they say; the ones that nobody asked for longest go first."""

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[float, Answer]] = {}
        self._bytes = 0

    def find(self, key: Any) -> bytes | None:
        """The answer, as old as it is now."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return None
        since, answer = kept
        age = time.monotonic() - since
        if age >= min(answer.lifetime, LONGEST_SECONDS):
            self._bytes -= len(answer.data)
            return None
        self._kept[key] = kept  # now the newest
        return answer.aged(int(age))

    def keep(self, key: Any, answer: Answer) -> None:
        if answer.lifetime <= 0 or answer.truncated:
            return
        self.forget(key)
        self._kept[key] = (time.monotonic(), answer)
        self._bytes += len(answer.data)
        while len(self._kept) > CACHE_ENTRIES or self._bytes > CACHE_BYTES:
            self.forget(next(iter(self._kept)))

    def forget(self, key: Any) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept[1].data)


class Forwarder:
    """Asks servers, for all containers of a keeper."""

    def __init__(self, loop_: Loop, budget: Budget) -> None:
        self._loop = loop_
        self.budget = budget
        self.cache = Cache()
        self.pending: dict[Any, Pending] = {}
        self.counts: dict[str, int] = {}
        self._silent: dict[Any, float] = {}

    def ask(self, container: str, question: Question, servers: list[Server], stream: bool, reply: Reply) -> None:
        """Have `reply` called with the answer, perhaps at once; SERVFAIL if no server gives one, or too many questions wait already."""
        asked_from = tuple(server.key for server in servers)
        about = (question.name, question.kind, question.klass, question.edns, question.secure)
        bits = question.flags & (dnsmessage.RD | dnsmessage.AD | dnsmessage.CD)
        key = None if question.options else (asked_from, about, bits)
        kept = self.cache.find(key) if key is not None else None
        if kept is not None and (stream or len(kept) <= question.size):
            reply(dnsmessage.with_question(kept, question))
            return
        # Who waits together must have asked in the same letters, and take as much.
        shared = (key, question.question, stream, question.size) if key is not None else object()
        pending = self.pending.get(shared)
        if pending is not None and len(pending.waiting) < MOST_WAITING:
            pending.waiting.append((question, reply))
            return
        if not servers or pending is not None or not self._has_room(container):
            reply(dnsmessage.answer(question, SERVFAIL))
            return
        self.counts[container] = self.counts.get(container, 0) + 1
        over = lambda: self._over(shared, container)  # noqa: E731
        pending = Pending(self._loop, self, question, self._in_order(servers), stream, container, over)
        pending.key = key
        pending.waiting.append((question, reply))
        self.pending[shared] = pending
        pending.begin()

    def _has_room(self, container: str) -> bool:
        return len(self.pending) < MOST_PENDING and self.counts.get(container, 0) < MOST_PENDING_OF_ONE

    def _over(self, shared: Any, container: str) -> None:
        if self.pending.pop(shared, None) is not None:
            left = self.counts[container] - 1
            if left:
                self.counts[container] = left
            else:
                del self.counts[container]

    def forget(self, container: str) -> None:
        """Give up what is asked from the container's own namespace, which our sockets keep alive."""
        for pending in [each for each in self.pending.values() if each.origin == container]:
            pending.give_up()

    def _in_order(self, servers: list[Server]) -> list[Server]:
        """Those that were silent lately last."""
        if not self._silent:
            return servers
        now = time.monotonic()
        return sorted(servers, key=lambda server: now - self._silent.get(server.key, -AVOID_SECONDS) < AVOID_SECONDS)

    def was_silent(self, server: Server) -> None:
        if len(self._silent) > 1024:
            self._silent.clear()
        self._silent[server.key] = time.monotonic()

    def has_answered(self, server: Server) -> None:
        self._silent.pop(server.key, None)


class Pending:
    """One question on its way."""

    def __init__(
        self,
        loop_: Loop,
        forwarder: Forwarder,
        question: Question,
        servers: list[Server],
        stream: bool,
        container: str,
        over: Callable[[], None],
    ) -> None:
        self.key: Any = None
        self.origin = servers[0].origin
        self.waiting: list[tuple[Question, Reply]] = []
        self._loop = loop_
        self._forwarder = forwarder
        self._question = question
        self._stream = stream
        self._container = container
        self._to_ask = servers * (1 if stream else ROUNDS)
        self._over = over
        self._exchanges: list[Exchange] = []
        self._timer: Timer | None = None
        self._deadline: Timer | None = None
        self._failure: Answer | None = None
        self._done = False

    def begin(self) -> None:
        self._deadline = self._loop.after(PATIENCE_SECONDS, lambda: self._conclude(self._failure))
        self._ask_next()

    def _ask_next(self) -> None:
        """Ask one more server, beside those that were asked; with none left, wait for these."""
        if self._done:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._to_ask:
            server = self._to_ask.pop(0)
            if not self._forwarder.budget.take(self._container):
                continue
            try:
                exchange = (StreamExchange if self._stream else Exchange)(
                    self._loop, server, self._question, self._heard
                )
            except OSError:
                self._forwarder.budget.give(self._container)
                continue  # no route to it, no descriptor left
            self._exchanges.append(exchange)
            if self._to_ask:
                self._timer = self._loop.after(OVERTAKE_SECONDS, self._overtake)
            return
        if not any(exchange.is_open for exchange in self._exchanges):
            self._conclude(self._failure)

    def _overtake(self) -> None:
        self._forwarder.was_silent(self._exchanges[-1].server)
        self._ask_next()

    def _heard(self, exchange: Exchange, answer: Answer | None) -> None:
        """A server answered; None if it cannot be asked."""
        if self._done:
            return
        if answer is not None and answer.rcode in (NOERROR, NXDOMAIN):
            self._forwarder.has_answered(exchange.server)
            self._conclude(answer)
            return
        self._failure = answer or self._failure
        if answer is None:
            self._forwarder.was_silent(exchange.server)
        # A server that says why it does not answer says so a second time, too.
        self._to_ask = [server for server in self._to_ask if server is not exchange.server]
        self._ask_next()

    def give_up(self) -> None:
        """Answer that there is no answer."""
        self._conclude(None)

    def _conclude(self, answer: Answer | None) -> None:
        if self._done:
            return
        self._done = True
        for exchange in self._exchanges:
            exchange.close()
            self._forwarder.budget.give(self._container)
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._over()
        if answer is not None and self.key is not None:
            self._forwarder.cache.keep(self.key, answer)
        for question, reply in self.waiting:
            if answer is None:
                reply(dnsmessage.answer(question, SERVFAIL))
            else:
                reply(dnsmessage.with_question(answer.data, question))


class Exchange:
    """One question to one server over UDP."""

    kind = _socket.SOCK_DGRAM

    def __init__(
        self, loop_: Loop, server: Server, question: Question, heard: Callable[[Any, Answer | None], None]
    ) -> None:
        """Raises OSError."""
        self.server = server
        self._loop = loop_
        self._question = question.question
        self._heard = heard
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._data = dnsmessage.with_identifier(question.data, self._identifier)
        self._socket: Any = server.connect(self.kind)
        try:
            self._begin()
        except BaseException:
            self._socket.close()
            raise

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def _begin(self) -> None:
        self._socket.send(self._data)
        self._loop.watch(self._socket.fileno(), loop.READ, self._ready)

    def _ready(self, _events: int) -> None:
        for _ in range(16):  # what is not the answer is not waited for: somebody may send without an end
            try:
                data = self._socket.recv(dnsmessage.LARGEST)
            except OSError as e:
                if e.errno in _TRANSIENT:
                    return
                self._tell(None)  # ICMP: nobody listens there
                return
            if self._take(data):
                return

    def _take(self, data: bytes) -> bool:
        try:
            answer = Answer(data, self._identifier, self._question)
        except dnsmessage.Malformed:
            return False  # forged, or broken: the answer may come still
        self._tell(answer)
        return True

    def _tell(self, answer: Answer | None) -> None:
        self.close()
        self._heard(self, answer)

    def close(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


class StreamExchange(Exchange):
    """The same over TCP (RFC 7766): for who asked so, mostly because the answer did not fit over UDP."""

    kind = _socket.SOCK_STREAM

    def _begin(self) -> None:
        self._unsent = _struct.pack("!H", len(self._data)) + self._data
        self._received = bytearray()
        self._loop.watch(self._socket.fileno(), loop.WRITE, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if not self._unsent:
                    self._loop.watch(self._socket.fileno(), loop.READ, self._ready)
                return
            data = self._socket.recv(1 << 16)
        except OSError as e:
            if e.errno not in _TRANSIENT:
                self._tell(None)
            return
        self._received += data
        if not data:
            self._tell(None)
        elif len(self._received) >= 2:
            length = int.from_bytes(self._received[:2], "big")
            if len(self._received) >= 2 + length and not self._take(bytes(self._received[2 : 2 + length])):
                self._tell(None)  # over one connection, what is no answer is a broken server
