"""Whether a container that has ended is started again, and when: Docker's rules (moby restartmanager, daemon/monitor.go).

Small, because every shim holds it. What the rules are made of is read from the disk when a program ends: the policy from the
container's record (`update` may have changed it), the intent to stop, and how often it was restarted before.

An intent (the start's file `stopping`) has: final: the signal was to end the container, and cancels a restart; a signal that
only means something to the program is not final, but keeps `unless-stopped` from a restart as well. again: `restart` asked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FIRST_DELAY, LONGEST_DELAY, LONG_RUN = 0.1, 60.0, 10.0
"""Seconds: the first back-off, the longest one that doubling leads to, and the run after which it begins anew."""


def wanted(policy: Mapping[str, Any], exit_code: int, stopped: bool, count: int) -> bool:
    """Whether the policy (HostConfig.RestartPolicy) wants a restart. count: the restarts since somebody started it."""
    name, most = policy.get("Name"), policy.get("MaximumRetryCount") or 0
    if name == "on-failure":
        return exit_code != 0 and (not most or count < most)
    return name == "always" or (name == "unless-stopped" and not stopped)


def due(
    policy: Mapping[str, Any],
    exit_code: int,
    intent: Mapping[str, Any] | None,
    before: Mapping[str, Any] | None,
    seconds: float,
) -> dict[str, Any] | None:
    """The restart that a program's end makes due, None for none: {"count": n, "delay": seconds}.

    before: the restart that this run was itself, None if somebody started it. seconds: how long it ran.
    """
    if intent is not None and intent.get("again"):
        return {"count": 0, "delay": 0}
    count = before["count"] if before else 0
    if is_cancelled(intent) or not wanted(policy, exit_code, intent is not None, count):
        return None
    delay = before["delay"] if before and seconds < LONG_RUN else 0
    return {"count": count + 1, "delay": min(2 * delay, LONGEST_DELAY) or FIRST_DELAY}


def is_cancelled(intent: Mapping[str, Any] | None) -> bool:
    """Whether somebody wants the container to have ended for good."""
    return intent is not None and bool(intent.get("final")) and not intent.get("again")
