"""The firewall's rules of a network: one table of nf_tables, made as a whole of the network and its endpoints.

    table inet sampan-ID
      guard      prerouting   nothing from outside for 127.0.0.0/8
      published  prerouting   published ports, for what comes by a link
      own        output       published ports, for what this host's own processes send
      forward    forward      who reaches whom
      leaving    postrouting  whose packets get another source

The whole table is replaced in one batch: a packet meets the old rules or the new ones, and what somebody flushed comes back as it was.

A chain of somebody else may drop what ours accepted, for a verdict to accept holds in its own table only. Where one forwards
nothing by default, as Docker's, two rules of ours in it name the bridge (`open_ways`); what is forbidden stays forbidden by `forward`.
"""

from __future__ import annotations

import errno

from sampan.errors import System
from sampan.kernel import links, netlink, nft
from sampan.kernel.libc import KernelError
from sampan.network import bridge, legacytables, parameters
from sampan.oci.network import BRIDGE, OPTION_ICC, OPTION_MASQUERADE, OPTION_SOURCE, OPTION_SOURCE6
from sampan.oci.subnet import parse_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sampan.kernel.nft import Chain
    from sampan.oci.network import Endpoint, Network, PublishedPort
    from sampan.oci.subnet import Subnet

PREFIX = "sampan-"
"""How the names of all our tables begin, and the comments of our rules in tables of others."""

_PROTOCOLS = {"tcp": nft.TCP, "udp": nft.UDP, "sctp": nft.SCTP}
_ANY = ("0.0.0.0", "::")
_LOOPBACK = bytes((127, 0, 0, 0)), 8
_DOCKER_USER = "DOCKER-USER"
"""The chain that Docker leaves to the machine's owner, and asks before its own."""
_FIREWALLD = "firewalld"
"""Its table refuses by a last rule instead of a policy."""
_FAMILIES = (nft.INET, nft.IPV4, nft.IPV6)
_ACCEPT = nft.verdict(nft.ACCEPT)
_DROP = nft.verdict(nft.DROP)


def table_name(network_id: str) -> str:
    """The table of a network, and the comment of its rules elsewhere."""
    return f"{PREFIX}{network_id[:12]}"


def connect() -> tuple[netlink.Socket, list[Chain]] | None:
    """A socket to the firewall of this network namespace and all its chains; None where the kernel has no nf_tables or we may not use it."""
    try:
        socket = nft.connect()
    except OSError:
        return None
    try:
        return socket, nft.list_chains(socket)
    except KernelError:
        socket.close()
        return None


def is_loopback(address: str) -> bool:
    """Whether an address is this host's for itself only."""
    return address.startswith("127.") or address == "::1"


def _reaches_loopback(address: str) -> bool:
    return address == "0.0.0.0" or address.startswith("127.")


def needs_loopback(endpoint: Endpoint) -> bool:
    """Whether a port of it is published where the host's own processes find it by 127.0.0.1."""
    return bool(endpoint.address) and any(_reaches_loopback(port.host_address) for port in endpoint.ports)


# the table


def replace(
    socket: netlink.Socket, host: netlink.Socket, network: Network, endpoints: Sequence[Endpoint], there: bool = True
) -> None:
    """Put the network's table in place, of these endpoints, whatever was there of it before. Raises System.

    host: a socket of rtnetlink. The bridge is there. there: see `make`.
    """
    # Where it may not be set, what the host's own processes send to 127.0.0.1 is left to the proxy.
    loopback = any(map(needs_loopback, endpoints)) and parameters.route_loopback(network.link)
    try:
        make(network, endpoints, find_uplinks(host), loopback, there).commit(socket)
    except KernelError as e:
        raise bridge.failure(f"cannot set the firewall's rules of network {network.name}", e) from None


def rules_there(socket: netlink.Socket, network: Network) -> dict[str, int]:
    """How many rules each chain of the network's table has. Raises KernelError."""
    found: dict[str, int] = {}
    for rule in nft.list_rules(socket, table_name(network.id)):
        found[rule.chain] = found.get(rule.chain, 0) + 1
    return found


def rules_wanted(host: netlink.Socket, network: Network, endpoints: Sequence[Endpoint]) -> dict[str, int]:
    """How many each is to have. host: a socket of rtnetlink. Raises KernelError."""
    loopback = any(map(needs_loopback, endpoints)) and parameters.route_loopback(network.link)
    return make(network, endpoints, find_uplinks(host), loopback).added


