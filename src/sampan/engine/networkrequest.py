"""`POST /networks/create`: the body judged in Docker's words and made a network, but for the subnets that are to be chosen."""

from __future__ import annotations

from sampan.errors import Conflict, InvalidParameter, NotFound, Prohibited
from sampan.network import subnets
from sampan.oci import network as data
from sampan.oci.network import Network
from sampan.oci.subnet import parse_address, parse_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_LINK_MAX = 15
"""IFNAMSIZ without its NUL, netdevice(7)."""

_DOCKERS = "com.docker.network."
_KNOWN = (
    data.OPTION_BRIDGE,
    data.OPTION_ICC,
    data.OPTION_MASQUERADE,
    data.OPTION_HOST_ADDRESS,
    data.OPTION_MTU,
    data.OPTION_PREFIX,
    data.OPTION_INHIBIT,
    data.OPTION_SOURCE,
    data.OPTION_SOURCE6,
    data.OPTION_MODE,
    data.OPTION_MODE6,
)
# strconv.ParseBool
_TRUTH = frozenset(("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"))
_MODES = {"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2", "l3", "l3s")}
_FLAGS = ("bridge", "private", "vepa")


def parse(request: Mapping[str, Any], network_id: str, created: str) -> Network:
    """The network that is asked for; a pool whose subnet is "" is to be chosen, as are gateways. Raises in Docker's words."""
    name, driver = check_name(request.get("Name") or ""), request.get("Driver") or "bridge"
    _check_driver(driver)
    _check_scope(request)
    ipv4, ipv6 = request.get("EnableIPv4") is not False, bool(request.get("EnableIPv6"))
    if not ipv4 and not ipv6:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    pools = _pools(request.get("IPAM") or {}, ipv4, ipv6)
    named = [_is_six(pool) for pool in pools if pool.subnet]
    if driver == "bridge" and any(named.count(six) > 1 for six in (False, True)):
        raise Prohibited("bridge driver doesn't support multiple subnets")
    options = _texts("Options", request.get("Options"))
    labels = _texts("Labels", request.get("Labels"))
    link, internal = _link(driver, options, network_id), bool(request.get("Internal"))
    if not internal and data.ISOLATED in (options.get(data.OPTION_MODE), options.get(data.OPTION_MODE6)):
        raise InvalidParameter("gateway mode 'isolated' can only be used for an internal network")
    return Network(
        id=network_id,
        name=name,
        driver=driver,
        created=created,
        link=link,
        pools=tuple(pools),
        ipv4=ipv4,
        ipv6=ipv6,
        # Without a parent there is nothing that it could lead to.
        internal=internal or (driver != "bridge" and not options.get("parent")),
        attachable=bool(request.get("Attachable")),
        options=options,
        labels=labels,
        configured=any(pool.subnet for pool in pools),
        ipam_options=_texts("IPAM.Options", (request.get("IPAM") or {}).get("Options")),
    )


def check_name(name: str) -> str:
    """Raises InvalidParameter for what no network can be called, Prohibited for what all installations have."""
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")
    # Docker takes these, and then cannot find, or cannot join, what it has made.
    if name.startswith(("/", "container:")) or any(c < " " or c == "\x7f" for c in name):
        raise InvalidParameter(f"invalid network name: {name!r}")
    if name in (*data.PREDEFINED, "default"):
        raise Prohibited(f"operation is not permitted on predefined {name} network")
    return name


