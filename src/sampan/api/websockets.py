"""`GET /containers/{id}/attach/ws`: the container's streams in the binary messages of a websocket, without frames of their own."""

from __future__ import annotations

import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage

from sampan.api.relay import Relay
from sampan.errors import InvalidParameter
from sampan.oci.detachkeys import parse_detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine


class Channel:
    """A websocket as the relay sees a client's socket. A message goes out as a whole: a client that does not read stops its own input."""

    def __init__(self, sock: socket.socket, protocol: wsproto.WSConnection) -> None:
        self._socket = sock
        self._protocol = protocol
        self._ready = bytearray()
        self._ended = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, _on: bool) -> None:
        """It blocks: `send` sends a whole message."""

    def recv(self, _size: int) -> bytes:
        """What messages have brought; nothing at their end. Raises BlockingIOError for half a message."""
        if not self._ended:
            data = self._socket.recv(64 << 10)
            self._protocol.receive_data(data or None)
            self._events()
        if not self._ready and not self._ended:
            raise BlockingIOError
        ready = bytes(self._ready)
        self._ready.clear()
        return ready

    def _events(self) -> None:
        for event in self._protocol.events():
            if isinstance(event, TextMessage):
                self._ready += event.data.encode("utf-8")
            elif isinstance(event, BytesMessage):
                self._ready += event.data
            elif isinstance(event, Ping):
                self._socket.sendall(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                self._ended = True
                if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                    self._socket.sendall(self._protocol.send(event.response()))

    def send(self, data: memoryview) -> int:
        if self._ended:
            raise ConnectionResetError
        self._socket.sendall(self._protocol.send(BytesMessage(data=bytes(data))))
        return len(data)

    def close(self) -> None:
        """The closing handshake's first half."""
        if not self._ended:
            self._ended = True
            self._socket.sendall(self._protocol.send(CloseConnection(code=1000)))


def attach(engine: Engine, exchange: Exchange, name: str) -> None:
    query = exchange.query
    keys = parse_detach_keys(query.text("detachKeys"))
    container = engine.containers.get(name)
    config = container.inspect()["Config"]
    protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    fields = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in exchange.headers.items()]
    try:
        protocol.initiate_upgrade_connection(fields, exchange.target)
    except wsproto.utilities.RemoteProtocolError as e:
        raise InvalidParameter(f"no websocket: {e}") from None
    if not any(isinstance(event, Request) for event in protocol.events()):
        raise InvalidParameter("no websocket: a GET with Upgrade: websocket is expected")
    # Which streams: those that are named, or all of them if none is (moby, 1.42).
    named = [word for word in ("stdin", "stdout", "stderr") if query.given(word)]
    wanted = {word for word in named if query.flag(word)} if named else {"stdin", "stdout", "stderr"}
    stdin = "stdin" in wanted and bool(config["OpenStdin"])
    outputs = frozenset(number for number, word in ((1, "stdout"), (2, "stderr")) if word in wanted)
    attachment = container.attach(stdin, 1 in outputs, 2 in outputs)
    try:
        sock = exchange.take_over()
        exchange.status = 101
        exchange.send_raw(protocol.send(AcceptConnection()))
    except BaseException:
        attachment.close()
        raise
    channel = Channel(sock, protocol)
    tty = bool(config["Tty"])
    Relay(channel, attachment, stdin=stdin, outputs=outputs, tty=True, detach_keys=keys if tty else b"").run()
    try:
        channel.close()
    except OSError:
        pass
