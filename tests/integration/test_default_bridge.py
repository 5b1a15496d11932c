"""`run -d -p 8080:80 --name web IMAGE`: reached from everywhere that it should be, and nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import namespaces
from sampan.network import bridge, firewall
from sampan.network.guard import Guard
from sampan.network.loop import Loop
from sampan.network.members import Members

from support import host as machine
from support import subordinate
from support.child import in_child
from support.command import Command, Result
from support.netns import Host, connect
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

OUTSIDE, HERE = "203.0.113.9", "203.0.113.1"
SERVE = ("sh", "-c", "echo $0 > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp")
ASK = "printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {} {} | tail -n 1"


class Machine:
    """A host of its own: the engine's commands run in a network namespace, which a second host is connected to."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.host, self.outside = Host(), Host()
        connect(self.host, self.outside, ("eth0", "eth0"), (HERE, OUTSIDE))
        self.host.run("ip", "route", "add", "default", "via", OUTSIDE)
        namespace = f"--net=/proc/{os.getpid()}/fd/{self.host.fd}"
        self.cli = Command(root.cli.environment, "/usr/bin/nsenter", (namespace, root.cli.program, *root.cli.before))

    def __call__(self, *args: str, timeout: float = 60) -> Result:
        return self.cli(*args, timeout=timeout)

    def web(self, *flags: str, name: str = "web") -> str:
        self("run", "-d", "--name", name, *flags, "base", *SERVE, name).ok()
        address = (
            self("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name).ok().out.strip()
        )
        eventually(lambda: self.get(address, 80) == name, what="the server listens")
        return address

    def get(self, address: str, port: int, who: Host | None = None) -> str:
        family = "6" if ":" in address else "4"
        there = f"[{address}]" if ":" in address else address
        line = f"printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | socat -t1 - TCP{family}:{there}:{port},connect-timeout=2 | tail -n 1"
        return (who or self.host).run("sh", "-c", line, check=False).stdout.strip()

    def from_container(self, address: str, port: int, *flags: str) -> str:
        return self("run", "--rm", *flags, "base", "sh", "-c", ASK.format(address, port)).out.strip()

    def left(self) -> list[str]:
        """What is there of links, rules and processes of ours."""
        links = [line.split()[0] for line in self.host.run("ip", "-br", "link").stdout.splitlines()]
        found = [link for link in links if link not in ("lo", "eth0", "eth0@if2") and not link.startswith("eth0")]
        found += [line for line in self.host.ruleset().splitlines() if bridge.TABLES in line]
        found += list(machine.processes(str(self.root.directory)).values())
        return found

    def close(self) -> None:
        for one in (self.host, self.outside):
            one.close()


@pytest.fixture
def here(new_root: Root) -> Iterator[Machine]:
    made = Machine(new_root)
    yield made
    if ids := made("ps", "-aq").out.split():
        made("rm", "-f", *ids).ok()
    eventually(lambda: not made.left(), seconds=5, what=f"nothing left: {made.left()}")
    made.close()


@pytest.mark.core
def test_a_published_port_from_everywhere(here: Machine) -> None:
    address = here.web("-p", "8080:80")
    assert here.get("127.0.0.1", 8080) == "web"
    assert here.get("::1", 8080) == "web"
    assert here.get(HERE, 8080) == "web"
    assert here.get(HERE, 8080, here.outside) == "web"
    assert here.from_container(HERE, 8080) == "web"
    assert here.from_container(address, 80) == "web"
    here.outside.run("ip", "route", "add", f"{address}/32", "via", HERE)
    assert here.get(address, 80, here.outside) == ""
    assert here("port", "web").ok().out == "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
    here("stop", "-t", "0", "web").ok()
    eventually(lambda: here.get("127.0.0.1", 8080) == "")
    assert here.host.run("ss", "-Htln").stdout == "", "the port is free when its container has ended"
    assert "dport 8080" not in here.host.ruleset()
    here("start", "web").ok()
    eventually(lambda: here.get(HERE, 8080, here.outside) == "web")


def test_published_for_the_host_only(here: Machine) -> None:
    here.web("-p", "127.0.0.1:8080:80")
    assert here.get("127.0.0.1", 8080) == "web"
    assert here.get(HERE, 8080) == ""
    assert here.get(HERE, 8080, here.outside) == ""


def test_a_port_in_use_fails_the_start_in_dockers_words(here: Machine) -> None:
    here.web("-p", "8080:80")
    done = here("run", "-d", "--name", "two", "-p", "8080:80", "base", "true")
    assert done.code == 125
    assert (
        "failed to set up container networking: driver failed programming external connectivity on endpoint two ("
        in done.err
    )
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in done.err
    here.host.serve(9090, "somebody")
    done = here("run", "--rm", "--name", "three", "-p", "9090:80", "base", "true")
    assert done.code == 125
    assert "failed to bind host port 0.0.0.0:9090/tcp: address already in use" in done.err
    assert "three" not in here("ps", "-a").out
    assert len(list((here.root.root / "networks").glob("*/endpoints/*"))) == 1


def test_ranges_udp_and_all_exposed_ports(here: Machine) -> None:
    here.web("-p", "8000-8002:80", "-p", "9000-9001:90-91", "-p", "53:53/udp", "--expose", "70", "-P")
    shown = json.loads(here("inspect", "web").ok().out)[0]["NetworkSettings"]["Ports"]
    assert shown["80/tcp"][0]["HostPort"] == "8000"
    assert [shown[f"{port}/tcp"][0]["HostPort"] for port in (90, 91)] == ["9000", "9001"]
    assert shown["53/udp"][0]["HostPort"] == "53"
    assert int(shown["70/tcp"][0]["HostPort"]) > 1023
    assert here.get("127.0.0.1", 8000) == "web"


def test_the_shim_killed_and_the_port_taken_again(here: Machine) -> None:
    here.web("-p", "8080:80")
    pid = int(here("inspect", "-f", "{{.State.Pid}}", "web").ok().out)
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: "Exited" in here("ps", "-a").out)
    here.web("-p", "8080:80", name="two")
    assert here.get(HERE, 8080, here.outside) == "two"


