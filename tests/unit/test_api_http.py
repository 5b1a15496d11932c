"""The strict half of HTTP, versions, queries and the table of routes: what needs no server."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from sampan.api import http, routes, versions
from sampan.api.failures import ClientGone, Refused, describe
from sampan.api.listeners import Security, Tls, open_listener
from sampan.api.log import Log
from sampan.api.query import Query
from sampan.api.server import Server
from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, StartFailed

from support.patience import eventually

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

GOOD = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /_ping HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET  /_ping HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /_ping\r\n\r\n", 400),
        (b"GET /_p\x7fing HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 201 + b"\r\n", 431),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        http.check_head(head)
    assert refused.value.status == status


def test_what_clients_send_is_taken() -> None:
    http.check_head(GOOD)
    http.check_head(b"POST /v1.41/x?a=%20 HTTP/1.0\r\nContent-Length: 1\r\nX: caf\xc3\xa9\tb\r\n\r\n")


def read(sent: bytes) -> tuple[bytes, bytes]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        return http.read_head(ours, b"")


def test_a_head_ends_where_it_ends() -> None:
    assert read(b"\r\n" + GOOD + b"tail") == (GOOD, b"tail")
    assert read(b"") == (b"", b"")


def test_a_head_that_breaks_off_is_a_client_that_left() -> None:
    with pytest.raises(ClientGone):
        read(GOOD[:-1])


@pytest.mark.parametrize(
    ("sent", "status"), [(b"GET / HTTP/1.1\nHost: x\n\n", 400), (b"GET /" + b"a" * http.MAX_HEAD + b"\r\n", 431)]
)
def test_a_head_that_cannot_be_one_is_not_waited_for(sent: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        read(sent)
    assert refused.value.status == status


def test_a_slow_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GOOD[:9])
        with pytest.raises(Refused) as refused:
            http.read_head(ours, b"")
    assert refused.value.status == 408


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/_ping", (1, 51), "/_ping"),
        ("/v1.24/_ping", (1, 24), "/_ping"),
        ("/v1.51/images/v1.0/json", (1, 51), "/images/v1.0/json"),
        ("/version", (1, 51), "/version"),
        ("/v1/_ping", (1, 51), "/v1/_ping"),
    ],
)
def test_the_version_is_in_front_of_the_path(path: str, version: tuple[int, int], rest: str) -> None:
    assert versions.split(path) == (version, rest)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/v1.23/_ping",
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
        ("/v1.52/_ping", "client version 1.52 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_that_are_not_spoken(path: str, text: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        versions.split(path)
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", False), ("a=", False), ("a=No", False), ("a=none", False), ("a=1", True), ("a=x", True)],
)
def test_booleans_are_read_as_docker_reads_them(text: str, expected: bool) -> None:
    assert Query(text).flag("a") is expected


def test_filters_have_two_forms() -> None:
    assert Query('filters={"label":["a","b=c"]}').filters() == {"label": ["a", "b=c"]}
    assert Query('filters={"label":{"a":true,"b":false}}').filters() == {"label": ["a"]}
    assert Query("").filters() == Query("filters=null").filters() == {}
    for wrong in ("filters={", "filters=[1]", 'filters={"a":1}', 'filters={"a":[1]}', 'filters={"a":{"b":1}}'):
        with pytest.raises(InvalidParameter):
            Query(wrong).filters()


def test_every_route_has_its_handler() -> None:
    for route in routes.ROUTES:
        assert callable(routes.load(route)), route


@pytest.mark.parametrize(
    ("method", "path", "handler"),
    [
        ("GET", "/_ping", "ping:get"),
        ("HEAD", "/_ping", "ping:head"),
        ("GET", "/swarm", "refusals:no_swarm"),
        ("POST", "/services/x/update", "refusals:no_swarm"),
        ("GET", "/plugins", "refusals:plugins"),
    ],
)
def test_routes_are_found(method: str, path: str, handler: str) -> None:
    assert routes.find(method, path, versions.NEWEST)[0].handler == handler


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("PUT", "/_ping"), ("GET", "/_ping/"), ("BREW", "/version")]
)
def test_there_is_no_other_page(method: str, path: str) -> None:
    with pytest.raises(NotFound, match="page not found"):
        routes.find(method, path, versions.NEWEST)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix://relative", "absolute"),
        ("unix:///proc/version", "is no socket"),
        ("tcp://127.0.0.1:0", "both --no-tls and --no-authentication"),
        ("tcp://127.0.0.1:x", "no such port"),
        ("fd://", "LISTEN_FDS"),
        ("http://x", "cannot listen"),
        ("/run/x.sock", "cannot listen"),
    ],
)
@pytest.mark.parametrize("security", [Security(), Security(without_tls=True), Security(without_authentication=True)])
def test_where_nobody_can_listen(address: str, words: str, security: Security) -> None:
    with pytest.raises(SampanError, match=re.escape(words)):
        open_listener(address, None, security)


def test_a_group_that_is_not_there_and_files_that_are_none() -> None:
    with pytest.raises(InvalidParameter, match="groupadd nosuchgroup"):
        open_listener("unix:///tmp/x.sock", "nosuchgroup", Security())
    with pytest.raises(InvalidParameter, match="TLS cannot be had of /nosuch"):
        open_listener("tcp://127.0.0.1:0", None, Security(Tls("/nosuch", "/nosuch", "/nosuch")))


def test_what_a_client_sent_writes_no_lines_into_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log("warn", file.fileno())
        log.info("not this")
        log.warn("a\rb\x1b[2Jc\ud800")
    line = path.read_text()
    assert "\r" not in line
    assert "\x1b" not in line
    assert line.count("\n") == 1


def test_kinds_of_failures_have_their_status_in_one_place() -> None:
    assert describe(Conflict("c"), "1").status == 409
    assert describe(StartFailed("s", 127), "1").status == 400
    assert describe(Refused(413, "r"), "1").status == 413
    fault = describe(KeyError("secret"), "ab12")
    assert (fault.status, fault.ours) == (500, True)
    assert "secret" not in fault.message
    assert "ab12" in fault.message


@pytest.fixture
def switch_seconds() -> Iterator[float]:
    """How long a thread may compute before a server says otherwise; and again after the test."""
    before = sys.getswitchinterval()  # after a server of another test in this process it is a server's
    sys.setswitchinterval(0.005)
    yield 0.005
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switch_seconds")
def test_a_server_is_stopped_at_any_moment() -> None:
    """Also when it has not begun, in the moment in which it looks for the last time, and when it has ended."""
    for seconds in (0.0, 0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005):
        server = Server(cast("Engine", None), [], Log("error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        time.sleep(seconds)
        server.stop()
        server.stop()
        thread.join(60)
        assert not thread.is_alive()
        server.stop()


def test_a_thread_that_computes_makes_way_ten_times_as_often_as_it_would(switch_seconds: float) -> None:
    """What that is worth is measured by `make bench BENCH=api`: pings while a hundred containers start."""
    server = Server(cast("Engine", None), [], Log("error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: sys.getswitchinterval() <= switch_seconds / 10 or not thread.is_alive(), 60)
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    finally:
        server.stop()
        thread.join()
