"""The firewall's rules of a network on this host: put in place, changed for one endpoint, put back, and taken away.

What they are is said by `network.rules`. The table is made in one batch, and replaced in one: a packet meets the old rules or the new ones, and
what somebody flushed comes back as it was. A start adds its own rules, and an end takes them out: both cost the same beside a hundred others.

A chain of somebody else may drop what ours accepted, for a verdict to accept holds in its own table only. Where one forwards
nothing by default, as Docker's, two rules of ours in it name the bridge (`open_ways`); what is forbidden stays forbidden by `forward`.
"""

from __future__ import annotations

import errno

from sampan.errors import System
from sampan.kernel import links, netlink, nft
from sampan.kernel.libc import KernelError
from sampan.network import bridge, legacytables, parameters
from sampan.network.bridge import table_name
from sampan.oci.network import BRIDGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sampan.kernel.nft import Chain, Meaning
    from sampan.network.rules import Standing
    from sampan.oci.network import Endpoint, Network

_DOCKER_USER = "DOCKER-USER"
"""The chain that Docker leaves to the machine's owner, and asks before its own."""
_FIREWALLD = "firewalld"
"""Its table refuses by a last rule instead of a policy."""
_FAMILIES = (nft.INET, nft.IPV4, nft.IPV6)
_ACCEPT = nft.verdict(nft.ACCEPT)


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


def _reaches_loopback(address: str) -> bool:
    return address == "0.0.0.0" or address.startswith("127.")


def needs_loopback(endpoint: Endpoint) -> bool:
    """Whether a port of it is published where the host's own processes find it by 127.0.0.1."""
    ports = endpoint.ports if endpoint.address else ()
    return any(port.host_port and _reaches_loopback(port.host_address) for port in ports)


# the table


def replace(
    socket: netlink.Socket, host: netlink.Socket, network: Network, endpoints: Sequence[Endpoint], there: bool = True
) -> None:
    """Put the network's table in place, of these endpoints, whatever was there of it before. Raises System.

    host: a socket of rtnetlink. The bridge is there. there: see `make`.
    """
    from sampan.network.rules import make  # in here: most starts find the table, and have nothing to add

    try:
        make(network, endpoints, find_uplinks(host), _leads_loopback(network, endpoints), there).commit(socket)
    except KernelError as e:
        raise bridge.failure(f"cannot set the firewall's rules of network {network.name}", e) from None


def standing(socket: netlink.Socket, network: Network, known: dict[bytes, Meaning]) -> Standing:
    """What stands in the network's table now. `known`: see `rules.contents`. Raises KernelError."""
    from sampan.network.rules import Standing

    table = table_name(network.id)
    return Standing.of(nft.list_chains(socket), nft.list_rules(socket, table), table, known)


def wanted(
    host: netlink.Socket, network: Network, endpoints: Sequence[Endpoint], known: dict[bytes, Meaning]
) -> Standing:
    """What is to stand there. host: a socket of rtnetlink. Raises KernelError."""
    from sampan.network.rules import Standing, make

    batch = make(network, endpoints, find_uplinks(host), _leads_loopback(network, endpoints))
    return Standing.of(batch.chains, batch.rules, table_name(network.id), known)


def _leads_loopback(network: Network, endpoints: Iterable[Endpoint]) -> bool:
    # Where it may not be set, what the host's own processes send to 127.0.0.1 is left to the proxy.
    return any(map(needs_loopback, endpoints)) and parameters.route_loopback(network.link)


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


def forget_datagrams(endpoints: Iterable[Endpoint]) -> None:
    """Let the kernel forget what it knows of datagrams to their published ports: they came before the rules, or come after them.

    Else whoever goes on sending from one port is led to where he was led before. Raises System.
    """
    ports = {
        port.host_port for endpoint in endpoints for port in endpoint.ports if port.protocol == "udp" and port.host_port
    }
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
    # One by one: there are one or two, and of all links there may be hundreds.
    names = [links.name_of(host, index) for index in sorted(indexes)]
    return [name for name in names if name]


def has_table(chains: Iterable[Chain], network: Network) -> bool:
    """Whether the network's table is among them."""
    return any(chain.table == table_name(network.id) for chain in chains)


