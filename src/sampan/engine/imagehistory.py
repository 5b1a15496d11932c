"""`history`: how an image came about, as `GET /images/{name}/history` has it."""

from __future__ import annotations

from sampan.engine import times
from sampan.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.engine.images import Image, Snapshotter

MISSING = "<missing>"
"""The id of a step that is no image here."""


def history(
    image: Image, tags: Sequence[str], parents: Sequence[tuple[str, int, Sequence[str]]], snapshots: Snapshotter
) -> list[dict[str, Any]]:
    """The steps, newest first. `parents`: the images below that are known: id, steps in their history, tags."""
    entries = image.document.get("history")
    steps = [step for step in entries if isinstance(step, dict)] if isinstance(entries, list) else []
    layers = iter(image.layers)
    found = [_item(step, None if step.get("empty_layer") else next(layers, None), snapshots) for step in steps]
    # An image need not say how it was made; its layers are there all the same.
    found += [_item({}, layer, snapshots) for layer in layers]
    for image_id, count, names in ((image.id, len(found), tags), *parents):
        if 0 < count <= len(found):
            found[count - 1] |= {"Id": image_id, "Tags": list(names) or None}
    return found[::-1]


def _item(step: Mapping[str, Any], layer: str | None, snapshots: Snapshotter) -> dict[str, Any]:
    size = 0
    if layer is not None:
        try:
            size = snapshots.info(layer).size
        except NotFound:
            pass  # Not unpacked.
    return {
        "Id": MISSING,
        "Created": times.seconds(str(step.get("created") or "")),
        "CreatedBy": str(step.get("created_by") or ""),
        "Tags": None,
        "Size": size,
        "Comment": str(step.get("comment") or ""),
    }
