"""What inspect, listings and the column PORTS say of networks and ports."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.cli.ps import ports_text
from sampan.engine import networkviews
from sampan.oci.network import Attachment, Endpoint, PublishedPort
from sampan.store.record import SCHEMA, Record

IDS = {"front": "f" * 64, "bridge": "b" * 64}


def record(*networks: Attachment, exposed: tuple[str, ...] = (), mode: str = "front") -> Record:
    config = {"Hostname": "box1", "ExposedPorts": {port: {} for port in exposed}}
    return Record(
        SCHEMA, "c" * 64, "box", "", "", "", (), "vfs", "sh", (), config, {"NetworkMode": mode}, networks=networks
    )


def endpoint(*ports: PublishedPort, **more: Any) -> Endpoint:
    known: dict[str, Any] = {
        "address": "10.9.0.2",
        "prefix": 24,
        "gateway": "10.9.0.1",
        "address6": "fd00::2",
        "prefix6": 64,
        "gateway6": "fd00::1",
    }
    return Endpoint("c" * 64, 1, "e" * 64, "eth0", "veth", "02:42:0a:09:00:02", **{**known, **more}, ports=ports)


def test_a_network_that_it_is_in_and_one_that_it_is_not_in_now() -> None:
    asked = (Attachment("front", "10.9.0.2", aliases=("web",), links=("db:x",), gateway_priority=3), Attachment("gone"))
    shown = networkviews.networks(record(*asked), [("f" * 64, endpoint())], IDS)
    assert shown["front"] == {
        "IPAMConfig": {"IPv4Address": "10.9.0.2"},
        "Links": ["db:x"],
        "Aliases": ["web"],
        "MacAddress": "02:42:0a:09:00:02",
        "DriverOpts": None,
        "GwPriority": 3,
        "NetworkID": "f" * 64,
        "EndpointID": "e" * 64,
        "Gateway": "10.9.0.1",
        "IPAddress": "10.9.0.2",
        "IPPrefixLen": 24,
        "IPv6Gateway": "fd00::1",
        "GlobalIPv6Address": "fd00::2",
        "GlobalIPv6PrefixLen": 64,
        "DNSNames": ["box", "web", "c" * 12, "box1"],
    }
    assert (shown["gone"]["NetworkID"], shown["gone"]["IPAddress"], shown["gone"]["EndpointID"]) == ("", "", "")


def test_the_default_networks_addresses_are_at_the_top_too() -> None:
    mine = record(Attachment("bridge"), mode="bridge")
    shown = networkviews.settings(mine, [("b" * 64, endpoint())], IDS, 77)
    assert (shown["IPAddress"], shown["Gateway"], shown["MacAddress"]) == ("10.9.0.2", "10.9.0.1", "02:42:0a:09:00:02")
    assert shown["SandboxKey"] == "/proc/77/ns/net"
    assert shown["Networks"]["bridge"]["DNSNames"] is None  # no names are answered there
    other = networkviews.settings(record(Attachment("front")), [("f" * 64, endpoint())], IDS, 77)
    assert other["IPAddress"] == ""
    assert other["Networks"]["front"]["IPAddress"] == "10.9.0.2"


def test_modes_that_are_no_network() -> None:
    for mode, names in (("none", ["none"]), ("host", ["host"]), ("container:x", [])):
        shown = networkviews.settings(record(mode=mode), (), {}, 77)
        assert list(shown["Networks"]) == names
        assert (shown["Ports"], shown["SandboxKey"]) == ({}, "")


def test_ports_are_shown_where_they_are_published_and_as_long_as_it_runs() -> None:
    mine = record(Attachment("front"), exposed=("80/tcp", "53/udp"))
    published = [PublishedPort(80, "tcp", "0.0.0.0", 8080), PublishedPort(80, "tcp", "::", 8080)]
    found = [("f" * 64, endpoint(*published))]
    assert networkviews.port_map(mine, found) == {
        "53/udp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    }
    assert networkviews.port_list(mine, found) == [
        {"PrivatePort": 53, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "Type": "tcp", "PublicPort": 8080},
        {"IP": "::", "PrivatePort": 80, "Type": "tcp", "PublicPort": 8080},
    ]
    assert networkviews.port_map(mine, []) == {}
    assert networkviews.port_list(mine, []) == []


def port(own: int, outside: int = 0, ip: str = "", protocol: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": own, "Type": protocol, **({"IP": ip, "PublicPort": outside} if outside else {})}


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80, 8080, "0.0.0.0")], "0.0.0.0:8080->80/tcp"),
        ([port(80, 8080, "::"), port(80, 8080, "0.0.0.0")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([port(n, n, "0.0.0.0") for n in (80, 81, 82)], "0.0.0.0:80-82->80-82/tcp"),
        ([port(n) for n in (3, 1, 2)], "1-3/tcp"),
        ([port(1), port(2), port(4)], "1-2/tcp, 4/tcp"),
        ([port(53, protocol="udp"), port(53)], "53/tcp, 53/udp"),
        ([port(80, 80, "0.0.0.0"), port(81, 90, "0.0.0.0"), port(443)], "0.0.0.0:80->80/tcp, 443/tcp, 0.0.0.0:90->81/tcp"),
    ],
)  # fmt: skip
def test_the_column_of_ports(ports: list[dict[str, Any]], text: str) -> None:
    assert ports_text(ports) == text
