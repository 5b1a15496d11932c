"""What a container asks for in networks: the command line's flags, and the request judged in Docker's words."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.cli import flags, networkflags, request
from sampan.engine.attachments import resolve
from sampan.errors import InvalidParameter, NotFound
from sampan.oci.network import Attachment, Network, Pool
from sampan.store.record import SCHEMA, Record

NETWORKS = {
    "bridge": Network(
        id="b" * 64, name="bridge", driver="bridge", created="", link="sampan0", pools=(Pool("10.8.0.0/24"),)
    ),
    "host": Network(id="c" * 64, name="host", driver="host", created="", link=""),
    "front": Network(
        *("f" * 64, "front", "bridge", "", "br-f"),
        pools=(Pool("10.9.0.0/24", "10.9.0.1"), Pool("fd00:9::/64", "fd00:9::1")),
        ipv6=True,
        configured=True,
    ),
    "back": Network("e" * 64, "back", "bridge", "", "br-e", pools=(Pool("10.10.0.0/24", "10.10.0.1"),)),
}


class Networks:
    def find(self, reference: str) -> Network:
        for network in NETWORKS.values():
            if reference in (network.name, network.id[:12]):
                return network
        raise NotFound(f"network {reference} not found")


class Records:
    def get(self, reference: str) -> Record:
        if reference != "db":
            raise NotFound(f"No such container: {reference}")
        return Record(SCHEMA, "d" * 64, "db", "", "", "", (), "vfs", "sh", (), {}, {})


def asked(mode: str, endpoints: dict[str, Any] | None = None, links: tuple[str, ...] = ()) -> tuple[Attachment, ...]:
    return resolve(mode, endpoints or {}, links, Networks(), Records())


def refused(mode: str, endpoints: dict[str, Any] | None = None, links: tuple[str, ...] = ()) -> str:
    with pytest.raises((InvalidParameter, NotFound)) as caught:
        asked(mode, endpoints, links)
    return str(caught.value)


def line(*words: str) -> dict[str, Any]:
    """The request of `run WORDS base`."""
    return request.build(flags.parse(request.CREATE_FLAGS, [*words, "base"], interspersed=False))


def endpoints(*words: str) -> dict[str, Any]:
    found = line(*words)["NetworkingConfig"]["EndpointsConfig"]
    assert isinstance(found, dict)
    return found


def test_a_name_alone_is_the_mode() -> None:
    made = line("--network", "front")
    assert made["HostConfig"]["NetworkMode"] == "front"
    assert "NetworkingConfig" not in made
    assert line()["HostConfig"]["NetworkMode"] == "default"
    assert line("--net=host")["HostConfig"]["NetworkMode"] == "host"


def test_the_long_form_says_everything_of_each_network() -> None:
    found = endpoints(
        *("--network", "name=front,alias=a,alias=b,ip=10.9.0.7,ip6=fd00:9::7,mac-address=02:42:00:00:00:07"),
        *("--network", "name=back,gw-priority=-3,driver-opt=k=v,link-local-ip=169.254.3.4"),
    )
    assert found == {
        "front": {
            "IPAMConfig": {"IPv4Address": "10.9.0.7", "IPv6Address": "fd00:9::7"},
            "Aliases": ["a", "b"],
            "MacAddress": "02:42:00:00:00:07",
            "DriverOpts": None,
            "GwPriority": 0,
        },
        "back": {
            "IPAMConfig": {"LinkLocalIPs": ["169.254.3.4"]},
            "Aliases": None,
            "MacAddress": "",
            "DriverOpts": {"k": "v"},
            "GwPriority": -3,
        },
    }


def test_flags_without_a_name_are_of_the_first_network() -> None:
    words = ("--network", "front", "--network", "back", "--network-alias", "web", "--ip", "10.9.0.7", "--link", "db:x")
    found = endpoints(*words)
    assert found["front"]["Aliases"] == ["web"]
    assert found["front"]["Links"] == ["db:x"]
    assert found["front"]["IPAMConfig"] == {"IPv4Address": "10.9.0.7"}
    assert found["back"]["Aliases"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network-alias", "x"], "network-scoped aliases are only supported for user-defined networks"),
        (["--network", "host", "--network-alias", "x"], "network-scoped aliases are only supported for user-defined networks"),
        (["--mac-address", "foo"], "foo is not a valid mac address"),
        (["--network", "front", "--network", "bridge"], "conflicting options: cannot attach both user-defined and non-user-defined network-modes"),
        (["--network", "front", "--network", "front"], 'network "front" is specified multiple times'),
        (["--network", "name=front,alias=x", "--network-alias", "y"], "conflicting options: cannot specify both --network-alias and per-network alias"),
        (["--network", "name=front,ip=10.9.0.5", "--ip", "10.9.0.6"], "conflicting options: cannot specify both --ip and per-network IPv4 address"),
    ],
)  # fmt: skip
def test_what_the_command_line_refuses(words: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        line(*words)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name=front,foo=x", "invalid field key foo"),
        ("alias=x", "network name/id is not specified"),
        ("name=front,gw-priority=zz", "invalid gw-priority (zz): invalid syntax"),
        ("name=front,x", "invalid field x"),
        ("name=front,driver-opt=x", "invalid key value pair format in driver options"),
    ],
)
def test_long_forms_that_are_none(text: str, message: str) -> None:
    with pytest.raises(flags.UsageError, match=f'invalid argument "{text}" for "--network" flag: ') as caught:
        line("--network", text)
    assert str(caught.value).endswith(message)
    with pytest.raises(ValueError, match=r"invalid|not specified"):
        networkflags.parse(text)


def test_the_mode_comes_first_by_its_name() -> None:
    assert asked("f" * 12) == (Attachment("front"),)
    assert [one.network for one in asked("back", {"front": {}, "back": None})] == ["back", "front"]
    assert asked("bridge", {"default": {"GwPriority": 1}}) == (Attachment("bridge", gateway_priority=1),)


def test_an_endpoint_as_it_is_kept() -> None:
    settings = {
        "IPAMConfig": {"IPv4Address": "10.9.0.7", "IPv6Address": "FD00:9:0::7", "LinkLocalIPs": ["169.254.3.4"]},
        "Aliases": ["web"],
        "MacAddress": "02-42-00-00-00-AA",
        "Links": ["nosuch:x", "other"],
        "DriverOpts": {"a": "b"},
    }
    assert asked("front", {"front": settings}) == (
        Attachment(
            "front",
            address="10.9.0.7",
            address6="fd00:9::7",
            link_local=("169.254.3.4",),
            mac="02:42:00:00:00:aa",
            aliases=("web",),
            links=("nosuch:x", "other:other"),
            options={"a": "b"},
        ),
    )


@pytest.mark.parametrize(
    ("mode", "settings", "message"),
    [
        ("nosuch", {}, "network nosuch not found"),
        ("front", {"IPAMConfig": {"IPv4Address": "zz"}}, "invalid IPv4 address: zz"),
        ("front", {"IPAMConfig": {"IPv6Address": "10.9.0.7"}}, "invalid IPv6 address: 10.9.0.7"),
        ("front", {"IPAMConfig": {"LinkLocalIPs": ["x"]}}, "invalid link-local IP address: x"),
        ("front", {"IPAMConfig": {"IPv4Address": "10.1.0.7"}}, "no configured subnet or ip-range contain the IP address 10.1.0.7"),
        ("back", {"IPAMConfig": {"IPv4Address": "10.10.0.7"}}, "user specified IP address is supported only when connecting to networks with user configured subnets"),
        ("bridge", {"IPAMConfig": {"IPv4Address": "10.8.0.7"}}, "user specified IP address is supported on user defined networks only"),
        ("bridge", {"Aliases": ["x"]}, "network-scoped aliases are only supported for user-defined networks"),
        ("front", {"MacAddress": "zz"}, "invalid MAC address: zz"),
        ("front", {"Links": ["a:"]}, "bad format for links: a:"),
    ],
)  # fmt: skip
def test_what_is_refused_of_an_endpoint(mode: str, settings: dict[str, Any], message: str) -> None:
    text = refused(mode, {mode: settings})
    assert text.rpartition("\n")[2] == message
    if "\n" in text:
        assert text == f"invalid config for network {mode}: invalid endpoint settings:\n{message}"


def test_several_problems_are_told_at_once() -> None:
    settings = {"IPAMConfig": {"IPv4Address": "x", "IPv6Address": "y"}, "MacAddress": "z"}
    assert refused("front", {"front": settings}).splitlines()[1:] == [
        "* invalid IPv4 address: x",
        "* invalid IPv6 address: y",
        "* invalid MAC address: z",
    ]


def test_networks_that_do_not_go_together() -> None:
    assert "cannot attach both user-defined" in refused("bridge", {"front": {}})
    assert refused("front", {"host": {}}) == "Container cannot be connected to network endpoints: host"
    assert refused("front", {"f" * 12: {}}) == 'network "front" is specified multiple times'


def test_links_of_the_default_network_need_their_containers() -> None:
    assert asked("bridge", links=("/db", "db:alias"))[0].links == ("db:db", "db:alias")
    assert refused("bridge", links=("nosuch:x",)) == "could not get container for nosuch: No such container: nosuch"
    # Of another network they are names, answered when somebody has them.
    assert asked("front", {"front": {"Links": ["nosuch:x"]}})[0].links == ("nosuch:x",)
