"""A network's links: its bridge on the host, and what leads from there into a container's network namespace.

A veth needs no removal: it goes with the container's namespace, which the kernel cleans up when nobody waits for it.
Removing a bridge takes 40 ms, in which no other process can change a link: it goes with the last container of its network.
"""

from __future__ import annotations

import errno

from sampan.errors import Conflict, InvalidParameter, System
from sampan.kernel import links
from sampan.kernel.libc import KernelError
from sampan.network import parameters
from sampan.oci.network import BRIDGE, ISOLATED, OPTION_BRIDGE, OPTION_ICC, OPTION_INHIBIT, OPTION_MTU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.links import Link
    from sampan.kernel.netlink import Socket
    from sampan.oci.network import Endpoint, Network, Pool

MACVLAN, IPVLAN = "macvlan", "ipvlan"
OPTION_MACVLAN_MODE, OPTION_IPVLAN_MODE, OPTION_IPVLAN_FLAG = "macvlan_mode", "ipvlan_mode", "ipvlan_flag"
MAC_PREFIX = "02:53"
"""Of all our bridges: locally administered, and nobody else's habit."""
TABLES = "sampan-"
"""How the names of all our tables of nf_tables begin."""
DUMMY = "dm-"
"""How the parent of a network begins that was given none: it leads nowhere (Docker's name for it)."""

_LINK_LOCAL, _LINK_LOCAL6 = 16, 64
"""Prefixes of link-local addresses (RFC 3927, RFC 4291)."""

_NO_PRIVILEGE = "networks need CAP_NET_ADMIN; --network none and --network host do not"


def link_name(endpoint_id: str) -> str:
    """The name of an endpoint's link on the host: 15 characters, which is what a link's may have."""
    return f"veth{endpoint_id[:11]}"


def table_name(network_id: str) -> str:
    """The name of a network's table of nf_tables, and the comment of its rules in tables of others."""
    return f"{TABLES}{network_id[:12]}"


def bridge_mac(network_id: str) -> str:
    """The MAC address by which a bridge is known as a network's own."""
    return f"{MAC_PREFIX}:{bytes.fromhex(network_id[:8]).hex(':')}"


def is_ours(link: Link, network_id: str) -> bool:
    """Whether a link is the one that was made for this network, and not somebody else's of the same name."""
    if link.kind == "vlan":
        return link.group == vlan_group(network_id)  # its MAC address is its parent's
    return link.kind in ("bridge", "dummy") and link.mac == bridge_mac(network_id)


def vlan_group(network_id: str) -> int:
    """The group by which a VLAN's link is known as a network's own."""
    return 0x53 << 24 | int(network_id[:6], 16)  # 0 is everybody's


def ensure(host: Socket, network: Network) -> int:
    """The index of the network's link on the host: its bridge, or a macvlan's or ipvlan's parent; made if it is missing.

    Under the network's lock. Idempotent: one that a killed command left half made is completed. Raises Conflict if
    somebody else has a link of that name, System.
    """
    try:
        return _bridge(host, network) if network.driver == BRIDGE else _parent(host, network)
    except KernelError as e:
        raise failure(f"cannot make the link {network.link} of network {network.name}", e) from None


def failure(what: str, error: KernelError) -> System:
    """A refusal of the kernel in words, with what to do about it."""
    advice = {errno.EPERM: f": {_NO_PRIVILEGE}", errno.EOPNOTSUPP: ": this kernel has no such links"}
    return System(f"{what}: {error}{advice.get(error.errno or 0, '')}")


