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
    entries = steps_of(image)
    layers = list(image.layers)
    # Older layers that the image says nothing of, for nobody has to; they are there all the same.
    unknown = unexplained(image)
    found = [_item({}, layer, snapshots) for layer in layers[:unknown]]
    rest = iter(layers[unknown:])
    found += [_item(step, None if step.get("empty_layer") else next(rest, None), snapshots) for step in entries]
    for image_id, count, names in ((image.id, len(found), tags), *parents):
        if 0 < count <= len(found):
            found[count - 1] |= {"Id": image_id, "Tags": list(names) or None}
    return found[::-1]


def steps_of(image: Image) -> list[dict[str, Any]]:
    """What an image says of its making, oldest first."""
    entries = image.document.get("history")
    return [step for step in entries if isinstance(step, dict)] if isinstance(entries, list) else []


def unexplained(image: Image) -> int:
    """How many of its layers an image has no step for."""
    return max(0, len(image.layers) - sum(not step.get("empty_layer") for step in steps_of(image)))


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
