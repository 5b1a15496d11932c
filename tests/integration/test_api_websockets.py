"""`GET /containers/{id}/attach/ws`: what a browser's program makes of a container."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.apiserver import Server, home, server
from support.apistreams import connect, everything, until
from support.patience import eventually
from support.websockets import WebSocket

__all__ = ["home", "server"]

pytestmark = pytest.mark.root

EVERY = "stream=1&stdin=1&stdout=1&stderr=1"


@pytest.fixture
def made(server: Server) -> Iterator[Callable[..., str]]:
    """Makes containers, which it starts unless that is told otherwise, and removes them."""
    found = []

    def make(script: str, start: bool = True, **config: Any) -> str:
        body = {"Image": "base", "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}, **config}
        identifier: str = server("POST", "/containers/create", body).expect(201).json["Id"]
        found.append(identifier)
        if start:
            server("POST", f"/containers/{identifier}/start").expect(204)
        return identifier

    yield make
    for one in found:
        server("DELETE", f"/containers/{one}", force="1")


def path(identifier: str, query: str = EVERY, version: str = "v1.51") -> str:
    return f"/{version}/containers/{identifier}/attach/ws?{query}"


def test_messages_go_both_ways_until_the_end(server: Server, made: Callable[..., str]) -> None:
    box = made("read a; echo got $a; read b; echo and $b >&2", start=False, OpenStdin=True)
    with WebSocket(server, path(box)) as page:
        server("POST", f"/containers/{box}/start").expect(204)
        page.ping()
        page.send(b"this\n")
        page.until(b"got this\n")
        page.send("that\n")
        assert b"".join(page.until_closed()) == b"got this\nand that\n"  # type: ignore[arg-type]
        assert page.pongs == 1


def test_what_comes_before_the_answer_is_not_lost(server: Server, made: Callable[..., str]) -> None:
    with WebSocket(server, path(made("read a; echo got $a", OpenStdin=True)), early=b"early\n") as page:
        assert page.until_closed() == [b"got early\n"]


@pytest.mark.parametrize(
    ("version", "query", "expected"),
    [
        ("v1.51", "stream=1&stdin=1&stdout=1", "out\n"),
        ("v1.51", "stream=1&stdin=1&stderr=1", "err\n"),
        ("v1.51", "stream=1&stdin=1", ""),
        ("v1.41", "stream=1&stdout=0", "out\nerr\n"),  # the words meant nothing then
    ],
)
def test_the_streams_that_are_named(
    server: Server, made: Callable[..., str], version: str, query: str, expected: str
) -> None:
    box = made("read a; echo out; sleep 0.1; echo err >&2", OpenStdin=True)
    with WebSocket(server, path(box, query, version)) as page:
        page.send(b"\n")
        assert b"".join(page.until_closed()).decode() == expected  # type: ignore[arg-type]


def test_clients_from_before_1_28_are_given_text(server: Server, made: Callable[..., str]) -> None:
    """Which has to be UTF-8, whole characters of it."""
    box = made(r"read a; printf 'gr\303'; sleep 0.2; printf '\274n \377\n'", OpenStdin=True)
    with WebSocket(server, path(box, version="v1.27")) as page:
        page.send("\n")
        assert "".join(page.until_closed()) == "grün �\n"  # type: ignore[arg-type]


def test_what_was_written_before_comes_first(server: Server, made: Callable[..., str]) -> None:
    box = made("echo before; read a; echo after", OpenStdin=True)
    eventually(lambda: server("GET", f"/containers/{box}/logs", stdout="1").data, 60)
    with WebSocket(server, path(box, f"logs=1&{EVERY}")) as page:
        page.send(b"\n")
        assert page.until_closed() == [b"before\n", b"after\n"]
    with WebSocket(server, path(box, "logs=1&stdout=1")) as page:
        assert page.until_closed() == [b"before\nafter\n"] or page.messages == [b"before\n", b"after\n"]


def test_a_page_that_is_left_leaves_the_program_running(server: Server, made: Callable[..., str]) -> None:
    box = made("cat; sleep 1000", OpenStdin=True)
    target = path(box)
    with WebSocket(server, target) as page:
        page.send(b"x")
        page.until(b"x")
    eventually(lambda: f"GET {target} 101 " in server.log, 60, "the end of the request")
    assert server("GET", f"/containers/{box}/json").json["State"]["Running"]


@pytest.mark.parametrize("closing", [True, False])
def test_what_was_sent_before_a_page_is_left_is_read(server: Server, made: Callable[..., str], closing: bool) -> None:
    box = made("read a; echo got $a; sleep 1000", OpenStdin=True)
    with WebSocket(server, path(box)) as page:
        page.send(b"last\n")
        if closing:
            page.close()
            page.until_closed()
    eventually(lambda: server("GET", f"/containers/{box}/logs", stdout="1").data[8:] == b"got last\n", 60)


def test_what_is_no_websocket_is_refused_and_what_is_no_message_ends_it(
    server: Server, made: Callable[..., str]
) -> None:
    box = made("sleep 1000")
    assert "no websocket" in server("GET", path(box)).expect(400).message
    head = f"GET {path(box)} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    for wrong in (b"\x82\x01x", b"\xff" * 20, b"\x82\xff" + b"\x7f" * 8 + b"0000"):
        with connect(server) as sock:
            sock.sendall(head.encode())
            assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            sock.sendall(wrong)
            sock.shutdown(socket.SHUT_WR)
            everything(sock)
    assert server("GET", f"/containers/{box}/json").json["State"]["Running"]
