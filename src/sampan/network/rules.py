"""The rules of a network: what stands in its table of nf_tables, and follows from the network and its endpoints. Pure.

    table inet sampan-ID
      guard      prerouting   nothing from outside for 127.0.0.0/8
      published  prerouting   published ports, for what comes by a link
      own        output       published ports, for what this host's own processes send
      open       (forward)    published ports that are reached by their container's address (gateway mode `routed`)
      forward    forward      who reaches whom
      leaving    postrouting  whose packets get another source

The rules of one endpoint bear its container's short id as their comment, and stand behind those of all, which bear none: they come and go one
container at a time, in any order. The first four chains are there as soon as one container publishes a port.
"""

from __future__ import annotations

from sampan.kernel import links, nft
from sampan.network.bridge import table_name
from sampan.oci.network import (
    NAT,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_SOURCE,
    OPTION_SOURCE6,
    ROUTED,
    UNPROTECTED,
)
from sampan.oci.subnet import parse_subnet
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self

    from sampan.kernel.nft import Chain, Meaning, Rule
    from sampan.oci.network import Endpoint, Network, PublishedPort
    from sampan.oci.subnet import Subnet

PUBLISHED = "published"
"""The chain by whose being there it is known that those of published ports are."""

_PROTOCOLS = {"tcp": nft.TCP, "udp": nft.UDP, "sctp": nft.SCTP}
_ICMP, _ICMP6 = 1, 58
_ANY = ("0.0.0.0", "::")
_LOOPBACK = bytes((127, 0, 0, 0)), 8
_ACCEPT = nft.verdict(nft.ACCEPT)
_DROP = nft.verdict(nft.DROP)


def comment_of(endpoint: Endpoint) -> str:
    """What all rules of an endpoint bear."""
    return endpoint.container[:12]


def make(
    network: Network,
    endpoints: Iterable[Endpoint],
    uplinks: Sequence[str] = (),
    loopback: bool = True,
    there: bool = True,
) -> nft.Batch:
    """The batch that replaces the network's table. Pure.

    uplinks: the links behind which the host's gateways are. loopback: whether what the host's own processes send to
    127.0.0.0/8 may be led out by the bridge. there: whether there may be a table of it: what is deleted makes closing the
    socket wait for the kernel's grace period, 10 ms.
    """
    table = table_name(network.id)
    batch = nft.Batch()
    if there:
        batch.add_table(table)  # that there is one to remove
        batch.delete_table(table)
    batch.add_table(table)
    batch.add_base_chain(table, "forward", "filter", nft.FORWARD, nft.FILTER)
    subnets = [parse_subnet(pool.subnet) for pool in network.pools]
    published = [] if network.internal else [endpoint for endpoint in endpoints if endpoint.ports]
    if published:
        _prepare(batch, table, network)
    for rule in _forward(network, uplinks, bool(published)):
        batch.add_rule(table, "forward", *rule)
    leaving = list(_leaving(network, subnets, bool(published)))
    if leaving:
        batch.add_base_chain(table, "leaving", "nat", nft.POSTROUTING, nft.SRCNAT)
        for rule in leaving:
            batch.add_rule(table, "leaving", *rule)
    for endpoint in published:
        publish(batch, network, endpoint, loopback)
    return batch


def _prepare(batch: nft.Batch, table: str, network: Network) -> None:
    """The chains of published ports, with what holds for all of them."""
    batch.add_base_chain(table, "guard", "filter", nft.PREROUTING, nft.RAW)
    batch.add_base_chain(table, PUBLISHED, "nat", nft.PREROUTING, nft.DSTNAT)
    batch.add_base_chain(table, "own", "nat", nft.OUTPUT, nft.DSTNAT)
    batch.add_chain(table, "open")
    batch.add_rule(table, "guard", nft.incoming(network.link), nft.destination(*_LOOPBACK), _DROP)
    if not network.option(OPTION_ICC, True):
        # On the bridge nothing goes from port to port, and br_netfilter would send it on there: neighbours take the proxy.
        batch.add_rule(table, PUBLISHED, nft.incoming(network.link), nft.verdict(nft.RETURN))


def publish(batch: nft.Batch, network: Network, endpoint: Endpoint, loopback: bool) -> None:
    """Add the rules of one endpoint's ports to a table that is there and has the chains for them.

    In one batch: a port that is for this host only is never led on before it is guarded (class CVE-2025-54388).
    """
    table, comment = table_name(network.id), comment_of(endpoint)
    for port in endpoint.ports:
        six = ":" in port.host_address
        target = endpoint.address6 if six else endpoint.address
        if port.host_address.startswith("127."):
            # Its neighbours can send packets to 127.0.0.1 by hand.
            address = nft.destination(links.pack_address(port.host_address), 32)
            batch.add_rule(
                table, "guard", nft.incoming("lo", unequal=True), address, *_at(port), _DROP, comment=comment
            )
        if not target:
            continue  # the proxy's
        packed = links.pack_address(target)
        if network.gateway_mode(six) == ROUTED:
            own = nft.destination(packed, len(packed) * 8)
            service = nft.protocol(_PROTOCOLS[port.protocol]), nft.destination_port(port.port)
            batch.add_rule(table, "open", own, *service, _ACCEPT, comment=comment)
            continue
        there = nft.dnat(packed, port.port)
        if not is_loopback(port.host_address):
            batch.add_rule(table, PUBLISHED, *_addressed(port), *_at(port), there, comment=comment)
        if port.host_address != "::1" and (loopback or not is_loopback(port.host_address)):
            batch.add_rule(table, "own", *_own(port, loopback), *_at(port), there, comment=comment)