def _bridge(host: Socket, network: Network) -> int:
    found = links.find(host, network.link)
    if found is None:
        links.add_bridge(host, network.link, bridge_mac(network.id), mtu(network))
        found = links.find(host, network.link)
        if found is None:
            raise System(f"the bridge {network.link} vanished as soon as it was made")
    elif found.kind != "bridge" or not (is_ours(found, network.id) or network.options.get(OPTION_BRIDGE)):
        raise Conflict(
            f"network {network.name} needs the name {network.link} for its bridge, and another link has it: remove that one"
        )
    elif found.up and is_ours(found, network.id):
        return found.index  # it is brought up last: all of it is there
    parameters.quiet(network.link, network.ipv6)
    for pool in network.pools:
        six = ":" in pool.subnet
        if network.gateway_mode(six) == ISOLATED or (not six and network.option(OPTION_INHIBIT, False)):
            continue
        _add_gateway(host, found.index, pool)
    links.set_up(host, found.index, network.link)
    return found.index


def _add_gateway(host: Socket, index: int, pool: Pool) -> None:
    if not pool.gateway:
        return
    try:
        links.add_address(host, index, pool.gateway.partition("/")[0], int(pool.subnet.partition("/")[2]))
    except KernelError as e:
        if e.errno != errno.EEXIST:
            raise


