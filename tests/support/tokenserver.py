"""A token server for a docker-registry: it signs what the registry believes, and writes down who asked it for what."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.registry import PASSWORD, USER
from support.tools import Tool

SERVICE = "registry.test"
ISSUER = "test issuer"
REFRESH = "a-refresh-token-of-some-length"


class TokenServer(ThreadingHTTPServer):
    """`asked` has a dictionary for each request; `life` is what it says that its tokens live, `true_life` how long they do."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.asked: list[dict[str, Any]] = []
        self.public = {"team/open"}
        self.identity_tokens = True
        self.life = self.true_life = 300
        self._key, self.certificate = directory / "token.key", directory / "token.crt"
        Tool("openssl")("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens",
                        "-keyout", str(self._key), "-out", str(self.certificate))  # fmt: skip
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/token"

    def auth(self) -> dict[str, Any]:
        """The `auth` of a registry that believes it."""
        bundle = str(self.certificate)
        return {"token": {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}}

    def token(self, subject: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        der = "".join(self.certificate.read_text().splitlines()[1:-1])
        head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        claims = {"iss": ISSUER, "sub": subject, "aud": SERVICE, "exp": now + self.true_life, "nbf": now - 10}
        claims |= {"iat": now, "jti": uuid.uuid4().hex, "access": access}
        text = ".".join(_coded(json.dumps(part).encode()) for part in (head, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_coded(signature)}"


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        header = self.headers.get("Authorization", "")
        name, _, password = base64.b64decode(header.removeprefix("Basic ") or b"").decode().partition(":")
        good = (name, password) == (USER, PASSWORD)
        self._note("GET", query, name)
        if header and not good:
            self._refuse()
            return
        offline = query.get("offline_token") == ["true"]
        self._grant(name if good else "", query, offline)

    def do_POST(self) -> None:
        query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._note("POST", query, "")
        if query.get("refresh_token") != [REFRESH]:
            self._refuse()
            return
        self._grant(USER, query, offline=False)

    def _note(self, method: str, query: dict[str, list[str]], user: str) -> None:
        assert isinstance(self.server, TokenServer)
        self.server.asked.append({"method": method, "user": user, **query})

    def _refuse(self) -> None:
        self._answer(401, {"details": "incorrect username or password"})

    def _grant(self, user: str, query: dict[str, list[str]], offline: bool) -> None:
        server = self.server
        assert isinstance(server, TokenServer)
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            wanted = actions.split(",")
            granted = wanted if user else [a for a in wanted if a == "pull" and name in server.public]
            access.append({"type": kind, "name": name, "actions": granted})
        answer: dict[str, Any] = {"token": server.token(user, access), "expires_in": server.life}
        if offline and server.identity_tokens:
            answer["refresh_token"] = REFRESH
        self._answer(200, answer)

    def _answer(self, code: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def token_server(directory: Path) -> Iterator[TokenServer]:
    server = TokenServer(directory)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
