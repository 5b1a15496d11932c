"""The Engine API's server: HTTP read strictly, connections taken over, parked, closed; where it listens; what a kill of it costs."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from sampan.api.listeners import Security, open_listener
from sampan.api.log import Log
from sampan.api.server import Server as HttpServer
from sampan.api.workers import Workers

from support.apiserver import Api, Server, box, home, server
from support.apistreams import connect, everything, exec_id, output, start_request, until
from support.patience import eventually, patience
from support.roots import Root

__all__ = ["box", "home", "server"]

pytestmark = pytest.mark.root


# 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST /_ping HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"GET /" + b"a" * 70000, 431),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_no_proper_http_is_answered_and_the_connection_ends(server: Server, sent: bytes, status: int) -> None:
    with connect(server) as sock:
        sock.sendall(sent)
        answer = everything(sock)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b'{"message":' in answer
    assert server("GET", "/_ping").status == 200


def test_requests_that_come_together_are_answered_in_their_order(server: Server) -> None:
    with connect(server) as sock:
        sock.sendall(
            b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nHEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /nosuch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = everything(sock)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answer) == [b"200", b"200", b"404"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Host": "anything"}, 200)],
)
def test_web_pages_are_not_served(server: Server, headers: dict[str, str], status: int) -> None:
    assert server("GET", "/version", headers=headers).status == status


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"[]", {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/html"}, 400),
        (b"", {}, 400),
        (b'{"Image":7}', {"Content-Type": "application/json"}, 400),
        (b'{"Image":"base","Cmd":[7]}', {"Content-Type": "application/json"}, 400),
        (b"[" * 100000, {"Content-Type": "application/json"}, 400),
        (b" " * ((16 << 20) + 1), {"Content-Type": "application/json"}, 413),
    ],
)
def test_bodies_that_cannot_be_are_refused(server: Server, body: bytes, headers: dict[str, str], status: int) -> None:
    answer = server("POST", "/containers/create", body, headers)
    assert answer.status == status, answer.data[:300]
    assert "Traceback" not in answer.message


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"1" * 100_000, 400, "malformed request body: Receive buffer too long"),
        (b"f" * 22 + b"\r\n{}", 400, "malformed request body: illegal chunk header"),
        (b"zz\r\n{}\r\n0\r\n\r\n", 400, "malformed request body: illegal chunk header"),
        (b"2\r\n{}xx0\r\n\r\n", 400, "malformed request body: malformed chunk footer"),
        (b"0\r\n" + b"A: b\r\n" * 100_000, 400, "malformed request body: Receive buffer too long"),
        (b"100000\r\n" + b" " * (1 << 20) + b"\r\n", 413, "the request's body has more than 16777216 bytes"),
    ],
)
def test_chunks_are_bounded_in_each_of_their_parts(server: Server, body: bytes, status: int, message: str) -> None:
    """Lines, trailers, and what they come to together."""
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(head + (body * 17 if status == 413 else body))
        answer = everything(sock)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert message in answer.decode()
    assert "bytearray" not in answer.decode()


def test_an_answer_says_which_request_of_the_log_it_is(server: Server) -> None:
    answer = server("GET", "/containers/nosuch/json").expect(404)
    assert answer.message == "No such container: nosuch"
    assert answer.headers["api-version"] == "1.51"
    line = eventually(lambda: [line for line in server.log.splitlines() if answer.headers["x-request-id"] in line])
    assert "/containers/nosuch/json 404" in line[0]


@pytest.mark.parametrize(
    ("level", "refused", "answered"), [("warn", False, False), ("info", True, False), ("debug", True, True)]
)
def test_the_log_has_as_much_as_is_asked_for(home: Root, level: str, refused: bool, answered: bool) -> None:
    with beside(home, "--log-level", level) as other:
        good, bad = (other("GET", path).headers["x-request-id"] for path in ("/version", "/containers/nosuch/json"))
        other.stop()
    assert (bad in other.log, good in other.log) == (refused, answered), other.log
    assert ("listening on" in other.log) is refused
    wrong = home.cli("serve", "-H", f"unix://{home.directory}/x.sock", "--log-level", "nosuch")
    assert (wrong.code, wrong.err) == (1, "Error: --log-level is one of debug, info, warn, error, not 'nosuch'\n")


# 2


@pytest.mark.parametrize("upgrade", [True, False])
def test_a_connection_is_taken_over_with_what_came_early(server: Server, box: str, upgrade: bool) -> None:
    identifier = exec_id(server, box, "cat")
    with connect(server) as sock:
        sock.sendall(start_request(identifier, upgrade) + b"early ")
        head = until(sock, b"\r\n\r\n").decode()
        assert head.startswith("HTTP/1.1 101 UPGRADED\r\n" if upgrade else "HTTP/1.1 200 OK\r\n")
        assert ("\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" in head) is upgrade
        assert "\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n" in head
        sock.sendall(b"late")
        sock.shutdown(socket.SHUT_WR)
        assert output(everything(sock)) == b"early late"
    shown = server("GET", f"/exec/{identifier}/json").expect(200).json
    assert (shown["ExitCode"], shown["Running"], shown["ContainerID"]) == (0, False, box)


def test_an_exec_starts_once(server: Server, box: str) -> None:
    identifier = exec_id(server, box, "true")
    assert server("GET", f"/exec/{identifier}/json").json["ExitCode"] is None
    server("POST", f"/exec/{identifier}/start", {"Detach": True}).expect(200)
    server("POST", f"/exec/{identifier}/start", {"Detach": True}).expect(409)
    for method, path in (("GET", "json"), ("POST", "start"), ("POST", "resize?h=1&w=1")):
        server(method, f"/exec/{'0' * 64}/{path}", {} if method == "POST" else None).expect(404)


@contextlib.contextmanager
def beside(home: Root, *options: str) -> Iterator[Server]:
    """A second server of the store; the zygote is the first one's as well, and stays with it."""
    other = Server(home, *options)
    try:
        other.start()
        yield other
    finally:
        other.stop()


