"""The verbs of networks: made, shown, listed, removed, pruned; what cannot be is refused in Docker's words."""

from __future__ import annotations

import ipaddress
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.errors import Conflict, NotFound, Prohibited

from support.netns import Host
from support.roots import Root

pytestmark = pytest.mark.root


def inspected(root: Root, name: str) -> dict[str, Any]:
    (shown,) = json.loads(root.cli("network", "inspect", name).ok().out)
    assert isinstance(shown, dict)
    return shown


def names(root: Root, *args: str) -> list[str]:
    return root.cli("network", "ls", "--format", "{{.Name}}", *args).ok().out.split()


@pytest.mark.core
def test_create_inspect_list_and_remove(new_root: Root) -> None:
    cli = new_root.cli
    made = cli("network", "create", "--subnet", "10.77.0.0/24", "--label", "a=1", "--label", "b", "-o", "x=y", "front")
    network_id = made.ok().out.strip()
    assert len(network_id) == 64
    shown = inspected(new_root, "front")
    assert list(shown) == [
        *("Name", "Id", "Created", "Scope", "Driver", "EnableIPv4", "EnableIPv6", "IPAM", "Internal", "Attachable"),
        *("Ingress", "ConfigFrom", "ConfigOnly", "Containers", "Options", "Labels"),
    ]
    assert shown["IPAM"] == {
        "Driver": "default",
        "Options": {},
        "Config": [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}],
    }
    assert (shown["Labels"], shown["Options"]) == ({"a": "1", "b": ""}, {"x": "y"})
    assert (shown["Driver"], shown["EnableIPv4"], shown["EnableIPv6"], shown["Internal"]) == (
        "bridge",
        True,
        False,
        False,
    )
    # The same by the beginning of its id, by the generic verb, by a template.
    assert inspected(new_root, network_id[:7]) == shown
    assert json.loads(cli("inspect", "front").ok().out) == [shown]
    assert json.loads(cli("inspect", "--type", "network", "front").ok().out) == [shown]
    template = "{{.ID}} {{range .IPAM.Config}}{{.Gateway}}{{end}}"
    assert cli("network", "inspect", "-f", template, "front").ok().out == f"{network_id} 10.77.0.1\n"
    lines = cli("network", "ls").ok().out.splitlines()
    assert lines[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [line.split()[1:] for line in lines[1:]] == [
        ["bridge", "bridge", "local"],
        ["front", "bridge", "local"],
        ["host", "host", "local"],
        ["none", "null", "local"],
    ]
    assert cli("network", "rm", "front").ok().out == "front\n"
    done = cli("network", "rm", "front")
    assert (done.code, done.err) == (1, "Error: network front not found\n")
    assert cli("network", "rm", "-f", "front").ok().out == ""


def test_all_that_a_subnet_may_be_told(new_root: Root) -> None:
    new_root.cli(
        *("network", "create", "--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.128/25", "--ipv6"),
        *("--subnet", "fd00:77::/64", "--gateway", "fd00:77::9", "--aux-address", "r=10.77.0.130", "both"),
    ).ok()
    assert inspected(new_root, "both")["IPAM"]["Config"] == [
        {
            "Subnet": "10.77.0.0/24",
            "IPRange": "10.77.0.128/25",
            "Gateway": "10.77.0.128",
            "AuxiliaryAddresses": {"r": "10.77.0.130"},
        },
        {"Subnet": "fd00:77::/64", "Gateway": "fd00:77::9"},
    ]
    # Words between commas are words of their own.
    new_root.cli("network", "create", "-d", "macvlan", "--subnet", "10.78.0.0/24,10.79.0.0/24", "many").ok()
    assert [pool["Subnet"] for pool in inspected(new_root, "many")["IPAM"]["Config"]] == [
        "10.78.0.0/24",
        "10.79.0.0/24",
    ]


def test_an_isolated_network_has_no_gateway(new_root: Root) -> None:
    option = "com.docker.network.bridge.gateway_mode_ipv4=isolated"
    new_root.cli("network", "create", "--internal", "--subnet", "10.77.0.0/24", "-o", option, "alone").ok()
    shown = inspected(new_root, "alone")
    assert (shown["IPAM"]["Config"], shown["Internal"]) == ([{"Subnet": "10.77.0.0/24"}], True)


@pytest.fixture
def machine() -> Iterator[Host]:
    """Another one than this, where the networks of other tests come and go."""
    host = Host()
    yield host
    host.close()


def test_chosen_subnets_meet_no_other_and_no_route_of_the_host(new_root: Root, machine: Host) -> None:
    # Where the choice would fall, if it did not look.
    nets = [ipaddress.ip_network(subnet) for subnet in ("10.201.0.0/16", "10.202.0.0/16")]
    machine.run("ip", "link", "add", "other", "up", "type", "bridge")
    for net in nets:
        machine.run("ip", "route", "add", str(net), "dev", "other")
    with machine.entered():
        for i in range(3):
            new_root.cli("network", "create", "--ipv6", f"n{i}").ok()
    for name in ("bridge", "n0", "n1", "n2"):
        for pool in inspected(new_root, name)["IPAM"]["Config"]:
            net = ipaddress.ip_network(pool["Subnet"])
            assert net.is_private
            assert ipaddress.ip_address(pool["Gateway"]) in net
            assert not any(net.version == other.version and net.overlaps(other) for other in nets)
            nets.append(net)
    assert len(nets) == 2 + 7


def test_many_at_once_get_subnets_of_their_own(new_root: Root) -> None:
    def make(i: int) -> None:
        with new_root.engine() as engine:
            engine.networks.create(f"n{i}")

    threads = [threading.Thread(target=make, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with new_root.engine() as engine:
        found = [n for n in engine.networks.list() if n.name.startswith("n") and n.name != "none"]
        nets = [ipaddress.ip_network(n.attrs["IPAM"]["Config"][0]["Subnet"]) for n in found]
    assert len(nets) == 12
    assert not any(one.overlaps(other) for i, one in enumerate(nets) for other in nets[:i])


REFUSED: list[tuple[list[str], str]] = [
    (["front"], "Error: network with name front already exists"),
    (
        ["--subnet", "10.77.0.0/16", "x"],
        "Error: invalid pool request: Pool overlaps with other one on this address space",
    ),
    (
        ["--subnet", "10.77.0.5/24", "x"],
        "Error: invalid network config:\ninvalid subnet 10.77.0.5/24: it should be 10.77.0.0/24",
    ),
    (["--subnet", "foo", "x"], "Error: invalid network config:\ninvalid subnet foo: invalid CIDR block notation"),
    (["--subnet", "foo", "--gateway", "10.9.0.1", "x"], "invalid CIDR address: foo"),
    (["--gateway", "10.9.0.1", "x"], "every ip-range or gateway must have a corresponding subnet"),
    (["--subnet", "10.9.0.0/24", "--gateway", "10.8.0.1", "x"], "no matching subnet for gateway 10.8.0.1"),
    (["--subnet", "10.9.0.0/24", "--ip-range", "10.8.0.0/24", "x"], "no matching subnet for range 10.8.0.0/24"),
    (["--subnet", "10.9.0.0/24", "--aux-address", "a=foo", "x"], "no matching subnet for aux-address foo"),
    (
        ["--subnet", "10.9.0.0/24", "--subnet", "10.9.0.0/25", "x"],
        "multiple overlapping subnet configuration is not supported",
    ),
    (
        ["--subnet", "10.8.0.0/24", "--subnet", "10.9.0.0/24", "x"],
        "Error: bridge driver doesn't support multiple subnets",
    ),
    (["host"], "Error: operation is not permitted on predefined host network"),
    (["bridge"], "Error: operation is not permitted on predefined bridge network"),
    (["default"], "Error: operation is not permitted on predefined default network"),
    (["container:x"], "Error: invalid network name: 'container:x'"),
    (["-d", "foo", "x"], 'Error: plugin "foo" not found'),
    (["-d", "host", "x"], 'Error: only one instance of "host" network is allowed'),
    (["-d", "null", "x"], 'Error: only one instance of "null" network is allowed'),
    (["--scope", "swarm", "x"], "Error: cannot create a swarm scoped network when swarm is not active"),
    (["--ipv4=false", "x"], "Error: IPv4 or IPv6 must be enabled"),
    (["--ipam-driver", "foo", "x"], 'Error: plugin "foo" not found'),
    (
        ["-o", "com.docker.network.bridge.enable_icc=foo", "x"],
        'Error: failed to parse com.docker.network.bridge.enable_icc value: foo (strconv.ParseBool: parsing "foo": invalid syntax)',
    ),
    (
        ["-o", "com.docker.network.driver.mtu=foo", "x"],
        'Error: failed to parse com.docker.network.driver.mtu value: foo (strconv.Atoi: parsing "foo": invalid syntax)',
    ),
    (
        ["-o", "com.docker.network.bridge.host_binding_ipv4=foo", "x"],
        "Error: failed to parse com.docker.network.bridge.host_binding_ipv4 value: foo (nil ip)",
    ),
    (
        ["-d", "macvlan", "-o", "macvlan_mode=foo", "x"],
        "Error: requested macvlan mode 'foo' is not valid, 'bridge' mode is the macvlan driver default",
    ),
    (["-d", "macvlan", "-o", "parent=lo", "x"], "Error: loopback interface is not a valid parent link"),
    (
        ["-d", "macvlan", "-o", "parent=eth0.9999", "x"],
        "Error: vlan id must be between 1-4094, received: 9999",
    ),
    (
        ["-o", "com.docker.network.bridge.inhibit_ipv4=quux", "x"],
        'Error: failed to parse com.docker.network.bridge.inhibit_ipv4 value: quux (strconv.ParseBool: parsing "quux": invalid syntax)',
    ),
    (
        ["-o", "com.docker.network.host_ipv4=::1", "x"],
        "Error: failed to parse com.docker.network.host_ipv4 value: ::1 (not an IPv4 address)",
    ),
    (
        ["-o", "com.docker.network.bridge.gateway_mode_ipv4=foo", "x"],
        "Error: failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: foo (unknown gateway mode foo)",
    ),
    (
        ["-o", "com.docker.network.bridge.gateway_mode_ipv6=isolated", "x"],
        "Error: gateway mode 'isolated' can only be used for an internal network",
    ),
    (
        ["-d", "ipvlan", "-o", "ipvlan_mode=foo", "x"],
        "Error: requested ipvlan mode 'foo' is not valid, 'l2' mode is the ipvlan driver default",
    ),
]


def test_what_cannot_be_is_refused_and_leaves_nothing(new_root: Root) -> None:
    new_root.cli("network", "create", "--subnet", "10.77.0.0/24", "front").ok()
    for args, message in REFUSED:
        done = new_root.cli("network", "create", *args)
        assert (done.code, done.out, done.err) == (1, "", f"{message}\n"), args
    assert names(new_root) == ["bridge", "front", "host", "none"]
    assert [e for e in os.listdir(new_root.root / "networks") if e.startswith(".")] == []


def test_options_that_would_do_something_with_docker_are_not_swallowed(new_root: Root) -> None:
    done = new_root.cli("network", "create", "-o", "com.docker.network.bridge.trusted_host_interfaces=eth0", "x")
    assert done.code == 1
    assert "com.docker.network.bridge.trusted_host_interfaces of networks cannot be had" in done.err


def test_options_of_the_manager_of_addresses_are_kept_and_shown(new_root: Root) -> None:
    new_root.cli("network", "create", "--ipam-opt", "b=2", "--ipam-opt", "a=1", "x").ok()
    assert new_root.cli("network", "inspect", "-f", "{{json .IPAM.Options}}", "x").ok().out == '{"a":"1","b":"2"}\n'


def test_two_networks_do_not_share_a_bridge(new_root: Root) -> None:
    option = ("-o", "com.docker.network.bridge.name=sampan-x")
    new_root.cli("network", "create", *option, "one").ok()
    done = new_root.cli("network", "create", *option, "two")
    assert done.code == 1
    assert "bridge name conflicts with network one" in done.err
    done = new_root.cli("network", "create", "-o", "com.docker.network.bridge.name=averyveryverylongname", "three")
    assert "1 to 15 characters" in done.err


def test_the_networks_that_everybody_has_stay(new_root: Root) -> None:
    done = new_root.cli("network", "rm", "bridge", "host", "none")
    assert done.code == 1
    assert done.err.splitlines() == [
        f"Error: {name} is a pre-defined network and cannot be removed" for name in ("bridge", "host", "none")
    ]
    new_root.cli("network", "prune", "-f").ok()
    ids = new_root.cli("network", "ls", "-q", "--no-trunc").ok().out.split()
    assert len(ids) == 3
    # Their ids are the same every time, and find them.
    for network_id, name, driver in zip(ids, ("bridge", "host", "none"), ("bridge", "host", "null"), strict=True):
        shown = inspected(new_root, network_id[:10])
        assert (shown["Name"], shown["Id"], shown["Driver"]) == (name, network_id, driver)


def test_filters_of_the_list(new_root: Root) -> None:
    cli = new_root.cli
    front = cli("network", "create", "--label", "a=1", "front").ok().out.strip()
    cli("network", "create", "-d", "macvlan", "--label", "a=2", "back").ok()
    assert names(new_root, "-f", "driver=macvlan") == ["back"]
    assert names(new_root, "-f", "driver=bridge") == ["bridge", "front"]
    assert names(new_root, "-f", "label=a") == ["back", "front"]
    assert names(new_root, "-f", "label=a=1") == ["front"]
    assert names(new_root, "-f", "name=^f") == ["front"]
    assert names(new_root, "-f", f"id={front[:9]}") == ["front"]
    assert names(new_root, "-f", "type=builtin") == ["bridge", "host", "none"]
    assert names(new_root, "-f", "type=custom") == ["back", "front"]
    assert names(new_root, "-f", "dangling=true") == ["back", "front"]
    assert names(new_root, "-f", "dangling=false") == ["bridge", "host", "none"]
    assert names(new_root, "-f", "scope=swarm") == []
    for bad, message in (
        ("foo=1", "Error: invalid filter 'foo'"),
        ("type=foo", "Error: invalid filter: 'type'='foo'"),
        ("dangling=foo", 'Error: invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'),
    ):
        done = cli("network", "ls", "-f", bad)
        assert (done.code, done.err) == (1, f"{message}\n")
    row = json.loads(cli("network", "ls", "-f", "name=front", "--format", "json").ok().out)
    assert list(row) == ["CreatedAt", "Driver", "ID", "IPv4", "IPv6", "Internal", "Labels", "Name", "Scope"]
    assert (row["IPv4"], row["IPv6"], row["Labels"], row["ID"]) == ("true", "false", "a=1", front[:12])


def test_prune_removes_what_nobody_is_in(new_root: Root) -> None:
    cli = new_root.cli
    for name, label in (("one", "a=1"), ("two", "a=2"), ("three", "b")):
        cli("network", "create", "--label", label, name).ok()
    assert cli("network", "prune", "-f", "--dry-run").ok().out == "Networks that would be deleted:\none\nthree\ntwo\n\n"
    assert cli("network", "prune", "-f", "--filter", "label!=a").ok().out == "Deleted Networks:\nthree\n\n"
    assert cli("network", "prune", "-f", "--filter", "until=1h").ok().out == ""
    assert cli("network", "prune", input=b"n\n").ok().out.endswith("[y/N] ")
    assert cli("network", "prune", "-f", "--filter", "label=a=1").ok().out == "Deleted Networks:\none\n\n"
    done = cli("network", "prune", "-f", "--filter", "foo=1")
    assert (done.code, done.err) == (1, "Error: invalid filter 'foo'\n")
    assert names(new_root, "-f", "type=custom") == ["two"]


def test_what_happens_is_told_as_events(new_root: Root) -> None:
    network_id = new_root.cli("network", "create", "front").ok().out.strip()
    new_root.cli("network", "rm", "front").ok()
    lines = (
        new_root.cli("events", "--since", "0", "--until", "0s", "--filter", "type=network", "--format", "json").ok().out
    )
    events = [json.loads(line) for line in lines.splitlines()]
    assert [(e["Action"], e["Actor"]["ID"], e["Actor"]["Attributes"]) for e in events] == [
        ("create", network_id, {"name": "front", "type": "bridge"}),
        ("destroy", network_id, {"name": "front", "type": "bridge"}),
    ]


def test_a_damaged_network_is_shown_told_and_removed(new_root: Root) -> None:
    network_id = new_root.cli("network", "create", "front").ok().out.strip()
    (new_root.root / "networks" / network_id / "network.json").write_text("{")
    done = new_root.cli("network", "ls").ok()
    assert network_id[:12] in done.out
    assert "WARNING: network" in done.err
    done = new_root.cli("network", "inspect", network_id)
    assert done.code == 1
    assert f"remove it with: network rm {network_id}" in done.err
    new_root.cli("network", "rm", network_id).ok()
    assert names(new_root) == ["bridge", "host", "none"]


def test_the_library(new_root: Root) -> None:
    with new_root.engine() as engine:
        made = engine.networks.create("front", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]}, Labels={"a": "1"})
        assert engine.networks.get("front").id == made.id
        assert made.attrs == engine.networks.inspect("front")
        assert [n.name for n in engine.networks.list({"label": "a"})] == ["front"]
        with pytest.raises(Conflict):
            engine.networks.create("front")
        with pytest.raises(Prohibited):
            engine.networks.get("host").remove()
        made.remove()
        with pytest.raises(NotFound):
            made.inspect()


def test_a_full_disk_leaves_no_half_network(tmp_path: Path) -> None:
    from support.roots import small_root

    with small_root(tmp_path / "disk", "2m") as root:
        root.cli("network", "ls").ok()
        filler = root.root / "filler"
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
            while True:
                file.write(b"x" * 4096)
        done = root.cli("network", "create", "front")
        assert done.code == 1
        assert "no space left on device" in done.err
        filler.unlink()
        assert names(root) == ["bridge", "host", "none"]
        root.cli("network", "create", "front").ok()


def test_in_use_by_whom_is_asked_of_the_locks(new_root: Root) -> None:
    """An endpoint counts as long as its container's monitor lives: one that a killed command left keeps no network."""
    from sampan.oci.network import Endpoint
    from sampan.steps.trace import Trace
    from sampan.store.layout import Layout
    from sampan.store.networks import Networks

    network_id = new_root.cli("network", "create", "front").ok().out.strip()
    container = (
        new_root.cli("run", "-d", "--network", "none", "--name", "box", "base", "sleep", "1000").ok().out.strip()
    )
    store = Networks(Layout(str(new_root.root), str(new_root.run_root)), Trace())
    for owner in (container, "e" * 64):
        with store.lock(network_id):
            store.put(network_id, Endpoint(owner, 1, "f" * 64, "eth0", "v", "02:42:00:00:00:01", "10.77.0.2", 24))
    assert inspected(new_root, "front")["Containers"] == {
        container: {
            "Name": "box",
            "EndpointID": "f" * 64,
            "MacAddress": "02:42:00:00:00:01",
            "IPv4Address": "10.77.0.2/24",
            "IPv6Address": "",
        }
    }
    done = new_root.cli("network", "rm", "front")
    assert done.code == 1
    assert (
        f'error while removing network: network front has active endpoints (name:"box" id:"{container[:12]}")'
        in done.err
    )
    assert new_root.cli("network", "prune", "-f").ok().out == ""
    assert names(new_root, "-f", "dangling=true") == []
    new_root.cli("rm", "-f", "box").ok()
    assert new_root.cli("network", "prune", "-f").ok().out == "Deleted Networks:\nfront\n\n"


def test_both_engines_of_one_machine_find_places_of_their_own(new_root: Root, tmp_path: Path) -> None:
    """Two roots do not know of each other; their default networks begin at different places, of which there are sixteen."""
    ours = inspected(new_root, "bridge")
    net = ipaddress.ip_network(ours["IPAM"]["Config"][0]["Subnet"])
    for number in range(8):
        other = Root(tmp_path / f"other-{number}")
        try:
            found = inspected(other, "bridge")
        finally:
            other.delete()
        assert found["Id"] != ours["Id"]
        assert found["Options"] != ours["Options"]  # the bridges' names
        if not net.overlaps(ipaddress.ip_network(found["IPAM"]["Config"][0]["Subnet"])):
            return
    raise AssertionError("nine roots begin at one place")


def test_opening_an_engine_makes_no_network(new_root: Root) -> None:
    with sampan.Engine(root=str(new_root.root), run_root=str(new_root.run_root)):
        pass
    assert os.listdir(new_root.root / "networks") == []
