"""Resource limits of processes (`--ulimit`): their names, Docker's grammar, Docker's messages (go-units, ulimit.go)."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# The kernel's own numbers (asm-generic/resource.h), the same on all machines that we know.
NUMBERS = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}

UNLIMITED = -1
_LARGEST = (1 << 63) - 1


def parse(text: str) -> dict[str, Any]:
    """NAME=SOFT[:HARD] as an entry of HostConfig.Ulimits. Raises InvalidParameter."""
    name, equals, values = text.partition("=")
    if not equals:
        raise InvalidParameter(f"invalid ulimit argument: {text}")
    if name not in NUMBERS:
        raise InvalidParameter(f"invalid ulimit type: {name}")
    parts = values.split(":")
    if len(parts) > 2:
        raise InvalidParameter(f"too many limit value arguments - {values}, can only have up to two, `soft[:hard]`")
    # The hard one first, so that of two wrong ones the same is told as by Docker.
    hard = _number(parts[-1])
    soft = _number(parts[0])
    _check_order(soft, hard)
    return {"Name": name, "Hard": hard, "Soft": soft}


def check(entries: list[Any]) -> list[dict[str, Any]]:
    """HostConfig.Ulimits, each name once (the last one counts). Raises InvalidParameter."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("Name"), str):
            raise InvalidParameter(f"invalid value for HostConfig.Ulimits: {entry!r} is not a limit")
        name = short_name(entry["Name"])
        if name not in NUMBERS:
            raise InvalidParameter(f"invalid ulimit type: {entry['Name']}")
        values = [entry.get(key, 0) for key in ("Soft", "Hard")]
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not UNLIMITED <= value <= _LARGEST:
                raise InvalidParameter(f"invalid value for HostConfig.Ulimits: {value!r} is not a limit of {name}")
        _check_order(*values)
        found.pop(name, None)
        found[name] = {"Name": name, "Hard": values[1], "Soft": values[0]}
    return list(found.values())


def short_name(kind: str) -> str:
    """ "nofile" of the OCI specification's "RLIMIT_NOFILE"."""
    return kind.lower().removeprefix("rlimit_")


def to_oci(entries: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """process.rlimits of the OCI configuration, where "no limit" is the largest number of 64 bits."""
    return [
        {
            "type": f"RLIMIT_{entry['Name'].upper()}",
            "soft": entry["Soft"] % (1 << 64),
            "hard": entry["Hard"] % (1 << 64),
        }
        for entry in entries
    ]


def _check_order(soft: int, hard: int) -> None:
    if hard == UNLIMITED:
        return
    words = "ulimit soft limit must be less than or equal to hard limit"
    if soft == UNLIMITED:
        raise InvalidParameter(f"{words}: soft: -1 (unlimited), hard: {hard}")
    if soft > hard:
        raise InvalidParameter(f"{words}: {soft} > {hard}")


def _number(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidParameter(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    value = int(text) if len(text) < 32 else _LARGEST + 1
    if not -_LARGEST - 1 <= value <= _LARGEST:
        raise InvalidParameter(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value
