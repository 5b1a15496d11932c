"""Containers in networks as their users see them: run's flags, connect and disconnect, inspect, ps, port, prune and check."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.errors import NotFound, Prohibited

from support import host
from support.command import Result
from support.patience import eventually
from support.roots import BASE, Root

pytestmark = pytest.mark.root

SLEEP = ("base", "sleep", "1000")


@pytest.fixture(scope="module")
def store() -> Iterator[Root]:
    """One store for these tests: making `base` takes longer than any of them."""
    made = Root(BASE / f"networks-{os.getpid()}")
    yield made
    made.delete()


@pytest.fixture
def root(store: Root) -> Iterator[Root]:
    """A store with a network `front` of a known subnet; nothing of its networks is left on the host afterwards."""
    store.cli("network", "create", "--subnet", "10.99.7.0/24", "front").ok()
    yield store
    store.remove_containers()
    store.cli("network", "prune", "-f").ok()
    assert store.cli("system", "check").out == "nothing found\n"


def links(root: Root) -> set[str]:
    """The bridges of this store's networks that there are, and what is plugged into them; others' come and go meanwhile."""
    ids = root.cli("network", "ls", "-q", "-f", "driver=bridge").ok().out.split()
    option = "com.docker.network.bridge.name"
    default = root.cli("network", "inspect", "-f", f'{{{{index .Options "{option}"}}}}', "bridge").ok().out.strip()
    found = {name for name in (default, *(f"br-{one}" for one in ids)) if os.path.exists(f"/sys/class/net/{name}")}
    return found | {port for name in found for port in os.listdir(f"/sys/class/net/{name}/brif")}


def networks(root: Root, name: str) -> dict[str, Any]:
    found = json.loads(root.cli("inspect", "-f", "{{json .NetworkSettings.Networks}}", name).ok().out)
    assert isinstance(found, dict)
    return found


def interfaces(root: Root, name: str) -> dict[str, str]:
    """The IPv4 addresses in a container, by interface."""
    lines = root.cli("exec", name, "ip", "-4", "-o", "addr").ok().out.splitlines()
    return {words[1]: words[3] for words in (line.split() for line in lines) if words[1] != "lo"}


@pytest.mark.core
def test_run_in_a_network_with_all_that_can_be_said_of_it(root: Root) -> None:
    cli = root.cli
    box = cli(
        *(
            "run",
            "-d",
            "--name",
            "box",
            "--network",
            "front",
            "--ip",
            "10.99.7.9",
            "--mac-address",
            "02:42:00:00:07:09",
        ),
        *("--network-alias", "www", "-p", "127.0.0.1::80", "--expose", "53/udp", *SLEEP),
    )
    container = box.ok().out.strip()
    shown = networks(root, "box")["front"]
    assert (shown["IPAddress"], shown["IPPrefixLen"], shown["Gateway"]) == ("10.99.7.9", 24, "10.99.7.1")
    assert (shown["MacAddress"], shown["Aliases"]) == ("02:42:00:00:07:09", ["www"])
    assert shown["DNSNames"] == ["box", "www", container[:12]]
    assert interfaces(root, "box") == {"eth0": "10.99.7.9/24"}
    assert cli("exec", "box", "cat", "/sys/class/net/eth0/address").ok().out == "02:42:00:00:07:09\n"
    assert "10.99.7.9\t" + container[:12] in cli("exec", "box", "cat", "/etc/hosts").ok().out
    assert "nameserver 127.0.0.11\n" in cli("exec", "box", "cat", "/etc/resolv.conf").ok().out
    (line,) = cli("port", "box").ok().out.splitlines()
    assert line.startswith("80/tcp -> 127.0.0.1:")
    port = line.rpartition(":")[2]
    assert cli("port", "box", "80").ok().out == f"127.0.0.1:{port}\n"
    assert cli("ps", "--format", "{{.Ports}}|{{.Networks}}").ok().out == f"53/udp, 127.0.0.1:{port}->80/tcp|front\n"
    for wanted in ("network=front", f"network={shown['NetworkID']}", f"publish={port}", "expose=53/udp"):
        assert cli("ps", "-q", "--no-trunc", "--filter", wanted).ok().out.strip() == container, wanted
    assert cli("ps", "-q", "--filter", "network=bridge").ok().out == ""
    (member,) = json.loads(cli("network", "inspect", "front").ok().out)[0]["Containers"].values()
    assert (member["Name"], member["IPv4Address"]) == ("box", "10.99.7.9/24")
    # It is over with its end; what it asked for stays.
    cli("stop", "-t", "0", "box").ok()
    assert json.loads(cli("network", "inspect", "front").ok().out)[0]["Containers"] == {}
    shown = networks(root, "box")["front"]
    assert (shown["IPAddress"], shown["IPAMConfig"]) == ("", {"IPv4Address": "10.99.7.9"})
    assert cli("ps", "-a", "--format", "{{.Ports}}").ok().out == "\n"
    cli("start", "box").ok()
    assert interfaces(root, "box") == {"eth0": "10.99.7.9/24"}


def test_what_run_refuses_leaves_no_container_and_no_link(root: Root) -> None:
    cli = root.cli
    cli("run", "-d", "--name", "box", "--network", "front", "--ip", "10.99.7.9", *SLEEP).ok()
    cli("network", "create", "chosen").ok()
    before = links(root)
    for words, message in (
        (["--network", "nosuch"], "network nosuch not found"),
        (["--network", "front", "--ip", "10.99.7.9"], "failed to set up container networking: Address already in use"),
        (
            ["--network", "front", "--ip", "10.1.1.1"],
            "no configured subnet or ip-range contain the IP address 10.1.1.1",
        ),
        (["--network", "chosen", "--ip", "10.1.1.1"], "only when connecting to networks with user configured subnets"),
        (
            ["--network", "bridge", "--ip", "10.1.1.1"],
            "user specified IP address is supported on user defined networks only",
        ),
        (["--network", "front", "--ip", "zz"], "invalid IPv4 address: zz"),
        (
            ["--network", "bridge", "--link", "nosuch:x"],
            "could not get container for nosuch: No such container: nosuch",
        ),
        (["--network", "host", "--link", "box:x"], "host type networking can't be used with links"),
        (
            ["--network", "container:box", "--mac-address", "02:00:00:00:00:01"],
            "conflicting options: mac-address and the network mode",
        ),
        (
            ["--network", "front", "-p", "127.0.0.9:4711:80", "-p", "127.0.0.9:4711:81"],
            "Bind for 127.0.0.9:4711 failed: port is already allocated",
        ),
        (
            ["--network", "front", "-p", "203.0.113.77:4711:80"],
            "): failed to bind host port 203.0.113.77:4711/tcp: cannot assign requested address",
        ),
        (["--network", "none", "--add-host", "x:host-gateway"], "unable to derive the IP value for host-gateway"),
    ):
        done = cli("run", "--rm", *words, "base", "true")
        assert done.code == 125, words
        assert message in done.err, words
    assert cli("ps", "-a", "--format", "{{.Names}}").ok().out == "box\n"
    assert links(root) == before


@pytest.mark.core
def test_connect_and_disconnect_a_running_container(root: Root) -> None:
    cli = root.cli
    cli("network", "create", "--subnet", "10.99.8.0/24", "back").ok()
    box = cli("run", "-d", "--name", "box", "--network", "front", *SLEEP).ok().out.strip()
    done = cli("network", "connect", "--ip", "10.99.8.255", "back", "box")
    assert (done.code, done.err) == (1, "Error: Address already in use\n"), "the one of all that are in it"
    assert cli("network", "connect", "--ip", "10.99.8.7", "--alias", "www,w3", "back", "box").ok().out == ""
    assert interfaces(root, "box") == {"eth0": "10.99.7.2/24", "eth1": "10.99.8.7/24"}
    assert "10.99.8.7\t" in cli("exec", "box", "cat", "/etc/hosts").ok().out
    assert networks(root, "box")["back"]["Aliases"] == ["www", "w3"]
    for words, message in (
        (["connect", "back", "box"], "endpoint with name box already exists in network back"),
        (["connect", "host", "box"], "container cannot be disconnected from host network or connected to host network"),
        (["connect", "none", "box"], "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
        (["connect", "nosuch", "box"], "network nosuch not found"),
        (["connect", "front", "nosuch"], "No such container: nosuch"),
        (["disconnect", "nosuch", "box"], "network nosuch not found"),
        (["disconnect", "front", "nosuch"], "No such container: nosuch"),
        (["disconnect", "-f", "front", "nosuch"], "endpoint nosuch not found"),
        (["disconnect", "-f", "nosuch", "nosuch"], "network nosuch not found"),
        (["disconnect", "-f", "nosuch", "box"], f"container {box} is not connected to the network nosuch"),
    ):  # fmt: skip
        done = cli("network", *words)
        assert (done.code, done.err) == (1, f"Error: {message}\n")
    # Both are still there after a restart: what was connected is part of the container.
    cli("restart", "-t", "0", "box").ok()
    assert sorted(interfaces(root, "box").values()) == ["10.99.7.2/24", "10.99.8.7/24"]
    done = cli("network", "rm", "back")
    assert 'network back has active endpoints (name:"box"' in done.err
    cli("network", "disconnect", "back", "box").ok()
    assert interfaces(root, "box") == {"eth0": "10.99.7.2/24"}
    assert list(networks(root, "box")) == ["front"]
    done = cli("network", "disconnect", "back", "box")
    assert done.code == 1
    assert "is not connected to network back" in done.err
    cli("network", "rm", "back").ok()
    cli("restart", "-t", "0", "box").ok()
    assert interfaces(root, "box") == {"eth0": "10.99.7.2/24"}


def test_connect_and_disconnect_a_container_that_does_not_run(root: Root) -> None:
    cli = root.cli
    cli("create", "--name", "box", "--network", "front", *SLEEP).ok()
    cli("network", "connect", "bridge", "box").ok()
    cli("network", "disconnect", "front", "box").ok()
    assert list(networks(root, "box")) == ["bridge"]
    cli("start", "box").ok()
    assert list(interfaces(root, "box")) == ["eth0"]
    # A network that was removed keeps the container from starting until it is forgotten.
    cli("stop", "-t", "0", "box").ok()
    cli("network", "connect", "front", "box").ok()
    cli("network", "rm", "front").ok()
    done = cli("start", "box")
    assert done.code == 1
    assert "network front not found" in done.err
    done = cli("network", "disconnect", "nosuch", "box")
    assert "is not connected to the network nosuch" in done.err
    cli("network", "disconnect", "front", "box").ok()
    cli("start", "box").ok()


def test_modes_that_share_or_have_none_join_nothing(root: Root) -> None:
    cli = root.cli
    cli("create", "--name", "alone", "--network", "none", *SLEEP).ok()
    cli("create", "--name", "hosts", "--network", "host", *SLEEP).ok()
    private = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    shared = (
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )
    for name, mode in (("alone", "none"), ("hosts", "host")):
        assert (
            networks(root, name)[mode]["NetworkID"] == cli("network", "inspect", "-f", "{{.Id}}", mode).ok().out.strip()
        )
    for name, message in (("alone", private), ("hosts", shared)):
        done = cli("network", "connect", "front", name)
        assert (done.code, done.err) == (1, f"Error: {message}\n")


def test_several_networks_at_once(root: Root) -> None:
    root.cli("network", "create", "--subnet", "10.99.8.0/24", "back").ok()
    done = root.cli(
        *("run", "--rm", "--network", "name=front,ip=10.99.7.5", "--network", "name=back,ip=10.99.8.5,gw-priority=1"),
        *("base", "sh", "-c", "ip -4 -o addr; ip route"),
    )
    text = done.ok().out
    assert "10.99.7.5/24" in text
    assert "10.99.8.5/24" in text
    assert "default via 10.99.8.1" in text


def test_further_addresses_of_the_link(root: Root) -> None:
    def run(address: str) -> Result:
        network = f"name=front,link-local-ip={address}"
        return root.cli("run", "--rm", "--network", network, "base", "ip", "-o", "addr")

    assert "inet 169.254.3.4/16 " in run("169.254.3.4").ok().out
    assert "link-local address fe80::77: network front has no IPv6" in run("fe80::77").err


SYSCTLS = "com.docker.network.endpoint.sysctls"


def test_what_the_driver_is_told_of_an_interface(root: Root) -> None:
    root.cli("network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "prefixed").ok()
    values = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0"
    show = "cd /proc/sys/net/ipv4/conf; ls; cat lan0/log_martians lan0/forwarding"
    run = ("run", "--rm", "--network", f'name=prefixed,"driver-opt={SYSCTLS}={values}"', "base", "sh", "-c", show)
    assert root.cli(*run).ok().out.split() == ["all", "default", "lan0", "lo", "1", "0"]
    for option, message in (
        (f"{SYSCTLS}=net.ipv4.conf.IFNAME.x", "expected sysctl 'net.ipv4.conf.IFNAME.x' to have format name=value"),
        (f"{SYSCTLS}=net.ipv4.ip_forward=0", "expected sysctl 'net.ipv4.ip_forward=0' to have format net.X.Y.IFNAME.Z"),
        (f"{SYSCTLS}=net.ipv4.conf.IFNAME.a/b=0", "to have format net.X.Y.IFNAME.Z"),
        (
            f"{SYSCTLS}=net.ipv4.conf.IFNAME.nosuch=1",
            "failed to set sysctl net.ipv4.conf.IFNAME.nosuch=1: write /proc/",
        ),
        (f"{SYSCTLS}=net.ipv4.conf.IFNAME.forwarding=x", "forwarding: invalid argument"),
        ("com.docker.network.endpoint.ifname=a/b", "invalid name of an interface: 'a/b'"),
    ):
        done = root.cli("run", "--rm", "--network", f"name=prefixed,driver-opt={option}", "base", "true")
        assert done.code == 125, option
        assert message in done.err
    assert root.cli("ps", "-aq").ok().out == ""


def test_a_routed_network_publishes_at_the_containers_own_address(root: Root) -> None:
    cli = root.cli
    cli("network", "create", "-o", "com.docker.network.bridge.gateway_mode_ipv4=routed", "routed").ok()
    cli("run", "-d", "--name", "box", "--network", "routed", "-p", "0.0.0.0:8080:80", "-p", "81/udp", *SLEEP).ok()
    shown = json.loads(cli("inspect", "-f", "{{json .NetworkSettings.Ports}}", "box").ok().out)
    assert shown["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": ""}]
    # By IPv6 it is published as ever, at a port of the host's.
    four, six = shown["81/udp"][1], shown["81/udp"][0]
    assert (four, six["HostIp"]) == ({"HostIp": "0.0.0.0", "HostPort": ""}, "::")
    assert cli("ps", "--format", "{{.Ports}}").ok().out == f"80/tcp, [::]:{six['HostPort']}->81/udp\n"
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    address = networks(root, "box")["routed"]["IPAddress"]
    assert f"ip daddr {address} tcp dport 80 accept" in rules
    assert f"ip daddr {address} udp dport 81 accept" in rules
    cli("stop", "-t", "0", "box").ok()
    assert address not in subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def test_links_of_the_default_network_are_in_etc_hosts(root: Root) -> None:
    cli = root.cli
    flags = ("--expose", "5432", "-e", "A=1=2", "-e", "OWN=other", "-e", "HOME=/x")
    db = cli("run", "-d", "--name", "db", "--network", "bridge", *flags, *SLEEP).ok().out.strip()
    address = networks(root, "db")["bridge"]["IPAddress"]
    show = ("base", "sh", "-c", "cat /etc/hosts; env")
    linked = ("--name", "web", "--link", "db:my-db", "-e", "MY_DB_ENV_OWN=mine")
    text = cli("run", "--rm", "--network", "bridge", *linked, *show).ok().out
    assert f"{address}\tmy-db {db[:12]} db\n" in text
    variables = dict(line.partition("=")[::2] for line in text.splitlines() if line.startswith("MY_DB_"))
    assert variables == {
        "MY_DB_NAME": "/web/my-db",
        "MY_DB_PORT": f"tcp://{address}:5432",
        "MY_DB_PORT_5432_TCP": f"tcp://{address}:5432",
        "MY_DB_PORT_5432_TCP_ADDR": address,
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_ENV_A": "1=2",
        "MY_DB_ENV_OWN": "mine",
    }
    # An exec has them, too, as long as the other one runs; without it the container is not started.
    cli("run", "-d", *linked, "--network", "bridge", *SLEEP).ok()
    tell = ("web", "sh", "-c", "echo $MY_DB_PORT $MY_DB_ENV_OWN")
    assert cli("exec", *tell).ok().out == f"tcp://{address}:5432 mine\n"
    assert cli("exec", "-e", "MY_DB_PORT=x", *tell).ok().out == "x mine\n"
    cli("stop", "-t", "0", "db").ok()
    assert cli("exec", *tell).ok().out == "mine\n"
    done = cli("restart", "-t", "0", "web")
    refused = "Cannot link to a non running container: /db AS /web/my-db"
    assert (done.code, refused in done.err) == (1, True), done.err
    done = cli("run", "--rm", "--network", "bridge", "--name", "third", "--link", "db", *show)
    assert (done.code, done.err.splitlines()[0]) == (
        125,
        "sampan: Cannot link to a non running container: /db AS /third/db",
    )
    cli("rm", "db").ok()
    assert cli("start", "web").ok().out == "web\n"
    cli("run", "-d", "--name", "far", "--network", "front", *SLEEP).ok()
    done = cli("run", "--rm", "--network", "bridge", "--link", "far", *show)
    assert "Cannot link to /far, as it does not belong to the default network" in done.err


def test_the_host_is_found_by_name(root: Root) -> None:
    flags = (
        "--network",
        "front",
        "--add-host",
        "me:host-gateway",
        "--dns",
        "9.9.9.9",
        "--dns",
        "127.0.0.5",
        "--dns",
        "::1",
    )
    done = root.cli("run", "--rm", *flags, "base", "cat", "/etc/hosts").ok()
    assert "10.99.7.1\tme\n" in done.out
    assert done.err == "WARNING: Localhost DNS (127.0.0.5) may fail in containers.\n"


def test_system_prune_and_the_removal_of_a_network_take_what_is_on_the_host(root: Root) -> None:
    cli = root.cli
    cli("run", "-d", "--name", "box", "--network", "front", *SLEEP).ok()
    mine = links(root)
    assert len(mine) == 2  # its bridge, and the container's end at it
    assert "front" not in cli("system", "prune", "-f").ok().out
    cli("stop", "-t", "0", "box").ok()
    assert cli("system", "check").ok().out == "nothing found\n"
    would = cli("system", "prune", "-f", "--dry-run").ok().out
    assert "Networks that would be deleted:\nfront\n" in would
    assert "Deleted Networks:\nfront\n" in cli("system", "prune", "-f").ok().out
    eventually(lambda: not mine & set(os.listdir("/sys/class/net")))


def test_check_finds_what_a_killed_monitor_left(root: Root) -> None:
    cli = root.cli
    container = cli("run", "-d", "--name", "box", "--network", "front", *SLEEP).ok().out.strip()
    mine = links(root)
    monitor = next(pid for pid, line in host.processes(str(root.directory)).items() if "shim" in line)
    os.kill(monitor, signal.SIGKILL)
    eventually(lambda: "Exited (255)" in cli("ps", "-a", "--format", "{{.Status}}").ok().out)
    endpoint = next((root.root / "networks").glob(f"*/endpoints/{container}.json"), None)
    if endpoint is not None:  # the listing has settled it otherwise
        os.utime(endpoint, (0, 0))
    cli("rm", "-f", "box").ok()
    cli("network", "rm", "front").ok()
    eventually(lambda: not mine & set(os.listdir("/sys/class/net")))
    assert cli("system", "check").ok().out == "nothing found\n"


def test_check_mends_a_bridge_that_nobody_needs(root: Root) -> None:
    """As after a kill between the end of the last container and the removal of its network's bridge."""
    cli = root.cli
    cli("run", "-d", "--name", "box", "--network", "front", *SLEEP).ok()
    cli("stop", "-t", "0", "box").ok()
    (record,) = (root.root / "containers").glob("*/record.json")
    data = json.loads(record.read_text())
    del data["networks"]
    record.write_text(json.dumps(data))
    done = cli("system", "check")
    assert done.code == 1
    assert "it is of network front, which no container is in" in done.out
    cli("system", "check", "--repair").ok()
    assert cli("system", "check").ok().out == "nothing found\n"


def test_the_library(root: Root) -> None:
    with root.engine() as engine:
        box = engine.containers.create("base", ["sleep", "1000"], network="front", name="box")
        engine.networks.get("bridge").connect("box")
        box.start()
        assert sorted(box.inspect()["NetworkSettings"]["Networks"]) == ["bridge", "front"]
        with pytest.raises(Prohibited):
            engine.networks.connect("front", "box")
        engine.networks.get("bridge").disconnect("box")
        with pytest.raises(NotFound):
            engine.networks.disconnect("nosuch", "box")
        assert list(box.inspect()["NetworkSettings"]["Networks"]) == ["front"]


def test_one_of_many_who_want_the_same_address_gets_it(root: Root) -> None:
    command = [root.cli.program, *root.cli.before, "run", "-d", "--network", "front", "--ip", "10.99.7.77", *SLEEP]
    started = [
        subprocess.Popen(command, env=root.cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    results = [(process.communicate()[1], process.returncode) for process in started]
    assert sorted(code for _, code in results) == [0, 125, 125, 125, 125]
    assert all("Address already in use" in err for err, code in results if code)
