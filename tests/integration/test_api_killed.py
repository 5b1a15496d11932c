"""What the end of a server of the Engine API costs: nothing but its clients' connections."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import sampan
from sampan.engine.results import collect
from sampan.errors import Unavailable

from support.apiserver import box, home, server, serving
from support.apistreams import connect, everything, exec_id, output, start_request, until
from support.patience import eventually, patience
from support.roots import Root

__all__ = ["box", "home", "server"]

pytestmark = pytest.mark.root


def test_a_killed_server_loses_nothing(home: Root) -> None:
    body = {
        "Image": "base",
        "Cmd": ["sh", "-c", "while :; do echo tick; sleep 0.05; done"],
        "HostConfig": {"NetworkMode": "none"},
    }
    with serving(home) as server:
        identifier = server("POST", "/containers/create", body).expect(201).json["Id"]
        planned_in = f"/containers/{identifier}"
        streams = []

        def open_stream(line: str) -> None:
            sock = connect(server)
            streams.append(sock)
            sock.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\n".encode())
            assert until(sock, b"\r\n\r\n").split()[1] in (b"101", b"200"), line

        # Attached and waiting before the start, as `docker run` is.
        open_stream(f"POST {planned_in}/attach?stream=1&stdout=1&stderr=1")
        open_stream(f"POST {planned_in}/wait?condition=next-exit")
        server("POST", f"{planned_in}/start").expect(204)
        for line in ("logs?stdout=1&follow=1", "stats", "export", "archive?path=/bin"):
            open_stream(f"GET {planned_in}/{line}")
        open_stream("GET /events")
        created = exec_id(server, identifier, "echo", "later")
        running = exec_id(server, identifier, "sh", "-c", "echo begun; sleep 60")
        sock = connect(server)
        streams.append(sock)
        sock.sendall(start_request(running))
        until(sock, b"begun\n")
        server.kill()
        for sock in streams:
            sock.close()
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


@pytest.mark.long
def test_a_server_killed_in_the_middle_of_images_leaves_a_whole_store(home: Root, tmp_path: Path) -> None:
    """Half a build, half a load, half an archive for a container, half an image that is read: and then no server."""
    home.cli("save", "-o", str(tmp_path / "base.tar"), "base").ok()
    archive = (tmp_path / "base.tar").read_bytes()
    dockerfile = b"FROM base\nRUN --network=none echo begun; sleep 600\n"
    with serving(home) as server:
        box = server("POST", "/containers/create", {"Image": "base", "HostConfig": {"NetworkMode": "none"}}).json["Id"]
        streams = [connect(server) for _ in range(4)]
        head = "HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
        streams[0].sendall(f"POST /build {head}Content-Length: {len(dockerfile)}\r\n\r\n".encode() + dockerfile)
        until(streams[0], b'"begun\\n"')
        for sock, line in ((streams[1], "POST /images/load"), (streams[2], f"PUT /containers/{box}/archive?path=/")):
            sock.sendall(f"{line} {head}Content-Length: {len(archive)}\r\n\r\n".encode() + archive[: len(archive) // 2])
        streams[3].sendall(f"GET /images/base/get {head}\r\n".encode())
        until(streams[3], b"\r\n\r\n")
        server.kill()
        for sock in streams:
            sock.close()
        server.start()
        assert [one["Id"] for one in server("GET", "/containers/json", all="1").json if one["State"] != "running"] == [
            box
        ]
        assert server("GET", "/images/base/json").status == 200
        for one in server("GET", "/containers/json", all="1").json:
            server("DELETE", f"/containers/{one['Id']}", force="1").expect(204)
        # What a killed writer left is garbage and nothing else, and goes as soon as nobody else is at work on the store.
        found = home.cli("system", "check").out
        assert all(line.startswith("garbage: ") for line in found.splitlines()[:-1]), found
        eventually(lambda: "nothing found" in home.cli("system", "check", "--repair").out, 60)
        assert home.cli("system", "check", "--deep").ok().out == "nothing found\n"
        loaded = server("POST", "/images/load", archive, {"Content-Type": "application/x-tar"}).expect(200)
        assert "Loaded image: base:latest" in loaded.lines[-1]["stream"]


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


def test_a_server_ends_by_sigterm_with_clients_at_work(home: Root) -> None:
    with serving(home) as server, connect(server) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        until(sock, b"\r\n\r\n")
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(patience(30)) == 0
        assert not os.path.exists(server.path)