def test_the_keeper_killed(here: Machine) -> None:
    here.web("-p", "8080:80")
    for _ in range(2):
        keepers = [
            pid for pid, line in machine.processes(str(here.root.directory)).items() if "network/__main__" in line
        ]
        for keeper in keepers:
            os.kill(keeper, signal.SIGKILL)
        eventually(lambda: here.get("::1", 8080) == "web", seconds=15, what="a keeper is made again and relays")
    assert here.get(HERE, 8080, here.outside) == "web"


def test_flushed_rules_come_back(here: Machine) -> None:
    here.web("-p", "8080:80")
    whole = here.host.ruleset()
    here.host.run("nft", "flush", "ruleset")
    eventually(lambda: here.host.ruleset() == whole, seconds=60, what="the rules are there again")
    assert here.get(HERE, 8080, here.outside) == "web"
    # And one that somebody takes out by hand, or puts in.
    rules = here.host.run("nft", "-a", "list", "ruleset").stdout.splitlines()
    table = next(line.split()[2] for line in rules if line.startswith("table inet sampan-"))
    translation = next(line for line in rules if "dnat" in line)
    chain = [line.split()[1] for line in rules[: rules.index(translation)] if line.split()[:1] == ["chain"]][-1]
    here.host.run("nft", "delete", "rule", "inet", table, chain, "handle", translation.split()[-1])
    eventually(lambda: here.host.ruleset() == whole, seconds=60, what="the rule is there again")
    here.host.run("nft", "insert", "rule", "inet", table, "forward", "drop")
    eventually(lambda: here.host.ruleset() == whole, seconds=60, what="the foreign rule is gone")


