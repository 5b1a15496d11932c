"""Registries and web servers that say nothing: whoever gives up on what waits for them is not kept waiting, and nothing of it goes on.

By the API a client gives up by leaving, at the command line by a Ctrl-C.
"""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support import imagestore
from support.apiserver import Server, home, server
from support.apistreams import connect
from support.patience import eventually, patience
from support.roots import Root
from support.silence import Silence, Silent, no_connection, no_handshake, registry_until, web_until

__all__ = ["home", "server"]

pytestmark = pytest.mark.root

Ask = Callable[[str], bytes]
USER = "user:secret"


def asks(line: str, body: bytes = b"", headers: str = "") -> bytes:
    return f"{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def plain(line: str) -> Ask:
    return lambda host: asks(line.format(host))


def build(text: str, query: str = "", known: bool = False) -> Ask:
    """A build of a Dockerfile. known: by who is known to the registry."""

    def request(host: str) -> bytes:
        username, _, password = USER.partition(":")
        config = json.dumps({host: {"username": username, "password": password}}).encode()
        header = f"X-Registry-Config: {base64.urlsafe_b64encode(config).decode()}\r\n" if known else ""
        context = imagestore.archive({"Dockerfile": text.format(host).encode()})
        return asks(f"POST /build?networkmode=none{query}", context, header)

    return request


def auth(host: str) -> bytes:
    body = json.dumps({"username": "a", "password": "b", "serveraddress": host}).encode()
    return asks("POST /auth", body, "Content-Type: application/json\r\n")


def told_since(server: Server, logged: int) -> list[str]:
    """The whole lines of the log since then, but for those of the ping by which its start was awaited."""
    lines = server.log[logged:].rpartition("\n")[0].splitlines()
    return [line for line in lines if " GET /_ping " not in line]


@pytest.mark.parametrize(
    ("ask", "silence"),
    [
        pytest.param(build("FROM {}/app:1\n"), registry_until("/v2/"), id="build"),
        pytest.param(build("FROM {}/app:1\n", "&pull=1", True), registry_until("half", "here"), id="build, pull"),
        pytest.param(build("FROM base\nADD http://{}/f /\n"), web_until("/f"), id="build, ADD"),
        pytest.param(plain("POST /build?remote=http://{}/f"), web_until("/f"), id="build of a URL"),
        pytest.param(plain("POST /build?remote=http://{}/f"), web_until("/f", True), id="build of a URL, half"),
        pytest.param(plain("POST /build?remote=http://{}/a.git"), web_until("/a.git/info/refs"), id="build of git"),
        pytest.param(
            plain("GET /distribution/{}/app:1/json"), registry_until("/v2/app/manifests/1"), id="distribution"
        ),
        pytest.param(auth, registry_until("/v2/"), id="auth"),
        pytest.param(plain("GET /images/search?term={}/app"), registry_until("/v1/search"), id="search"),
        pytest.param(plain("POST /images/create?fromSrc=http://{}/f"), web_until("/f"), id="import"),
        pytest.param(plain("POST /images/create?fromSrc=http://{}/f"), web_until("/f", True), id="import, half"),
        pytest.param(plain("POST /images/create?fromSrc=http://{}/f"), no_connection, id="import, connect"),
        pytest.param(plain("POST /images/create?fromSrc=https://{}/f"), no_handshake, id="import, TLS"),
    ],
)
def test_what_a_client_waits_for_ends_when_it_leaves(server: Server, home: Root, ask: Ask, silence: Silence) -> None:
    before, threads, logged = home.state(), at_work(server), len(server.log)
    silent = Silent()
    with silence(silent) as host:
        with connect(server) as sock:
            sock.sendall(ask(host))
            assert silent.reached.wait(patience(60)), server.log
        # Long before the minute for which a host may be silent.
        assert silent.left.wait(patience(20)), server.log
        eventually(lambda: told_since(server, logged), 20, "the end of the request")
    told = told_since(server, logged)
    assert [line.rpartition(": ")[2] for line in told] == ["client gone"]
    if len(silent.asked) and ask(host).count(b"X-Registry-Config"):
        assert silent.asked == [f"Basic {base64.b64encode(USER.encode()).decode()}"]
    eventually(lambda: at_work(server) <= threads, 20, "the end of its threads")
    nothing_is_left(home)
    before.check()


def at_work(server: Server) -> int:
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


def nothing_is_left(home: Root) -> None:
    """But what has come of a layer, for the next pull to go on from; that is taken away."""
    for path in (home.root / "content/ingest").iterdir():
        assert path.name.startswith("pull-")
        path.unlink()
    for place in (home.root / "build/work", home.run_root / ".build"):
        assert not place.exists() or list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "silence"),
    [
        pytest.param(("build", "."), registry_until("/v2/"), id="build"),
        pytest.param(("build", "--pull", "."), registry_until("half"), id="build, half a layer"),
        pytest.param(("build", "-f", "several", "."), registry_until("/v2/"), id="build of several stages"),
        pytest.param(("build", "-f", "add", "."), web_until("/f"), id="build, ADD"),
        pytest.param(("build", "http://HOST/f"), web_until("/f", True), id="build of a URL"),
        pytest.param(("build", "http://HOST/a.git"), web_until("/a.git/info/refs"), id="build of git"),
        pytest.param(("import", "http://HOST/f"), web_until("/f"), id="import"),
        pytest.param(("import", "http://HOST/f"), web_until("/f", True), id="import, half"),
    ],
)
def test_a_command_ends_by_an_interrupt(home: Root, tmp_path: Path, words: tuple[str, ...], silence: Silence) -> None:
    silent = Silent()
    before = home.state()
    with silence(silent) as host:
        (tmp_path / "Dockerfile").write_text(f"FROM {host}/app:1\n")
        (tmp_path / "several").write_text(
            f"FROM {host}/app:1 AS a\nFROM {host}/app:2 AS b\nFROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n"
        )
        (tmp_path / "add").write_text(f"FROM base\nADD http://{host}/f /\n")
        words = tuple(word.replace("HOST", host) for word in words)
        process = home.cli.start(*words, stdout=-1, stderr=-1, cwd=tmp_path)
        try:
            assert silent.reached.wait(patience(60))
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=patience(20))
        finally:
            process.kill()
        assert silent.left.wait(patience(20))
    assert process.returncode == 130, told
    assert b"Traceback" not in told
    nothing_is_left(home)
    before.check()
