"""Whole directory trees: removed, copied, measured, without recursion, links followed or many descriptors.

A container can make a tree of any depth (each level by a relative mkdir), deeper than a path or Python's stack
can be. So a tree is walked by descriptors, one component at a time, and only the newest few stay open.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel.files import by_descriptor, copy_file, get_xattrs, is_whiteout
from sampan.kernel.libc import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


class Descent:
    """A position in a directory tree. `enter` and `leave` move it; 32 levels at most are open at a time.

    A level whose descriptor was given up is found again by ".." and must be the directory that it was
    (ESTALE otherwise: somebody moved a directory that we are in).
    """

    _OPEN = 32

    __slots__ = ("_identities", "_names", "_open")

    def __init__(self, top_fd: int) -> None:
        """`top_fd` is taken over: it is closed by `close()`."""
        self._open = [top_fd]  # The newest levels, the present one last.
        self._names: list[str] = []  # The way from the top to the present level.
        self._identities: list[tuple[int, int]] = []  # (device, inode) of the levels that are not open, top first.

    @property
    def fd(self) -> int:
        """The present directory."""
        return self._open[-1]

    def enter(self, name: str) -> None:
        """Go down. Raises OSError if `name` is no directory of the present one (a link to one is none)."""
        self._open.append(os.open(name, _DIRECTORY, dir_fd=self.fd))
        self._names.append(name)
        if len(self._open) > self._OPEN:
            status = os.fstat(self._open[0])
            self._identities.append((status.st_dev, status.st_ino))
            os.close(self._open.pop(0))

    def leave(self) -> str:
        """Go up; return the name of the directory that was left."""
        if len(self._open) == 1:
            parent = os.open("..", _DIRECTORY, dir_fd=self.fd)
            self._open.insert(0, parent)
            status = os.fstat(parent)
            if (status.st_dev, status.st_ino) != self._identities.pop():
                raise KernelError(errno.ESTALE, "openat", self._names[-1])
        os.close(self._open.pop())
        return self._names.pop()

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())


def walk(descent: Descent, visit: Callable[[int], list[str]], done: Callable[[int, str], None] | None = None) -> None:
    """Visit every directory of a tree, parents first.

    `visit(fd)` deals with a directory's entries and returns those to be descended into; `done(parent_fd, name)` is
    called when all below a directory has been visited. A directory that vanished meanwhile is passed over.
    """
    pending = [visit(descent.fd)]
    while True:
        if pending[-1]:
            name = pending[-1].pop()
            try:
                descent.enter(name)
            except FileNotFoundError:
                continue
            pending.append(visit(descent.fd))
            continue
        pending.pop()
        if not pending:
            return
        name = descent.leave()
        if done is not None:
            done(descent.fd, name)


# Removing


def remove_tree(dir_fd: int, name: str | bytes) -> None:
    """Remove `name` of the directory `dir_fd` with all that is below it; nothing if it is not there.

    Two processes may do it at once, and one may go on where another was killed. Raises OSError (EBUSY for a
    mount point, EPERM for an immutable file).
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except IsADirectoryError:
        pass
    try:
        descent = Descent(os.open(name, _DIRECTORY, dir_fd=dir_fd))
    except FileNotFoundError:
        return
    try:
        walk(descent, _remove_entries, _remove_directory)
    finally:
        descent.close()
    _remove_directory(dir_fd, name)


def _remove_entries(fd: int) -> list[str]:
    """Remove everything in a directory but the sub-directories that something is in; return those."""
    directories: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    # One call instead of ten for an empty one, as are most of what a container leaves.
                    os.rmdir(entry.name, dir_fd=fd)
                else:
                    os.unlink(entry.name, dir_fd=fd)
            except FileNotFoundError:
                pass  # Another process removes the same tree.
            except OSError:
                if not entry.is_dir(follow_symlinks=False):
                    raise
                directories.append(entry.name)  # why it cannot be removed is told when it is empty
    return directories


def _remove_directory(dir_fd: int, name: str | bytes) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


# Measuring


def disk_usage(dir_fd: int, name: str | bytes) -> int:
    """Bytes of the files below a directory, as Docker counts them: sizes of all but directories, hard links once."""
    total = 0
    seen: set[tuple[int, int]] = set()

    def measure(fd: int) -> list[str]:
        nonlocal total
        directories: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    directories.append(entry.name)
                    continue
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_size
        return directories

    descent = Descent(os.open(name, _DIRECTORY, dir_fd=dir_fd))
    try:
        walk(descent, measure)
    finally:
        descent.close()
    return total


