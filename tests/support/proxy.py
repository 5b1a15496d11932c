"""A small HTTP proxy (RFC 9110, 7.6 and 9.3.6): requests by whole URL, tunnels by CONNECT. It alone knows where the hosts of a test are."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "proxy-authorization", "proxy-connection", "transfer-encoding", "keep-alive"}


class Proxy(ThreadingHTTPServer):
    """`hosts`: "name:port" -> the port on the loopback interface; `asked` has method, target, Authorization, Proxy-Authorization."""

    daemon_threads = True

    def __init__(self, hosts: Mapping[str, int]) -> None:
        self.hosts = hosts
        self.asked: list[tuple[str, str, str, str]] = []
        super().__init__(("127.0.0.1", 0), _Request)
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is nobody's mistake."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _note(self) -> None:
        said = (self.headers.get("Authorization", ""), self.headers.get("Proxy-Authorization", ""))
        self.server.asked.append((self.command, self.path, *said))

    def do_GET(self) -> None:
        self._note()
        parts = urlsplit(self.path)
        port = self.server.hosts.get(parts.netloc)
        if port is None:
            self.send_error(502, "no such host")
            return
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        connection.request(self.command, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {*_HOP, "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

    def do_CONNECT(self) -> None:
        self._note()
        port = self.server.hosts.get(self.path)
        if port is None:
            self.send_error(502, "no such host")
            return
        with socket.create_connection(("127.0.0.1", port), timeout=60) as there:
            self.send_response(200)
            self.end_headers()
            self._tunnel(there)
        self.close_connection = True

    def _tunnel(self, there: socket.socket) -> None:
        ends = {self.connection: there, there: self.connection}
        while True:
            for end in select.select(list(ends), [], [], 60)[0] or [None]:
                if end is None or not (data := end.recv(1 << 16)):
                    return
                ends[end].sendall(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def proxy(hosts: Mapping[str, int]) -> Iterator[Proxy]:
    server = Proxy(hosts)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
