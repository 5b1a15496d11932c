"""Time as Docker writes it, RFC 3339 in UTC with nanoseconds; which boot of the machine it is; for how long the main thread waits at a time."""

from __future__ import annotations

import time

TURN = 1.0
"""Seconds that the main thread waits for something without an end before it waits again: a signal that comes right before a wait does not end
that, and Python's handler only notes that it has come. A Ctrl-C is heard between two turns."""


def rfc3339(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as "2026-01-02T03:04:05.678901234Z"."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


def now() -> str:
    """The time of day."""
    return rfc3339(time.time_ns())


_boot: list[str] = []


def boot_id() -> str:
    """The kernel's name for this boot, which stays what it is for as long as a process lives."""
    if not _boot:
        with open("/proc/sys/kernel/random/boot_id") as f:
            _boot.append(f.read().strip())
    return _boot[0]