def test_several_networks_and_connecting_while_it_runs(here: Machine) -> None:
    for name in ("one", "two"):
        here("network", "create", name).ok()
    address = here.web("--network", "one", "-p", "8080:80")
    other = here.web("--network", "two", name="other")
    assert here.from_container("web", 80, "--network", "one") == "web"
    assert here.from_container("other", 80, "--network", "one") == ""
    here("network", "connect", "--alias", "neighbour", "two", "web").ok()
    shown = here("exec", "web", "ip", "-o", "addr").ok().out
    assert "eth0" in shown
    assert "eth1" in shown
    assert here("exec", "other", "sh", "-c", ASK.format("neighbour", 80)).out.strip() == "web"
    assert here("exec", "web", "sh", "-c", ASK.format("other", 80)).out.strip() == "other"
    assert here("exec", "web", "sh", "-c", ASK.format(other, 80)).out.strip() == "other"
    here("network", "disconnect", "one", "web").ok()
    assert "eth0" not in here("exec", "web", "ip", "-o", "addr").ok().out
    assert "default via" in here("exec", "web", "ip", "route").ok().out, "the other network is the way out now"
    assert here.get(address, 80) == ""
    here("rm", "-f", "web", "other").ok()
    here("network", "rm", "one", "two").ok()


def test_a_user_namespace_owns_its_network(here: Machine, tmp_path: Path) -> None:
    """Its root may change the links, and mount its sysfs, which shows them."""
    within = subordinate.Machine(here.root, tmp_path, f"sampan:{subordinate.FIRST}:65536\n")
    script = "ip link set eth0 mtu 1400 && ip addr show eth0 && ls /sys/class/net"
    words = within.words("run", "--rm", "--userns", "private", "--cap-add", "NET_ADMIN", "base", "sh", "-c", script)
    done = here.host.run(
        "unshare", "-m", "env", *(f"{k}={v}" for k, v in here.root.environment.items()), "sh", "-c", *words
    )
    assert "mtu 1400" in done.stdout
    assert done.stdout.split()[-2:] == ["eth0", "lo"]


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_beside_another_engine_that_forwards_nothing(here: Machine, program: str) -> None:
    here.host.run(program, "-P", "FORWARD", "DROP")
    here.host.run(program, "-A", "FORWARD", "-i", "other", "-m", "comment", "--comment", "a b", "-j", "ACCEPT")
    before = here.host.run(program, "-S").stdout
    here.web("-p", "8080:80")
    assert here.get(HERE, 8080, here.outside) == "web"
    here.web(name="second")
    rules = here.host.run(program, "-S").stdout
    assert rules.count("--comment sampan-") == 2
    here("rm", "-f", "web", "second").ok()
    eventually(lambda: "sampan" not in here.host.ruleset())
    assert here.host.run(program, "-S").stdout == before


def test_many_at_once_get_an_address_each(here: Machine) -> None:
    """And their ports; all of them go again."""
    count = 20
    begun = [
        subprocess.Popen(
            [here.cli.program, *here.cli.before, "run", "-d", "-p", "80", "base", "sleep", "1000"],
            env=here.cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=[],
        )
        for _ in range(count)
    ]  # fmt: skip
    ids = []
    for process in begun:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        ids.append(out.strip())
    shown = [one["NetworkSettings"] for one in json.loads(here("inspect", *ids).ok().out)]
    assert len({one["Networks"]["bridge"]["IPAddress"] for one in shown}) == count
    assert len({one["Ports"]["80/tcp"][0]["HostPort"] for one in shown}) == count
    here("rm", "-f", *ids, timeout=100).ok()


def _all_of_the_network(here: Machine) -> dict[str, str]:
    """Everything that this host's network has been told: links, addresses, routes, rules, parameters, namespaces with names."""
    commands = (
        "ip -br link",
        "ip addr",
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule",
        "nft -s list ruleset",
    )
    shown = {command: here.host.run(*command.split()).stdout for command in commands}
    parameters = here.host.run(
        "sh",
        "-c",
        "find /proc/sys/net -type f ! -name nf_conntrack_count ! -name flush | sort | xargs grep -s . || true",
    )
    shown |= dict(line.partition(":")[::2] for line in parameters.stdout.splitlines())
    return shown | {"named": " ".join(sorted(os.listdir("/run/netns"))) if os.path.isdir("/run/netns") else ""}


