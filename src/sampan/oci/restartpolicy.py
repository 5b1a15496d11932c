"""Restart policies as people write them, checked in Docker's words."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NO, ALWAYS, UNLESS_STOPPED, ON_FAILURE = "no", "always", "unless-stopped", "on-failure"


def parse(text: str) -> dict[str, Any]:
    """The HostConfig.RestartPolicy of `--restart` (docker/cli opts.ParseRestartPolicy). Raises InvalidParameter."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise InvalidParameter("invalid restart policy format: no policy provided before colon")
    digits = count.removeprefix("-") if count.startswith("-") else count.removeprefix("+")
    if count and not (digits.isascii() and digits.isdigit()):
        raise InvalidParameter("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def is_none(policy: Mapping[str, Any]) -> bool:
    """Whether a policy asks for no restart."""
    return (policy.get("Name") or NO) == NO


def check(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The policy with its defaults. Raises InvalidParameter (moby ValidateRestartPolicy)."""
    name, retries = policy.get("Name") or NO, policy.get("MaximumRetryCount") or 0
    if name not in (NO, ALWAYS, UNLESS_STOPPED, ON_FAILURE):
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if not isinstance(retries, int) or isinstance(retries, bool):
        raise InvalidParameter(f"invalid restart policy: maximum retry count {retries!r} is not a number")
    if name == ON_FAILURE and retries < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if name != ON_FAILURE and retries and policy.get("Name"):
        negative = " and cannot be negative" if retries < 0 else ""
        raise InvalidParameter(
            f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
        )
    return {"Name": name, "MaximumRetryCount": retries if name == ON_FAILURE else 0}
