"""nf_tables, in network namespaces of the test's own; what was made is read back by nft(8), and tried with real packets."""

from __future__ import annotations

import errno
import os
import subprocess
import textwrap
from collections.abc import Iterator

import pytest

from sampan.kernel import links, namespaces, netlink, nft
from sampan.kernel.libc import KernelError

pytestmark = pytest.mark.root


class Host:
    """A network namespace with a socket to its links and one to its firewall."""

    def __init__(self) -> None:
        before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.unshare(namespaces.FLAGS["network"])
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.links, self.firewall = netlink.Socket(), nft.connect()
        finally:
            namespaces.setns(before, namespaces.FLAGS["network"])
            os.close(before)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        whole = ["nsenter", f"--net=/proc/self/fd/{self.fd}", *command]
        return subprocess.run(whole, pass_fds=[self.fd], capture_output=True, check=check, text=True, timeout=20)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        whole = ["nsenter", f"--net=/proc/self/fd/{self.fd}", *command]
        return subprocess.Popen(whole, pass_fds=[self.fd], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ruleset(self) -> str:
        return self.run("nft", "-s", "list", "ruleset").stdout

    def close(self) -> None:
        self.links.close()
        self.firewall.close()
        os.close(self.fd)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def connect(host: Host, other: Host, name: str, ours: str, theirs: str) -> None:
    """A veth between two hosts: `name` here with `ours`, eth0 there with `theirs` and a default route to here."""
    links.add_veth(host.links, name, "eth0", other.fd)
    for side, link, address in ((host, name, ours), (other, "eth0", theirs)):
        found = links.find(side.links, link)
        assert found is not None
        links.add_address(side.links, found.index, address, 24)
        links.set_up(side.links, found.index)
    links.add_route(other.links, gateway=ours)


def test_every_expression_is_read_back_by_nft(host: Host) -> None:
    batch = nft.Batch()
    batch.add_table("t")
    batch.add_base_chain("t", "pre", "nat", nft.PREROUTING, nft.DSTNAT)
    batch.add_base_chain("t", "post", "nat", nft.POSTROUTING, nft.SRCNAT)
    batch.add_base_chain("t", "fwd", "filter", nft.FORWARD, nft.FILTER, nft.DROP)
    batch.add_chain("t", "mine")
    four, six = bytes([10, 1, 2, 0]), links.pack_address("fd00::")
    batch.add_rule(
        "t", "pre", nft.fib_destination(nft.LOCAL), nft.protocol(nft.TCP), nft.destination_port(8080),
        nft.dnat(bytes([10, 1, 2, 3]), 80), comment="web",
    )  # fmt: skip
    batch.add_rule("t", "pre", nft.destination(six, 64), nft.protocol(nft.UDP), nft.destination_port(53), nft.dnat(six))
    batch.add_rule("t", "post", nft.source(four, 24), nft.outgoing("br0", unequal=True), nft.masquerade())
    batch.add_rule(
        "t", "fwd", nft.connection_state(nft.ESTABLISHED | nft.RELATED), nft.counter(), nft.verdict(nft.ACCEPT)
    )
    batch.add_rule("t", "fwd", nft.incoming("br0"), nft.verdict(nft.JUMP, "mine"))
    batch.add_rule("t", "mine", nft.source(four, 24, unequal=True), nft.verdict(nft.DROP))
    batch.add_rule("t", "mine", nft.connection_translated(), nft.verdict(nft.ACCEPT))
    batch.add_rule("t", "mine", nft.destination(bytes([10, 1, 2, 9]), 32), nft.mark(7), nft.verdict(nft.RETURN))
    batch.add_rule("t", "mine", nft.reject_unreachable(), comment="told at once", first=True)
    batch.commit(host.firewall)
    assert host.ruleset() == textwrap.dedent(
        """\
        table inet t {
        \tchain pre {
        \t\ttype nat hook prerouting priority dstnat; policy accept;
        \t\tfib daddr type local tcp dport 8080 dnat ip to 10.1.2.3:80 comment "web"
        \t\tip6 daddr fd00::/64 udp dport 53 dnat ip6 to fd00::
        \t}

        \tchain post {
        \t\ttype nat hook postrouting priority srcnat; policy accept;
        \t\tip saddr 10.1.2.0/24 oifname != "br0" masquerade
        \t}

        \tchain fwd {
        \t\ttype filter hook forward priority filter; policy drop;
        \t\tct state established,related counter accept
        \t\tiifname "br0" jump mine
        \t}

        \tchain mine {
        \t\treject with icmpx admin-prohibited comment "told at once"
        \t\tip saddr != 10.1.2.0/24 drop
        \t\tct status dnat accept
        \t\tip daddr 10.1.2.9 meta mark 0x00000007 return
        \t}
        }
        """
    )


def refused(host: Host, batch: nft.Batch, match: str) -> None:
    """A batch one of whose changes leads to what is not there: nothing is changed. A later one makes the table `made`."""
    with pytest.raises(KernelError, match=match) as caught:
        batch.commit(host.firewall)
    assert caught.value.errno == errno.ENOENT
    assert host.ruleset() == ""
    # The socket goes on being of use: nothing is left on it that a later batch might take for its own answer.
    later = nft.Batch()
    later.add_table("made")
    later.commit(host.firewall)


def test_all_of_a_batch_or_nothing(host: Host) -> None:
    batch = nft.Batch()
    batch.add_table("t")
    batch.add_chain("t", "a")
    batch.add_rule("t", "a", nft.verdict(nft.JUMP, "nowhere"), comment="leads nowhere")
    batch.add_chain("t", "b")
    refused(host, batch, r"NFT_MSG_NEWRULE\) 'a leads nowhere': No such file or directory")
    assert nft.has_table(host.firewall, "made")
    assert not nft.has_table(host.firewall, "u")


def test_rules_are_found_by_their_comments_and_taken_away(host: Host) -> None:
    batch = nft.Batch()
    batch.add_table("t")
    batch.add_chain("t", "a")
    batch.add_chain("t", "b")
    for number in range(300):
        batch.add_rule("t", "ab"[number % 2], nft.protocol(nft.TCP), nft.counter(), comment=f"box {number % 100}")
    batch.commit(host.firewall)
    rules = nft.list_rules(host.firewall, "t")
    assert len(rules) == 300
    mine = nft.matching(rules, "box 7")
    assert [rule.chain for rule in mine] == ["b", "b", "b"]
    removal = nft.Batch()
    for rule in mine:
        removal.delete_rule("t", rule)
    removal.commit(host.firewall)
    assert nft.matching(nft.list_rules(host.firewall, "t", "b"), "box 7") == []
    assert len(nft.list_rules(host.firewall, "t", "a")) == 150
    assert nft.list_rules(host.firewall, "nowhere") == []
    gone = nft.Batch()
    gone.delete_table("t")
    gone.commit(host.firewall)
    assert host.ruleset() == ""


def test_what_stands_there_is_compared_with_what_was_said(host: Host) -> None:
    """Every expression that there is: the kernel shows it with more words, and means the same."""
    address, address6 = bytes((10, 1, 2, 9)), bytes(15) + b"\1"
    batch = nft.Batch()
    batch.add_table("t")
    batch.add_chain("t", "there")
    batch.add_base_chain("t", "dst", "nat", nft.PREROUTING, nft.DSTNAT)
    batch.add_base_chain("t", "src", "nat", nft.POSTROUTING, nft.SRCNAT)
    batch.add_base_chain("t", "raw", "filter", nft.PREROUTING, nft.RAW, nft.DROP)
    for expressions in (
        (nft.incoming("br0"), nft.outgoing("br1", unequal=True), nft.verdict(nft.DROP)),
        (nft.outgoing_kind("bridge"), nft.counter(), nft.verdict(nft.RETURN)),
        (nft.source(address, 24), nft.destination(address, 32, unequal=True), nft.verdict(nft.ACCEPT)),
        (nft.source(address6, 64), nft.destination(address6, 128), nft.verdict(nft.JUMP, "there")),
        (nft.connection_state(nft.ESTABLISHED | nft.RELATED), nft.connection_translated(), nft.mark(7)),
        (nft.fib_destination(nft.LOCAL), nft.of_family(nft.IPV6)),
    ):
        batch.add_rule("t", "raw", *expressions, comment="box")
    for target, port in ((address, 80), (address, 0), (address6, 80)):
        there = nft.dnat(target, port)
        batch.add_rule("t", "dst", nft.protocol(nft.UDP), nft.destination_port(53), there)
    batch.add_rule("t", "src", nft.masquerade())
    batch.add_rule("t", "src", nft.snat(address))
    batch.commit(host.firewall)
    found = nft.list_rules(host.firewall, "t")
    assert len(found) == len(batch.rules) == 11
    said = {chain: [rule for rule in batch.rules if rule.chain == chain] for chain in ("dst", "src", "raw")}
    for chain, rules in said.items():
        shown = [nft.meaning(rule.expressions) for rule in found if rule.chain == chain]
        assert shown == [nft.meaning(rule.expressions) for rule in rules]
        assert len(set(shown)) == len(shown), "and none means the same as another one"
    assert {chain.name: chain for chain in nft.list_chains(host.firewall)} == {c.name: c for c in batch.chains}


def test_a_thousand_changes_in_one_batch(host: Host) -> None:
    batch = nft.Batch()
    batch.add_table("t")
    batch.add_chain("t", "a")
    for port in range(1000):
        batch.add_rule("t", "a", nft.protocol(nft.TCP), nft.destination_port(port + 1), nft.verdict(nft.ACCEPT))
    batch.commit(host.firewall)
    assert len(nft.list_rules(host.firewall, "t")) == 1000


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_first_that_is_refused_of_a_batch_is_named_and_nothing_is_changed(host: Host, at: int) -> None:
    """Wherever it is: at the end it has the answer that was asked for, before it the kernel tells by itself."""
    batch = nft.Batch()
    for number in range(3):
        if number >= at:
            batch.add_rule(f"missing-{number}", "chain", nft.counter(), comment=f"rule {number}")
        else:
            batch.add_table(f"made-{number}")
    refused(host, batch, f"NEWRULE.* 'chain rule {at}'")
    assert "table inet made" in host.ruleset()


def test_a_published_port_and_masquerading_with_real_packets(host: Host) -> None:
    """outside -- host -- inside: 8080 of the host leads to a web server inside, which sees who asked; outward goes the host's address."""
    outside, inside = Host(), Host()
    try:
        connect(host, outside, "wan", "192.0.2.1", "192.0.2.9")
        connect(host, inside, "lan", "10.1.2.1", "10.1.2.3")
        host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        batch = nft.Batch()
        batch.add_table("t")
        batch.add_base_chain("t", "pre", "nat", nft.PREROUTING, nft.DSTNAT)
        batch.add_base_chain("t", "post", "nat", nft.POSTROUTING, nft.SRCNAT)
        batch.add_rule(
            "t", "pre", nft.fib_destination(nft.LOCAL), nft.protocol(nft.TCP), nft.destination_port(8080),
            nft.dnat(bytes([10, 1, 2, 3]), 80),
        )  # fmt: skip
        batch.add_rule(
            "t", "post", nft.source(bytes([10, 1, 2, 0]), 24), nft.outgoing("lan", unequal=True), nft.masquerade()
        )
        batch.commit(host.firewall)
        page = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | busybox nc -l -p 80; done"
        server = inside.start("sh", "-c", page)
        try:
            fetched = outside.run(
                "sh",
                "-c",
                "for i in 1 2 3 4 5 6 7 8 9; do busybox wget -q -O - http://192.0.2.1:8080/ && break; sleep 0.2; done",
            )
            assert fetched.stdout == "hello"
            refused = outside.run("busybox", "nc", "-w", "1", "192.0.2.1", "80", check=False)
            assert refused.returncode != 0
        finally:
            server.kill()
            server.wait()
        # Without a route to 10.1.2.0/24, outside can only answer whom it knows: the host.
        links.delete_route(outside.links, gateway="192.0.2.1")
        assert inside.run("busybox", "ping", "-c", "1", "-W", "2", "192.0.2.9").returncode == 0
    finally:
        outside.close()
        inside.close()


def test_without_privilege_it_is_told(host: Host) -> None:
    script = (
        "from sampan.kernel import nft\n"
        "batch = nft.Batch()\n"
        "batch.add_table('t')\n"
        "try: batch.commit(nft.connect())\n"
        "except OSError as e: print(e)\n"
    )
    import sys

    done = host.run("capsh", "--drop=cap_net_admin", "--", "-c", f'exec {sys.executable} -c "$0"', script)
    assert done.stdout == "netlink(NFT_MSG_NEWTABLE) 't': Operation not permitted\n"


def test_chains_are_listed_with_what_they_do(host: Host) -> None:
    chain = "type filter hook forward priority 0; policy drop;"
    host.run("nft", f"add table ip t; add chain ip t one {{ {chain} }}; add chain ip t two")
    batch = nft.Batch()
    batch.add_table("own")
    batch.add_base_chain("own", "post", "nat", nft.POSTROUTING, nft.SRCNAT)
    batch.add_rule("own", "post", nft.outgoing_kind("bridge"), nft.verdict(nft.RETURN))
    batch.commit(host.firewall)
    assert 'meta oifkind "bridge" return' in host.ruleset()
    assert nft.list_chains(host.firewall) == [
        nft.Chain(nft.IPV4, "t", "one", "filter", nft.FORWARD, nft.DROP),
        nft.Chain(nft.IPV4, "t", "two", "", 0, 0),
        nft.Chain(nft.INET, "own", "post", "nat", nft.POSTROUTING, nft.ACCEPT, nft.SRCNAT),
    ]
