"""What a container asks for in networks: a request's NetworkMode, EndpointsConfig and links, judged in Docker's words.

Of a mode that is no network (none, host, container:ID) nothing comes of it; else there is an `Attachment` for each network.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, NotFound
from sampan.network.ipam import canonical, check_wanted
from sampan.network.parameters import check_of_link
from sampan.oci.network import BRIDGE, OPTION_INTERFACE, OPTION_SYSCTLS, Attachment, is_user_defined
from sampan.oci.subnet import parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from sampan.oci.network import Network
    from sampan.store.record import Record

    class Networks(Protocol):
        def find(self, reference: str) -> Network: ...

    class Records(Protocol):
        def get(self, reference: str) -> Record: ...


def resolve(
    mode: str,
    endpoints: Mapping[str, Mapping[str, Any] | None],
    links: Sequence[str],
    networks: Networks,
    records: Records,
) -> tuple[Attachment, ...]:
    """The networks that a container joins when it starts, that of its mode first.

    mode: HostConfig.NetworkMode, a network's name or id; endpoints: NetworkingConfig.EndpointsConfig. Raises InvalidParameter, NotFound.
    """
    given = {BRIDGE if name == "default" else name: settings or {} for name, settings in endpoints.items()}
    found: dict[str, Attachment] = {}
    for name in [mode, *(name for name in given if name != mode)]:
        network = networks.find(name)
        if network.name in found:
            raise InvalidParameter(f'network "{network.name}" is specified multiple times')
        settings = {**given.get(name, {})}
        if name == mode and links and not is_user_defined(network.name):
            settings["Links"] = links
        found[network.name] = attachment(network, settings, records)
    if len(found) > 1 and BRIDGE in found:
        raise InvalidParameter(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    return tuple(found.values())


def attachment(network: Network, settings: Mapping[str, Any], records: Records) -> Attachment:
    """An EndpointSettings judged for one network. Raises InvalidParameter in Docker's words, all problems at once."""
    if network.driver in ("host", "null"):
        raise InvalidParameter(f"Container cannot be connected to network endpoints: {network.name}")
    problems: list[str] = []
    addresses = settings.get("IPAMConfig") or {}
    four, six = addresses.get("IPv4Address") or "", addresses.get("IPv6Address") or ""
    local = tuple(addresses.get("LinkLocalIPs") or ())
    problems += [f"invalid IPv4 address: {four}"] if four and not _is(four, 32) else []
    problems += [f"invalid IPv6 address: {six}"] if six and not _is(six, 128) else []
    problems += [f"invalid link-local IP address: {one}" for one in local if not (_is(one, 32) or _is(one, 128))]
    aliases = tuple(settings.get("Aliases") or ())
    if four or six:
        problems += _address_problems(network)
    if aliases and network.is_default:
        problems.append("network-scoped aliases are only supported for user-defined networks")
    mac = (settings.get("MacAddress") or "").lower().replace("-", ":")
    if mac and not _is_mac(mac):
        problems.append(f"invalid MAC address: {settings['MacAddress']}")
    options = dict(settings.get("DriverOpts") or {})
    problems += _option_problems(options)
    if not problems and not (six and not network.ipv6):
        problems += _outside(network, four, six)
    elif six and not network.ipv6 and not problems:
        problems.append(f"network {network.name} has no IPv6 (--ipv6) for the address {six}")
    if problems:
        text = problems[0] if len(problems) == 1 else "\n".join(f"* {problem}" for problem in problems)
        raise InvalidParameter(f"invalid config for network {network.name}: invalid endpoint settings:\n{text}")
    return Attachment(
        network=network.name,
        address=canonical(four) if four else "",
        address6=canonical(six) if six else "",
        link_local=tuple(canonical(one) for one in local),
        mac=mac,
        aliases=aliases,
        links=tuple(_link(text, records, network.is_default) for text in settings.get("Links") or ()),
        gateway_priority=int(settings.get("GwPriority") or 0),
        options=options,
    )


def _address_problems(network: Network) -> list[str]:
    if network.is_default:
        return ["user specified IP address is supported on user defined networks only"]
    if not network.configured:
        # One that we chose may be another one when the network is made again.
        return ["user specified IP address is supported only when connecting to networks with user configured subnets"]
    return []


def _option_problems(options: Mapping[str, str]) -> list[str]:
    name = options.get(OPTION_INTERFACE, "")
    problems = [f"invalid name of an interface: {name!r}"] if name and not _is_link(name) else []
    sysctls = filter(None, options.get(OPTION_SYSCTLS, "").split(","))
    return [*problems, *filter(None, map(check_of_link, sysctls))]


def _is_link(name: str) -> bool:
    """Whether the kernel takes it for a link (dev_valid_name)."""
    return len(name) < 16 and name not in (".", "..", "lo") and not any(c in "/:" or c.isspace() for c in name)


def _outside(network: Network, four: str, six: str) -> list[str]:
    try:
        check_wanted(network, four, six)
    except InvalidParameter as e:
        return [str(e).rpartition("\n")[2]]
    return []


def _link(text: str, records: Records, must_exist: bool) -> str:
    """NAME:ALIAS of one link, the alias also if it was not given.

    In the default network the other one has to be there, for its address is written into /etc/hosts. Raises InvalidParameter.
    """
    name, colon, alias = text.partition(":")
    if not name or (colon and not alias) or ":" in alias:
        raise InvalidParameter(f"bad format for links: {text}")
    name = name.removeprefix("/")
    if must_exist:
        try:
            name = records.get(name).name
        except NotFound as e:
            raise InvalidParameter(f"could not get container for {name}: {e}") from None
    return f"{name}:{alias or name}"


def _is(text: str, bits: int) -> bool:
    try:
        return parse_address(text)[1] == bits
    except InvalidParameter:
        return False


def _is_mac(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts)
