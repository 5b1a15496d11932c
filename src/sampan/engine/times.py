"""Times as Docker shows them: RFC 3339 read back, and durations in words."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"
"""How Go writes "never"."""

_DAY = 86400


def parse(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time, 0 for "" and for Go's zero time. Raises ValueError.

    By hand: datetime keeps microseconds only, and strptime imports `re`.
    """
    if not text or text == ZERO:
        return 0
    date, _, clock = text.partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    clock, offset = _split_offset(clock)
    whole, _, fraction = clock.partition(".")
    hours, minutes, seconds = (int(part) for part in whole.split(":"))
    total = _days(year, month, day) * _DAY + hours * 3600 + minutes * 60 + seconds - offset
    return total * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or "0")


def lenient(created: str) -> int:
    """RFC 3339 as nanoseconds since the epoch; 0 for what is none (an image may say anything)."""
    try:
        return parse(created)
    except ValueError:
        return 0


def seconds(created: str) -> int:
    """As `lenient`, in whole seconds."""
    return lenient(created) // 1_000_000_000


def _split_offset(clock: str) -> tuple[str, int]:
    """The time of day, and the seconds that its zone is ahead of UTC."""
    if clock.endswith(("Z", "z")):
        return clock[:-1], 0
    for sign, factor in (("+", 1), ("-", -1)):
        rest, found, zone = clock.partition(sign)
        if found:
            hours, _, minutes = zone.partition(":")
            return rest, factor * (int(hours) * 3600 + int(minutes or "0") * 60)
    raise ValueError(f"no time zone in {clock!r}")


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar; years are counted from March, so that leap days come last."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def human_duration(seconds: float) -> str:
    """A duration as `ps` shows it: "5 seconds", "About an hour", "3 weeks" (go-units HumanDuration)."""
    whole, hours = int(seconds), int(seconds / 3600 + 0.5)
    minutes = whole // 60
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in ((24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 365 * 2, 24 * 30, "months")):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // (24 * 365)} years"


def since(text: str) -> str:
    """How long ago an RFC 3339 time was, in words; "" for none."""
    then = parse(text)
    return human_duration((time.time_ns() - then) / 1e9) if then else ""


def moment(text: str) -> int:
    """Nanoseconds since the epoch of what a filter names: a duration before now ("1h30m"), RFC 3339 with or without its
    end (local time then), or seconds since the epoch. Raises InvalidParameter in Docker's words (moby, timetypes).
    """
    from sampan.errors import InvalidParameter
    from sampan.oci import duration

    if text != "0":  # that is the epoch: everything since ever
        try:
            return time.time_ns() - duration.parse(text)
        except InvalidParameter:
            pass  # not a duration
    try:
        if "-" in text[1:]:
            return _calendar(text)
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    except ValueError:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None


def _calendar(text: str) -> int:
    """A date, with as much of a time of day and of a zone as there is."""
    from datetime import UTC, datetime

    date, _, clock = text.partition("T")
    zoned = clock.endswith(("Z", "z")) or "+" in clock or "-" in clock or date.endswith("Z")
    clock, offset = _split_offset(clock) if zoned and clock else (clock, 0)
    parts = [*clock.split(":"), "0", "0"][:3] if clock else ["0", "0", "0"]
    total = parse(f"{date.removesuffix('Z')}T{':'.join(parts)}Z") - offset * 1_000_000_000
    if zoned:
        return total
    # What the local clock showed then: the zone's offset of that moment is taken off.
    shown = datetime.fromtimestamp(total // 1_000_000_000, UTC).replace(tzinfo=None)
    return int(shown.astimezone().timestamp()) * 1_000_000_000 + total % 1_000_000_000