def remove(socket: netlink.Socket, network: Network) -> None:
    """Take the network's table away, and its rules in tables of others. Idempotent. Raises System."""
    batch = nft.Batch()
    batch.delete_table(table_name(network.id))
    try:
        close_ways(socket, network)
        batch.commit(socket)
    except KernelError as e:
        if e.errno != errno.ENOENT:
            raise System(f"cannot remove the firewall's rules of network {network.name}: {e}") from None


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
    published = [] if network.internal else [(e, port) for e in endpoints for port in e.ports]
    if published:
        _guard(batch, table, network, published)
        _publish(batch, table, network, published, loopback)
    for rule in _forward(network, subnets, uplinks):
        batch.add_rule(table, "forward", *rule)
    leaving = list(_leaving(network, subnets, published))
    if leaving:
        batch.add_base_chain(table, "leaving", "nat", nft.POSTROUTING, nft.SRCNAT)
        for rule in leaving:
            batch.add_rule(table, "leaving", *rule)
    return batch


def _guard(batch: nft.Batch, table: str, network: Network, published: Sequence[tuple[Endpoint, PublishedPort]]) -> None:
    """What is published for this host only is not for its neighbours, who can send packets to 127.0.0.1 by hand."""
    batch.add_base_chain(table, "guard", "filter", nft.PREROUTING, nft.RAW)
    batch.add_rule(table, "guard", nft.incoming(network.link), nft.destination(*_LOOPBACK), _DROP)
    for _, port in published:
        if port.host_address.startswith("127."):
            address = nft.destination(links.pack_address(port.host_address), 32)
            batch.add_rule(table, "guard", nft.incoming("lo", unequal=True), address, *_at(port), _DROP)


def _publish(
    batch: nft.Batch, table: str, network: Network, published: Sequence[tuple[Endpoint, PublishedPort]], loopback: bool
) -> None:
    batch.add_base_chain(table, "published", "nat", nft.PREROUTING, nft.DSTNAT)
    batch.add_base_chain(table, "own", "nat", nft.OUTPUT, nft.DSTNAT)
    if not network.option(OPTION_ICC, True):
        # On the bridge nothing goes from port to port, and br_netfilter would send it on there: neighbours take the proxy.
        batch.add_rule(table, "published", nft.incoming(network.link), nft.verdict(nft.RETURN))
    for endpoint, port in published:
        target = endpoint.address6 if ":" in port.host_address else endpoint.address
        if not target:
            continue  # the proxy's
        there = nft.dnat(links.pack_address(target), port.port)
        comment = endpoint.container[:12]
        if not is_loopback(port.host_address):
            batch.add_rule(table, "published", *_addressed(port), *_at(port), there, comment=comment)
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


def _forward(network: Network, subnets: Sequence[Subnet], uplinks: Sequence[str]) -> Iterator[tuple[bytes, ...]]:
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
    yield there, _DROP
    # Other engines guard their bridges by chains that we have an accept in: what they publish is open, the rest is not.
    yield here, nft.connection_state(nft.ESTABLISHED | nft.RELATED), _ACCEPT
    yield here, nft.connection_translated(), _ACCEPT
    for uplink in uplinks:
        yield here, nft.outgoing(uplink), _ACCEPT
    yield here, nft.outgoing_kind("bridge"), _DROP


def _leaving(
    network: Network, subnets: Sequence[Subnet], published: Sequence[tuple[Endpoint, PublishedPort]]
) -> Iterator[tuple[bytes, ...]]:
    """Whose packets get the source of the link by which they leave."""
    here, elsewhere = nft.outgoing(network.link), nft.outgoing(network.link, unequal=True)
    masquerades = network.option(OPTION_MASQUERADE, True) and not network.internal
    for subnet in subnets:
        source = nft.source(subnet.pack(), subnet.prefix)
        if masquerades:
            chosen = network.options.get(OPTION_SOURCE if subnet.bits == 32 else OPTION_SOURCE6)
            yield source, elsewhere, nft.snat(links.pack_address(chosen)) if chosen else nft.masquerade()
        if published:
            # To a neighbour by a published port: the answer has to come back by the host, which knows of the translation.
            yield source, here, nft.connection_translated(), nft.masquerade()
    if any(needs_loopback(endpoint) for endpoint, _ in published):
        yield nft.source(*_LOOPBACK), here, nft.masquerade()


