"""Durations as Docker's flags and instructions write them: Go's `1h30m`, `1.5s`, `300ms`.

Go standard library, time.ParseDuration: a sign, then numbers each with a unit; "0" needs none.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_NUMBER = frozenset("0123456789.")
_MAX = 1 << 63


def parse(text: str) -> int:
    """The duration in nanoseconds. Raises `InvalidParameter` with Go's texts."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise InvalidParameter(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        number, rest = _take(rest, True)
        if number.count(".") > 1 or not number.strip("."):
            raise InvalidParameter(f'time: invalid duration "{text}"')
        unit, rest = _take(rest, False)
        if not unit:
            raise InvalidParameter(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise InvalidParameter(f'time: unknown unit "{unit}" in duration "{text}"')
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * _UNITS[unit]
        total += int(fraction or "0") * _UNITS[unit] // 10 ** len(fraction)
    if total >= _MAX:
        raise InvalidParameter(f'time: invalid duration "{text}"')
    return sign * total


def shown(nanoseconds: int) -> str:
    """As Go writes a duration: "1h0m30s", "1.5s", "20ms"."""
    if not nanoseconds:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1000), ("ms", 1000_000)):
        if left < size * 1000:
            return f"{sign}{_decimal(left, size)}{unit}"
    minutes, rest = divmod(left, 60 * 1_000_000_000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(rest, 1_000_000_000)}s"


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    return f"{whole}.{str(fraction).rjust(len(str(unit)) - 1, '0').rstrip('0')}" if fraction else str(whole)


def _take(text: str, numbers: bool) -> tuple[str, str]:
    """The leading characters that are digits or dots (or are not), and the rest."""
    end = 0
    while end < len(text) and (text[end] in _NUMBER) is numbers:
        end += 1
    return text[:end], text[end:]
