"""The Engine API's server: HTTP read strictly, connections taken over, parked, closed; where it listens; what a kill of it costs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.results import collect
from sampan.errors import Unavailable

from support.apiserver import Api, Server, serving
from support.patience import eventually, patience
from support.roots import Root
from support.tools import Tool

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def home(test_directory: str) -> Iterator[Root]:
    """A store of this module's: its tests share one server and one container, and what they leave is looked for at the end."""
    made = Root(Path(test_directory) / "api-server")
    made.cli("run", "--rm", "--network", "none", "base", "true").ok()
    before = made.state()
    yield made
    before.check()
    made.delete()


@pytest.fixture(scope="module")
def server(home: Root) -> Iterator[Server]:
    with serving(home) as started:
        yield started


@pytest.fixture(scope="module")
def box(server: Server) -> Iterator[str]:
    """The id of a container that runs and reads its input until its end."""
    body = {"Image": "base", "Cmd": ["cat"], "OpenStdin": True, "HostConfig": {"NetworkMode": "none"}}
    identifier: str = server("POST", "/containers/create", body).expect(201).json["Id"]
    server("POST", f"/containers/{identifier}/start").expect(204)
    yield identifier
    server("DELETE", f"/containers/{identifier}", force="1").expect(204)


def connect(server: Api) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(patience(60))
    sock.connect(server.path)
    return sock


def until(sock: socket.socket, end: bytes) -> bytes:
    """What comes up to `end`, byte by byte, so that nothing behind it is taken."""
    data = b""
    while not data.endswith(end):
        part = sock.recv(1)
        assert part, f"ended after {data!r}"
        data += part
    return data


