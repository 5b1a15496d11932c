"""A container's mount points: what was asked for with -v, --mount, --tmpfs, VOLUME and --volumes-from, resolved.

They are made when the container is, are part of its record, and say all that a start needs and inspect shows. Which
containers use a volume, or an image by --mount, follows from them.
"""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

BIND, VOLUME, TMPFS, IMAGE = "bind", "volume", "tmpfs", "image"

RECURSIVE, NOT_RECURSIVE, FORCED = "", "no", "forced"
"""How read-only reaches the mounts below a bind: where the kernel can, not at all, or the start fails."""


class MountPoint(Struct):
    """One mount of a container.

    type: `BIND`, `VOLUME`, `TMPFS` or `IMAGE`. destination: absolute and clean. source: a host's path for a bind; a volume's
    directory; the id of an image. name: a volume's, or an image as it was asked for. driver: a volume's. mode: the words
    behind -v's second colon. propagation: "" for what Docker takes by default.

    Only a start needs these. subpath: below the volume or image. recursive: a bind takes the mounts below its source along.
    read_only: `RECURSIVE`, `NOT_RECURSIVE` or `FORCED`, for a mount that is not `rw`. create_source: a bind's missing
    source is made. match_user: the uid and gid that this maps from (whose files the container's user is to own), none
    for a mount without it. options: a tmpfs' words. layers: an image's chain ids, bottom first.
    anonymous: a volume that was asked for without a name, and goes with the container that is removed with its volumes
    (a --volumes-from container's mount keeps this: whoever is removed last takes it along).
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    subpath: str = ""
    recursive: bool = True
    read_only: str = RECURSIVE
    create_source: bool = False
    match_user: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    anonymous: bool = False

    def shown(self) -> dict[str, Any]:
        """As an item of "Mounts" in `GET /containers/{id}/json`; Go leaves out an empty Name and Driver."""
        shown: dict[str, Any] = {"Type": self.type}
        if self.name:
            shown["Name"] = self.name
        shown |= {"Source": self.source, "Destination": self.destination}
        if self.driver:
            shown["Driver"] = self.driver
        return shown | {"Mode": self.mode, "RW": self.rw, "Propagation": self.propagation}


def mount_points(entries: Iterable[Mapping[str, Any]]) -> tuple[MountPoint, ...]:
    """The mount points of a record's JSON. Raises TypeError for a field that is not known."""
    points = []
    for entry in entries:
        lists = {field: tuple(entry.get(field) or ()) for field in ("match_user", "options", "layers")}
        points.append(MountPoint(**{**entry, **lists}))
    return tuple(points)
