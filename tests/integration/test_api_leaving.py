"""Clients that leave in the middle of what moves images: what they wanted ends with them, and nothing is left of it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.oci.platform import here

from support import imagestore
from support.apiserver import Server, home, server
from support.apistreams import connect, until
from support.gate import Gate, gate
from support.imagearchives import layout
from support.patience import eventually, patience
from support.registry import registry, upload
from support.roots import Root

__all__ = ["home", "server"]

pytestmark = pytest.mark.root

HALF = 2 << 20


@pytest.fixture
def wire(server: Server, tmp_path: Path) -> Iterator[Gate]:
    """The way to a registry that has an image app:1; an image pushed:1 for it is here. Half of either goes over it."""
    pulled, pushed = (gzip.compress(imagestore.archive({"large": os.urandom(2 * HALF)}), 1) for _ in range(2))
    with registry(tmp_path / "registry") as found, gate(found.port, HALF) as made:
        upload(f"http://127.0.0.1:{found.port}", "app", "1", layout("", pulled, architecture=here().architecture))
        name = f"localhost:{made.port}/pushed"
        server("POST", "/images/create", pushed, fromSrc="-", repo=name, tag="1").expect(200)
        yield made
        server("DELETE", f"/images/{name}:1").expect(200)


@pytest.mark.parametrize(
    "request_line",
    ["POST /images/create?fromImage=localhost:{}/app&tag=1", "POST /images/localhost:{}/pushed/push?tag=1"],
)
def test_a_pull_and_a_push_end_with_their_client(server: Server, home: Root, wire: Gate, request_line: str) -> None:
    line = request_line.format(wire.port)
    with connect(server) as sock:
        sock.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(sock, b"\r\n\r\n")
        assert wire.held.wait(patience(60))
    wire.open()
    eventually(lambda: any(line in told and told.endswith("client gone") for told in server.log.splitlines()), 60)
    eventually(lambda: "nothing found" in home.cli("system", "check", "--repair").out, 60)


@pytest.mark.parametrize("path", ["/images/load", "/images/create?fromSrc=-", "/build"])
def test_half_an_archive_is_none(server: Server, home: Root, path: str) -> None:
    archive = home.cli("save", "base").ok().out_bytes
    images = home.cli("images", "-aq").ok().out
    before = server.log.count(f"POST {path} 400 ")
    with connect(server) as sock:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(archive)}\r\n\r\n".encode()
        sock.sendall(head + archive[: len(archive) // 2])
    eventually(lambda: server.log.count(f"POST {path} 400 ") > before, 60, "the end of the request")
    assert home.cli("system", "check").ok().out == "nothing found\n"
    assert home.cli("images", "-aq").ok().out == images
