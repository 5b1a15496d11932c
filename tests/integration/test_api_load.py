"""The server under load: memory that stays flat whatever goes through, and whoever does not read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import sampan
from sampan.errors import Conflict

from support.apiserver import Server, home, serving
from support.patience import eventually, patience
from support.roots import Root

__all__ = ["home"]

pytestmark = [pytest.mark.root, pytest.mark.long]

GIGABYTES = int(os.environ.get("SAMPAN_TEST_GIGABYTES", "1"))
"""What goes through each kind of stream."""
_MOST_MORE = 8 << 20
_LOG_MEGABYTES = 48


@pytest.fixture
def server(home: Root) -> Iterator[Server]:
    with serving(home) as found:
        yield found
        assert "Traceback" not in found.log


def resident(server: Server) -> int:
    assert server.process is not None
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def proportional(server: Server) -> float:
    """What it costs of the machine's memory, in MiB: what is shared counts in parts (proc(5), smaps_rollup)."""
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def test_a_server_at_rest_takes_30_mib_and_35_with_a_thousand_idle_connections(server: Server) -> None:
    """Also one that has served, and has all in memory that this takes."""
    assert proportional(server) < 30
    server.warm_up()
    for path in ("/version", "/info", "/containers/json", "/images/json", "/networks", "/volumes", "/system/df"):
        server("GET", path).expect(200)
    assert proportional(server) < 30
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(1000):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(patience(60))
            sock.connect(server.path)
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            idle.append(sock)
        for sock in idle:
            assert sock.recv(1 << 16).endswith(b"OK")
        assert server.process is not None
        tasks = f"/proc/{server.process.pid}/task"
        eventually(lambda: len(os.listdir(tasks)) < 5, 60, "that all are parked")
        assert proportional(server) < 35
        for sock in (idle[0], idle[-1]):
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(1 << 16).endswith(b"OK")


def drained(server: Server, request: str, body: str = "") -> tuple[int, int]:
    """How many bytes come as the answer to a request, and the most memory that the server had meanwhile."""
    buffer = bytearray(1 << 20)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(120))
        sock.connect(server.path)
        lines = [f"{request} HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json"]
        sock.sendall("\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode())
        total = most = 0
        while size := sock.recv_into(buffer):
            total += size
            if total >> 26 != (total - size) >> 26:
                most = max(most, resident(server))
    return total, most


@pytest.mark.patience(3600)
def test_memory_is_flat_whatever_goes_through(server: Server) -> None:
    with sampan.connect(server.url) as engine:
        box = engine.containers.create("base", ["sleep", "100000"], network="none")
        box.start()

        def executed(size: int) -> tuple[int, int]:
            body = {"Cmd": ["head", "-c", str(size), "/dev/zero"], "AttachStdout": True}
            made = server("POST", f"/containers/{box.id}/exec", body).expect(201).json["Id"]
            return drained(server, f"POST /exec/{made}/start", "{}")

        executed(64 << 20)
        before = resident(server)
        total, most = executed(GIGABYTES << 30)
        assert total >= GIGABYTES << 30
        assert most < before + _MOST_MORE
        # A log is read again and again: what is on the disk need not be as large.
        script = f"head -c {_LOG_MEGABYTES << 20} /dev/zero | tr '\\0' x"
        log = {"Type": "json-file", "Config": {"max-size": "1g"}}
        writer = engine.containers.create("base", ["sh", "-c", script], log_config=log, network="none")
        writer.start()
        assert writer.wait() == 0
        request = f"GET /containers/{writer.id}/logs?stdout=1"
        drained(server, request)
        before, read = resident(server), 0
        while read < GIGABYTES << 30:
            total, most = drained(server, request)
            assert total > _LOG_MEGABYTES << 20
            assert most < before + _MOST_MORE
            read += total
        for one in (box, writer):
            one.remove(force=True)


def test_readers_that_stop_reading_cost_a_bounded_memory(server: Server) -> None:
    """Of each kind of stream one that nobody reads: the server waits for its client, holds no more than its bound, and serves others."""
    with sampan.connect(server.url) as engine:
        box = engine.containers.create("base", ["sh", "-c", "cat /dev/zero | tr '\\0' x"], network="none")
        box.start()
        eventually(lambda: sum(len(entry.data) for entry in box.logs()) > 4 << 20, 60)
        box.pause()
        before = resident(server)
        held = []
        for line in ("logs?stdout=1&follow=1", "attach?stream=1&stdout=1&logs=1", "export", "archive?path=/", "stats"):
            method = "POST" if line.startswith("attach") else "GET"
            with_ = socket.socket(socket.AF_UNIX)
            with_.connect(server.path)
            with_.sendall(f"{method} /containers/{box.id}/{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            held.append(with_)
        box_again = engine.containers.get(box.id)
        assert box_again.status == "paused"
        with pytest.raises(Conflict):
            box_again.pause()
        eventually(lambda: all(_unread(sock) for sock in held), 60)
        assert resident(server) < before + len(held) * _MOST_MORE
        assert engine.containers.run("base", ["echo", "served"], network="none").stdout == "served\n"
        for sock in held:
            sock.close()
        box.remove(force=True)


def _unread(sock: socket.socket) -> bool:
    sock.settimeout(0)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
