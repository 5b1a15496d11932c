"""What every container finds below its own changes and above the image: mount points and Docker's small files.

In a layer of its own, so that no commit takes it. The image decides what /etc or /dev are, and may have made
them links to anywhere: like Docker's, this replaces every component that is no directory by one, and follows
nothing. It is written without a mount, so it needs neither overlayfs nor a mount namespace.
"""

from __future__ import annotations

import os
import stat
import time

from sampan.kernel.files import is_opaque
from sampan.store.layertree import LayerTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.store.layertree import Directory
    from sampan.store.lower import LowerLayers

_DIRECTORIES = (b"dev/pts", b"dev/shm", b"proc", b"sys")
_FILES = (b".dockerenv", b"dev/console", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")
_LINKS = ((b"etc/mtab", b"/proc/mounts"),)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_init_layer(root_fd: int, lower: LowerLayers | None) -> None:
    """Write it into `root_fd`: a layer of its own above `lower`, or without `lower` a whole root file system."""
    now = time.time_ns()
    tree = LayerTree(root_fd, lower)
    try:
        for path in _DIRECTORIES:
            tree.claim(path, now)
        for path in _FILES:
            _put(tree, path, None, now)
        for path, target in _LINKS:
            _put(tree, path, target, now)
        tree.close()
    except BaseException:
        tree.abandon()
        raise


_CHANGED = frozenset(_FILES) | frozenset(path for path, _ in _LINKS)
_MADE = frozenset(_DIRECTORIES) | frozenset((b"dev", b"etc"))


_TOPS = frozenset(path.split(b"/")[0] for path in (*_CHANGED, *_MADE))


def is_below_init_layer(root_fd: int) -> bool:
    """Whether a layer in overlay form has a say in what the init layer above it is. Raises OSError."""
    if is_opaque(root_fd):
        return True
    for name in _TOPS:
        try:
            os.stat(name, dir_fd=root_fd, follow_symlinks=False)  # A whiteout is there as well.
        except FileNotFoundError:
            continue
        return True
    return False


def is_of_init_layer(dir_fd: int, path: bytes, name: bytes) -> bool:
    """Whether a path in a whole root file system is as this put it there: `name` in the directory `dir_fd`."""
    if path not in _CHANGED and path not in _MADE:
        return False
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if path in _MADE:
        return stat.S_ISDIR(status.st_mode) and status.st_mode & 0o7777 == 0o755 and status.st_uid == status.st_gid == 0
    for link, target in _LINKS:
        if path == link:
            return stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=dir_fd) == target
    return stat.S_ISREG(status.st_mode) and not status.st_size and status.st_mode & 0o7777 == 0o755


def _put(tree: LayerTree, path: bytes, target: bytes | None, now: int) -> None:
    """An empty file or a link in the place of whatever is there, a directory excepted (Docker leaves that)."""
    parent_path, _, name = path.rpartition(b"/")
    parent = tree.claim(parent_path, now)
    if _is_directory(tree, parent, name):
        return
    tree.remove(parent, name)
    if target is not None:
        os.symlink(target, name, dir_fd=parent.fd)
        os.chown(name, 0, 0, dir_fd=parent.fd, follow_symlinks=False)
        return
    fd = os.open(name, _NEW_FILE, 0o755, dir_fd=parent.fd)
    try:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, 0o755)  # As Docker has them.
    finally:
        os.close(fd)


def _is_directory(tree: LayerTree, parent: Directory, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        found = tree.shown_below(parent, name)
    if found is None:
        return False
    with found:
        return found.is_directory
