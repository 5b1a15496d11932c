"""Ports in requests, and where the verb `port` says that they are. What docker 28.2.2 makes of the same texts."""

from __future__ import annotations

import pytest

from sampan.cli import port
from sampan.cli.output import Failure
from sampan.errors import InvalidParameter
from sampan.oci import ports


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", {"80/tcp": ("", "")}),
        (":80", {"80/tcp": ("", "")}),
        ("80/", {"80/tcp": ("", "")}),
        ("0", {"0/tcp": ("", "")}),
        ("80/TCP", {"80/tcp": ("", "")}),
        ("8080:80/udp", {"80/udp": ("", "8080")}),
        ("1.2.3.4::80", {"80/tcp": ("1.2.3.4", "")}),
        ("[::1]:8080:80", {"80/tcp": ("::1", "8080")}),
        ("::1:8080:80", {"80/tcp": ("::1", "8080")}),
        ("1-2:5-6/sctp", {"5/sctp": ("", "1"), "6/sctp": ("", "2")}),
        ("1-3:5", {"5/tcp": ("", "1-3")}),
        ("7-8", {"7/tcp": ("", ""), "8/tcp": ("", "")}),
        ("published=8080,target=80", {"80/tcp": ("", "8080")}),
        ("published=8080,target=80,protocol=udp,mode=host", {"80/udp": ("", "8080")}),
        ("target=80", {"80/tcp": ("", "")}),
    ],
)
def test_what_is_published(text: str, expected: dict[str, tuple[str, str]]) -> None:
    assert ports.bindings([text]) == {
        name: [{"HostIp": ip, "HostPort": outside}] for name, (ip, outside) in expected.items()
    }


def test_a_port_is_published_in_several_places() -> None:
    found = ports.bindings(["8080:80", "127.0.0.1:81:80"])
    assert found == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "81"}],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no port specified: <empty>"),
        ("80:", "no port specified: 80:<empty>"),
        ("/tcp", "no port specified: /tcp<empty>"),
        ("x", "invalid containerPort: x"),
        ("99999", "invalid containerPort: 99999"),
        ("9-8", "invalid containerPort: 9-8"),
        ("x:80", "invalid hostPort: x"),
        ("1.2.3.4:80", "invalid hostPort: 1.2.3.4"),
        ("80:90:100:110", "invalid IP address: 80:90"),
        ("1-3:5-9", "invalid ranges specified for container and host Ports: 5-9 and 1-3"),
        ("80/xx", "invalid proto: xx"),
        ("published=1", "no port specified: 1:/tcp<empty>"),
        ("published=1,target=2,zz", "invalid publish opts format (should be name=value but got 'zz')"),
        # Docker does not look at it, and publishes on every address instead.
        ("ip=127.0.0.1,published=1,target=2", "invalid publish opts format (should be name=value but got 'ip=127.0.0.1')"),
        # A digit of another script is none for Go, and one for Python's int().
        ("٣", "invalid containerPort: ٣"),
    ],
)  # fmt: skip
def test_what_cannot_be_published(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as told:
        ports.bindings([text])
    assert str(told.value) == message


def test_what_is_exposed() -> None:
    assert ports.exposed(["80", "81/udp", "90-91"]) == {"80/tcp": {}, "81/udp": {}, "90/tcp": {}, "91/tcp": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8080:80", "invalid port format for --expose: 8080:80"),
        ("x", 'invalid range format for --expose: x, error: strconv.ParseUint: parsing "x": invalid syntax'),
        ("80-79", "invalid range format for --expose: 80-79, error: invalid range specified for port: 80-79"),
        ("65536", 'invalid range format for --expose: 65536, error: strconv.ParseUint: parsing "65536": value out of range'),
        ("", "invalid range format for --expose: , error: empty string specified for ports"),
    ],
)  # fmt: skip
def test_what_cannot_be_exposed(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as told:
        ports.exposed([text])
    assert str(told.value) == message


PUBLISHED: port.Published = {
    "443/tcp": None,
    "100/tcp": [{"HostIp": "0.0.0.0", "HostPort": "1"}],
    "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    "80/udp": [{"HostIp": "127.0.0.1", "HostPort": "9"}],
}


def test_the_verb_tells_all_places_in_the_order_of_numbers() -> None:
    assert port.lines(PUBLISHED) == [
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> [::]:8080",
        "80/udp -> 127.0.0.1:9",
        "100/tcp -> 0.0.0.0:1",
    ]


def test_the_verb_tells_the_places_of_one_port() -> None:
    assert port.lines_of_one(PUBLISHED, "80", "box") == ["0.0.0.0:8080", "[::]:8080"]
    assert port.lines_of_one(PUBLISHED, "80/udp", "box") == ["127.0.0.1:9"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("443", "Error: No public port '443' published for box"),
        ("81/tcp", "Error: No public port '81/tcp' published for box"),
        ("x", 'Error: invalid port (x): strconv.ParseUint: parsing "x": invalid syntax'),
        ("99999", 'Error: invalid port (99999): strconv.ParseUint: parsing "99999": value out of range'),
    ],
)
def test_the_verb_and_a_port_that_is_not_published(wanted: str, message: str) -> None:
    with pytest.raises(Failure) as told:
        port.lines_of_one(PUBLISHED, wanted, "box")
    assert str(told.value) == message
