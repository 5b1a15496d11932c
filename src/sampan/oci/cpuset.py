"""Lists of processors and memory nodes (`--cpuset-cpus`, `--cpuset-mems`): "0-2,7", as cpuset(7) writes them."""

from __future__ import annotations

from sampan.errors import InvalidParameter

LARGEST = 8192
"""No machine has more; a list is spelled out to be compared, and must not become endless (CVE-2018-20699)."""


def members(text: str, largest: int = LARGEST) -> frozenset[int]:
    """The numbers of a list. Raises InvalidParameter in the words of moby's parsers.ParseUintListMaximum."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        low = _number(first, text)
        high = _number(last, text) if dash else low
        if high < low:
            raise InvalidParameter(f"invalid format: {text}")
        if high > largest:
            raise InvalidParameter(f"value of out range, maximum is {largest}")
        found.update(range(low, high + 1))
    return frozenset(found)


def check_available(asked: str, available: str, kind: str, words: str) -> None:
    """Raise InvalidParameter if `asked` is no list, or has what `available` has not.

    kind: "cpus" or "mems". words: what messages call them, "CPUs" or "memory nodes".
    """
    there = members(available)
    try:
        wanted = members(asked, max((LARGEST, *there)))
    except InvalidParameter as e:
        raise InvalidParameter(f"Invalid value {asked} for cpuset {kind}: {e}") from None
    if not wanted <= there:
        raise InvalidParameter(f"Requested {words} are not available - requested {asked}, available: {available}")


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidParameter(f"invalid format: {whole}")
    return int(text) if len(text) < 20 else LARGEST * LARGEST
