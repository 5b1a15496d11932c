"""`GET /containers/{id}/attach/ws`: the container's streams in the messages of a websocket, without frames of their own."""

from __future__ import annotations

import codecs

import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage

from sampan.api import logs
from sampan.api.failures import ClientGone
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

    def __init__(self, sock: socket.socket, protocol: wsproto.WSConnection, early: bytes, binary: bool) -> None:
        """early: what of the client's messages was read already. binary: else output goes out as text, as it did before 1.28."""
        self._socket = sock
        self._protocol = protocol
        self._binary = binary
        # What is no UTF-8 cannot be a text's; of a character that comes in two pieces the first waits for the second.
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._ready = bytearray()
        self._ended = False
        if early:
            self._protocol.receive_data(early)
            self._events()

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, _on: bool) -> None:
        """It blocks: `send` sends a whole message."""

    def recv(self, _size: int) -> bytes:
        """What messages have brought. Raises BlockingIOError for half a message, ConnectionResetError at the end: there are no half-closed ones."""
        if not self._ready and not self._ended:
            data = self._socket.recv(64 << 10)
            self._protocol.receive_data(data or None)
            self._events()
        if not self._ready:
            raise ConnectionResetError if self._ended else BlockingIOError
        ready = bytes(self._ready)
        self._ready.clear()
        return ready

    def pending(self) -> int:
        """Whether `recv` need not wait, whatever poll says of the socket."""
        return len(self._ready) + self._ended

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
        whole = bytes(data)
        message = BytesMessage(data=whole) if self._binary else TextMessage(data=self._text.decode(whole))
        self._socket.sendall(self._protocol.send(message))
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
    # All of them for a client from before 1.42, when these words meant nothing.
    named = exchange.at_least(1, 42)
    wanted = {word for word in ("stdin", "stdout", "stderr") if not named or query.flag(word)}
    stdin = "stdin" in wanted and bool(config["OpenStdin"])
    outputs = frozenset(number for number, word in ((1, "stdout"), (2, "stderr")) if word in wanted)
    tty = bool(config["Tty"])
    attachment = container.attach(stdin, 1 in outputs, 2 in outputs) if query.flag("stream") else None
    try:
        sock, early = exchange.take_over()
        exchange.status = 101
        exchange.send_raw(protocol.send(AcceptConnection()))
        channel = Channel(sock, protocol, early, exchange.at_least(1, 28))
        if query.flag("logs"):
            for entry in container.logs():
                if data := logs.piece(entry, outputs, True):
                    channel.send(memoryview(data))
    except BaseException as e:
        if attachment is not None:
            attachment.close()
        if exchange.hijacked and isinstance(e, OSError):
            raise ClientGone from None
        raise
    if attachment is not None:
        keys = keys if tty else b""
        Relay(channel, attachment, stdin=stdin, outputs=outputs, tty=True, detach_keys=keys).run()
    try:
        channel.close()
    except OSError:
        pass
