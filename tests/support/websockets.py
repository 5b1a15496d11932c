"""A client of `GET /containers/{id}/attach/ws`, by hand."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage

from support.apiserver import Api
from support.apistreams import connect


class WebSocket:
    """One that is open when it is made. `early`: a message that is sent before the server has said yes."""

    def __init__(self, server: Api, target: str, early: bytes = b"") -> None:
        self.socket = connect(server)
        self._speaker = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.messages: list[str | bytes] = []
        self.closed = False
        self.pongs = 0
        self._accepted = False
        asked = self._speaker.send(Request(host="localhost", target=target))
        other = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
        self.socket.sendall(asked + (other.send(BytesMessage(data=early)) if early else b""))
        while not self._accepted:
            self._receive()

    def send(self, data: str | bytes) -> None:
        event = BytesMessage(data=data) if isinstance(data, bytes) else TextMessage(data=data)
        self.socket.sendall(self._speaker.send(event))

    def ping(self) -> None:
        self.socket.sendall(self._speaker.send(Ping(payload=b"there?")))

    def close(self) -> None:
        """The closing handshake's first half."""
        self.socket.sendall(self._speaker.send(CloseConnection(code=1000)))

    def until(self, end: str | bytes) -> str | bytes:
        """All that has come, as soon as it ends with that."""
        while True:
            all: str | bytes = (b"" if isinstance(end, bytes) else "").join(self.messages)  # type: ignore[arg-type]
            if all.endswith(end):  # type: ignore[arg-type]
                return all
            self._receive()

    def until_closed(self) -> list[str | bytes]:
        """All messages, up to the server's closing one. AssertionError if the connection breaks off before it."""
        while not self.closed:
            self._receive()
        return self.messages

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"it broke off after {self.messages}"
        self._speaker.receive_data(data)
        for event in self._speaker.events():
            if isinstance(event, AcceptConnection):
                self._accepted = True
            elif isinstance(event, (BytesMessage, TextMessage)):
                self.messages.append(event.data if isinstance(event.data, str) else bytes(event.data))
            elif isinstance(event, Pong):
                self.pongs += 1
            elif isinstance(event, CloseConnection):
                self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.socket.close()
