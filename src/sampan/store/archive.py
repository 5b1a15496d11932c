"""A directory tree becomes a tar archive: a container's root for `export`, its changes for `commit`.

The tree may be changed while it is read, by whoever is in the container. So it is walked by descriptors, one component
at a time; no link is followed; what vanished is left out, a file that grew ends where it ended when it was opened, and
one that shrank is filled up with zeros. The same tree gives the same bytes: names are sorted, hard links go to the
first of their names. Sockets are left out, as in Docker: they mean nothing without the process that listens.

What an archive can hold of a file is what Docker puts there: owner, mode, times, user.* xattrs and file capabilities.
user.overlay.* is left out, for no layer may have it (see `extract`); trusted.* and the rest say something about this
machine only. Docker cuts times to seconds with its own image store and keeps the nanoseconds with containerd's: we keep them.
"""

from __future__ import annotations

import array
import errno
import os
import stat

from sampan.kernel.libc import KernelError
from sampan.kernel.paths import PATH_MAX
from sampan.kernel.tree import Descent
from sampan.store.tarstream import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    TarEntry,
)
from sampan.store.tarwriter import TarWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    from sampan.store.lower import LowerDirectory, LowerLayers
    from sampan.store.tarfields import Regions
    from sampan.store.tarwriter import Sink

    class Tree(Protocol):
        """Where an archive is made from: a position in a tree, which `enter` and `leave` move."""

        @property
        def fd(self) -> int:
            """The present directory."""

        def names(self) -> list[bytes]: ...
        def locate(self, name: bytes) -> tuple[int, os.stat_result] | None:
            """The directory that an entry of the present one is really in, and its status; None if it is gone."""

        def enter(self, name: bytes) -> bool:
            """Go down; False if that is no directory any more."""

        def leave(self) -> None: ...

    class Form(Protocol):
        """What of a tree goes into a layer, and with which marks."""

        def enter(self, fd: int, path: bytes, above: bool) -> tuple[bool, list[bytes]]:
            """About the directory `path`: whether it hides the layers below, and the marks that go into it (`.wh.*`).

            `above` is the same answer for its parent.
            """

        def judge(self, path: bytes, status: os.stat_result, covered: bool) -> str:
            """What becomes of a name: `TAKEN`, `LEFT` out, or `GONE` (a mark that it is deleted)."""


TAKEN, LEFT, GONE = "taken", "left", "gone"
WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"

_CHUNK = 1 << 20
_BUFFERED = 1 << 18
_ONE_STOP = (None,)
"""For whoever empties the sink on the way, after something that was done at once."""
_SPARSE_FROM = 256 << 20
"""Bytes of holes from which on a file is written sparse: a lastlog of 300 GB is a few blocks of data.

Below it the file is written whole, because every reader knows that, and so that where the holes are does not matter.
"""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO}
# What open(2) says where something else is by now: nothing, a link, a socket, a device (the mount is "nodev").
_REPLACED = frozenset((errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EACCES, errno.ESTALE))


