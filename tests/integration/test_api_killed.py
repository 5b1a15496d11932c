"""What the end of a server of the Engine API costs: nothing but its clients' connections."""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import sampan
from sampan.engine.results import collect
from sampan.errors import Unavailable
from sampan.oci.platform import here

from support import imagestore
from support.apiserver import home, serving
from support.apistreams import comes_to_its_end, connect, everything, exec_id, output, start_request, until
from support.gate import gate
from support.imagearchives import layout
from support.patience import eventually, patience
from support.registry import registry, upload
from support.roots import Root
from support.websockets import WebSocket

__all__ = ["home"]

pytestmark = pytest.mark.root


def test_a_killed_server_loses_nothing_of_a_container(home: Root) -> None:
    """In the middle of each stream of one: its client comes to an end, and the container goes on, with another server as well."""
    body = {
        "Image": "base",
        "Cmd": ["sh", "-c", "while :; do echo tick; sleep 0.05; done"],
        "OpenStdin": True,
        "HostConfig": {"NetworkMode": "none"},
    }
    with serving(home) as server, contextlib.ExitStack() as stack:
        identifier = server("POST", "/containers/create", body).expect(201).json["Id"]
        planned_in = f"/containers/{identifier}"
        streams = {}

        def open_stream(line: str, end: bytes = b"\r\n\r\n") -> None:
            sock = streams[line] = stack.enter_context(connect(server))
            sock.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\n".encode())
            assert until(sock, b"\r\n\r\n").split()[1] in (b"101", b"200"), line
            if end != b"\r\n\r\n":
                until(sock, end)

        # Attached and waiting before the start, as `docker run` is.
        open_stream(f"POST {planned_in}/attach?stream=1&stdin=1&stdout=1&stderr=1")
        for condition in ("next-exit", "removed"):
            open_stream(f"POST {planned_in}/wait?condition={condition}")
        server("POST", f"{planned_in}/start").expect(204)
        open_stream(f"POST {planned_in}/wait?condition=not-running")
        page = stack.enter_context(WebSocket(server, f"{planned_in}/attach/ws?stream=1&stdin=1&stdout=1"))
        page.until(b"tick\n")
        open_stream(f"GET {planned_in}/logs?stdout=1&follow=1", b"tick\n")
        open_stream(f"GET {planned_in}/stats", b"}\n")
        for line in ("export", "archive?path=/bin"):
            open_stream(f"GET {planned_in}/{line}")
        open_stream("GET /events?since=1", b"}\n")
        created = exec_id(server, identifier, "echo", "later")
        running = exec_id(server, identifier, "sh", "-c", "echo begun; sleep 60")
        sock = streams["exec"] = stack.enter_context(connect(server))
        sock.sendall(start_request(running))
        until(sock, b"begun\n")
        server.kill()
        for line, sock in {**streams, "attach/ws": page.socket}.items():
            try:
                comes_to_its_end(sock)
            except TimeoutError:
                raise AssertionError(f"the client of {line} was left waiting") from None
        server.start()
        assert server("GET", f"{planned_in}/json").json["State"]["Running"]
        assert server("GET", f"/exec/{running}/json").json["Running"]
        with connect(server) as sock:
            sock.sendall(start_request(created))
            until(sock, b"\r\n\r\n")
            assert output(everything(sock)) == b"later\n"
        with connect(server) as sock:
            sock.sendall(f"POST {planned_in}/wait HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until(sock, b"\r\n\r\n")
            server("POST", f"{planned_in}/stop", t="0").expect(204)
            assert b'{"StatusCode":137}' in until(sock, b"\r\n0\r\n\r\n")
        logged = output(server("GET", f"{planned_in}/logs", stdout="1").data)
        assert set(logged.split()) == {b"tick"}
        server("DELETE", planned_in).expect(204)
        assert home.cli("system", "check").ok().out == "nothing found\n"


@pytest.mark.long
def test_a_server_killed_in_the_middle_of_images_leaves_a_whole_store(home: Root, tmp_path: Path) -> None:
    """Half a build, a load, an import, an archive for a container, an image that is read, a pull, a push: and then no server."""
    home.cli("save", "-o", str(tmp_path / "base.tar"), "base").ok()
    archive = (tmp_path / "base.tar").read_bytes()
    dockerfile = b"FROM base\nRUN --network=none echo begun; sleep 600\n"
    large = gzip.compress(imagestore.archive({"large": os.urandom(6 << 20)}), 1)
    with (
        serving(home) as server,
        registry(tmp_path / "registry") as store,
        gate(store.port, 2 << 20) as wire,
        contextlib.ExitStack() as stack,
    ):
        upload(f"http://127.0.0.1:{store.port}", "app", "1", layout("", large, architecture=here().architecture))
        remote = f"localhost:{wire.port}"
        server("POST", "/images/create", large, fromSrc="-", repo=f"{remote}/pushed", tag="1").expect(200)
        box = server("POST", "/containers/create", {"Image": "base", "HostConfig": {"NetworkMode": "none"}}).json["Id"]
        streams = {}
        head = "HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"

        def send(line: str, rest: bytes = b"\r\n") -> socket.socket:
            sock = streams[line] = stack.enter_context(connect(server))
            sock.sendall(f"{line} {head}".encode() + rest)
            return sock

        build = send("POST /build", b"Content-Length: %d\r\n\r\n" % len(dockerfile) + dockerfile)
        until(build, b'"begun\\n"')
        half = b"Content-Length: %d\r\n\r\n" % len(archive) + archive[: len(archive) // 2]
        for line in ("POST /images/load", f"PUT /containers/{box}/archive?path=/", "POST /images/create?fromSrc=-"):
            send(line, half)
        until(send("GET /images/base/get"), b"\r\n\r\n")
        until(send(f"POST /images/create?fromImage={remote}/app&tag=1"), b"\r\n\r\n")
        assert wire.held.wait(patience(60))
        wire.held.clear()
        until(send(f"POST /images/{remote}/pushed/push?tag=1"), b"\r\n\r\n")
        assert wire.held.wait(patience(60))
        server.kill()
        for line, sock in streams.items():
            try:
                comes_to_its_end(sock)
            except TimeoutError:
                raise AssertionError(f"the client of {line} was left waiting") from None
        server.start()
        assert [one["Id"] for one in server("GET", "/containers/json", all="1").json if one["State"] != "running"] == [
            box
        ]
        assert server("GET", "/images/base/json").status == 200
        server("GET", f"/images/{remote}/app:1/json").expect(404)
        for one in server("GET", "/containers/json", all="1").json:
            server("DELETE", f"/containers/{one['Id']}", force="1").expect(204)
        # What a killed writer left is garbage and nothing else, and goes as soon as nobody else is at work on the store.
        found = home.cli("system", "check").out
        assert all(line.startswith("garbage: ") for line in found.splitlines()[:-1]), found
        eventually(lambda: "nothing found" in home.cli("system", "check", "--repair").out, 60)
        assert home.cli("system", "check", "--deep").ok().out == "nothing found\n"
        loaded = server("POST", "/images/load", archive, {"Content-Type": "application/x-tar"}).expect(200)
        assert "Loaded image: base:latest" in loaded.lines[-1]["stream"]
        wire.open()
        pulled = server("POST", "/images/create", fromImage=f"{remote}/app", tag="1").expect(200).lines
        assert pulled[-1]["status"].startswith("Status: Downloaded newer image"), pulled
        pushed = server("POST", f"/images/{remote}/pushed/push", tag="1").expect(200).lines
        assert pushed[-1]["aux"]["Tag"] == "1", pushed
        assert home.cli("system", "check", "--deep").ok().out == "nothing found\n"
        for name in ("app", "pushed"):
            server("DELETE", f"/images/{remote}/{name}:1").expect(200)


def test_our_client_hears_of_a_killed_server_and_goes_on_with_the_next(home: Root) -> None:
    with serving(home) as server, sampan.connect(server.url) as engine:
        script = "while :; do echo tick; sleep 0.05; done"
        container = engine.containers.create("base", ["sh", "-c", script], network="none")
        container.start()
        logs, events = container.logs(follow=True), engine.events()
        executed, attached = container.exec_start(["sleep", "60"]), container.attach()
        streams: list[Callable[[], object]] = [
            container.wait,
            lambda: list(logs),
            lambda: list(events),
            lambda: collect(executed, None),
            lambda: collect(attached, None),
        ]
        heard: list[BaseException] = []

        def listen(stream: Callable[[], object]) -> None:
            try:
                stream()
                heard.append(AssertionError("it came to its end"))
            except BaseException as e:
                heard.append(e)

        threads = [threading.Thread(target=listen, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
        server.kill()
        for thread in threads:
            thread.join(patience(60))
            assert not thread.is_alive()
        assert sorted(type(e).__name__ for e in heard) == [*["ConnectionLost"] * 2, *["Unavailable"] * 3], heard
        with pytest.raises(Unavailable, match="connection refused: is `sampan serve` running there"):
            container.inspect()
        server.start()
        assert container.status == "running"  # over a connection that the killed one has closed
        container.remove(force=True)


@pytest.mark.parametrize("told", ["the process", "another thread"])
def test_a_server_ends_by_sigterm_with_clients_at_work(home: Root, told: str) -> None:
    """Whichever of its threads the kernel interrupts: the one that has to end waits in a poll."""
    with serving(home) as server, connect(server) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        until(sock, b"\r\n\r\n")
        assert server.process is not None
        pid = server.process.pid
        if told == "the process":
            server.process.send_signal(signal.SIGTERM)
        else:
            other = next(int(task) for task in os.listdir(f"/proc/{pid}/task") if int(task) != pid)
            assert ctypes.CDLL(None, use_errno=True).tgkill(pid, other, signal.SIGTERM) == 0
        assert server.process.wait(patience(30)) == 0
        assert not os.path.exists(server.path)
