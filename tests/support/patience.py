"""How long a test waits: one factor for every time limit, because an emulated machine is ten times slower."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FACTOR = float(os.environ.get("SAMPAN_TEST_PATIENCE", "1"))


def patience(seconds: float) -> float:
    """`seconds` as this machine needs them."""
    return seconds * FACTOR


def eventually(probe: Callable[[], T], seconds: float = 30.0, what: str | Callable[[], str] = "") -> T:
    """The first true answer of `probe`, asked again and again for `seconds`; an AssertionError if there is none.

    `what` is waited for; where it has to be looked at more closely then, a function that does.
    """
    deadline = time.monotonic() + patience(seconds)
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, (
            f"{(what() if callable(what) else what) or 'condition'} not met in {patience(seconds):.0f} s; last: {answer!r}"
        )
        time.sleep(0.02)
