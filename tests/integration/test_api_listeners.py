"""Where a server of the Engine API listens: sockets, those of systemd, TCP with certificates on both sides."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import sampan

from support.apiserver import Api, Server, box, home, server
from support.apistreams import everything, exec_id, output, start_request, until
from support.patience import eventually, patience
from support.roots import Root
from support.tools import Tool

__all__ = ["box", "home", "server"]

pytestmark = pytest.mark.root


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


def test_a_socket_is_its_groups(server: Server, home: Root) -> None:
    assert os.stat(server.path).st_mode & 0o777 == 0o660
    result = home.cli("serve", "-H", f"unix://{server.path}")
    assert result.code == 1
    assert result.err == f"Error: a server listens on {server.path} already: stop it, or choose another path with -H\n"
    assert server("GET", "/_ping").status == 200


def test_a_socket_is_of_the_group_sampan_where_there_is_one(home: Root, tmp_path: Path) -> None:
    """Which this machine need not have: the server sees a file of groups of its own."""
    groups = tmp_path / "group"
    groups.write_text(Path("/etc/group").read_text() + "sampan:x:4321:\nothers:x:4322:\n")
    for options, gid in (((), 4321), (("--group", "others"), 4322), (("--group", "4323"), 4323)):
        path = tmp_path / f"{gid}.sock"
        script = 'mount --bind "$1" /etc/group; shift; exec "$@"'
        command = [home.cli.program, *home.cli.before, "serve", "-H", f"unix://{path}", *options]
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, "sh", str(groups), *command],
            env=home.cli.environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            # It has its group before it is open to anybody: who sees the mode sees the group.
            eventually(lambda path=path: path.exists() and path.stat().st_mode & 0o777 == 0o660, 60)  # type: ignore[misc]
            assert (path.stat().st_uid, path.stat().st_gid) == (0, gid)
        finally:
            process.terminate()
            process.wait(patience(60))
    refused = home.cli("serve", "-H", f"unix://{tmp_path}/x.sock", "--group", "nosuchgroup")
    assert (refused.code, "groupadd nosuchgroup" in refused.err) == (1, True)


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


def secure(port: int, trusting: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection to that server."""
    plain = socket.create_connection(("127.0.0.1", port), patience(60))
    return trusting.wrap_socket(plain, server_hostname="127.0.0.1")


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
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go's clients are: the authority has no key usage
    with on_tcp(home, *options, f"--tlskey={files / 'server.key'}") as port:
        assert not answered_without_certificate(port, trusting)
        trusting.load_cert_chain(files / "client.pem", files / "client.key")
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting, timeout=patience(60))
        connection.request("GET", "/version")
        assert json.load(connection.getresponse())["ApiVersion"] == "1.51"
        connection.close()
        identifier = exec_id(server, box, "sh", "-c", "wc -c; sleep 0.2; echo done")
        sent = b"x" * 3_000_000
        with secure(port, trusting) as secured:
            secured.sendall(start_request(identifier))
            until(secured, b"\r\n\r\n")
            secured.sendall(sent)
            # close_notify, as Go's CloseWrite: what comes back goes on.
            secured.settimeout(0)
            with pytest.raises(ssl.SSLWantReadError):
                secured.unwrap()
            secured.settimeout(patience(60))
            assert output(everything(secured)) == b"3000000\ndone\n"
        # One that never stops sending gets all of the output, too.
        identifier = exec_id(server, box, "sh", "-c", "head -c 100000 /dev/zero; exit 3")
        with secure(port, trusting) as secured:
            secured.sendall(start_request(identifier))
            until(secured, b"\r\n\r\n")
            secured.setblocking(False)
            with contextlib.suppress(ssl.SSLWantWriteError):
                while True:
                    secured.send(b"y\n" * 4096)
            secured.settimeout(patience(60))
            assert len(output(everything(secured))) == 100000
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
