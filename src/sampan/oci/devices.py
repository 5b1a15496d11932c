"""Devices in requests: `--device`, `--device-cgroup-rule`, and the disks of block I/O limits. Grammar and messages.

Sources: docker/cli (container/opts.go, opts/throttledevice.go, opts/weightdevice.go), moby (pkg/oci, daemon).
"""

from __future__ import annotations

import posixpath

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LARGEST = (1 << 63) - 1
_DEVICE_NUMBER = (1 << 32) - 1

MIN_WEIGHT, MAX_WEIGHT = 10, 1000


def parse_device(text: str) -> dict[str, str]:
    """HOST[:CONTAINER][:rwm] as an entry of HostConfig.Devices. Raises InvalidParameter."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidParameter(f"bad format for path: {text}")
    source, target, access = parts[0], parts[0], "rwm"
    if len(parts) == 3:
        target, access = parts[1], parts[2]
        if not is_access(access):
            raise InvalidParameter(f"bad mode specified: {access}")
    elif len(parts) == 2 and is_access(parts[1]):
        access = parts[1]
    elif len(parts) == 2:
        target = parts[1]
    if not target.startswith("/"):
        raise InvalidParameter(f"{target} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": access}


def is_access(text: str) -> bool:
    """Whether it is some of r, w and m, each at most once."""
    return text != "" and len(set(text)) == len(text) and set(text) <= set("rwm")


def check_devices(entries: list[Any]) -> list[dict[str, str]]:
    """HostConfig.Devices, complete. Raises InvalidParameter."""
    found = []
    for entry in entries:
        _check_texts("Devices", entry, ("PathOnHost", "PathInContainer", "CgroupPermissions"))
        source = entry.get("PathOnHost") or ""
        target = entry.get("PathInContainer") or source
        access = entry.get("CgroupPermissions") or "rwm"
        if not is_access(access):
            raise InvalidParameter(f"bad mode specified: {access}")
        if not target.startswith("/") or posixpath.normpath(target).strip("/") == "":
            raise InvalidParameter(f"{target} is not an absolute path")
        found.append({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": access})
    return found


def parse_rule(text: str) -> tuple[str, int, int, str]:
    """A device cgroup rule, "c 42:* rmw": (kind, major, minor, access), -1 for "*". Raises InvalidParameter."""
    fields = text.split(" ")
    numbers = fields[1].split(":") if len(fields) == 3 else []
    if len(numbers) != 2 or fields[0] not in ("a", "b", "c") or not 1 <= len(fields[2]) <= 3:
        raise _bad_rule(text)
    if not set(fields[2]) <= set("rwm"):
        raise _bad_rule(text)
    major, minor = (_device_number(number, text) for number in numbers)
    return fields[0], major, minor, "".join(a for a in "rwm" if a in fields[2])


def check_rule(text: str) -> str:
    """The rule's text as it is. Raises InvalidParameter."""
    parse_rule(text)
    return text


def _device_number(text: str, rule: str) -> int:
    if text == "*":
        return -1
    # Bounded: the kernel's numbers have 32 bits, and a digit more would be another device.
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > _DEVICE_NUMBER:
        raise _bad_rule(rule)
    return int(text)


def _bad_rule(text: str) -> InvalidParameter:
    return InvalidParameter(f"invalid device cgroup format '{text}'")


def parse_bytes_rate(text: str, parse_size: Callable[[str], int]) -> dict[str, Any]:
    """DISK:RATE[UNIT] as an entry of BlkioDeviceReadBps and BlkioDeviceWriteBps. Raises InvalidParameter."""
    disk, rate = _disk_and(text)
    try:
        value = parse_size(rate)
    except InvalidParameter:
        value = -1
    if not 0 <= value <= _LARGEST:
        raise InvalidParameter(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    return {"Path": disk, "Rate": value}


def parse_operations_rate(text: str) -> dict[str, Any]:
    """DISK:RATE as an entry of BlkioDeviceReadIOps and BlkioDeviceWriteIOps. Raises InvalidParameter."""
    disk, rate = _disk_and(text)
    if not (rate.isascii() and rate.isdigit()) or len(rate) > 20 or int(rate) > _LARGEST:
        raise InvalidParameter(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return {"Path": disk, "Rate": int(rate)}


def parse_weight(text: str) -> dict[str, Any]:
    """DISK:WEIGHT as an entry of BlkioWeightDevice. Raises InvalidParameter."""
    disk, weight = _disk_and(text)
    if not (weight.isascii() and weight.isdigit()) or len(weight) > 5:
        raise InvalidParameter(f"invalid weight for device: {text}")
    value = int(weight)
    if value != 0 and not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise InvalidParameter(f"invalid weight for device: {text}")
    return {"Path": disk, "Weight": value}


def _disk_and(text: str) -> tuple[str, str]:
    disk, colon, rest = text.partition(":")
    if not colon or not disk:
        raise InvalidParameter(f"bad format: {text}")
    if not disk.startswith("/dev/"):
        raise InvalidParameter(f"bad format for device path: {text}")
    return disk, rest


def check_disks(field: str, entries: list[Any], number: str) -> None:
    """A list of disks with a number each ("Weight" or "Rate"). Raises InvalidParameter."""
    for entry in entries:
        _check_texts(field, entry, ("Path",))
        value = entry.get(number, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
            raise InvalidParameter(f"invalid value for HostConfig.{field}: {value!r} is not a number of 64 bits")
        if number == "Weight" and value != 0 and not MIN_WEIGHT <= value <= MAX_WEIGHT:
            raise InvalidParameter(f"invalid weight for device: {entry.get('Path')}:{value}")


def _check_texts(field: str, entry: Any, names: tuple[str, ...]) -> None:
    fits = isinstance(entry, dict) and all(isinstance(entry.get(name, ""), str) for name in names)
    if not fits or any("\0" in entry.get(name, "") for name in names):
        raise InvalidParameter(f"invalid value for HostConfig.{field}: {entry!r}")
