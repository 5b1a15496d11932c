"""Clients that leave in the middle of what moves images: what they wanted ends with them, and nothing is left of it."""

from __future__ import annotations

import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
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

__all__ = ["home", "server"]

pytestmark = pytest.mark.root

HALF = 2 << 20
LAYER = gzip.compress(imagestore.archive({"file": os.urandom(300_000)}), 1)


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


class Silent:
    """A registry that says nothing more from some point on. `reached`: that point is; `left`: whoever waited there has hung up."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.left = threading.Event()

    def __call__(self, sock: socket.socket) -> None:
        self.reached.set()
        while sock.recv(1 << 16):
            pass
        self.left.set()


def answers_until(where: str) -> Callable[[Silent], AbstractContextManager[str]]:
    """A registry of an image app:1 that answers what is asked before `where`."""

    @contextmanager
    def serve(silent: Silent) -> Iterator[str]:
        members = layout("", LAYER, architecture=here().architecture)
        with hostile() as server:
            server.serve("app", members)
            part = {"layer": f"blobs/{of_bytes(LAYER)}", "half": f"blobs/{of_bytes(LAYER)}"}.get(where, where)

            def answer(request: Request) -> None:
                if where == "half":
                    request.send(LAYER[: len(LAYER) // 2], length=len(LAYER))
                silent(request.connection)

            server.answers["/v2/" if where == "/v2/" else f"/v2/app/{part}"] = answer
            yield server.host

    return serve


@contextmanager
def no_handshake(silent: Silent) -> Iterator[str]:
    """Who takes a connection, and does not answer TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with closing(listener.accept()[0]) as sock:
                silent(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(patience(60))


@contextmanager
def no_connection(silent: Silent) -> Iterator[str]:
    """A host that drops what would connect to it, as one behind a firewall: what it may have waiting is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        while not connecting(port):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        fillers = connecting(port)

        def look() -> None:
            eventually(lambda: connecting(port) > fillers, 60)
            silent.reached.set()
            eventually(lambda: connecting(port) == fillers, 60)
            silent.left.set()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        yield f"127.0.0.1:{port}"
        thread.join(patience(60))


def connecting(port: int) -> int:
    """How many connections to a port are waited for (SYN_SENT; proc_net_tcp.txt of the kernel)."""
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[2] == wanted and fields[3] == "02" for fields in lines)


@pytest.mark.parametrize(
    "registry_of",
    [no_connection, no_handshake, *map(answers_until, ("/v2/", "manifests/1", "layer", "half"))],
    ids=["connect", "handshake", "ping", "manifest", "layer", "half"],
)
def test_a_silent_registry_is_hung_up_on_when_the_client_leaves(
    server: Server, home: Root, registry_of: Callable[[Silent], AbstractContextManager[str]]
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
