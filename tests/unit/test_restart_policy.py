"""Docker's rules of restarts: how policies are written, and when one wants a restart."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from sampan.errors import InvalidParameter
from sampan.oci import restart, restartpolicy

STOP = {"signal": 15, "final": True, "again": False}
HUP = {"signal": 1, "final": False, "again": False}
AGAIN = {"signal": 15, "final": True, "again": True}


def policy(text: str) -> dict[str, Any]:
    return restartpolicy.check(restartpolicy.parse(text))


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("", "no", 0), ("no", "no", 0), ("always", "always", 0), ("always:0", "always", 0),
        ("unless-stopped", "unless-stopped", 0), ("on-failure", "on-failure", 0), ("on-failure:", "on-failure", 0),
        ("on-failure:3", "on-failure", 3), ("on-failure:+3", "on-failure", 3),
    ],
)  # fmt: skip
def test_what_may_be_written(text: str, name: str, count: int) -> None:
    assert policy(text) == {"Name": name, "MaximumRetryCount": count}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (":3", "invalid restart policy format: no policy provided before colon"),
        ("on-failure:x", "invalid restart policy format: maximum retry count must be an integer"),
        ("on-failure:1:2", "invalid restart policy format: maximum retry count must be an integer"),
        ("on-failure:--1", "invalid restart policy format: maximum retry count must be an integer"),
        ("on-failure:-1", "invalid restart policy: maximum retry count cannot be negative"),
        ("always:3", "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
        ("often", "invalid restart policy: unknown policy 'often'; use one of 'no', 'always', 'on-failure', or"),
    ],
)
def test_what_may_not(text: str, error: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        policy(text)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("text", "code", "intent", "count", "expected"),
    [
        ("no", 1, None, 0, False),
        ("always", 0, None, 0, True),
        ("always", 0, STOP, 0, False),
        ("always", 0, HUP, 0, True),
        ("unless-stopped", 1, None, 7, True),
        ("unless-stopped", 1, HUP, 0, False),
        ("unless-stopped", 1, STOP, 0, False),
        ("on-failure", 0, None, 0, False),
        ("on-failure", 1, None, 1000, True),
        ("on-failure", 1, HUP, 0, True),
        ("on-failure:2", 1, None, 1, True),
        ("on-failure:2", 1, None, 2, False),
        # `restart` is no matter of a policy.
        ("no", 0, AGAIN, 0, True),
        ("on-failure:2", 0, AGAIN, 2, True),
    ],
)
def test_when_a_restart_is_due(text: str, code: int, intent: Any, count: int, expected: bool) -> None:
    before = {"count": count, "delay": 0.1} if count else None
    due = restart.due(policy(text), code, intent, before, 1)
    assert (due is not None) == expected
    if due is not None:
        assert due["count"] == (0 if intent is AGAIN else count + 1)


def test_the_back_off_doubles_to_a_minute_and_begins_anew_after_a_long_run() -> None:
    before, delays = None, []
    for _ in range(14):
        before = restart.due(policy("always"), 0, None, before, 9.9)
        assert before is not None
        delays.append(before["delay"])
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert all(second == min(2 * first, 60) for first, second in pairwise(delays))
    assert delays[-1] == 60
    after = restart.due(policy("always"), 0, None, before, 10)
    assert after == {"count": 15, "delay": 0.1}