def _addressed(port: PublishedPort) -> Iterator[bytes]:
    """To the address that it is published at, or to any of this host's."""
    yield nft.of_family(nft.IPV6 if ":" in port.host_address else nft.IPV4)
    if port.host_address in _ANY:
        yield nft.fib_destination(nft.LOCAL)
    else:
        packed = links.pack_address(port.host_address)
        yield nft.destination(packed, len(packed) * 8)


def _own(port: PublishedPort, loopback: bool) -> Iterator[bytes]:
    """The same for what this host sends, but for what cannot leave it: from ::1 no packet ever does."""
    yield from _addressed(port)
    if port.host_address == "::":
        yield nft.destination(links.pack_address("::1"), 128, unequal=True)
    elif port.host_address == "0.0.0.0" and not loopback:
        yield nft.destination(*_LOOPBACK, unequal=True)


def _at(port: PublishedPort) -> tuple[bytes, bytes]:
    return nft.protocol(_PROTOCOLS[port.protocol]), nft.destination_port(port.host_port)


def _forward(network: Network, uplinks: Sequence[str], published: bool) -> Iterator[tuple[bytes, ...]]:
    """Who reaches whom; in the order in which it is asked."""
    link = network.link
    here, there = nft.incoming(link), nft.outgoing(link)
    elsewhere, from_elsewhere = nft.outgoing(link, unequal=True), nft.incoming(link, unequal=True)
    if network.internal:
        yield here, elsewhere, _DROP
        yield from_elsewhere, there, _DROP
    yield there, nft.connection_state(nft.ESTABLISHED | nft.RELATED), _ACCEPT
    # A published port, of whichever network's container asks for it.
    yield there, nft.connection_translated(), _ACCEPT
    yield here, there, _ACCEPT if network.option(OPTION_ICC, True) else _DROP
    if published:
        yield there, nft.verdict(nft.JUMP, "open")
    yield from _unfiltered(network)
    yield there, _DROP
    # Other engines guard their bridges by chains that we have an accept in: what they publish is open, the rest is not.
    yield here, nft.connection_state(nft.ESTABLISHED | nft.RELATED), _ACCEPT
    yield here, nft.connection_translated(), _ACCEPT
    for uplink in uplinks:
        yield here, nft.outgoing(uplink), _ACCEPT
    yield here, nft.outgoing_kind("bridge"), _DROP


def _unfiltered(network: Network) -> Iterator[tuple[bytes, ...]]:
    """What the gateway modes let in of a family, whatever is published."""
    there = nft.outgoing(network.link)
    for six, family, echo in ((False, nft.IPV4, _ICMP), (True, nft.IPV6, _ICMP6)):
        mode = network.gateway_mode(six)
        if mode == UNPROTECTED:
            yield there, nft.of_family(family), _ACCEPT
        elif mode == ROUTED and not network.internal:
            yield there, nft.of_family(family), nft.protocol(echo), _ACCEPT


def _leaving(network: Network, subnets: Sequence[Subnet], published: bool) -> Iterator[tuple[bytes, ...]]:
    """Whose packets get the source of the link by which they leave."""
    here, elsewhere = nft.outgoing(network.link), nft.outgoing(network.link, unequal=True)
    masquerades = network.option(OPTION_MASQUERADE, True) and not network.internal
    for subnet in subnets:
        source = nft.source(subnet.pack(), subnet.prefix)
        if masquerades and network.gateway_mode(subnet.bits != 32) in (NAT, UNPROTECTED):
            chosen = network.options.get(OPTION_SOURCE if subnet.bits == 32 else OPTION_SOURCE6)
            yield source, elsewhere, nft.snat(links.pack_address(chosen)) if chosen else nft.masquerade()
        if published:
            # To a neighbour by a published port: the answer has to come back by the host, which knows of the translation.
            yield source, here, nft.connection_translated(), nft.masquerade()
    if published:
        yield nft.source(*_LOOPBACK), here, nft.masquerade()


def is_loopback(address: str) -> bool:
    """Whether an address is this host's for itself only."""
    return address.startswith("127.") or address == "::1"


# what stands there


class Standing(Struct):
    """What a table says, to be compared with what another one says.

    chains: by name, with what hooks them in. of_all: the rules that bear no comment, in their order; of_endpoints: the others, sorted, for their order
    means nothing. misplaced: whether one of the first stands behind one of the others.
    """

    chains: dict[str, Chain]
    of_all: list[tuple[str, Meaning]]
    of_endpoints: list[tuple[str, str, Meaning]]
    misplaced: bool

    @classmethod
    def of(cls, chains: Iterable[Chain], rules: Iterable[Rule], table: str, known: dict[bytes, Meaning]) -> Self:
        """known: meanings that were worked out before, which it adds to."""
        of_all: list[tuple[str, Meaning]] = []
        of_endpoints: list[tuple[str, str, Meaning]] = []
        begun: set[str] = set()
        misplaced = False
        for rule in rules:
            meaning = known.get(rule.expressions)
            if meaning is None:
                meaning = known[rule.expressions] = nft.meaning(rule.expressions)
            if rule.comment:
                of_endpoints.append((rule.chain, rule.comment, meaning))
                begun.add(rule.chain)
            else:
                of_all.append((rule.chain, meaning))
                misplaced = misplaced or rule.chain in begun
        ours = {chain.name: chain for chain in chains if (chain.family, chain.table) == (nft.INET, table)}
        # By chain, each in its order: the kernel tells of one chain after the other, as they were made.
        return cls(ours, sorted(of_all, key=lambda one: one[0]), sorted(of_endpoints), misplaced)
