"""The subnets of a new network: what was asked for judged, in Docker's words, or free ones chosen. No I/O.

Sources of the rules and messages: Engine API `IPAMConfig`, moby's validation of it, libnetwork's address pools.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, Prohibited
from sampan.network.ipam import canonical, default_gateway
from sampan.oci.network import Pool
from sampan.oci.subnet import Subnet, parse_address, parse_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

_CHOICE = (
    # (where, prefix of each). A bridge has at most 1024 ports: a /20 is plenty. Docker takes 172.17.0.0/16 and its
    # successors, podman 10.88.0.0/15: whoever is beside us, and makes his bridges later, finds his own free.
    ("10.201.0.0/16", 20),
    ("10.202.0.0/15", 20),
    ("10.204.0.0/14", 20),
    ("172.24.0.0/13", 20),
    ("192.168.192.0/18", 24),
)
_FAMILY = {32: "IPv4", 128: "IPv6"}


def choose(taken: Sequence[Subnet], seed: bytes = b"") -> Subnet:
    """An IPv4 subnet that overlaps none of these (other networks, routes of the host).

    seed: where the search begins, the same for the same installation. Raises Prohibited if none is left.
    """
    for where, prefix in _CHOICE:
        candidates = list(parse_subnet(where).parts(prefix))
        begin = int.from_bytes(seed, "big") % len(candidates)
        for candidate in candidates[begin:] + candidates[:begin]:
            if not any(candidate.overlaps(other) for other in taken):
                return candidate
    raise Prohibited(
        "all predefined address pools have been fully subnetted: remove networks, or name a subnet with --subnet"
    )


def choose6(taken: Sequence[Subnet], seed: bytes) -> Subnet:
    """A free /64 of the unique local addresses (RFC 4193) that belong to this installation. seed: 5 bytes or more of it."""
    prefix = int.from_bytes(b"\xfd" + seed[:5], "big") << 80
    for candidate in Subnet(prefix, 48, 128).parts(64):
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise Prohibited("all predefined address pools have been fully subnetted: name a subnet with --subnet")


def overlapping(pools: Iterable[Pool], taken: Sequence[Subnet]) -> Pool | None:
    """The first of these whose subnet overlaps one that is taken, or another of them."""
    seen = list(taken)
    for pool in pools:
        subnet = parse_subnet(pool.subnet)
        if any(subnet.overlaps(other) for other in seen):
            return pool
        seen.append(subnet)
    return None


def check(config: Sequence[Mapping[str, Any]], ipv6: bool) -> list[Pool]:
    """IPAM.Config of a request as pools; an entry without a subnet asks for a free one, and has "" there.

    Raises InvalidParameter with all that is wrong with it.
    """
    problems = [problem for entry in config for problem in _problems(entry, ipv6)]
    if len(problems) == 1:
        raise InvalidParameter(f"invalid network config:\n{problems[0]}")
    if problems:
        raise InvalidParameter("invalid network config:\n" + "\n".join(f"* {problem}" for problem in problems))
    return [_pool(entry) for entry in config if ipv6 or ":" not in (entry.get("Subnet") or "")]


def with_gateway(pool: Pool) -> Pool:
    """The pool, with a gateway. Raises Conflict if it has no address left for one."""
    return pool if pool.gateway else pool.replace(gateway=default_gateway(pool))


def _pool(entry: Mapping[str, Any]) -> Pool:
    reserved = {name: canonical(address) for name, address in (entry.get("AuxiliaryAddresses") or {}).items()}
    gateway = entry.get("Gateway") or ""
    subnet = entry.get("Subnet") or ""
    return Pool(
        subnet=str(parse_subnet(subnet)) if subnet else "",
        gateway=canonical(gateway) if gateway else "",
        range=str(parse_subnet(entry["IPRange"])) if entry.get("IPRange") else "",
        reserved=reserved,
    )


def _problems(entry: Mapping[str, Any], ipv6: bool) -> Iterator[str]:
    text = entry.get("Subnet") or ""
    if not text and not any(entry.get(name) for name in ("IPRange", "Gateway", "AuxiliaryAddresses")):
        return
    try:
        subnet = parse_subnet(text)
    except InvalidParameter:
        yield f"invalid subnet {text}: invalid CIDR block notation"
        return
    if subnet.is_ipv6 and not ipv6:
        return  # Docker's: one of a family that the network has not is passed over
    if parse_address(text.partition("/")[0])[0] != subnet.first:
        yield f"invalid subnet {text}: it should be {subnet}"
    if entry.get("IPRange"):
        yield from _range_problems(entry["IPRange"], subnet)
    if entry.get("Gateway") and (problem := _address_problem(entry["Gateway"], subnet)):
        yield f"invalid gateway {entry['Gateway']}: {problem}"
    for name, address in (entry.get("AuxiliaryAddresses") or {}).items():
        if problem := _address_problem(address, subnet):
            yield f"invalid auxiliary address {name}: {problem}"


def _range_problems(text: str, subnet: Subnet) -> Iterator[str]:
    try:
        part = parse_subnet(text)
    except InvalidParameter:
        yield f"invalid ip-range {text}: invalid CIDR block notation"
        return
    if part.bits != subnet.bits:
        yield f"invalid ip-range {text}: parent subnet is an {_FAMILY[subnet.bits]} block"
        return
    if part.prefix < subnet.prefix:
        yield f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
    if parse_address(text.partition("/")[0])[0] != part.first:
        yield f"invalid ip-range {text}: it should be {part}"
    if not subnet.overlaps(part):
        yield f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"


def _address_problem(text: str, subnet: Subnet) -> str:
    try:
        number, bits = parse_address(text)
    except InvalidParameter:
        return "invalid address"
    if bits != subnet.bits:
        return f"parent subnet is an {_FAMILY[subnet.bits]} block"
    return "" if subnet.contains(number) else f"parent subnet {subnet} doesn't contain this address"