def disk_blocks(path: str, seen: set[tuple[int, int]] | None = None) -> int:
    """Bytes that a file or a tree takes of its disk, as du(1) counts: blocks, also of directories, hard links once.

    What is mounted in the tree does not count. `seen`: the files with several names that were counted before, and are now.
    0 if there is nothing (any more). `path` is of our own making: links on the way to it are followed.
    """
    seen = set() if seen is None else seen
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return _blocks(status, seen)
        descent = Descent(os.open(path, _DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    total, device = _blocks(status, seen), status.st_dev

    def measure(fd: int) -> list[str]:
        nonlocal total
        directories: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if status.st_dev != device:
                    continue  # A mount point: what it hides is out of reach.
                total += _blocks(status, seen)
                if stat.S_ISDIR(status.st_mode):
                    directories.append(entry.name)
        return directories

    try:
        walk(descent, measure)
    finally:
        descent.close()
    return total


def _blocks(status: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            return 0
        seen.add(identity)
    return status.st_blocks * 512  # stat(2): whatever the file system's own blocks are


# Copying


def copy_tree(source_fd: int, target_fd: int) -> None:
    """Copy all that is in one directory into another, empty one, and the directory's own metadata.

    Owners, modes, times, xattrs, holes and hard links within the tree are kept; data is shared where the file
    system can. Raises OSError; what was copied until then stays.
    """
    links: dict[tuple[int, int], str] = {}
    here = ""  # The path of the directory that is visited, relative to the top.
    target = Descent(os.dup(target_fd))
    source = Descent(os.dup(source_fd))
    try:
        pending = [_copy_entries(source_fd, target_fd, target_fd, here, links)]
        paths = [here]
        while True:
            if pending[-1]:
                name = pending[-1].pop()
                source.enter(name)
                target.enter(name)
                here = f"{paths[-1]}{name}/"
                pending.append(_copy_entries(source.fd, target.fd, target_fd, here, links))
                paths.append(here)
                continue
            # Nothing is written into a directory once its entries and its sub-directories are made.
            copy_metadata(source.fd, target.fd)
            pending.pop()
            paths.pop()
            if not pending:
                return
            source.leave()
            target.leave()
    finally:
        source.close()
        target.close()


def _copy_entries(source: int, target: int, top: int, here: str, links: dict[tuple[int, int], str]) -> list[str]:
    """Copy a directory's files and make its sub-directories, still empty; return those."""
    directories: list[str] = []
    with os.scandir(source) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(entry.name, 0o700, dir_fd=target)
                directories.append(entry.name)
                continue
            identity = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and identity in links:
                os.link(links[identity], entry.name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
                continue
            copy_node(source, entry.name, target, entry.name, status)
            if status.st_nlink > 1:
                links[identity] = here + entry.name
    return directories


def copy_node(
    source_fd: int, source_name: str | bytes, target_fd: int, target_name: str | bytes, status: os.stat_result
) -> None:
    """Copy anything but a directory, with its metadata. `status` is the source's. Raises FileExistsError."""
    if stat.S_ISREG(status.st_mode):
        _copy_regular(source_fd, source_name, target_fd, target_name, status)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(os.fsencode(source_name), dir_fd=source_fd), target_name, dir_fd=target_fd)
    else:
        os.mknod(target_name, status.st_mode, status.st_rdev, dir_fd=target_fd)
    os.chown(target_name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target_name, stat.S_IMODE(status.st_mode), dir_fd=target_fd)
    if not is_whiteout(status):
        attributes = get_xattrs(by_descriptor(source_fd, source_name), follow_symlinks=False)
        set_xattrs(by_descriptor(target_fd, target_name), attributes)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(target_name, ns=times, dir_fd=target_fd, follow_symlinks=False)


def _copy_regular(
    source_fd: int, source_name: str | bytes, target_fd: int, target_name: str | bytes, status: os.stat_result
) -> None:
    source = os.open(source_name, _FILE, dir_fd=source_fd)
    try:
        target = os.open(target_name, _NEW_FILE, 0o600, dir_fd=target_fd)
        try:
            copy_file(source, target, status.st_size)
            copy_metadata(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def copy_metadata(source_fd: int, target_fd: int) -> None:
    """Give an open file or directory another one's owner, mode, xattrs (overlayfs' own excepted) and times."""
    status = os.fstat(source_fd)
    # The order matters: chown clears set-id bits and capabilities, and all of it changes the times.
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    set_xattrs(target_fd, get_xattrs(source_fd))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def set_xattrs(target: int | bytes, attributes: dict[str, bytes]) -> None:
    """Set xattrs of a descriptor, or of a path without following it; those of overlayfs itself never.

    What the file system or the process' privileges do not allow is left out, as Docker does. Raises OSError.
    """
    for name, value in attributes.items():
        if name.startswith(_OVERLAY_XATTRS):
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
