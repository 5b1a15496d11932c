"""Which address a container gets in a network: it follows from the network and the addresses that others have. No I/O.

To be asked under the network's lock, so that two who ask get two addresses.
"""

from __future__ import annotations

from sampan.errors import Conflict, InvalidParameter, Prohibited, Unavailable
from sampan.oci.subnet import Subnet, address_text, parse_address, parse_subnet
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.oci.network import Network, Pool


class Addresses(Struct):
    """What one container has in one network; empty texts for a family that the network has not."""

    address: str = ""
    prefix: int = 0
    gateway: str = ""
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""


def allocate(network: Network, addresses: Iterable[str], address: str = "", address6: str = "") -> Addresses:
    """Free addresses of a network, or these ones; the lowest that is free, so that a container alone keeps its own.

    addresses: all that others have there, of both families. Raises Conflict if a fixed address is another one's, InvalidParameter if no subnet has it,
    Unavailable if none is free.
    """
    taken, taken6 = set[int](), set[int]()
    for text in addresses:
        try:
            (taken6 if ":" in text else taken).add(parse_address(text)[0])
        except InvalidParameter:
            continue  # a file that somebody put beside the endpoints
    four = _pick(network, taken, address, 32) if network.ipv4 else ("", 0, "")
    six = _pick(network, taken6, address6, 128) if network.ipv6 else ("", 0, "")
    return Addresses(*four, *six)


def check_wanted(network: Network, address: str, address6: str) -> None:
    """What is told of fixed addresses before the container starts. Raises InvalidParameter."""
    for wanted, bits in ((address, 32), (address6, 128)):
        if wanted and _pool_of(network, parse_address(wanted)[0], bits) is None:
            raise InvalidParameter(
                f"invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {wanted}"
            )


def _pick(network: Network, taken: set[int], wanted: str, bits: int) -> tuple[str, int, str]:
    """(address, prefix, gateway) in one family."""
    if wanted:
        number = parse_address(wanted)[0]
        pool = _pool_of(network, number, bits)
        if pool is None:
            raise InvalidParameter(f"no configured subnet or ip-range contain the IP address {wanted}")
        # The subnet's own address and the one of all that are in it are nobody's, as with Docker.
        if number in taken or number in reserved(pool) or number not in parse_subnet(pool.subnet).hosts():
            raise Prohibited("Address already in use")
        return wanted, parse_subnet(pool.subnet).prefix, pool.gateway
    for pool, subnet in _pools(network, bits):
        kept = reserved(pool)
        # No set of a /64: as many addresses are looked at as are taken, and one more.
        for candidate in _usable(pool, subnet):
            if candidate not in taken and candidate not in kept:
                return subnet.text(candidate), subnet.prefix, pool.gateway
    raise Unavailable(
        f"no available IPv{4 if bits == 32 else 6} addresses on this network's address pools: {network.name} ({network.id})"
    )


def _pools(network: Network, bits: int) -> list[tuple[Pool, Subnet]]:
    found = [(pool, parse_subnet(pool.subnet)) for pool in network.pools]
    return [(pool, subnet) for pool, subnet in found if subnet.bits == bits]


def _pool_of(network: Network, number: int, bits: int) -> Pool | None:
    return next((pool for pool, subnet in _pools(network, bits) if subnet.contains(number)), None)


def _usable(pool: Pool, subnet: Subnet) -> Iterable[int]:
    """Addresses of a pool that a container can have, in their order: a range's ends may be machines', a subnet's are not."""
    if not pool.range:
        return subnet.hosts()
    part, hosts = parse_subnet(pool.range), subnet.hosts()
    return range(max(part.first, hosts.start), min(part.last + 1, hosts.stop))


def reserved(pool: Pool) -> set[int]:
    """Addresses of a pool that no container gets, besides the subnet's own."""
    found = {parse_address(text)[0] for text in pool.reserved.values()}
    if pool.gateway:
        found.add(parse_address(pool.gateway)[0])
    return found


def default_gateway(pool: Pool) -> str:
    """The gateway of a pool that names none, as Docker chooses it: the first address, of the range if there is one.

    Raises Conflict if all are reserved.
    """
    subnet, kept = parse_subnet(pool.subnet), reserved(pool)
    for candidate in _usable(pool, subnet):
        if candidate not in kept:
            return subnet.text(candidate)
    raise Conflict(f"failed to allocate gateway (): no available addresses on {pool.subnet}")


def mac_of(address: str, address6: str = "") -> str:
    """The hardware address of an interface with these addresses, as Docker makes it: 02:42 and the IPv4 address.

    One that only has IPv6 gets the last four bytes of that. Whoever has the address next has the same one: no neighbour
    remembers a wrong one.
    """
    number = parse_address(address or address6)[0] & 0xFFFFFFFF
    return "02:42:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(4, "big"))


def canonical(text: str) -> str:
    """An address as it is usually written. Raises InvalidParameter."""
    return address_text(*parse_address(text))
