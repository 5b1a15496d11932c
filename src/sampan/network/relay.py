"""Relays for published ports: what the firewall does not lead past them to the container, they carry there.

That is what comes from the host's own loopback addresses, over IPv6 to a container without, or where there is no firewall. The
container sees the host's address on the network as its client.
"""

from __future__ import annotations

import _socket
import errno
import os
import time

from sampan.network import loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.network.budget import Budget
    from sampan.network.loop import Loop

    Target = Callable[[], "tuple[str, int] | None"]

_CHUNK = 1 << 16
_WAITING = 4096
_PAUSE_SECONDS = 0.1
CONNECT_SECONDS = 30.0
HALF_OPEN_SECONDS = 300.0
"""For which a connection may go on one way only, when nothing comes that way either."""
MOST_SESSIONS = 1024
"""Clients of one UDP port; the one that said nothing for longest is forgotten for a new one."""
SESSION_SECONDS = 90.0
"""After which a silent one is forgotten."""
_AT_ONCE = 32
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50


def _family(address: str) -> int:
    return _socket.AF_INET6 if ":" in address else _socket.AF_INET


def _out_of_descriptors(error: OSError) -> bool:
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class StreamRelay:
    """A published TCP port: accepts, and connects each client with the container."""

    def __init__(self, loop_: Loop, listener: Any, owner: str, target: Target, budget: Budget) -> None:
        """listener: bound, ours from here on. target: the container's address and port now, None if it has gone. Raises OSError."""
        self._loop = loop_
        self._listener = listener
        self._owner = owner
        self._target = target
        self._budget = budget
        self._pairs: set[Pair] = set()
        listener.setblocking(False)
        listener.listen(_WAITING)
        loop_.watch(listener.fileno(), loop.READ, self._accept)

    def close(self) -> None:
        if self._listener is None:
            return
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        self._listener = None
        for pair in list(self._pairs):
            pair.close()

    def _accept(self, _events: int) -> None:
        if not self._budget.take(self._owner, 2):
            self._pause()
            return
        fd = -1
        try:
            fd, _ = self._listener._accept()
            target = self._target()
            if target is None:
                raise ConnectionRefusedError
            client = _socket.socket(fileno=fd)
            fd = -1
            self._pairs.add(Pair(self._loop, client, target, self._forget))
        except OSError as e:
            self._budget.give(self._owner, 2)
            if fd >= 0:
                os.close(fd)
            if _out_of_descriptors(e):
                self._pause()

    def _forget(self, pair: Pair) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
            self._budget.give(self._owner, 2)

    def _pause(self) -> None:
        """Too many connections: the next clients wait in the kernel's queue, instead of waking us for ever."""
        self._loop.forget(self._listener.fileno())
        self._loop.after(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), loop.READ, self._accept)


class _Way:
    """One direction: what was read from `source` and not taken by `sink` yet."""

    __slots__ = ("ended", "sink", "source", "unsent")

    def __init__(self, source: Any, sink: Any) -> None:
        self.source = source
        self.sink = sink
        self.unsent = b""
        self.ended = False

    def carry(self) -> bool:
        """Move what can be moved, to a bound; whether anything was."""
        moved = False
        for _ in range(16):
            if not self.unsent:
                if self.ended:
                    return moved
                try:
                    self.unsent = self.source.recv(_CHUNK)
                except BlockingIOError:
                    return moved
                moved = True
                if not self.unsent:
                    self.ended = True
                    self.sink.shutdown(_socket.SHUT_WR)
                    return True
            try:
                self.unsent = self.unsent[self.sink.send(self.unsent) :]
                moved = True
            except BlockingIOError:
                return moved
        return moved


class Pair:
    """A client and its connection with the container. Each way ends by itself, as with one connection (half-close)."""

    def __init__(self, loop_: Loop, client: Any, target: tuple[str, int], over: Callable[[Pair], None]) -> None:
        """`client` is ours, and closed if this fails. Raises OSError."""
        self._loop = loop_
        self._client = client
        self._over = over
        self._closed = False
        self._server: Any = None
        try:
            client.setblocking(False)
            kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
            self._server = _socket.socket(_family(target[0]), kind)
            for each in (client, self._server):
                each.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                each.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
            try:
                self._server.connect(target)
            except BlockingIOError:
                pass
            self._ways = (_Way(client, self._server), _Way(self._server, client))
            self._moved = time.monotonic()
            loop_.watch(self._server.fileno(), loop.WRITE, self._connected)
        except BaseException:
            client.close()
            if self._server is not None:
                self._server.close()
            raise
        self._timer = loop_.after(CONNECT_SECONDS, self.close)

    def _connected(self, _events: int) -> None:
        self._timer.cancel()
        if self._server.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            self.close()
            return
        self._carry(0)

    def _carry(self, events: int) -> None:
        try:
            for way in self._ways:
                if way.carry():
                    self._moved = time.monotonic()
        except OSError:
            self.close()
            return
        if all(way.ended and not way.unsent for way in self._ways):
            self.close()
            return
        if events & loop.GONE and not events & loop.READ:
            self.close()  # reset, with nothing left to be read
            return
        self._watch()

    def _watch(self) -> None:
        to_server, to_client = self._ways
        for end, reads, writes in ((self._client, to_server, to_client), (self._server, to_client, to_server)):
            events = loop.WRITE if writes.unsent else 0
            if not reads.unsent and not reads.ended:
                events |= loop.READ
            if events:
                self._loop.watch(end.fileno(), events, self._carry)
            else:
                self._loop.forget(
                    end.fileno()
                )  # or its hanging up would wake us for ever; the other end has to go on first
        if (to_server.ended or to_client.ended) and self._timer.cancelled:
            self._timer = self._loop.after(HALF_OPEN_SECONDS, self._look)

    def _look(self) -> None:
        left = HALF_OPEN_SECONDS - (time.monotonic() - self._moved)
        if left <= 0:
            self.close()
        else:
            self._timer = self._loop.after(left, self._look)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        for each in (self._client, self._server):
            self._loop.forget(each.fileno())
            each.close()
        self._over(self)