def forget_datagrams(endpoints: Iterable[Endpoint]) -> None:
    """Let the kernel forget what it knows of datagrams to their published ports: they came before the rules, or come after them.

    Else whoever goes on sending from one port is led to where he was led before. Raises System.
    """
    ports = {port.host_port for endpoint in endpoints for port in endpoint.ports if port.protocol == "udp"}
    if not ports:
        return
    from sampan.kernel import conntrack  # in here: few ports are of UDP

    try:
        with netlink.Socket() as host:
            # Only what was sent to this host: others have that port, too.
            own = {found.address for found in links.list_addresses(host)}
        conntrack.forget_datagrams(own, ports)
    except KernelError as e:
        raise System(f"cannot forget connections of published ports: {e}") from None


# tables of others


def find_uplinks(host: netlink.Socket) -> list[str]:
    """The links behind which gateways of this host are. `host`: a socket of rtnetlink."""
    indexes = {route.index for route in links.list_routes(host) if route.gateway}
    return [link.name for link in links.list_links(host) if link.index in indexes] if indexes else []


def has_table(chains: Iterable[Chain], network: Network) -> bool:
    """Whether the network's table is among them."""
    return any(chain.table == table_name(network.id) for chain in chains)


def open_ways(socket: netlink.Socket, network: Network, chains: Sequence[Chain]) -> None:
    """See to it that nobody else's chain drops what goes from and to the bridge; `chains`: all that there are. Raises System."""
    batches: dict[int, nft.Batch] = {}
    comment = table_name(network.id)
    for family, table, chain in _guarded(chains):
        if nft.matching(nft.list_rules(socket, table, chain, family), comment):
            continue
        batch = batches.setdefault(family, nft.Batch(family))
        # With a counter, as iptables(8) has it in each rule that it can show.
        for matched in (nft.incoming(network.link), nft.outgoing(network.link)):
            batch.add_rule(table, chain, matched, nft.counter(), _ACCEPT, comment=comment, first=True)
    try:
        for batch in batches.values():
            batch.commit(socket)
    except KernelError as e:
        raise bridge.failure(f"cannot let packets of network {network.name} be forwarded", e) from None
    legacytables.open_ways(network.link, comment)


def close_ways(socket: netlink.Socket, network: Network) -> None:
    """Take the rules of `open_ways` out again. Idempotent."""
    comment = table_name(network.id)
    for family, table, chain in _guarded(nft.list_chains(socket), shut_only=False):
        batch = nft.Batch(family)
        for rule in nft.matching(nft.list_rules(socket, table, chain, family), comment):
            batch.delete_rule(table, rule)
        try:
            batch.commit(socket)
        except KernelError as e:
            if e.errno != errno.ENOENT:
                raise
    legacytables.close_ways(comment)


def _guarded(chains: Sequence[Chain], shut_only: bool = True) -> list[tuple[int, str, str]]:
    """Where to ask that a bridge be forwarded: family, table and chain for each table that forwards nothing by default.

    Without `shut_only` also for those that do: their policy may have been another one before.
    """
    found = []
    for chain in chains:
        if chain.hook != nft.FORWARD or chain.kind != "filter" or chain.family not in _FAMILIES:
            continue
        if chain.table.startswith(PREFIX) or (shut_only and chain.policy != nft.DROP and chain.table != _FIREWALLD):
            continue
        theirs = any(c.name == _DOCKER_USER and (c.family, c.table) == (chain.family, chain.table) for c in chains)
        found.append((chain.family, chain.table, _DOCKER_USER if theirs else chain.name))
    return found


# what the keeper calls


def restore(network: Network, endpoints: Callable[[], Sequence[Endpoint]], changed: bool = True) -> bool:
    """Put everything back as it should be, whatever was flushed; False where there is no nf_tables and so nothing to do.

    endpoints: tells all of the network, and is asked only if the table has to be made. changed: whether the endpoints are others than before; if not, a table that is there is left as it is. Raises System.
    """
    if network.driver != BRIDGE:
        return True
    found = connect()
    if found is None:
        return False
    socket, chains = found
    with socket:
        there = has_table(chains, network)
        if changed or not there:
            with netlink.Socket() as host:
                replace(socket, host, network, endpoints(), there)
        open_ways(socket, network, chains)
    return True