def _check_driver(driver: str) -> None:
    if driver in ("host", "null"):
        raise Prohibited(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise Prohibited("overlay networks join several machines: there is no swarm here")
    if driver not in data.JOINABLE:
        raise NotFound(f'plugin "{driver}" not found')


def _check_scope(request: Mapping[str, Any]) -> None:
    if request.get("Scope") not in (None, "", "local"):
        raise InvalidParameter(f"cannot create a {request['Scope']} scoped network when swarm is not active")
    if request.get("Ingress"):
        raise InvalidParameter("cannot create an ingress network (--ingress): there is no swarm here")
    if request.get("ConfigOnly") or (request.get("ConfigFrom") or {}).get("Network"):
        raise InvalidParameter("configurations of networks (--config-only, --config-from) cannot be had here")


def _is_six(pool: data.Pool) -> bool:
    return ":" in pool.subnet


def _pools(ipam: Mapping[str, Any], ipv4: bool, ipv6: bool) -> list[data.Pool]:
    if ipam.get("Driver") not in (None, "", "default"):
        raise NotFound(f'plugin "{ipam["Driver"]}" not found')
    pools = [pool for pool in subnets.check(ipam.get("Config") or [], ipv6) if pool.subnet]
    if not ipv4:
        pools = [pool for pool in pools if _is_six(pool)]
    # Those families that nobody named a subnet for get one.
    for six, wanted in ((False, ipv4), (True, ipv6)):
        if wanted and not any(_is_six(pool) is six for pool in pools):
            pools.insert(len(pools) if six else 0, data.Pool(""))
    return pools


def _texts(field: str, given: Any) -> dict[str, str]:
    values = given or {}
    if not isinstance(values, dict) or not all(isinstance(v, str) and "\0" not in k + v for k, v in values.items()):
        raise InvalidParameter(f"invalid value for {field}: {given!r} is not a map")
    return dict(values)


def _link(driver: str, options: dict[str, str], network_id: str) -> str:
    """The options checked; the link that the network is made of on the host."""
    for name in options:
        # Others are somebody's notes, and kept like these. But Docker's own would do something there.
        if name.startswith(_DOCKERS) and name not in _KNOWN:
            raise InvalidParameter(f"the option {name} of networks cannot be had in this version of sampan")
    _check_number(options)
    if prefix := options.get(data.OPTION_PREFIX):
        check_link(f"{prefix}0000")
    if driver == "bridge":
        _check_bridge(options)
        return check_link(options.get(data.OPTION_BRIDGE) or f"br-{network_id[:12]}")
    mode, flag = options.get(f"{driver}_mode"), options.get("ipvlan_flag")
    if mode and mode not in _MODES[driver]:
        default = _MODES[driver][0]
        raise InvalidParameter(
            f"requested {driver} mode '{mode}' is not valid, '{default}' mode is the {driver} driver default"
        )
    if flag and flag not in _FLAGS:
        raise InvalidParameter(
            f"requested ipvlan flag '{flag}' is not valid, 'bridge' flag is the ipvlan driver default"
        )
    return check_link(_check_parent(options.get("parent") or "") or f"dm-{network_id[:12]}")


def _check_parent(parent: str) -> str:
    """A device of the host, or DEVICE.VLAN, which is made. Whether the device is there is seen when a container starts."""
    if parent == "lo":
        raise InvalidParameter("loopback interface is not a valid parent link")
    _, dot, vlan = parent.rpartition(".")
    if dot and vlan.isdigit() and not 1 <= int(vlan) <= 4094:
        raise InvalidParameter(f"vlan id must be between 1-4094, received: {vlan}")
    return parent


def _check_number(options: Mapping[str, str]) -> None:
    text = options.get(data.OPTION_MTU, "")
    if not text:
        return
    if not (text.isascii() and text.lstrip("+-").isdigit()):
        raise InvalidParameter(
            f'failed to parse {data.OPTION_MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)'
        )
    if not 68 <= int(text) <= 65535:  # the least of RFC 791, the most of a bridge
        raise InvalidParameter(f"invalid {data.OPTION_MTU}: {text}: a bridge can have 68 to 65535")


def _check_bridge(options: Mapping[str, str]) -> None:
    for name, value in options.items():
        check = _BRIDGE_CHECKS.get(name)
        if check is not None and value and (problem := check(value)):
            raise InvalidParameter(f"failed to parse {name} value: {value} ({problem})")


def _bool(value: str) -> str:
    return "" if value in _TRUTH else f'strconv.ParseBool: parsing "{value}": invalid syntax'


def _ipv4(value: str) -> str:
    try:
        return "" if parse_address(value)[1] == 32 else "not an IPv4 address"
    except InvalidParameter:
        return "nil ip"


def _ipv6(value: str) -> str:
    try:
        return "" if parse_address(value)[1] == 128 else "not an IPv6 address"
    except InvalidParameter:
        return "nil ip"


def _mode(value: str) -> str:
    return "" if value in data.GATEWAY_MODES else f"unknown gateway mode {value}"


_BRIDGE_CHECKS: dict[str, Callable[[str], str]] = {
    data.OPTION_ICC: _bool,
    data.OPTION_MASQUERADE: _bool,
    data.OPTION_INHIBIT: _bool,
    data.OPTION_HOST_ADDRESS: _ipv4,
    data.OPTION_SOURCE: _ipv4,
    data.OPTION_SOURCE6: _ipv6,
    data.OPTION_MODE: _mode,
    data.OPTION_MODE6: _mode,
}


def check_link(name: str) -> str:
    """The name of a link. Raises InvalidParameter for what the kernel would not take (dev_valid_name)."""
    if not name or len(name) > _LINK_MAX or name in (".", "..") or any(c in "/:" or c.isspace() for c in name):
        raise InvalidParameter(
            f"invalid name of a link: {name!r}: it has 1 to {_LINK_MAX} characters, without blanks, / and :"
        )
    return name


def overlaps(network: Network, others: list[Network]) -> None:
    """Raises Prohibited if a subnet that is asked for is another network's, or part of it."""
    taken = [parse_subnet(pool.subnet) for other in others for pool in other.pools]
    wanted = [pool for pool in network.pools if pool.subnet]
    if subnets.overlapping(wanted, taken) is not None:
        raise Prohibited("invalid pool request: Pool overlaps with other one on this address space")


def same_link(network: Network, others: list[Network]) -> None:
    """Raises Conflict if the bridge is another network's, Prohibited if the VLAN's link is: it goes with one of them."""
    for other in others:
        if "bridge" not in (network.driver, other.driver) and other.link == network.link and "." in network.link:
            raise Prohibited(f"network {other.name} is already using parent interface {network.link}")
        if network.driver == "bridge" and other.driver == "bridge" and other.link == network.link:
            raise Conflict(
                f"bridge name conflicts with network {other.name} ({other.id}) by bridge name {network.link}"
            )