def mtu(network: Network) -> int:
    """The MTU that was asked for, 0 for the usual one. Raises InvalidParameter."""
    text = network.options.get(OPTION_MTU, "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 31):
        raise InvalidParameter(f"invalid value {text!r} of {OPTION_MTU} of network {network.name}")
    return int(text)


def _parent(host: Socket, network: Network) -> int:
    found = links.find(host, network.link)
    if found is not None:
        return found.index
    if network.link == f"{DUMMY}{network.id[:12]}":
        links.add_dummy(host, network.link, bridge_mac(network.id))
    else:
        _add_vlan(host, network)
    found = links.find(host, network.link)
    if found is None:
        raise System(f"the link {network.link} vanished as soon as it was made")
    links.set_up(host, found.index, network.link)
    return found.index


def _add_vlan(host: Socket, network: Network) -> None:
    """The link eth0.50 of VLAN 50 on eth0."""
    device, dot, vlan = network.link.rpartition(".")
    parent = links.find(host, device) if dot and vlan.isdigit() else None
    if parent is None:
        raise System(f"network {network.name} needs the link {device or network.link}, which this host does not have")
    links.add_vlan(host, network.link, parent.index, int(vlan), vlan_group(network.id))


def tear_down(host: Socket, network: Network) -> None:
    """Remove what `ensure` made, if it is there; a bridge that was there before is its maker's. Idempotent."""
    try:
        found = links.find(host, network.link)
        if found is not None and is_ours(found, network.id):
            links.delete(host, found.index, network.link)
    except KernelError as e:
        raise failure(f"cannot remove the link {network.link} of network {network.name}", e) from None


def attach(host: Socket, inside: Socket, namespace: int, network: Network, endpoint: Endpoint, master: int) -> None:
    """Make an endpoint's interface, with its addresses, in a container's network namespace, in which the calling thread is.

    inside: a socket of that namespace, which `namespace` is a descriptor of. master: what `ensure` said. Its routes beyond
    its own subnet are not made here (`route`). Raises System.
    """
    try:
        _make_interface(host, inside, namespace, network, endpoint, master)
        made = links.index_here(endpoint.interface)
        parameters.quiet(endpoint.interface, bool(endpoint.address6))
        own = ((endpoint.address, endpoint.prefix), (endpoint.address6, endpoint.prefix6))
        for address, prefix in (*own, *_further(network, endpoint)):
            if address:
                links.add_address(inside, made, address, prefix)
        for sysctl in endpoint.sysctls:
            parameters.set_of_link(endpoint.interface, sysctl)
        links.set_up(inside, made, endpoint.interface)
    except KernelError as e:
        raise failure(f"cannot connect container {endpoint.container} to network {network.name}", e) from None


def _further(network: Network, endpoint: Endpoint) -> list[tuple[str, int]]:
    """The link-local addresses that were asked for, with their prefixes. Raises InvalidParameter."""
    if not endpoint.address6 and (closed := [address for address in endpoint.link_local if ":" in address]):
        raise InvalidParameter(f"link-local address {closed[0]}: network {network.name} has no IPv6")
    return [(address, _LINK_LOCAL6 if ":" in address else _LINK_LOCAL) for address in endpoint.link_local]


def _make_interface(
    host: Socket, inside: Socket, namespace: int, network: Network, endpoint: Endpoint, master: int
) -> None:
    name, options = endpoint.interface, network.options
    if network.driver != BRIDGE:
        # Linux 6.1 refuses a name that the host has a link of, though it is made elsewhere: eth0, mostly.
        name = f"tmp{endpoint.id[:12]}"
    if network.driver == MACVLAN:
        mode = options.get(OPTION_MACVLAN_MODE) or "bridge"
        links.add_macvlan(host, name, master, mode, namespace, endpoint.mac)
    elif network.driver == IPVLAN:
        mode, flag = options.get(OPTION_IPVLAN_MODE) or "l2", options.get(OPTION_IPVLAN_FLAG) or "bridge"
        links.add_ipvlan(host, name, master, mode, flag, namespace)
    else:
        links.add_veth(host, endpoint.link, name, namespace, endpoint.mac, mtu(network), master)
        _adjust_port(host, network, endpoint)
        return
    index = links.index_here(name)
    try:
        links.set_link(inside, index, endpoint.interface)
    except KernelError:
        links.delete(inside, index)  # in a container that runs it would stay
        raise


def _adjust_port(host: Socket, network: Network, endpoint: Endpoint) -> None:
    # A container that asks for its own published port gets its own packets back, if br_netfilter translates them on the bridge.
    hairpin = True if endpoint.ports else None
    # Not by the firewall alone, which sees what goes from port to port only where br_netfilter is loaded.
    isolated = None if network.option(OPTION_ICC, True) else True
    if hairpin is None and isolated is None:
        return
    made = links.find(host, endpoint.link)
    if made is not None:
        links.set_port(host, made.index, hairpin, isolated)


def route(inside: Socket, network: Network, endpoint: Endpoint) -> None:
    """Let an endpoint be the way to everywhere of the namespace of `inside`, in which the calling thread is. Raises System.

    One whose interface was removed in there is none.
    """
    try:
        index = links.index_here(endpoint.interface)
    except KernelError:
        return
    try:
        for address, gateway, everywhere in (
            (endpoint.address, endpoint.gateway, "0.0.0.0"),
            (endpoint.address6, endpoint.gateway6, "::"),
        ):
            if not address:
                continue
            if gateway:
                links.add_route(inside, gateway=gateway, index=index)
            elif network.driver == IPVLAN and network.options.get(OPTION_IPVLAN_MODE, "").startswith("l3"):
                # It has no neighbours: everything is handed to the parent.
                links.add_route(inside, destination=everywhere, index=index)
    except KernelError as e:
        raise failure(f"cannot set the default route of container {endpoint.container}", e) from None


def unroute(inside: Socket) -> None:
    """Take the default routes of a namespace away."""
    for found in links.list_routes(inside):
        if not found.destination and not found.prefix:
            links.delete_route(inside, "" if found.gateway else "0.0.0.0", 0, found.gateway, found.index, found.metric)


def detach(host: Socket, inside: Socket, endpoint: Endpoint) -> None:
    """Take an endpoint's interface from a container that goes on running. Idempotent. Raises System."""
    try:
        found = links.find(inside, endpoint.interface)
        if found is not None and (not endpoint.mac or found.mac == endpoint.mac or found.kind == "ipvlan"):
            links.delete(inside, found.index, endpoint.interface)
            return
        # It was renamed in there, or is half made.
        left = links.find(host, endpoint.link) if endpoint.link else None
        if left is not None:
            links.delete(host, left.index, endpoint.link)
    except KernelError as e:
        raise failure(f"cannot take interface {endpoint.interface} from container {endpoint.container}", e) from None