class Archive:
    """One tree on its way into one archive. `size` and `entries` are what `layers.LayerInfo` has of it.

    `form` makes a layer of it.
    """

    def __init__(self, tree: Tree, sink: Sink, form: Form | None = None) -> None:
        self._tree = tree
        self._sink = _Buffered(sink)
        self._writer = TarWriter(self._sink)
        self._form = form
        self._links: dict[tuple[int, int], bytes] = {}  # Inodes with several names -> the first one's path.
        self.size = 0
        self.entries = 0

    def write(self, with_root: bool) -> Iterator[None]:
        """Write all of it and the end mark; `with_root`: an entry for the top directory as well.

        It stops after every file and every mebibyte, for those who empty the sink on the way. Raises OSError.
        """
        if with_root:
            self._directory(self._tree.fd, b"./")
        yield from self._rest([self._level(b"", False)])

    def _rest(self, levels: list[Level]) -> Iterator[None]:
        """All that is left of the directories that were begun, and the end mark."""
        while levels:
            level = levels[-1]
            if level.names:
                yield from self._entry(levels, level.names.pop())
                continue
            levels.pop()
            if levels:
                self._tree.leave()
        self._writer.close()
        self._sink.flush()
        yield

    def _level(self, path: bytes, covered: bool) -> Level:
        """Begin with what is in a directory: its marks first, so that they hide nothing of what follows."""
        if self._form is not None:
            covered, marks = self._form.enter(self._tree.fd, path, covered)
            for mark in marks:
                self._mark(_joined(path, mark))
        return Level(path, sorted(self._tree.names(), reverse=True), covered)

    def _entry(self, levels: list[Level], name: bytes, shown: bytes = b"") -> Iterable[None]:
        """One name of the newest level's directory, as `shown` in the archive, else by its own path; what is left to do of it."""
        level = levels[-1]
        path = shown or _joined(level.path, name)
        found = self._tree.locate(name)
        if found is None:
            return ()  # It vanished.
        fd, status = found
        if self._form is not None:
            judgement = self._form.judge(path, status, level.covered)
            if judgement == LEFT:
                return ()
            if judgement == GONE:
                self._mark(_joined(level.path, WHITEOUT + name))
                return ()
            if len(path) >= PATH_MAX:
                raise KernelError(errno.ENAMETOOLONG, "open", path)  # No layer can hold it: see `layertree`.
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            if not self._tree.enter(name):
                return ()
            self._directory(self._tree.fd, path)
            levels.append(self._level(path, level.covered))
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in self._links:
            self._hard_link(path, name, status)
        elif kind == stat.S_IFREG:
            return self._file(fd, name, path)
        elif kind in _KINDS:
            self._node(fd, name, path, status)
        return ()

    # Entries

    def _mark(self, path: bytes) -> None:
        self._writer.add(TarEntry(path, FILE, 0))
        self.entries += 1

    def _directory(self, fd: int, path: bytes) -> None:
        entry = self._described(path, DIRECTORY, os.fstat(fd))
        entry.xattrs = _xattrs(fd)
        self._writer.add(entry)
        self.entries += 1

    def _hard_link(self, path: bytes, name: bytes, status: os.stat_result) -> None:
        first = self._links[status.st_dev, status.st_ino]
        entry = self._described(path, HARDLINK, status)
        entry.target = first
        self._writer.add(entry)
        self.entries += 1

    def _node(self, fd: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        entry = self._described(path, _KINDS[stat.S_IFMT(status.st_mode)], status)
        if entry.kind == SYMLINK:
            try:
                entry.target = os.readlink(name, dir_fd=fd)
                self.size += len(entry.target)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
                return  # Replaced meanwhile.
        elif entry.kind != FIFO:
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._writer.add(entry)
        self._wrote(path, status)

    def _file(self, fd: int, name: bytes, path: bytes) -> Iterable[None]:
        """A regular file, or what is left to do of a large one."""
        try:
            file = os.open(name, _OPEN, dir_fd=fd)
        except OSError as e:
            if e.errno not in _REPLACED:
                raise
            return ()
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return ()
            if self._at_once(file, path, status):
                return _ONE_STOP
            pieces, file = self._in_pieces(file, path, status), -1
            return pieces
        finally:
            if file >= 0:
                os.close(file)

    def _at_once(self, file: int, path: bytes, status: os.stat_result) -> bool:
        """An open file that is one piece, as most are: without generators, which would be a fifth of its time. False, and nothing is done, for a larger one."""
        left = status.st_size
        if left > _CHUNK:
            return False
        self._begin(file, path, status)
        while left:
            # Zeros for what is not there any more: its size is told already.
            data = os.read(file, left) or bytes(left)
            self._writer.write(data)
            left -= len(data)
        self._end(path, status)
        return True

    def _in_pieces(self, file: int, path: bytes, status: os.stat_result) -> Iterator[None]:
        """An open file, which is closed."""
        try:
            yield from self._data(file, self._begin(file, path, status))
            self._end(path, status)
        finally:
            os.close(file)

    def _begin(self, file: int, path: bytes, status: os.stat_result) -> TarEntry:
        entry = self._described(path, FILE, status)
        entry.size = status.st_size
        entry.xattrs = _xattrs(file)
        if status.st_size - status.st_blocks * 512 >= _SPARSE_FROM:
            entry.regions = _regions(file, status.st_size)
        self._writer.begin(entry)
        return entry

    def _end(self, path: bytes, status: os.stat_result) -> None:
        self._writer.end()
        self._wrote(path, status)
        self.size += status.st_size

    def _data(self, file: int, entry: TarEntry) -> Iterator[None]:
        regions = (0, entry.size) if entry.regions is None else entry.regions
        for at in range(0, len(regions), 2):
            start, left = regions[at], regions[at + 1]
            if start:
                os.lseek(file, start, os.SEEK_SET)
            while left:
                # Zeros for what is not there any more: its size is told already.
                data = os.read(file, min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                self._writer.write(data)
                left -= len(data)
                yield

    def _described(self, path: bytes, kind: bytes, status: os.stat_result) -> TarEntry:
        """An entry with what every file has."""
        mode = stat.S_IMODE(status.st_mode)
        return TarEntry(path, kind, mode, status.st_uid, status.st_gid, mtime_ns=status.st_mtime_ns)

    def _wrote(self, path: bytes, status: os.stat_result) -> None:
        self.entries += 1
        if status.st_nlink > 1:
            self._links[status.st_dev, status.st_ino] = path


class _Buffered:
    """Hands on what is written in larger pieces: most entries are two or three small writes."""

    def __init__(self, sink: Sink) -> None:
        self._write = sink.write
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes, /) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _BUFFERED:
            self.flush()

    def flush(self) -> None:
        self._write(b"".join(self._parts))
        self._parts.clear()
        self._size = 0


class PlainTree:
    """A directory with all that is in it. To be closed."""

    def __init__(self, top_fd: int) -> None:
        self._descent = Descent(os.dup(top_fd))

    @property
    def fd(self) -> int:
        return self._descent.fd

    def names(self) -> list[bytes]:
        return [os.fsencode(name) for name in os.listdir(self.fd)]

    def locate(self, name: bytes) -> tuple[int, os.stat_result] | None:
        fd = self._descent.fd
        try:
            return fd, os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def enter(self, name: bytes) -> bool:
        try:
            self._descent.enter(os.fsdecode(name))
        except OSError as e:
            if e.errno not in _REPLACED:
                raise
            return False
        return True

    def leave(self) -> None:
        self._descent.leave()

    def close(self) -> None:
        self._descent.close()


class MergedTree:
    """Layers as one tree, the writable one of a container on top: what a mount of them would show, without one.

    No overlay may be mounted whose upper directory is in use by another mount, and a container that does not run may
    be started while it is read. To be closed.
    """

    _OPEN = 8

    def __init__(self, layers: LowerLayers) -> None:
        self._layers = layers
        self._path: list[bytes] = []
        self._levels: list[LowerDirectory | None] = [layers.directory(b"")]  # None: closed, to be found again.

    @property
    def _here(self) -> LowerDirectory:
        here = self._levels[-1]
        if here is None:
            here = self._levels[-1] = self._layers.directory(b"/".join(self._path))
            if here is None:
                raise KernelError(errno.ESTALE, "open", b"/".join(self._path))  # Removed, with all that we came for.
        return here

    @property
    def fd(self) -> int:
        return self._here.fd

    def names(self) -> list[bytes]:
        return self._here.names()

    def locate(self, name: bytes) -> tuple[int, os.stat_result] | None:
        return self._here.locate(name)

    def enter(self, name: bytes) -> bool:
        found = self._layers.directory(b"/".join((*self._path, name)))
        if found is None:
            return False
        self._path.append(name)
        self._levels.append(found)
        if len(self._levels) > self._OPEN:
            self._close(len(self._levels) - self._OPEN - 1)
        return True

    def leave(self) -> None:
        self._close(len(self._levels) - 1)
        self._levels.pop()
        self._path.pop()

    def _close(self, at: int) -> None:
        level, self._levels[at] = self._levels[at], None
        if level is not None:
            level.close()

    def close(self) -> None:
        for at in range(len(self._levels)):
            self._close(at)


class Level:
    """A directory that is being read: what is left of its names, in reverse order."""

    __slots__ = ("covered", "names", "path")

    def __init__(self, path: bytes, names: list[bytes], covered: bool) -> None:
        self.path = path
        self.names = names
        self.covered = covered


def has_root_of(fd: int, below: str) -> bool:
    """Whether a tree's top directory is, but for its times, that of the layer below, so that an archive needs no entry for it.

    `below` is the directory of that layer, "" for none: then it is compared with one that no archive says anything about.
    """
    if not below:
        return is_plain_root(fd)
    lower = os.open(below, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        one, other = os.fstat(fd), os.fstat(lower)
        alike = (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
        return alike and _xattrs(fd) == _xattrs(lower)
    finally:
        os.close(lower)


def is_plain_root(fd: int) -> bool:
    """Whether a top directory is as one that no archive says anything about."""
    status = os.fstat(fd)
    return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0) and not _xattrs(fd)


def _joined(path: bytes, name: bytes) -> bytes:
    return path + name if not path or path.endswith(b"/") else path + b"/" + name


def _xattrs(fd: int) -> dict[bytes, bytes]:
    """What goes into an archive of an open file's or directory's xattrs."""
    found: dict[bytes, bytes] = {}
    for name in _listed(fd):
        if name != "security.capability" and (not name.startswith("user.") or name.startswith("user.overlay.")):
            continue
        try:
            found[os.fsencode(name)] = os.getxattr(fd, name)
        except OSError as e:
            if e.errno != errno.ENODATA:  # Removed meanwhile.
                raise
    return found


def _listed(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:
            return []
        raise


def _regions(fd: int, size: int) -> Regions:
    """Where a file has data: offset, length, offset, length ... (lseek(2), SEEK_DATA)."""
    found = array.array("q")
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            break  # Nothing but a hole up to the end.
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < position:
            found.extend((start, position - start))
    os.lseek(fd, 0, os.SEEK_SET)
    return found
