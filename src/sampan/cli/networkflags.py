"""`--network` in both of its forms, and the flags that go to the first of several networks (docker/cli opts/network.go, opts.go).

Imported for command lines that say more of a network than its name.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci.network import is_user_defined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Arguments

_MAC = frozenset("0123456789abcdefABCDEF")


def parse(text: str) -> dict[str, Any]:
    """ "name=front,alias=web,ip=10.9.0.7" as {"Target": ..., "Aliases": [...]}. Raises ValueError in Docker's words."""
    found: dict[str, Any] = {"Target": "", "Aliases": [], "LinkLocalIPs": [], "DriverOpts": {}}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        if key == "alias":
            found["Aliases"].append(value)
        elif key == "link-local-ip":
            found["LinkLocalIPs"].append(value)
        elif key == "driver-opt":
            name, equals, option = value.partition("=")
            if not equals or not name:
                raise ValueError("invalid key value pair format in driver options")
            found["DriverOpts"][name.strip()] = option.strip()
        elif key == "gw-priority":
            found["GwPriority"] = _priority(value)
        elif key in _SINGLE:
            found[_SINGLE[key]] = value
        else:
            raise ValueError(f"invalid field key {key}")
    if not found["Target"]:
        raise ValueError("network name/id is not specified")
    return found


def _fields(text: str) -> list[str]:
    """The fields of a line of CSV, for a value may hold a comma."""
    if '"' not in text:
        return text.split(",")
    from sampan.cli.mounts import fields  # in here: few are quoted

    return fields(text)


_SINGLE = {"name": "Target", "ip": "IPv4Address", "ip6": "IPv6Address", "mac-address": "MacAddress"}


def _priority(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"invalid gw-priority ({text}): invalid syntax") from None


# flag -> what it sets, and what messages call that
_FIRST = (
    ("network-alias", "Aliases", "alias"),
    ("link-local-ip", "LinkLocalIPs", "link-local IP addresses"),
    ("ip", "IPv4Address", "IPv4 address"),
    ("ip6", "IPv6Address", "IPv6 address"),
    ("mac-address", "MacAddress", "MAC address"),
)


def endpoints(arguments: Arguments) -> dict[str, dict[str, Any]]:
    """NetworkingConfig.EndpointsConfig. Raises InvalidParameter in Docker's words."""
    given = [dict(one) for one in arguments["network"]] or [{"Target": "default"}]
    for flag, field, what in _FIRST:
        if not arguments[flag]:
            continue
        if given[0].get(field):
            raise InvalidParameter(f"conflicting options: cannot specify both --{flag} and per-network {what}")
        given[0][field] = arguments[flag]
    kinds = {is_user_defined(one["Target"]) for one in given}
    found: dict[str, dict[str, Any]] = {}
    for one in given:
        name = one["Target"]
        if name in found:
            raise InvalidParameter(f'network "{name}" is specified multiple times')
        found[name] = _endpoint(one)
    if len(kinds) > 1:
        raise InvalidParameter(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    if arguments["link"] and kinds == {True}:
        found[given[0]["Target"]]["Links"] = arguments["link"]
    return found


def _endpoint(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("Aliases") and not is_user_defined(given["Target"]):
        raise InvalidParameter("network-scoped aliases are only supported for user-defined networks")
    mac = given.get("MacAddress", "")
    if mac and not is_mac(mac):
        raise InvalidParameter(f"{mac} is not a valid mac address")
    addresses = {name: given[name] for name in ("IPv4Address", "IPv6Address", "LinkLocalIPs") if given.get(name)}
    return {
        "IPAMConfig": addresses or None,
        "Aliases": given.get("Aliases") or None,
        "MacAddress": mac,
        "DriverOpts": given.get("DriverOpts") or None,
        "GwPriority": given.get("GwPriority", 0),
    }


def is_mac(text: str) -> bool:
    """Whether this is the address of an Ethernet device."""
    parts = text.strip().replace("-", ":").split(":")
    return len(parts) == 6 and all(len(part) == 2 and _MAC.issuperset(part) for part in parts)
