"""How a container's changes are written into a layer: `.wh.NAME` for what was deleted, `.wh..wh..opq` for what hides.

OCI image-spec, layer.md, "Whiteouts". Only what lower layers really show is deleted: a mark over nothing would make two
layers of the same changes differ, and hide what an image that is put together otherwise has there.
"""

from __future__ import annotations

import stat

from sampan.kernel.files import is_opaque, is_whiteout
from sampan.store.archive import GONE, LEFT, OPAQUE, TAKEN, WHITEOUT
from sampan.store.changes import DELETED, Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from sampan.store.lower import LowerLayers


class OverlayForm:
    """For a directory that holds changes only, in the form that overlayfs writes: all of it is taken.

    The kernel's marks (a device 0:0, trusted.overlay.opaque) become the archive's.
    """

    def __init__(self, lower: LowerLayers) -> None:
        self._lower = lower

    def enter(self, fd: int, path: bytes, above: bool) -> tuple[bool, list[bytes]]:
        if not path:
            return False, []
        if above or not self._shows_directory(path):
            return True, []
        # The kernel marks new directories as well, where nothing is to hide.
        return (True, [OPAQUE]) if is_opaque(fd) else (False, [])

    def judge(self, path: bytes, status: os.stat_result, covered: bool) -> str:
        if not is_whiteout(status):
            return TAKEN
        return LEFT if covered or not self._shows(path) else GONE

    def _shows(self, path: bytes) -> bool:
        found = self._lower.find(path)
        if found is None:
            return False
        found.close()
        return True

    def _shows_directory(self, path: bytes) -> bool:
        found = self._lower.find(path)
        if found is None:
            return False
        with found:
            return found.is_directory


class WholeForm:
    """For a copy of everything, of which the changes are known: those are taken, with the directories above them."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self._taken: set[bytes] = set()
        self._deleted: dict[bytes, list[bytes]] = {}
        for change in changes:
            if change.kind == DELETED:
                parent, _, name = change.path.rpartition(b"/")
                self._deleted.setdefault(parent, []).append(WHITEOUT + name)
            else:
                self._taken.add(change.path)

    def enter(self, fd: int, path: bytes, above: bool) -> tuple[bool, list[bytes]]:
        return False, sorted(self._deleted.get(path, ()))

    def judge(self, path: bytes, status: os.stat_result, covered: bool) -> str:
        # A device 0:0 says in every layer that the name is gone, whatever it was meant for (see `extract`).
        if path not in self._taken or (stat.S_ISCHR(status.st_mode) and not status.st_rdev):
            return LEFT
        return TAKEN