def everything(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ssl.SSLZeroReturnError):  # close_notify has gone both ways
        while part := sock.recv(65536):
            data += part
    return data


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, size = struct.unpack(">BxxxL", data[:8])
        found.append((kind, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def output(data: bytes, kind: int = 1) -> bytes:
    return b"".join(part for stream, part in frames(data) if stream == kind)


def exec_id(server: Api, container: str, *command: str, **options: Any) -> str:
    body = {"Cmd": list(command), "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, **options}
    identifier: str = server("POST", f"/containers/{container}/exec", body).expect(201).json["Id"]
    return identifier


def start_request(identifier: str, upgrade: bool = True) -> bytes:
    lines = ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
    body = '{"Detach":false,"Tty":false}'
    head = [f"POST /v1.44/exec/{identifier}/start HTTP/1.1", "Host: x", "Content-Type: application/json"]
    return "\r\n".join([*head, *lines, f"Content-Length: {len(body)}", "", body]).encode()


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


def test_an_answer_says_which_request_of_the_log_it_is(server: Server) -> None:
    answer = server("GET", "/containers/nosuch/json").expect(404)
    assert answer.message == "No such container: nosuch"
    assert answer.headers["api-version"] == "1.51"
    line = eventually(lambda: [line for line in server.log.splitlines() if answer.headers["x-request-id"] in line])
    assert "/containers/nosuch/json 404" in line[0]


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


def test_another_server_resizes_the_terminal_of_an_exec(server: Server, home: Root, box: str) -> None:
    script = "read a; stty size; exec < /dev/null > /dev/null 2>&1; mkfifo /tmp/f; exec < /tmp/f"
    identifier = exec_id(server, box, "sh", "-c", script, Tty=True)
    with connect(server) as sock, serving(home) as other:
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


# 8


def test_sockets_come_from_systemd_blocking_or_not(home: Root) -> None:
    path = str(home.directory / "activated.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    script = 'exec 3<&"$1"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$2" --config "$3" serve -H fd://'
    arguments = ["bash", "-c", script, "bash", str(listener.fileno()), home.cli.program, str(home.config)]
    process = subprocess.Popen(
        arguments, pass_fds=[listener.fileno()], env=home.cli.environment, stderr=subprocess.DEVNULL
    )
    try:
        # A request that comes before anybody serves waits in the socket.
        assert Api(path)("GET", "/_ping").expect(200).data == b"OK"
    finally:
        process.terminate()
        assert process.wait(patience(60)) == 0
        listener.close()
        os.unlink(path)


# 9


def test_a_body_that_has_to_be_asked_for_is_asked_for(server: Server) -> None:
    body = b'{"Image":"nosuch"}'
    head = f"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(head.encode())
        assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 404 ")


# where it listens


def test_a_socket_is_its_groups(server: Server, home: Root) -> None:
    assert os.stat(server.path).st_mode & 0o777 == 0o660
    result = home.cli("serve", "-H", f"unix://{server.path}")
    assert result.code == 1
    assert result.err == f"Error: a server listens on {server.path} already: stop it, or choose another path with -H\n"
    assert server("GET", "/_ping").status == 200


def certificates(directory: Path) -> Path:
    openssl, new = Tool("openssl"), ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    authority = ("-CA", str(directory / "ca.pem"), "-CAkey", str(directory / "ca.key"), "-CAcreateserial")
    openssl(
        "req",
        "-x509",
        *new,
        "-days",
        "2",
        "-subj",
        "/CN=ca",
        "-keyout",
        str(directory / "ca.key"),
        "-out",
        str(directory / "ca.pem"),
    )
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name in ("server", "client"):
        paths = [str(directory / f"{name}.{kind}") for kind in ("key", "csr", "pem")]
        openssl("req", *new, "-subj", f"/CN={name}", "-keyout", paths[0], "-out", paths[1])
        openssl(
            "x509",
            "-req",
            "-in",
            paths[1],
            *authority,
            "-days",
            "2",
            "-extfile",
            str(directory / "names"),
            "-out",
            paths[2],
        )
    return directory


def answered_without_certificate(port: int, trusting: ssl.SSLContext) -> bool:
    """TLS 1.3 tells a client only with its first read that it is not wanted."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), patience(60)) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            return bool(secured.recv(1))
    except OSError:
        return False


@contextlib.contextmanager
def on_tcp(home: Root, *options: str) -> Iterator[int]:
    """A server on a port of its own."""
    log = home.directory / "tcp.log"
    with log.open("wb") as file:
        command = [home.cli.program, *home.cli.before, "serve", "-H", "tcp://127.0.0.1:0", *options]
        process = subprocess.Popen(command, env=home.cli.environment, stderr=file, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: "listening on" in log.read_text(), 60)
        yield int(log.read_text().split("listening on tcp://127.0.0.1:")[1].split()[0])
    finally:
        process.terminate()
        assert process.wait(patience(60)) == 0
        log.unlink()


def test_tcp_shows_certificates_on_both_sides_and_half_closes(
    home: Root, server: Server, box: str, tmp_path: Path
) -> None:
    files = certificates(tmp_path)
    options = [f"--tlsc{kind}={files / name}" for kind, name in (("acert", "ca.pem"), ("ert", "server.pem"))]
    trusting = ssl.create_default_context(cafile=str(files / "ca.pem"))
    with on_tcp(home, *options, f"--tlskey={files / 'server.key'}") as port:
        assert not answered_without_certificate(port, trusting)
        trusting.load_cert_chain(files / "client.pem", files / "client.key")
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting, timeout=patience(60))
        connection.request("GET", "/version")
        assert json.load(connection.getresponse())["ApiVersion"] == "1.51"
        connection.close()
        identifier = exec_id(server, box, "sh", "-c", "wc -c; sleep 0.2; echo done")
        sent = b"x" * 3_000_000
        with trusting.wrap_socket(
            socket.create_connection(("127.0.0.1", port), patience(60)), server_hostname="127.0.0.1"
        ) as secured:
            secured.sendall(start_request(identifier))
            until(secured, b"\r\n\r\n")
            secured.sendall(sent)
            # close_notify, as Go's CloseWrite: what comes back goes on.
            secured.settimeout(0)
            with pytest.raises(ssl.SSLWantReadError):
                secured.unwrap()
            secured.settimeout(patience(60))
            assert output(everything(secured)) == b"3000000\ndone\n"
        # Our own client, too: as a directory of files, and with more input than anybody holds.
        for name, given in (("cert.pem", "client.pem"), ("key.pem", "client.key")):
            (files / name).symlink_to(files / given)
        with sampan.connect(f"tcp://127.0.0.1:{port}", str(files)) as engine:
            done = engine.containers.get(box).exec(["sh", "-c", "wc -c; sleep 0.2; echo done; exit 3"], input=sent)
            assert (done.stdout, done.exit_code) == ("3000000\ndone\n", 3)
            assert (
                len(engine.containers.get(box).exec(["head", "-c", "5000000", "/dev/zero"]).stdout_bytes) == 5_000_000
            )


def test_tcp_without_tls_has_to_be_said_twice_and_knows_its_name(home: Root) -> None:
    with on_tcp(home, "--no-tls", "--no-authentication") as port:
        for host, status in (
            ("127.0.0.1", 200),
            ("localhost:1", 200),
            ("[::1]:1", 200),
            ("evil.example", 403),
            ("", 403),
        ):
            with socket.create_connection(("127.0.0.1", port), patience(60)) as sock:
                sock.sendall(f"GET /_ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                assert everything(sock).split()[1] == str(status).encode(), host


# what a kill costs


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
