"""Health checks as Docker's `Config` and `State` have them: what is run and when, and what health is shown. Data only.

A health is Docker's `State.Health`: Status, FailingStreak, and in Log the last results, each with Start, End, ExitCode
and Output. What a result makes of it is decided where it comes in (`shim.health`).
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

STARTING, UNHEALTHY, NONE = "starting", "unhealthy", "none"

_SECOND = 1_000_000_000
_DEFAULTS = {"Interval": 30 * _SECOND, "Timeout": 30 * _SECOND, "StartInterval": 5 * _SECOND, "Retries": 3}
_SHORTEST = 1_000_000
_LARGEST = (1 << 63) - 1


def check_request(given: Mapping[str, Any]) -> None:
    """The checks of a request's Healthcheck. Raises InvalidParameter in Docker's words, and in ours for a wrong type."""
    test = given.get("Test")
    if test is not None and not (isinstance(test, (list, tuple)) and all(isinstance(word, str) for word in test)):
        raise InvalidParameter(f"invalid value for Healthcheck.Test: {test!r} is not a list of text")
    for name in ("Interval", "Timeout", "Retries", "StartPeriod", "StartInterval"):
        value = given.get(name) or 0
        if type(value) is not int or abs(value) > _LARGEST:
            raise InvalidParameter(f"invalid value for Healthcheck.{name}: {value!r} is not a number of 64 bits")
        if name == "Retries":
            if value < 0:
                raise InvalidParameter("Retries in Healthcheck cannot be negative")
        elif value and value < _SHORTEST:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than {duration.shown(_SHORTEST)}")


def command(config: Mapping[str, Any]) -> list[str]:
    """What probes a container with this `Config`: a shell's command line or a program's; [] if nothing does.

    As with Docker, a kind of test that is not known counts as none.
    """
    kind, *words = (config.get("Healthcheck") or {}).get("Test") or [NONE]
    if kind == "CMD-SHELL":
        return [*(config.get("Shell") or ("/bin/sh", "-c")), *words]
    return words if kind == "CMD" else []


def setting(config: Mapping[str, Any], name: str) -> int:
    """A number of a `Config`'s Healthcheck (times in nanoseconds); Docker's default if it is not set or, in an image, nonsense."""
    value = config["Healthcheck"].get(name) or 0
    return int(value) if value > 0 else _DEFAULTS.get(name, 0)


def beginning(last: Mapping[str, Any] | None) -> dict[str, Any]:
    """The health at a start: nothing is known yet, but the results of the `last` run are kept."""
    return {"Status": STARTING, "FailingStreak": 0, "Log": list(last["Log"]) if last is not None else []}


def unwatched(last: Mapping[str, Any] | None) -> dict[str, Any]:
    """The health of a container that nobody probes, for it is paused or has ended: Docker calls that unhealthy."""
    return {**(last or beginning(None)), "Status": UNHEALTHY}
