"""Connections to a server of the Engine API by hand: half of a request, streams that are taken over, and what comes of them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Any

from support.apiserver import Api
from support.patience import patience


def connect(server: Api) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(patience(60))
    sock.connect(server.path)
    return sock


def until(sock: socket.socket, end: bytes) -> bytes:
    """What comes up to `end`, byte by byte, so that nothing behind it is taken."""
    data = b""
    while not data.endswith(end):
        part = sock.recv(1)
        assert part, f"ended after {data!r}"
        data += part
    return data


def everything(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ssl.SSLZeroReturnError):  # close_notify has gone both ways
        while part := sock.recv(65536):
            data += part
    return data


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, size = struct.unpack(">BxxxL", data[:8])
        found.append((kind, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def output(data: bytes, kind: int = 1) -> bytes:
    return b"".join(part for stream, part in frames(data) if stream == kind)


def exec_id(server: Api, container: str, *command: str, **options: Any) -> str:
    body = {"Cmd": list(command), "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, **options}
    identifier: str = server("POST", f"/containers/{container}/exec", body).expect(201).json["Id"]
    return identifier


def start_request(identifier: str, upgrade: bool = True) -> bytes:
    lines = ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
    body = '{"Detach":false,"Tty":false}'
    head = [f"POST /v1.44/exec/{identifier}/start HTTP/1.1", "Host: x", "Content-Type: application/json"]
    return "\r\n".join([*head, *lines, f"Content-Length: {len(body)}", "", body]).encode()


def comes_to_its_end(sock: socket.socket) -> bytes:
    """What still comes of a server that was killed; a TimeoutError if the connection's end does not."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            data += part
    return data
