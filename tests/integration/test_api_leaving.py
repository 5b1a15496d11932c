"""Clients that leave in the middle of what moves images: what they wanted ends with them, and nothing is left of it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.oci.digest import of_bytes
from sampan.oci.platform import here

from support import imagestore
from support.apiserver import Server, home, server
from support.apistreams import connect, until
from support.gate import Gate, gate
from support.hostile import Request, hostile
from support.imagearchives import layout
from support.patience import eventually, patience
from support.registry import registry, upload
from support.roots import Root
from support.silence import LAYER, Silence, Silent, no_connection, no_handshake, registry_until

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
    # The registry is as silent as it was, and would be waited for much longer than this.
    eventually(lambda: gone(server, line), 30)
    forget_beginnings(home)


def forget_beginnings(home: Root) -> None:
    """Nothing is left but what has come of a layer, for the next pull to go on from; that is taken away."""
    for path in (home.root / "content/ingest").iterdir():
        assert path.name.startswith("pull-")
        path.unlink()
    assert home.cli("system", "check").ok().out == "nothing found\n"


def gone(server: Server, line: str) -> bool:
    """Whether the request is over because its client had left."""
    return any(line in told and told.endswith("client gone") for told in server.log.splitlines())


@pytest.mark.parametrize(
    "registry_of",
    [no_connection, no_handshake, *map(registry_until, ("/v2/", "/v2/app/manifests/1", "layer", "half"))],
    ids=["connect", "handshake", "ping", "manifest", "layer", "half"],
)
def test_a_silent_registry_is_hung_up_on_when_the_client_leaves(
    server: Server, home: Root, registry_of: Silence
) -> None:
    silent = Silent()
    with registry_of(silent) as host:
        line = f"POST /images/create?fromImage={host}/app&tag=1"
        with connect(server) as sock:
            sock.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert silent.reached.wait(patience(60))
        assert silent.left.wait(patience(20)), server.log
        eventually(lambda: gone(server, line), 20)
    forget_beginnings(home)


def test_who_wants_the_same_goes_on_where_the_one_who_left_was(server: Server, home: Root) -> None:
    silent, beginning = Silent(), len(LAYER) // 2
    blob = f"/v2/app/blobs/{of_bytes(LAYER)}"
    with hostile() as lying:
        lying.serve("app", layout("", LAYER, architecture=here().architecture))

        def half(request: Request) -> None:
            lying.answers[blob] = rest
            request.send(LAYER[:beginning], length=len(LAYER))
            silent(request.connection)

        def rest(request: Request) -> None:
            begin = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            span = f"bytes {begin}-{len(LAYER) - 1}/{len(LAYER)}"
            request.send(LAYER[begin:], 206, Content_Range=span)

        lying.answers[blob] = half
        head = f"POST /images/create?fromImage={lying.host}/app&tag=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with connect(server) as leaving, connect(server) as staying:
            leaving.sendall(head.encode())
            assert silent.reached.wait(patience(60))
            # All that was sent has come, or the other one would have less to go on from.
            kept = home.root / "content/ingest" / f"pull-{of_bytes(LAYER).removeprefix('sha256:')}"
            eventually(lambda: kept.exists() and kept.stat().st_size == beginning, 60)
            staying.sendall(head.encode())
            until(staying, b"Waiting")
            assert not silent.left.is_set()
            leaving.close()
            until(staying, b"Downloaded newer image")
        assert silent.left.wait(patience(20)), server.log
        ranges = [asked for path, _, asked in lying.asked if path == blob]
        assert ranges == ["", f"bytes={beginning}-"]
    home.cli("rmi", f"{lying.host}/app:1").ok()
    assert home.cli("system", "check").ok().out == "nothing found\n"


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
