"""A registry that lies, stalls, closes and sends elsewhere, as a test says; and what it was told."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Hostile)
        path = self.path.partition("?")[0]
        server.asked.append((self.path, self.headers.get("Authorization", ""), self.headers.get("Range", "")))
        answer = server.answers.get(path)
        if answer is None:
            self.send(b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}', 404)
        else:
            answer(self)

    def send(self, data: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        """An answer with a body, of which another length may be announced."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
        if length is not None and length != len(data):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class Hostile(ThreadingHTTPServer):
    """`answers` are by path, without the query; `asked` has path, Authorization and Range of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        super().__init__(("127.0.0.1", 0), Request)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.host}"
        self.answers: dict[str, Answer] = {"/v2/": lambda request: request.send(b"{}")}
        self.ended = threading.Event()

    def serve(self, name: str, members: dict[str, bytes], tag: str = "1") -> str:
        """Answer for an image of an OCI layout's members, truthfully; the digest of its manifest. A test then changes that."""
        digest: str = json.loads(members["index.json"])["manifests"][0]["digest"]
        for member, data in members.items():
            if member.startswith("blobs/sha256/"):
                found = f"sha256:{member.rpartition('/')[2]}"
                kind = "manifests" if found == digest else "blobs"
                self.answers[f"/v2/{name}/{kind}/{found}"] = self.document(data) if kind == "manifests" else sent(data)
                if kind == "manifests":
                    self.answers[f"/v2/{name}/manifests/{tag}"] = self.document(data)
        return digest

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on a lie is what the tests are about; anything else is the test's own mistake."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @staticmethod
    def document(data: bytes, media_type: str = "") -> Answer:
        kind = media_type or json.loads(data).get("mediaType", "application/json")
        return lambda request: request.send(data, Content_Type=kind)


def sent(data: bytes, status: int = 200, length: int | None = None, **headers: str) -> Answer:
    return lambda request: request.send(data, status, length, **headers)


@contextmanager
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
