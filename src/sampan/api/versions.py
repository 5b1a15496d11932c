"""Versions of the API: which are spoken, and which one a request asks for by `/vX.Y` in front of its path."""

from __future__ import annotations

import re

from sampan.errors import InvalidParameter

NEWEST = (1, 51)
"""1.52 takes the top-level addresses out of NetworkSettings and old fields out of events, which too many scripts read."""
OLDEST = (1, 24)

_PREFIX = re.compile(r"/v(\d{1,5})\.(\d{1,5})(?=/|$)")


def text(version: tuple[int, int]) -> str:
    """ "1.51" """
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[tuple[int, int], str]:
    """The version that a path asks for (the newest if it does not say) and the path without it.

    Raises InvalidParameter in Docker's words for one that is not spoken.
    """
    found = _PREFIX.match(path)
    if found is None:
        return NEWEST, path
    version = (int(found[1]), int(found[2]))
    if version < OLDEST:
        raise InvalidParameter(
            f"client version {text(version)} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidParameter(
            f"client version {text(version)} is too new. Maximum supported API version is {text(NEWEST)}"
        )
    return version, path[found.end() :] or "/"
