"""`sampan serve` on a unix socket of a test's own, and requests to it, or to any other server of the Engine API, by hand.

A test module takes `server`, with the `home` that it serves, and `box`, by importing them, and names them in its `__all__`.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from support.patience import eventually, patience
from support.roots import Root

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def lines(self) -> list[Any]:
        """The objects of a stream."""
        return [json.loads(line) for line in self.data.splitlines() if line.strip()]

    @property
    def message(self) -> str:
        """Of an error."""
        text: str = self.json["message"]
        return text

    def expect(self, status: int) -> Answer:
        """Itself, after an assertion of its status."""
        assert self.status == status, f"{self.status}, not {status}: {self.data[:2000]!r}"
        return self


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=patience(timeout))
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class Api:
    """A server by its socket. `version`: the path's prefix, "v1.51"; "" for none."""

    def __init__(self, path: str, version: str = "") -> None:
        self.path = path
        self.version = version

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def at(self, version: str) -> Api:
        """The same server, asked for another version."""
        return Api(self.path, version)

    def connection(self, timeout: float = 60) -> Connection:
        return Connection(self.path, timeout)

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **query: str | list[str],
    ) -> Answer:
        """One request. body: bytes or a stream as they are, anything else as JSON."""
        fields = dict(headers or {})
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "read"):
            body = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        target = f"/{self.version}{path}" if self.version else path
        if query:
            target += "?" + urlencode(query, doseq=True)
        connection = self.connection()
        try:
            connection.request(method, target, body, fields, encode_chunked=False)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()


@contextmanager
def serving(root: Root, *options: str) -> Iterator[Server]:
    """A server of a root, ended afterwards; what it logs is in `log`."""
    server = Server(root, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        # Its zygote leaves a moment after it; nobody else's test is to meet it.
        with suppress(AssertionError):
            eventually(root.forget_zygotes, 10)


class Server(Api):
    """A server that runs."""

    def __init__(self, root: Root, *options: str) -> None:
        name = f"api-{next(_numbers)}"
        super().__init__(str(root.directory / f"{name}.sock"))
        self.log_path = Path(root.directory / f"{name}.log")
        self._root = root
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        cli = self._root.cli
        command = [cli.program, *cli.before, "serve", "-H", self.url, "--log-level", "debug", *self._options]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=cli.environment, start_new_session=True
            )
        eventually(self._answers, 30, "an answer of the server")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return self("GET", "/_ping").status == 200
        except OSError:
            return False

    def warm_up(self) -> None:
        """Have it start a container: its zygote, which stays as long as it does, is no leftover of the test that begins now."""
        import sampan

        with sampan.connect(self.url) as engine:
            engine.containers.run("base", ["true"], network="none")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience(30))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the server did not end within 30 seconds of SIGTERM:\n{self.log}") from None
        if os.path.exists(self.path):
            os.unlink(self.path)


@pytest.fixture(scope="module")
def home(test_directory: str, request: pytest.FixtureRequest) -> Iterator[Root]:
    """A store of a module's own, with `base` in it; what its tests leave is looked for at the end."""
    made = Root(Path(test_directory) / request.module.__name__.rpartition(".")[2])
    made.cli("run", "--rm", "--network", "none", "base", "true").ok()
    before = made.state()
    yield made
    before.check()
    made.delete()


@pytest.fixture(scope="module")
def server(home: Root) -> Iterator[Server]:
    """A server of that store for all tests of the module; nothing in its log is a fault of ours."""
    with serving(home) as started:
        yield started
        faults = [line for line in started.log.splitlines() if line.split()[1:2] == ["error"]]
        assert not faults, "\n".join(faults)
        assert "Traceback" not in started.log


@pytest.fixture(scope="module")
def box(server: Server) -> Iterator[str]:
    """The id of a container that runs and reads its input until its end."""
    body = {"Image": "base", "Cmd": ["cat"], "OpenStdin": True, "HostConfig": {"NetworkMode": "none"}}
    identifier: str = server("POST", "/containers/create", body).expect(201).json["Id"]
    server("POST", f"/containers/{identifier}/start").expect(204)
    yield identifier
    server("DELETE", f"/containers/{identifier}", force="1").expect(204)
