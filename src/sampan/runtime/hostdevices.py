"""Devices of the host that a container is to have, looked up when it starts: their numbers, owners and modes.

By moby's rules (pkg/oci, DevicesFromPath): a symbolic link is followed, a directory stands for all devices in it.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import InvalidParameter
from sampan.kernel.cgroup import DeviceRule
from sampan.oci.devices import parse_rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}


def look_up(source: str, target: str) -> list[dict[str, Any]]:
    """OCI device entries for `--device source:target`. Raises InvalidParameter if there is no device."""
    try:
        found = entry(os.path.realpath(source), target)
    except OSError as e:
        raise _failure(source, os.strerror(e.errno or 0).lower()) from None
    if found is not None:
        return [found]
    # realpath: the walk of a link would stay at the link.
    devices = list(_below(os.path.realpath(source), target)) if os.path.isdir(source) else []
    if not devices:
        raise _failure(source, "not a device node")
    return devices


def _failure(source: str, reason: str) -> InvalidParameter:
    return InvalidParameter(f'error gathering device information while adding custom device "{source}": {reason}')


def _below(directory: str, target: str) -> list[dict[str, Any]]:
    found = []
    for parent, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = f"{parent}/{name}"
            try:
                device = entry(path, target + path.removeprefix(directory))
            except OSError:
                continue  # it went meanwhile
            if device is not None:
                found.append(device)
    return found


def entry(path: str, target: str) -> dict[str, Any] | None:
    """The OCI entry of one device node; None for what is none. Raises OSError."""
    status = os.lstat(path)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return {
        "path": target,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def devices(asked: Sequence[dict[str, str]], privileged: bool) -> tuple[list[dict[str, Any]], list[DeviceRule]]:
    """The nodes to be made for HostConfig.Devices, and the rules that let them be used.

    A privileged container has all devices at their own places already, and no rules.
    """
    nodes: list[dict[str, Any]] = []
    rules: list[DeviceRule] = []
    for mapping in asked:
        source, target = mapping["PathOnHost"], os.path.normpath(mapping["PathInContainer"])
        if privileged and source == target:
            continue
        for node in look_up(source, target):
            nodes.append(node)
            if node["type"] != "p":
                rules.append(DeviceRule(True, node["type"], node["major"], node["minor"], mapping["CgroupPermissions"]))
    return nodes, rules


def extra_rules(texts: Sequence[str]) -> list[DeviceRule]:
    """The rules of HostConfig.DeviceCgroupRules, which were checked when the container was made."""
    return [DeviceRule(True, *parse_rule(text)) for text in texts]


def block_limits(host: dict[str, Any]) -> dict[str, Any]:
    """linux.resources.blockIO of a HostConfig. Raises InvalidParameter for a disk that is not there."""
    found: dict[str, Any] = {}
    if host.get("BlkioWeight"):
        found["weight"] = host["BlkioWeight"]
    if host.get("BlkioWeightDevice"):
        found["weightDevice"] = [_with_numbers(d, "weight", d["Weight"]) for d in host["BlkioWeightDevice"]]
    for field, name in _THROTTLES.items():
        if host.get(field):
            found[name] = [_with_numbers(d, "rate", d["Rate"]) for d in host[field]]
    return found


_THROTTLES = {
    "BlkioDeviceReadBps": "throttleReadBpsDevice",
    "BlkioDeviceWriteBps": "throttleWriteBpsDevice",
    "BlkioDeviceReadIOps": "throttleReadIOPSDevice",
    "BlkioDeviceWriteIOps": "throttleWriteIOPSDevice",
}


def _with_numbers(disk: dict[str, Any], name: str, value: int) -> dict[str, int]:
    try:
        number = os.stat(disk["Path"]).st_rdev
    except OSError as e:
        raise InvalidParameter(f"stat {disk['Path']}: {os.strerror(e.errno or 0).lower()}") from None
    return {"major": os.major(number), "minor": os.minor(number), name: value}
