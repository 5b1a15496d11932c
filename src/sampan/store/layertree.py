"""The directories of a tree that a layer is being unpacked into: found by name, made when missing, kept open.

Every name in it was chosen by whoever made the layer. So no path is ever handed to the kernel: directories are
entered one component at a time, each below the descriptor of the one before and with O_NOFOLLOW; a symbolic link
is read and its target walked in the same way, from the root if it is absolute; ".." goes back to a directory
that we came through and never above the root. There is nothing to escape through, also if links are
exchanged for directories between two entries.

With lower layers (overlay form) the walk sees what a process would see in the joined file system: a directory
or link on the way that only a lower layer has is copied up, so that /lib -> usr/lib of the base image is
followed when a later layer holds lib/x and nothing else of lib.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel.files import is_opaque, is_whiteout, set_opaque
from sampan.kernel.libc import KernelError
from sampan.kernel.paths import PATH_MAX
from sampan.kernel.tree import copy_metadata, copy_node, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.store.lower import Found, LowerLayers

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = 64  # Archives are in the order of their directories; more would be descriptors for nothing.
_LINKS = 40  # As many as the kernel follows in one path.


class Directory:
    """An open directory of the tree.

    `path` is its place below the root, without links. `times` (atime, mtime in ns) are what it shall have in the
    end: entries made in it change them, and they are set when it is closed. `covered`: nothing of the lower
    layers shows in it.
    """

    __slots__ = ("covered", "fd", "path", "times")

    def __init__(self, fd: int, path: bytes, times: tuple[int, int], covered: bool) -> None:
        self.fd = fd
        self.path = path
        self.times = times
        self.covered = covered

    def child(self, name: bytes) -> bytes:
        """The path of an entry. Raises OSError ENAMETOOLONG where no path of a container could name it."""
        path = self.path + b"/" + name if self.path else name
        if len(path) >= PATH_MAX:
            raise KernelError(errno.ENAMETOOLONG, "open")
        return path

    def close(self) -> None:
        os.utime(self.fd, ns=self.times)
        self.abandon()

    def abandon(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class LayerTree:
    """Directories below `root_fd`, which stays the caller's.

    `lower` is given for a tree in overlay form that has layers below it. `whole` is for a tree that already holds a
    copy of everything below: then `own` collects the inode numbers of what this layer brought.
    """

    def __init__(self, root_fd: int, lower: LowerLayers | None = None, whole: bool = False) -> None:
        self._lower = lower
        self.own: set[int] | None = set() if whole else None
        self.root = self._opened(os.dup(root_fd), b"", covered=lower is None)
        self._directories: dict[bytes, Directory] = {}  # By path; the least recently used one is first.
        self._links: dict[bytes, bytes] = {}  # Paths that lead through links -> the paths that they lead to.

    def close(self) -> None:
        """Give every directory its times. To be called once, when the layer is complete."""
        while self._directories:
            self._directories.popitem()[1].close()
        self.root.close()

    def abandon(self) -> None:
        """Close the descriptors of a tree that is given up, also when `close` failed half way."""
        while self._directories:
            self._directories.popitem()[1].abandon()
        self.root.abandon()

    # Finding

    def directory(self, path: bytes, mtime_ns: int) -> Directory:
        """The directory that a relative path without ".." leads to; what is missing is made, dated `mtime_ns`.

        The result is valid until the tree is asked for the next one. Raises OSError: ENOTDIR where this layer has
        something else on the way, ELOOP, ENAMETOOLONG.
        """
        if not path:
            return self.root
        real = self._links.get(path, path)
        found = self._directories.pop(real, None)
        if found is not None:
            self._directories[real] = found
            return found
        return self._walk(path, mtime_ns)

    def claim(self, path: bytes, mtime_ns: int) -> Directory:
        """The directory at a path, no links followed: what is there and is no directory is replaced by one."""
        here = self.root
        for name in path.split(b"/") if path else []:
            try:
                here = self.enter(here, name)
                continue
            except FileNotFoundError:
                self._make_like_lower(here, name, mtime_ns)
            except OSError as e:
                if e.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                self.replace_by_directory(here, name)
                self._date(here, name, mtime_ns)
            here = self.enter(here, name)
        return here

    def _make_like_lower(self, here: Directory, name: bytes, mtime_ns: int) -> None:
        """A directory as the lower layers have it, or a plain one where they have something else or nothing."""
        found = self.shown_below(here, name)
        if found is not None:
            with found:
                if found.is_directory:
                    self._copy_directory(found, here, name)
                    return
        self.make_directory(here, name)
        self._date(here, name, mtime_ns)

    def _walk(self, path: bytes, mtime_ns: int) -> Directory:
        here = self.root
        pending = path.split(b"/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":  # From a link's target; `here.path` has no links, so its text tells the parent.
                here = self.directory(here.path.rpartition(b"/")[0], mtime_ns)
                continue
            target = self._step(here, name, mtime_ns)
            if isinstance(target, Directory):
                here = target
                continue
            links += 1
            if links > _LINKS:
                raise KernelError(errno.ELOOP, "open")
            if target.startswith(b"/"):
                here = self.root
            pending += target.split(b"/")[::-1]
        if here.path != path:
            self._links[path] = here.path
            if len(self._links) > _OPEN:
                self._links.clear()
        return here

    def _step(self, here: Directory, name: bytes, mtime_ns: int) -> Directory | bytes:
        """The sub-directory `name`, or the target of the link that it is."""
        try:
            return self.enter(here, name)
        except FileNotFoundError:
            self._imply(here, name, mtime_ns)
        except OSError as e:
            if e.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            if self.own is not None:
                self.own.add(status.st_ino)  # In overlay form it would be copied up now.
            return os.readlink(name, dir_fd=here.fd)
        if not stat.S_ISDIR(status.st_mode):
            if not self._is_lower(status):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self.replace_by_directory(here, name)
            self._date(here, name, mtime_ns)
        return self.enter(here, name)

    def enter(self, parent: Directory, name: bytes) -> Directory:
        """Open a sub-directory. Raises OSError: ENOENT, or ENOTDIR or ELOOP where it is something else."""
        path = parent.child(name)
        known = self._directories.pop(path, None)
        if known is not None:
            self._directories[path] = known
            return known
        opened = self._opened(os.open(name, _DIRECTORY, dir_fd=parent.fd), path, covered=True)
        self._directories[path] = opened
        opened.covered = parent.covered or is_opaque(opened.fd)
        if len(self._directories) > _OPEN:
            oldest = next(iter(self._directories))
            self._directories.pop(oldest).close()
        return opened

    def _opened(self, fd: int, path: bytes, covered: bool) -> Directory:
        status = os.fstat(fd)
        if self.own is not None:
            self.own.add(status.st_ino)
        return Directory(fd, path, (status.st_atime_ns, status.st_mtime_ns), covered)

    # Making and removing

    def _imply(self, here: Directory, name: bytes, mtime_ns: int) -> None:
        """Make what the layer names only on the way to something else: a directory or link as lower layers have it."""
        found = self.shown_below(here, name)
        if found is not None:
            with found:
                if stat.S_ISLNK(found.status.st_mode):
                    copy_node(found.dir_fd, found.name, here.fd, name, found.status)
                    return
        self._make_like_lower(here, name, mtime_ns)

    def _date(self, here: Directory, name: bytes, mtime_ns: int) -> None:
        """Finish a directory of which nothing is known but that it must be there."""
        fd = os.open(name, _DIRECTORY, dir_fd=here.fd)
        try:
            os.fchmod(fd, 0o755)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)

    def make_directory(self, parent: Directory, name: bytes) -> None:
        """mkdir(2), as root's and closed to others until it gets its mode."""
        os.mkdir(name, 0o700, dir_fd=parent.fd)
        # A parent with the set-group-ID bit would hand on its group.
        os.chown(name, 0, 0, dir_fd=parent.fd, follow_symlinks=False)

    def _copy_directory(self, found: Found, here: Directory, name: bytes) -> None:
        self.make_directory(here, name)
        source = found.open_directory()
        try:
            target = os.open(name, _DIRECTORY, dir_fd=here.fd)
            try:
                copy_metadata(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def remove(self, parent: Directory, name: bytes) -> None:
        """Remove what the tree has at a name, if anything, and forget what was found through it."""
        path = parent.child(name)
        self._links.clear()
        for known in [p for p in self._directories if p == path or p.startswith(path + b"/")]:
            self._directories.pop(known).abandon()
        remove_tree(parent.fd, name)

    def replace_by_directory(self, parent: Directory, name: bytes) -> None:
        """Put a new directory in the place of something else that the tree has.

        What this layer itself replaced or deleted is not there any more for what comes after: where a lower
        layer has a directory of that name, the new one must hide it.
        """
        self.remove(parent, name)
        self.make_directory(parent, name)
        self._cover_new(parent, name)

    def _cover_new(self, parent: Directory, name: bytes) -> None:
        found = self.shown_below(parent, name)
        if found is None:
            return
        with found:
            if not found.is_directory:
                return
        fd = os.open(name, _DIRECTORY, dir_fd=parent.fd)
        try:
            set_opaque(fd)
        finally:
            os.close(fd)

    # Lower layers

    def shown_below(self, parent: Directory, name: bytes) -> Found | None:
        """What the lower layers show at a name, whatever this one has there. To be closed."""
        if self._lower is None or parent.covered:
            return None
        return self._lower.find(parent.child(name))

    def _is_lower(self, status: os.stat_result) -> bool:
        """Whether something that the tree has is what lower layers left there: a whiteout, or in a whole tree a copy."""
        if self.own is not None:
            return status.st_ino not in self.own
        return is_whiteout(status)

    def forget(self, below: Directory) -> None:
        """Close what is open below a directory, after something was changed there past this object."""
        for known in [p for p in self._directories if not below.path or p.startswith(below.path + b"/")]:
            self._directories.pop(known).close()