def open_ways(socket: netlink.Socket, network: Network, chains: Sequence[Chain]) -> None:
    """See to it that nobody else's chain drops what goes from and to the bridge; `chains`: all that there are. Raises System."""
    batches: list[nft.Batch] = []
    comment = table_name(network.id)
    for family, table, chain in _guarded(chains):
        wanted = nft.Batch(family)
        # With a counter, as iptables(8) has it in each rule that it can show.
        for matched in (nft.incoming(network.link), nft.outgoing(network.link)):
            wanted.add_rule(table, chain, matched, nft.counter(), _ACCEPT, comment=comment, first=True)
        there = nft.matching(nft.list_rules(socket, table, chain, family), comment)
        if _meanings(there) == _meanings(wanted.rules):
            continue
        for rule in there:  # somebody's, in our name
            wanted.delete_rule(table, rule)
        batches.append(wanted)
    try:
        for batch in batches:
            batch.commit(socket)
    except KernelError as e:
        raise bridge.failure(f"cannot let packets of network {network.name} be forwarded", e) from None
    legacytables.open_ways(network.link, comment)


def _meanings(rules: Iterable[nft.Rule]) -> list[Meaning]:
    return sorted(nft.meaning(rule.expressions) for rule in rules)


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
        if chain.table.startswith(bridge.TABLES) or (
            shut_only and chain.policy != nft.DROP and chain.table != _FIREWALLD
        ):
            continue
        theirs = any(c.name == _DOCKER_USER and (c.family, c.table) == (chain.family, chain.table) for c in chains)
        found.append((chain.family, chain.table, _DOCKER_USER if theirs else chain.name))
    return found


# what starts, ends and the keeper call


def restore(network: Network, endpoints: Callable[[], Sequence[Endpoint]]) -> bool:
    """Put everything in place as it should be, whatever was there; False where there is no nf_tables and so nothing to do.

    endpoints: tells all of the network. Raises System.
    """
    return _with_rules(network, lambda socket, chains: _replace_with(socket, chains, network, endpoints))


def enter(network: Network, endpoint: Endpoint, endpoints: Callable[[], Sequence[Endpoint]]) -> bool:
    """An endpoint was written: see to it that the table is there, and that it has the rules of its ports. False as for `restore`.

    Only these are added where others publish ports already. endpoints: tells all of the network, this one too, and is asked only if the table
    has to be made. What of it somebody else changed is the keeper's to put right. Raises System.
    """

    def change(socket: netlink.Socket, chains: list[Chain]) -> None:
        if endpoint.ports and _publishes(chains, network) and not network.internal:
            from sampan.network.rules import publish

            batch = nft.Batch()
            publish(batch, network, endpoint, _leads_loopback(network, (endpoint,)))
            try:
                return batch.commit(socket)
            except KernelError:
                pass  # somebody flushed it in this moment
        if endpoint.ports or not has_table(chains, network):
            _replace_with(socket, chains, network, endpoints)
        return None

    return _with_rules(network, change)


def leave(network: Network, endpoint: Endpoint, left: Callable[[], Sequence[Endpoint]]) -> None:
    """Take out the rules of an endpoint's ports. left: tells the others of the network, and is asked if none of these publishes any. Raises System."""

    def change(socket: netlink.Socket, chains: list[Chain]) -> None:
        from sampan.network.rules import comment_of

        table = table_name(network.id)
        if _publishes(chains, network):
            rules = [rule for rule in nft.list_rules(socket, table) if rule.comment]
            own = nft.matching(rules, comment_of(endpoint))
            if len(own) < len(rules):
                batch = nft.Batch()
                for rule in own:
                    batch.delete_rule(table, rule)
                try:
                    return batch.commit(socket)
                except KernelError:
                    pass  # somebody flushed it in this moment
        return _replace_with(socket, chains, network, left)

    _with_rules(network, change)


def _with_rules(network: Network, change: Callable[[netlink.Socket, list[Chain]], None]) -> bool:
    if network.driver != BRIDGE:
        return True
    found = connect()
    if found is None:
        return False
    socket, chains = found
    with socket:
        change(socket, chains)
        open_ways(socket, network, chains)
    return True


def _replace_with(
    socket: netlink.Socket, chains: Sequence[Chain], network: Network, endpoints: Callable[[], Sequence[Endpoint]]
) -> None:
    with netlink.Socket() as host:
        replace(socket, host, network, endpoints(), has_table(chains, network))


def _publishes(chains: Iterable[Chain], network: Network) -> bool:
    """Whether the table has the chains of published ports."""
    from sampan.network.rules import PUBLISHED

    return any(chain.name == PUBLISHED and chain.table == table_name(network.id) for chain in chains)