class _Session:
    """One client of a UDP port. address: the host's, which it spoke to and is answered from."""

    __slots__ = ("address", "client", "spoke", "upstream")

    def __init__(self, client: Any, address: list[Any], upstream: Any) -> None:
        self.client = client
        self.address = address
        self.upstream = upstream
        self.spoke = time.monotonic()


class DatagramRelay:
    """A published UDP port: a socket towards the container for each client, so that answers find back."""

    def __init__(self, loop_: Loop, bound: Any, owner: str, target: Target, budget: Budget) -> None:
        """bound: ours from here on. See `StreamRelay`."""
        self._loop = loop_
        self._socket = bound
        self._owner = owner
        self._target = target
        self._budget = budget
        self._sessions: dict[Any, _Session] = {}
        self._closed = False
        bound.setblocking(False)
        # A client takes an answer from no other address than the one that it asked: told by the kernel, given back to it.
        if bound.family == _socket.AF_INET6:
            bound.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(_socket.SOL_IP, _IP_PKTINFO, 1)
        loop_.watch(bound.fileno(), loop.READ, self._receive)
        loop_.after(SESSION_SECONDS / 3, self._expire)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        for key in list(self._sessions):
            self._end(key)

    def _receive(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, _flags, client = self._socket.recvmsg(_CHUNK, 256)
            except OSError:
                return
            session = self._session(client, _local_address(ancillary))
            if session is not None:
                try:
                    session.upstream.send(data)
                except OSError:
                    pass  # nobody listens there, or it does not keep up

    def _session(self, client: Any, address: list[Any]) -> _Session | None:
        session = self._sessions.pop(client, None)
        if session is None:
            session = self._make(client, address)
            if session is None:
                return None
        session.spoke = time.monotonic()
        self._sessions[client] = session  # now the newest
        return session

    def _make(self, client: Any, address: list[Any]) -> _Session | None:
        target = self._target()
        if target is None:
            return None
        if len(self._sessions) >= MOST_SESSIONS or not self._budget.take(self._owner):
            if not self._sessions:
                return None
            self._end(next(iter(self._sessions)))
            if not self._budget.take(self._owner):
                return None
        try:
            kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
            upstream = _socket.socket(_family(target[0]), kind)
        except OSError:
            self._budget.give(self._owner)
            return None
        try:
            upstream.connect(target)
            session = _Session(client, address, upstream)
            self._loop.watch(upstream.fileno(), loop.READ, lambda _: self._answered(session))
        except OSError:
            upstream.close()
            self._budget.give(self._owner)
            return None
        return session

    def _answered(self, session: _Session) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = session.upstream.recv(_CHUNK)
            except OSError:
                return  # no more, or ICMP
            session.spoke = time.monotonic()
            try:
                self._socket.sendmsg([data], session.address, 0, session.client)
            except OSError:
                pass

    def _expire(self) -> None:
        if self._closed:
            return
        now = time.monotonic()
        for key in [key for key, session in self._sessions.items() if now - session.spoke > SESSION_SECONDS]:
            self._end(key)
        self._loop.after(SESSION_SECONDS / 3, self._expire)

    def _end(self, key: Any) -> None:
        session = self._sessions.pop(key)
        self._loop.forget(session.upstream.fileno())
        session.upstream.close()
        self._budget.give(self._owner)


def _local_address(ancillary: list[tuple[int, int, bytes]]) -> list[Any]:
    """What sendmsg needs to answer from the address at which a datagram came (ip(7), ipv6(7))."""
    for level, kind, data in ancillary:
        if level == _socket.SOL_IP and kind == _IP_PKTINFO and len(data) >= 12:
            # struct in_pktinfo: the link (0: whichever leads there), ipi_spec_dst, ipi_addr. The second one is not known of what waited
            # in the socket when we asked to be told, the third one is whatever the client wrote, a broadcast address too.
            address = data[4:8] if any(data[4:8]) else data[8:12]
            return [(level, kind, bytes(4) + address + bytes(4))]
        if level == _socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO and len(data) >= 20:
            # A mapped IPv4 address works here too; a link-local one needs its link.
            link = data[16:20] if data[:2] == b"\xfe\x80" else bytes(4)
            return [(level, kind, data[:16] + link)]
    return []
