"""`GET /system/df` by the version that a client speaks."""

from __future__ import annotations

from sampan.api.imageview import summary
from sampan.api.volumeview import volume
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


TYPES = ("container", "image", "volume", "build-cache")
_OURS = frozenset(("DiskSize", "Key", "SharedDiskSize"))
"""Members that are not Docker's: what the disk is really taken by (docs/disk.md)."""


def wanted(types: Sequence[str], version: tuple[int, int]) -> frozenset[str]:
    """What is asked for. Raises InvalidParameter for what is no type of objects."""
    if version < (1, 42) or not types:
        return frozenset(TYPES)
    for one in types:
        if one not in TYPES:
            raise InvalidParameter(f"unknown object type: {one}")
    return frozenset(types)


def usage(
    found: Mapping[str, Any],
    types: frozenset[str],
    version: tuple[int, int],
    container: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """What the engine counted. What was not asked for is null, as Docker has it. container: an item of a listing as it is shown."""
    shown: dict[str, Any] = {
        "LayersSize": found["LayersSize"] if "image" in types else 0,
        "Images": [summary(item, version) for item in found["Images"]] if "image" in types else None,
        "Containers": [container(_dockers(item)) for item in found["Containers"]] if "container" in types else None,
        "Volumes": [volume(_dockers(item), version) for item in found["Volumes"]] if "volume" in types else None,
        "BuildCache": [_cached(item, version) for item in found["BuildCache"]] if "build-cache" in types else None,
    }
    if version < (1, 42):
        shown["BuilderSize"] = 0
    return shown


def _cached(item: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """One step of builds. Before 1.42 it had one parent."""
    shown = _dockers(item)
    if version < (1, 42):
        parents = shown.pop("Parents")
        shown["Parent"] = parents[0] if parents else ""
    return shown


def _dockers(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in _OURS}
