"""Volumes as the Engine API shows them, by the version that a client speaks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


_SINCE = (("Options", (1, 25)), ("CreatedAt", (1, 31)))


def volume(found: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """`GET /volumes/{name}`."""
    absent = {name for name, since in _SINCE if version < since}
    return {name: value for name, value in found.items() if name not in absent}


def listing(found: Sequence[Mapping[str, Any]], version: tuple[int, int]) -> dict[str, Any]:
    """`GET /volumes`."""
    return {"Volumes": [volume(one, version) for one in found], "Warnings": None}
