"""One client's connection: request after request, until it is idle (then it is parked), taken over, or at its end."""

from __future__ import annotations

import os
import select
import socket
import time
import traceback
from urllib.parse import urlsplit

import h11

from sampan.api import routes, versions
from sampan.api.exchange import Exchange
from sampan.api.failures import ClientGone, Refused, describe
from sampan.api.hosts import check_host
from sampan.api.http import MAX_HEAD, check_head, read_head
from sampan.api.query import Query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.api.listeners import Listener
    from sampan.api.log import Log
    from sampan.engine.engine import Engine

_LINGER_MILLISECONDS = 20
"""For which a connection's thread stays after an answer: the next request of the same client mostly comes at once."""
_DRAIN_SECONDS = 5.0
_MAX_DRAIN = 64 << 20


class Connection:
    """`serve` does what is there to be done and says whether the connection is to be parked."""

    def __init__(
        self,
        sock: socket.socket,
        listener: Listener,
        engine: Engine,
        log: Log,
        watch: Callable[[socket.socket, Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.socket = sock
        self._listener = listener
        self._engine = engine
        self._log = log
        self._watch = watch
        self._rest = b""
        self._secured = listener.tls is None
        self._ended = False

    def serve(self) -> bool:
        """Answer requests. True: the connection is idle. False: it is closed."""
        try:
            if not self._secured:
                self.socket = self._listener.secure(self.socket)
                self._secured = True
            while self._one():
                if not self._rest and not self._more():
                    return True
            self._finish()
        except ClientGone:
            self.close()
        except OSError as e:
            self._log.debug(f"connection: {e}")
            self.close()
        return False

    def has_begun(self) -> bool:
        """Whether something of the client's is there already, or its end is. What is there is taken, but for what TLS is to read."""
        try:
            if self._secured:
                self._rest = self.socket.recv(MAX_HEAD, socket.MSG_DONTWAIT)
            else:
                self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass  # it has gone: whoever serves it finds out
        return True

    def close(self) -> None:
        try:
            self.socket.close()
        except OSError:
            pass

    def _more(self) -> bool:
        """Whether something comes within a moment. TLS may hold bytes that poll does not know of."""
        pending = getattr(self.socket, "pending", None)
        if pending is not None and pending():
            return True
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return bool(poll.poll(_LINGER_MILLISECONDS))

    def _one(self) -> bool:
        """One request and its answer; whether the connection may have another one."""
        try:
            head, self._rest = read_head(self.socket, self._rest)
            if not head:
                self._ended = True
                return False
            check_head(head)
            # h11's own limit is for what has not become an event yet: a body that came along may be larger than that.
            protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD + 1)
            protocol.receive_data(head)
            request = protocol.next_event()
            if self._rest:
                protocol.receive_data(self._rest)
        except (Refused, h11.RemoteProtocolError) as e:
            self._refuse(_identifier(), e)
            return False
        assert isinstance(request, h11.Request)
        exchange = Exchange(_identifier(), request, protocol, self.socket, self._log, self._watch)
        return self._answer(exchange) and self._next(exchange, protocol)

    def _refuse(self, identifier: str, error: Exception) -> None:
        """Answer what is no request, by hand: there is no exchange to do it."""
        from sampan import jsontext

        status = error.status if isinstance(error, Refused) else 400
        body = jsontext.dumps({"message": str(error)}) + b"\n"
        self._log.info(f"{identifier} refused: {status} {error}")
        head = f"HTTP/1.1 {status} Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            self.socket.sendall(head.encode("ascii") + b"Connection: close\r\n\r\n" + body)
        except OSError:
            raise ClientGone from None

    def _answer(self, exchange: Exchange) -> bool:
        """Call the handler; False if the connection has to end because its client cannot know any more where it is."""
        fault = ""
        try:
            self._handle(exchange)
            if not exchange.status:
                raise RuntimeError("the handler did not answer")
            if not exchange.ended:
                exchange.end()
            return not exchange.hijacked
        except ClientGone:
            fault = "client gone"
            raise
        except Exception as e:
            failure = describe(e, exchange.id)
            fault = failure.message
            if failure.ours:
                self._log.error(f"{exchange.id} {traceback.format_exc()}")
            if exchange.status:
                # In the middle of a body: that it breaks off without its end is all that can be said.
                return False
            body = {"message": failure.message} if failure.status != 304 else None
            exchange.reply(failure.status, body, failure.headers)
            return not isinstance(e, Refused)
        finally:
            self._tell(exchange, fault)

    def _handle(self, exchange: Exchange) -> None:
        check_host(exchange.headers, self._listener)
        path, query = _split(exchange.target)
        exchange.query = Query(query)
        exchange.version, exchange.path = versions.split(path)
        route, parameters = routes.find(exchange.method, exchange.path, exchange.version)
        routes.load(route)(self._engine, exchange, **parameters)

    def _tell(self, exchange: Exchange, fault: str) -> None:
        tell = self._log.info if fault else self._log.debug
        if not self._log.takes("info" if fault else "debug"):
            return
        took = (time.monotonic() - exchange.begun) * 1000
        line = f"{exchange.id} {exchange.method} {exchange.target} {exchange.status or '-'} {took:.1f} ms"
        tell(line + (f": {fault}" if fault else ""))

    def _next(self, exchange: Exchange, protocol: h11.Connection) -> bool:
        """Make way for the next request: what of the body nobody wanted is read away, if it is not too much."""
        if protocol.they_are_waiting_for_100_continue:
            return False  # whether the body still comes nobody knows
        read = 0
        while not exchange.body.at_end:
            part = exchange.body.read(256 << 10)
            read += len(part)
            if read > _MAX_DRAIN:
                return False
        if not (exchange.plain or protocol.our_state is h11.DONE) or protocol.their_state is not h11.DONE:
            return False  # one of us said `Connection: close`, or it is HTTP/1.0
        self._rest = bytes(protocol.trailing_data[0])
        return True

    def _finish(self) -> None:
        """Close it so that the client gets all that was sent.

        A socket that is closed with unread input resets the connection, and takes what the client has not read yet along
        (`yes | docker run -i ... exit 3`): our half is shut, and what still comes is read away, for a while.
        """
        sock = self.socket
        if self._ended and self._listener.tls is None:
            self.close()  # the client has said that it sends nothing more, and nothing that it sent is unread
            return
        try:
            if hasattr(sock, "unwrap"):
                sock.settimeout(0)
                try:
                    sock.unwrap()  # says that this is the end; that the client has not said so yet is no error
                except (OSError, ValueError):
                    pass
            socket.socket.shutdown(sock, socket.SHUT_WR)
            deadline = time.monotonic() + _DRAIN_SECONDS
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
            # Past TLS: what is thrown away need not be deciphered.
            while (left := deadline - time.monotonic()) > 0 and poll.poll(int(left * 1000) + 1):
                if not os.read(sock.fileno(), 256 << 10):
                    break
        except OSError:
            pass
        self.close()


def _identifier() -> str:
    """Of a request, in the log and for its client."""
    return os.urandom(6).hex()


def _split(target: str) -> tuple[str, str]:
    """The path and the query of a request's target, as `urlsplit` finds them, which most targets do not need."""
    if target.startswith("/") and not target.startswith("//") and "#" not in target:
        path, _, query = target.partition("?")
        return path, query
    parts = urlsplit(target)
    return parts.path, parts.query
