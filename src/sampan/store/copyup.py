"""Copy-up: an empty volume gets what the image has at the place where the volume is mounted, once and whole.

A volume is copied into under its lock. The copy is made beside the volume's content, as `.sampan-filling`; one rename to
`.sampan-filled` is the point from which it counts, and from there on it is moved into the volume entry by entry. Whoever is
killed before leaves a volume that is empty, whoever is killed after leaves one that the next user completes. The
volume's directory itself stays the one that it is: a running container may have it mounted.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import mount, namespaces, paths
from sampan.kernel.files import FileLock, lock_is_held, read_bounded, sync_filesystem, write_all
from sampan.kernel.libc import KernelError
from sampan.kernel.tree import copy_metadata, copy_tree, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from sampan.steps.trace import Trace
    from sampan.store.snapshots import RootMount

    T = TypeVar("T")

FILLING, FILLED = ".sampan-filling", ".sampan-filled"
_LOCK = ".copy.lock"
_TREE, _TOP, _SUBPATH = "tree", "top", "subpath"
"""What is in both: the content, an empty directory with the metadata of its top, where in the volume it belongs."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATIENCE = 600.0


def with_root(root: RootMount, function: Callable[[int], T]) -> T:
    """Call `function` with a descriptor of a new container's root file system, as its image has it, read-only."""
    if root.kind == "bind" or len(root.lower) == 1:
        fd = os.open(root.source or root.lower[0], _DIRECTORY)
        try:
            return function(fd)
        finally:
            os.close(fd)

    def joined() -> T:
        fd = mount.overlay(root.lower, attributes=mount.MOUNT_ATTR_RDONLY)
        try:
            return function(fd)
        finally:
            os.close(fd)

    # Nothing of this reaches the host's mount table; before Linux 6.7 the overlay is attached for a moment.
    return namespaces.in_private_mounts(joined)


class CopyUp:
    """Fills one volume. data: its directory. mounted: another file system is mounted there."""

    def __init__(self, data: str, mounted: bool, trace: Trace) -> None:
        self._data = data
        self._trace = trace
        self._lock_path = f"{os.path.dirname(data)}/{_LOCK}"
        # What is moved into the volume by renames has to be made on the volume's own file system.
        self._staging = data if mounted else os.path.dirname(data)

    def fill(self, source_fd: int, subpath: str = "") -> bool:
        """Copy the directory `source_fd` into the volume; False if there is something in it already.

        Content, owners, modes, xattrs, times, links, holes and device nodes are kept; the volume's own directory takes
        over the metadata too. Raises OSError (a full disk); the volume is empty then, and nothing is left.
        """
        with self._lock():
            self._finish_locked()
            if not self._is_empty(subpath):
                return False
            self._copy(source_fd, subpath)
            self._finish_locked()
        return True

    def finish(self) -> None:
        """Complete or remove what a killed process left. Costs two looks at the disk if there is nothing."""
        if any(os.path.lexists(f"{self._staging}/{name}") for name in (FILLING, FILLED)):
            with self._lock():
                self._finish_locked()

    def leftovers(self) -> list[str]:
        """What a killed process left, by this moment: the paths that `finish` would complete or remove."""
        found = [f"{self._staging}/{name}" for name in (FILLING, FILLED)]
        # In this order: whoever copies has the lock before anything is there, and until all of it is gone.
        found = [path for path in found if os.path.lexists(path)]
        if not found or lock_is_held(self._lock_path):
            return []
        return [path for path in found if os.path.lexists(path)]

    def _lock(self) -> FileLock:
        return FileLock.acquire(self._lock_path, _PATIENCE)

    def _is_empty(self, subpath: str) -> bool:
        fd = self._open(subpath)
        if fd is None:
            return False
        try:
            return not set(os.listdir(fd)) - {FILLING, FILLED}
        finally:
            os.close(fd)

    def _open(self, subpath: str) -> int | None:
        """The directory in the volume that is copied into; None if it is not there or none."""
        top = os.open(self._data, _DIRECTORY)
        try:
            return paths.open_in_root(top, subpath, os.O_RDONLY | os.O_DIRECTORY)
        except KernelError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        finally:
            os.close(top)

    def _copy(self, source_fd: int, subpath: str) -> None:
        filling = f"{self._staging}/{FILLING}"
        try:
            with self._trace.step("make directory", filling):
                os.mkdir(filling, 0o700)
                for name in (_TREE, _TOP):
                    os.mkdir(f"{filling}/{name}", 0o700)
            with self._trace.step("copy into volume", self._data):
                _write(f"{filling}/{_SUBPATH}", os.fsencode(subpath))
                tree = os.open(f"{filling}/{_TREE}", _DIRECTORY)
                try:
                    copy_tree(source_fd, tree)
                    _copy_metadata(source_fd, f"{filling}/{_TOP}")
                    # One syncfs instead of an fsync for each file: what is moved from here on counts.
                    sync_filesystem(tree)
                finally:
                    os.close(tree)
            with self._trace.step("rename", f"{filling} to {FILLED}"):
                os.rename(filling, f"{self._staging}/{FILLED}")
        except BaseException:
            self._delete(FILLING)
            raise

    def _finish_locked(self) -> None:
        self._delete(FILLING)
        filled = f"{self._staging}/{FILLED}"
        if not os.path.lexists(filled):
            return
        target = self._open(_read(f"{filled}/{_SUBPATH}"))
        if target is None:
            # Somebody has removed that directory from the volume.
            self._delete(FILLED)
            return
        top = os.open(f"{filled}/{_TOP}", _DIRECTORY)
        try:
            with self._trace.step("move into volume", self._data):
                _move(f"{filled}/{_TREE}", target)
                copy_metadata(top, target)
            self._delete(FILLED)
            # Again, for the times, if that was in the volume itself.
            copy_metadata(top, target)
        finally:
            os.close(top)
            os.close(target)

    def _delete(self, name: str) -> None:
        if os.path.lexists(f"{self._staging}/{name}"):
            with self._trace.step("delete tree", f"{self._staging}/{name}"):
                fd = os.open(self._staging, _DIRECTORY)
                try:
                    remove_tree(fd, name)
                finally:
                    os.close(fd)


def _move(source: str, target_fd: int) -> None:
    """Move the entries of a directory into another; what is there already stays (class CVE-2020-1726)."""
    fd = os.open(source, _DIRECTORY)
    try:
        for name in sorted(os.listdir(fd)):
            if not _is_there(target_fd, name):
                os.rename(name, name, src_dir_fd=fd, dst_dir_fd=target_fd)
    finally:
        os.close(fd)


def _copy_metadata(source_fd: int, target: str) -> None:
    fd = os.open(target, _DIRECTORY)
    try:
        copy_metadata(source_fd, fd)
    finally:
        os.close(fd)


def _is_there(fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fsdecode(read_bounded(fd, paths.PATH_MAX))
    finally:
        os.close(fd)