@pytest.mark.long
def test_nothing_of_the_host_is_another_one_afterwards(here: Machine) -> None:
    for command in (
        "iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; iptables -P FORWARD DROP; iptables -A INPUT -s 192.0.2.1 -j DROP",
        "ip6tables -P FORWARD DROP; nft add table inet own; nft add chain inet own mine '{ type filter hook input priority 5; }'",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    ):
        here.host.run("sh", "-c", command)
    eventually(lambda: "tentative" not in here.host.run("ip", "addr").stdout)
    before = _all_of_the_network(here)
    here("network", "create", "--ipv6", "net").ok()
    flags = ("--network", "net", "-p", "8080:80", "-p", "127.0.0.1:8081:80/udp")
    here("run", "-d", "--name", "one", *flags, "base", *SERVE, "x").ok()
    here("run", "-d", "--name", "two", "-p", "8082:80", "base", *SERVE, "x").ok()
    here("network", "connect", "net", "two").ok()
    eventually(lambda: here.get(HERE, 8080, here.outside) == "x")
    assert _all_of_the_network(here)["nft -s list ruleset"] != before["nft -s list ruleset"]
    here("rm", "-f", "one", "two").ok()
    here("network", "rm", "net").ok()
    eventually(lambda: not here.left(), what="nothing left")
    after = _all_of_the_network(here)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == set(), {name: (before.get(name), after.get(name)) for name in changed}


def test_a_start_that_fails_gives_everything_back(here: Machine) -> None:
    done = here("run", "--name", "bad", "-p", "8080:80", "base", "/no/such/program")
    assert done.code == 127
    assert not list((here.root.root / "networks").glob("*/endpoints/*"))
    eventually(lambda: here.host.run("ss", "-Htln").stdout == "")


def test_forwarding_that_was_off_is_told(here: Machine) -> None:
    here.host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    done = here("run", "--rm", "base", "true").ok()
    assert "IPv4 forwarding was off on this host and is on now" in done.err
    assert here("run", "--rm", "base", "true").ok().err == ""


def test_a_rule_that_was_put_in_while_others_were_made_goes(here: Machine) -> None:
    """Between the making and the look at what came of it somebody had put in another, and it was taken for the best that can be had."""
    here.web("-p", "8080:80")
    whole = here.host.ruleset()
    table = next(line.split()[2] for line in whole.splitlines() if line.startswith("table inet sampan-"))
    network = json.loads(here("network", "inspect", "bridge").ok().out)[0]["Id"]
    (keeper,) = (pid for pid, why in machine.processes(str(here.root.directory)).items() if "network/__main__" in why)

    def inside() -> None:
        namespaces.setns(here.host.fd, namespaces.CLONE_NEWNET)
        failures: list[BaseException] = []
        paths = f"{here.root.root}/networks/{network}"
        lock = f"{here.root.root}/locks/keeper-test.lock"
        Path(lock).touch()
        guard = Guard(Loop(failures.append), network, Members(paths), lock, failures.append)
        make = firewall.restore

        def make_beside_another(*args: Any) -> None:
            make(*args)
            insert()

        def insert() -> None:
            subprocess.run(["nft", "insert", "rule", "inet", table, "forward", "drop"], check=True)

        insert()
        firewall.restore = make_beside_another
        guard.look()
        firewall.restore = make
        assert here.host.ruleset() != whole
        guard.look()
        Path(lock).unlink()
        assert failures == []

    os.kill(keeper, signal.SIGSTOP)  # it would do the same, and first
    try:
        in_child(inside)
        assert here.host.ruleset() == whole
    finally:
        os.kill(keeper, signal.SIGCONT)
