"""What the parts of a store take of the disk, as `du` counts: blocks, also of directories, hard links once.

    images       content/, layers/ and images/: packed and unpacked
    containers   containers/ID, with the log, snapshots/ID and names/NAME
    volumes      volumes/NAME

The directories of the store itself, its locks and the journal of events belong to nobody and are not counted.
"""

from __future__ import annotations

import os

from sampan.kernel.tree import disk_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.store.layout import Layout
    from sampan.store.record import Record


class Space:
    """Looks at the disk whenever it is asked. Bytes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def container(self, record: Record) -> int:
        """What is free again when the container is removed; its layers and its volumes are not in it."""
        layout, links = self._layout, set[tuple[int, int]]()
        places = [f"{layout.containers}/{record.id}", f"{layout.snapshots}/{record.id}"]
        if record.name and not record.broken:
            places.append(layout.name(record.name))
        return sum(disk_blocks(place, links) for place in places)

    def images(self) -> int:
        """Everything that images take."""
        layout = self._layout
        return self._below(layout.blobs, layout.ingest, layout.layers, layout.images)

    def containers(self) -> int:
        """Everything that containers take."""
        layout = self._layout
        return self._below(layout.containers, layout.snapshots, layout.names)

    def volumes(self) -> int:
        """Everything that volumes take."""
        # Besides them there is what remembers which of them are mounted.
        return self._below(self._layout.volumes) - disk_blocks(self._layout.mounted_volumes)

    @staticmethod
    def _below(*directories: str) -> int:
        links: set[tuple[int, int]] = set()
        return sum(disk_blocks(path, links) for directory in directories for path in _entries(directory))


def _entries(directory: str) -> Iterable[str]:
    return [f"{directory}/{name}" for name in os.listdir(directory)]
