"""What a container has changed: `diff`, from its writable layer alone and the same names in the layers below.

The rules are those of `docker diff` (moby, pkg/archive, ChangesDirs): a directory above a change is changed, a new one
brings all that is in it, one that is gone is told by its own name only. The modification time of a directory and
xattrs other than capabilities say nothing.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel.files import is_opaque, is_whiteout
from sampan.kernel.tree import Descent
from sampan.store.lower import capability
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sampan.store.lower import LowerDirectory

    class Lower(Protocol):
        """What is compared with; see `lower.LowerLayers`."""

        def directory(self, path: bytes) -> LowerDirectory | None: ...


MODIFIED, ADDED, DELETED = 0, 1, 2
"""The kinds of changes as Docker's API numbers them."""


class Change(Struct):
    """One changed name. `path` is relative to the root; `kind` is one of the three."""

    path: bytes
    kind: int


def find_changes(
    top_fd: int, lower: Lower, whole: bool = False, untouched: Callable[[int, bytes, bytes], bool] | None = None
) -> list[Change]:
    """The changes of a writable part against the layers below it: each directory before what is in it, names sorted.

    The directory `top_fd` is one in overlay form; `whole` says that it is a copy of everything instead, in which a name
    that is not there is a deleted one. `untouched(directory, path, name)` is asked for what lower layers do not have so:
    whether it is no change all the same. What appears or vanishes meanwhile is told or not. Raises
    OSError.
    """
    return _Comparison(lower, whole, untouched).run(top_fd)


class _Comparison:
    def __init__(self, lower: Lower, whole: bool, untouched: Callable[[int, bytes, bytes], bool] | None) -> None:
        self._lower = lower
        self._whole = whole
        self._untouched = untouched
        self._kinds: dict[bytes, int] = {}

    def run(self, top_fd: int) -> list[Change]:
        descent = Descent(os.dup(top_fd))
        try:
            pending = [self._visit(descent.fd, b"", True)]
            while pending:
                if not pending[-1]:
                    pending.pop()
                    if pending:
                        descent.leave()
                    continue
                name, path, has_lower = pending[-1].pop()
                try:
                    descent.enter(os.fsdecode(name))
                except OSError as e:
                    if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        raise
                    continue  # Removed or replaced since it was listed.
                pending.append(self._visit(descent.fd, path, has_lower))
        finally:
            descent.close()
        # By components, so that "a/b" comes before "a-b": what is in a directory stays together.
        ordered = sorted(self._kinds.items(), key=lambda item: item[0].split(b"/"))
        return [Change(path, kind) for path, kind in ordered]

    def _visit(self, fd: int, path: bytes, has_lower: bool) -> list[tuple[bytes, bytes, bool]]:
        """Compare what is in a directory; its sub-directories: name, path, whether lower layers have one there."""
        lower = self._lower.directory(path) if has_lower else None
        try:
            return self._compare(fd, path, lower)
        finally:
            if lower is not None:
                lower.close()

    def _compare(self, fd: int, path: bytes, lower: LowerDirectory | None) -> list[tuple[bytes, bytes, bool]]:
        prefix = path + b"/" if path else b""
        names = [os.fsencode(name) for name in os.listdir(fd)]
        directories: list[tuple[bytes, bytes, bool]] = []
        for name in names:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            child = prefix + name
            old = lower.find(name) if lower is not None else None
            if is_whiteout(status):
                if old is not None:
                    self._add(child, DELETED)
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            kind = self._kind(lower, fd, name, old, status)
            if kind is not None and not (old is not None and is_directory) and self._stands(fd, child, name):
                kind = None
            if kind is not None:
                self._add(child, kind)
            if is_directory:
                directories.append((name, child, old is not None and stat.S_ISDIR(old.st_mode)))
        if lower is not None and (self._whole or is_opaque(fd)):
            for name in set(lower.names()).difference(names):
                self._add(prefix + name, DELETED)
        return directories

    def _kind(
        self, lower: LowerDirectory | None, fd: int, name: bytes, old: os.stat_result | None, new: os.stat_result
    ) -> int | None:
        if lower is None or old is None:
            return ADDED
        changed = _differs(old, new) or lower.capability(name) != capability(fd, name, new)
        return MODIFIED if changed else None

    def _stands(self, fd: int, path: bytes, name: bytes) -> bool:
        return self._untouched is not None and self._untouched(fd, path, name)

    def _add(self, path: bytes, kind: int) -> None:
        self._kinds[path] = kind
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            if path in self._kinds:
                return
            self._kinds[path] = MODIFIED


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return old.st_size != new.st_size or not _same_time(old.st_mtime_ns, new.st_mtime_ns)


def _same_time(one: int, other: int) -> bool:
    """Archives may hold whole seconds only: of such a time the fraction is unknown (moby, sameFsTime)."""
    if one == other:
        return True
    seconds, fraction = divmod(one, 1_000_000_000)
    other_seconds, other_fraction = divmod(other, 1_000_000_000)
    return seconds == other_seconds and not (fraction and other_fraction)
