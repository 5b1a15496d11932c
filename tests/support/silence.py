"""Hosts that say nothing more from some point on: registries and web servers, as those who wait for them must be able to leave."""

from __future__ import annotations

import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

from sampan.oci.digest import of_bytes
from sampan.oci.platform import here

from support import imagestore
from support.hostile import Request, hostile, sent
from support.imagearchives import layout
from support.patience import eventually, patience

FILE = imagestore.archive({"file": os.urandom(300_000)})
LAYER = gzip.compress(FILE, 1)


class Silent:
    """The silence of a host. `reached`: somebody waits in it; `left`: he has hung up. `asked`: with which Authorization."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.left = threading.Event()
        self.asked: list[str] = []

    def __call__(self, sock: socket.socket) -> None:
        self.reached.set()
        with suppress(ConnectionResetError):
            while sock.recv(1 << 16):
                pass
        self.left.set()


Silence = Callable[[Silent], AbstractContextManager[str]]
"""Gives the host."""


def registry_until(where: str, realm: str = "") -> Silence:
    """A registry of an image app:1 that answers what is asked before the path `where`; "layer", "half": before its layer, in the middle of it.

    realm: it lets nobody in without a name.
    """

    @contextmanager
    def serve(silent: Silent) -> Iterator[str]:
        with hostile() as server:
            server.serve("app", layout("", LAYER, architecture=here().architecture))

            def answer(request: Request) -> None:
                silent.asked.append(request.headers.get("Authorization", ""))
                if where == "half":
                    request.send(LAYER[: len(LAYER) // 2], length=len(LAYER))
                silent(request.connection)

            if realm:
                server.answers["/v2/"] = sent(b"{}", 401, WWW_Authenticate=f'Basic realm="{realm}"')
            layer = f"/v2/app/blobs/{of_bytes(LAYER)}"
            server.answers[{"layer": layer, "half": layer}.get(where, where)] = answer
            yield server.host

    return serve


def web_until(path: str, begun: bool = False) -> Silence:
    """A web server that says nothing when it is asked for `path`; or, `begun`, half of a tar archive whose length it does not announce."""

    @contextmanager
    def serve(silent: Silent) -> Iterator[str]:
        def answer(request: Request) -> None:
            if begun:
                request.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + FILE[: len(FILE) // 2])
            silent(request.connection)

        with hostile() as server:
            server.answers[path] = answer
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
        while not _connecting(port):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        fillers = _connecting(port)

        def look() -> None:
            eventually(lambda: _connecting(port) > fillers, 60)
            silent.reached.set()
            eventually(lambda: _connecting(port) == fillers, 60)
            silent.left.set()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        yield f"127.0.0.1:{port}"
        thread.join(patience(60))


def _connecting(port: int) -> int:
    """How many connections to a port are waited for (SYN_SENT; proc_net_tcp.txt of the kernel)."""
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[2] == wanted and fields[3] == "02" for fields in lines)
