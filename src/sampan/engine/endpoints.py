"""What of a container's networks follows from its record: which is the way out, what an endpoint of it is. No I/O."""

from __future__ import annotations

import os

from sampan.network import bridge, ipam
from sampan.oci.network import BRIDGE, OPTION_PREFIX, OPTION_SYSCTLS, Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sampan.oci.network import Attachment, Network, PublishedPort
    from sampan.store.record import Record


def publishing_network(record: Record, networks: Sequence[Network]) -> Network | None:
    """In which of these networks a container's ports are published: the first that leads out of the host by a bridge."""
    priorities = {attachment.network: attachment.gateway_priority for attachment in record.networks}
    for network in _by_priority(networks, [priorities.get(network.name, 0) for network in networks]):
        if network.driver == BRIDGE and not network.internal:
            return network
    return None


def _by_priority(networks: Sequence[Network], priorities: Sequence[int]) -> list[Network]:
    """In the order in which they are the way out, Docker's: the highest priority, then the first by name."""
    order = sorted(range(len(networks)), key=lambda n: (-priorities[n], networks[n].name))
    return [networks[n] for n in order]


def ordered(endpoints: Sequence[tuple[Network, Endpoint]]) -> list[tuple[Network, Endpoint]]:
    """The network that is the way out first."""
    order = _by_priority([n for n, _ in endpoints], [e.gateway_priority for _, e in endpoints])
    by_id = {network.id: (network, endpoint) for network, endpoint in endpoints}
    return [by_id[network.id] for network in order]


def free_name(network: Network, taken: Iterable[str]) -> str:
    """eth0, eth1, ..., or what the network says instead of eth."""
    prefix, number = network.options.get(OPTION_PREFIX) or "eth", 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def make_endpoint(
    record: Record,
    number: int,
    attachment: Attachment,
    network: Network,
    interface: str,
    ports: tuple[PublishedPort, ...],
    addresses: ipam.Addresses,
) -> Endpoint:
    identifier = os.urandom(32).hex()
    mac = attachment.mac or ipam.mac_of(addresses.address, addresses.address6)
    gateways = {} if not network.internal else {"gateway": "", "gateway6": ""}
    return Endpoint(
        container=record.id,
        start=number,
        id=identifier,
        interface=interface,
        link=bridge.link_name(identifier) if network.driver == BRIDGE else "",
        mac=mac if network.driver != bridge.IPVLAN else "",
        ports=ports,
        names=names_of(record, attachment),
        links=dict(parse_link(text) for text in attachment.links),
        servers=tuple(record.host_config.get("Dns") or ()),
        link_local=attachment.link_local,
        gateway_priority=attachment.gateway_priority,
        sysctls=tuple(filter(None, attachment.options.get(OPTION_SYSCTLS, "").split(","))),
        **{**addresses.to_json(), **gateways},
    )


def names_of(record: Record, attachment: Attachment) -> tuple[str, ...]:
    """What it is called in a network: its name, its aliases, its short id, its host name."""
    hostname = record.config.get("Hostname") or ""
    names = (record.name, *attachment.aliases, record.id[:12], *([hostname] if hostname else []))
    return tuple(dict.fromkeys(names))


def parse_link(text: str) -> tuple[str, str]:
    """NAME:ALIAS as (alias, name)."""
    name, _, alias = text.partition(":")
    return alias or name, name