def test_two_servers_of_a_store_are_one(server: Server, home: Root) -> None:
    """What one is asked for the other carries on with: neither knows anything of its own."""
    body = {"Image": "base", "Cmd": ["sh", "-c", "read a; echo got $a"], "OpenStdin": True, "StdinOnce": True}
    with beside(home) as other, connect(other) as events, connect(other) as attached, connect(server) as waiting:
        events.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        until(events, b"\r\n\r\n")
        path = (
            "/containers/"
            + server("POST", "/containers/create?name=shared", {**body, "HostConfig": {"NetworkMode": "none"}}).json[
                "Id"
            ]
        )
        attached.sendall(
            f"POST {path}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        until(attached, b"\r\n\r\n")
        waiting.sendall(f"POST {path}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        until(waiting, b"\r\n\r\n")
        server("POST", f"{path}/start").expect(204)
        assert other("GET", "/containers/shared/json").json["State"]["Running"]
        attached.sendall(b"it\n")
        assert output(everything(attached)) == b"got it\n"
        assert b'{"StatusCode":0}' in until(waiting, b"\r\n0\r\n\r\n")
        assert output(server("GET", f"{path}/logs", stdout="1").data) == b"got it\n"
        other("DELETE", path).expect(204)
        server("GET", f"{path}/json").expect(404)
        told = re.findall(rb'"Action":"(\w+)', until(events, b'"Action":"destroy"'))
        assert [action for action in told if action in (b"create", b"start", b"die", b"destroy")] == [
            b"create",
            b"start",
            b"die",
            b"destroy",
        ]


def test_another_server_resizes_the_terminal_of_an_exec(server: Server, home: Root, box: str) -> None:
    script = "read a; stty size; exec < /dev/null > /dev/null 2>&1; mkfifo /tmp/f; exec < /tmp/f"
    identifier = exec_id(server, box, "sh", "-c", script, Tty=True)
    with connect(server) as sock, beside(home) as other:
        sock.sendall(start_request(identifier))
        until(sock, b"\r\n\r\n")
        eventually(lambda: server("GET", f"/exec/{identifier}/json").json["Running"], 60)
        other("POST", f"/exec/{identifier}/resize?h=33&w=101").expect(200)
        sock.sendall(b"\n")
        assert until(sock, b"33 101\r\n")
        # It has let go of its terminal, and waits where an open would wait, too.
        resize = f"/exec/{identifier}/resize?h=34&w=102"
        eventually(lambda: other("POST", resize).status == 409, 60)
        assert "closed its terminal" in other("POST", resize).message
        plain = exec_id(server, box, "true")
        assert "no terminal" in other("POST", f"/exec/{plain}/resize?h=1&w=1").expect(400).message
        release = exec_id(server, box, "sh", "-c", "echo > /tmp/f")
        other("POST", f"/exec/{release}/start", {"Detach": True}).expect(200)
        everything(sock)
    server("POST", f"/exec/{identifier}/resize?h=1&w=1").expect(409)


def test_a_program_that_is_not_there_leaves_its_exit_code(server: Server, box: str) -> None:
    identifier = exec_id(server, box, "nosuch")
    with connect(server) as sock:
        sock.sendall(start_request(identifier))
        until(sock, b"\r\n\r\n")
        assert b'exec: "nosuch": executable file not found in $PATH' in output(everything(sock))
    assert server("GET", f"/exec/{identifier}/json").json["ExitCode"] == 127


# 3 and 4


def test_the_end_of_input_is_not_the_end_of_output(server: Server, box: str) -> None:
    identifier = exec_id(server, box, "sh", "-c", "cat > /dev/null; sleep 0.2; echo out; echo err >&2; exit 3")
    with connect(server) as sock:
        sock.sendall(start_request(identifier))
        until(sock, b"\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        data = everything(sock)
    assert (output(data), output(data, 2)) == (b"out\n", b"err\n")
    assert server("GET", f"/exec/{identifier}/json").json["ExitCode"] == 3


def test_a_client_that_still_sends_gets_all_of_the_output(server: Server, box: str) -> None:
    identifier = exec_id(server, box, "sh", "-c", "head -c 100000 /dev/zero; exit 3")
    with connect(server) as sock:
        sock.sendall(start_request(identifier))
        until(sock, b"\r\n\r\n")
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(b"y\n" * 4096)
        sock.settimeout(patience(60))
        # Without a reset, which would have thrown away what was not read yet.
        assert len(output(everything(sock))) == 100000


def test_a_client_that_goes_away_leaves_the_program_running(server: Server, box: str) -> None:
    with connect(server) as sock:
        sock.sendall(
            f"POST /containers/{box}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        until(sock, b"\r\n\r\n")
    eventually(lambda: f"/containers/{box}/attach?stream=1&stdout=1 101 " in server.log, 60)
    assert server("GET", f"/containers/{box}/json").json["State"]["Running"]


def test_what_a_client_sent_before_it_left_is_read(server: Server) -> None:
    body = {
        "Image": "base",
        "Cmd": ["sh", "-c", "read a; echo got $a; sleep 1000"],
        "OpenStdin": True,
        "HostConfig": {"NetworkMode": "none"},
    }
    box = server("POST", "/containers/create", body).expect(201).json["Id"]
    server("POST", f"/containers/{box}/start").expect(204)
    with connect(server) as sock:
        sock.sendall(
            f"POST /containers/{box}/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        until(sock, b"\r\n\r\n")
        sock.sendall(b"last\n")
    eventually(lambda: output(server("GET", f"/containers/{box}/logs", stdout="1").data) == b"got last\n", 60)
    server("DELETE", f"/containers/{box}", force="1").expect(204)


# 5


@pytest.mark.parametrize(
    "request_line", ["POST /containers/{}/wait", "POST /containers/{}/wait?condition=removed", "GET /containers/{}/logs?stdout=1&follow=1", "GET /events", "GET /containers/{}/stats"]
)  # fmt: skip
def test_who_waits_and_leaves_is_noticed(server: Server, box: str, request_line: str) -> None:
    line = request_line.format(box)
    before = server.log.count(f"{line} 200 ")
    with connect(server) as sock:
        sock.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    eventually(lambda: server.log.count(f"{line} 200 ") > before, 60, "the end of the request")


# 6


def threads(server: Server) -> int:
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


def test_idle_connections_have_no_threads(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(200)]
        for sock in socks:
            sock.sendall(b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        for sock in socks:
            assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
        eventually(lambda: threads(server) < 20, 60, "few threads")
        for sock in (socks[0], socks[99]):
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert until(sock, b"OK")


def test_more_requests_than_threads_are_turned_away(home: Root) -> None:
    """And not the connections that wait for their turn: those have none."""
    with home.engine() as engine, (home.directory / "few.log").open("wb") as log:
        path = str(home.directory / "few.sock")
        few = HttpServer(
            engine, open_listener(f"unix://{path}", None, Security()), Log("debug", log.fileno()), Workers(2)
        )
        thread = threading.Thread(target=few.run)
        thread.start()
        try:
            with contextlib.ExitStack() as stack:
                idle, *waiting = (stack.enter_context(connect(Api(path))) for _ in range(3))
                for sock in waiting:
                    sock.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
                    until(sock, b"\r\n\r\n")
                with connect(Api(path)) as sock:
                    sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
                    refused = everything(sock)  # to its end, and no reset
                assert refused.startswith(b"HTTP/1.1 503 ")
                assert b"the server has as many requests at work as it takes: try again" in refused
                waiting[0].close()
                eventually(lambda: Api(path)("GET", "/_ping").status == 200, 60)
                idle.setblocking(False)
                with pytest.raises(BlockingIOError):  # it is open all the time, and has not been answered
                    idle.recv(1)
        finally:
            few.stop()
            thread.join()


# 8 is in test_api_listeners, 7 in tests/unit/test_api_http.


# 9


def test_a_body_that_has_to_be_asked_for_is_asked_for(server: Server) -> None:
    body = b'{"Image":"nosuch"}'
    head = f"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(head.encode())
        assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 404 ")


# slow readers


def test_a_client_that_does_not_read_holds_up_nobody(server: Server, box: str) -> None:
    identifier = exec_id(server, box, "sh", "-c", "head -c 300000000 /dev/zero")
    with connect(server) as sock:
        sock.sendall(start_request(identifier))
        until(sock, b"\r\n\r\n")
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                assert server("GET", "/_ping").status == 200
                other = exec_id(server, box, "echo", "x")
                with connect(server) as second:
                    second.sendall(start_request(other))
                    until(second, b"\r\n\r\n")
                    assert output(everything(second)) == b"x\n"
            except BaseException as e:
                failures.append(e)

        others = [threading.Thread(target=ask) for _ in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join(patience(60))
            assert not other.is_alive()
        assert not failures, failures
