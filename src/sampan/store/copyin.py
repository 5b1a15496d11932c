"""An archive becomes files below a directory that is in use: of a container that may be running, or of the user's own.

What `docker cp` and `PUT /containers/{id}/archive` do with it, which is not what a layer means (`extract`): names that begin
with .wh. are names, and links that are on the way already are followed, inside the container's root.

Whoever is in the container may change everything between two of our calls. So nothing is done by a path that a link could
lead out of (`kernel.paths`); what is new is made with O_EXCL in an open directory; and an owner or a mode is given to the
descriptor of what was made, never to a name.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import InvalidParameter, System
from sampan.kernel.files import by_descriptor, write_all
from sampan.kernel.libc import KernelError
from sampan.kernel.paths import makedirs_in_root, open_in_root
from sampan.kernel.roots import is_mount_point
from sampan.kernel.tree import Descent, remove_tree, walk
from sampan.oci import subids
from sampan.store.extract import ARCHIVE_ERRORS, clean, set_metadata, write_sparse
from sampan.store.tarfields import Malformed
from sampan.store.tarstream import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    TarReader,
    printable,
)
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.oci.subids import Map
    from sampan.store.tarstream import Source, TarEntry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FORMATS = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_SET_ID = stat.S_ISUID | stat.S_ISGID
_IMPLIED_MODE = 0o755
"""Of a directory that an archive names only on the way to something."""

_ATTEMPTS = 64
"""How often something is put in a place that somebody else fills again and again."""


class Manner(Struct):
    """How an archive is put where it belongs.

    keep_kinds: refuse to put something else in the place of a directory, or a directory in the place of something else.
    owner: the (uid, gid) of all that is made; none: what the archive says. plain: without set-id bits and file capabilities,
    because the owner is not the one who had them. renamed: the archive's top name and the one that it gets. ids: the maps of
    users and groups of a container with ids of its own, by which what is made has its owners.
    """

    keep_kinds: bool = False
    owner: tuple[int, int] | None = None
    plain: bool = False
    renamed: tuple[bytes, bytes] | None = None
    ids: tuple[Map, Map] | None = None


def _map_owner(entry: TarEntry, uids: Map, gids: Map) -> None:
    owner = subids.outside(uids, entry.uid), subids.outside(gids, entry.gid)
    if min(owner) < 0:
        raise Malformed(f"{printable(entry.name)} belongs to {entry.uid}:{entry.gid}, which the container has not")
    entry.uid, entry.gid = owner


class CopyIn:
    """Puts the entries of one archive below a directory.

    directory_fd: that directory (O_PATH will do). shown: its path, for messages. root_fd: the root inside of which links on
    the way are followed, and in which `shown` leads to the directory; -1: no link on the way is followed at all.
    """

    def __init__(self, directory_fd: int, shown: bytes, manner: Manner, root_fd: int = -1) -> None:
        self._top = directory_fd
        self._shown = shown.rstrip(b"/")
        self._manner = manner
        self._root = root_fd
        self._parent: tuple[bytes, int] | None = None  # The directory of the newest entry, by its path: it stays open.
        self._times: list[tuple[bytes, tuple[int, int]]] = []  # Directories that we are in, top first, and their times.

    def run(self, stream: Source, check: Callable[[], None] | None = None) -> None:
        """Put all of an archive. `check` is called before each entry and every piece of data, and may raise to end it.

        Raises InvalidParameter for what the archive got wrong, System for anything else. What was done until then stays, but
        for a file of which only a part had come.
        """
        reader = TarReader(stream)
        try:
            for entry in reader:
                if check is not None:
                    check()
                self._put(entry, reader, check)
            self._leave(b"")
            reader.drain()
        finally:
            self._forget_parent()

    def _put(self, entry: TarEntry, reader: TarReader, check: Callable[[], None] | None) -> None:
        try:
            name = self._name(entry.name)
            if self._manner.owner is not None:
                entry.uid, entry.gid = self._manner.owner
            if self._manner.ids is not None:
                _map_owner(entry, *self._manner.ids)
            if self._manner.plain:
                _make_plain(entry)
            if name:
                self._leave(name)
                self._put_at(name, entry, reader, check)
            elif entry.kind != DIRECTORY:
                raise Malformed(f"cannot overwrite directory {self._path(b'')} with non-directory {self._path(b'')}")
        except Malformed as e:
            raise InvalidParameter(f"error processing tar file: {e}") from None
        except OSError as e:
            kind = InvalidParameter if e.errno in ARCHIVE_ERRORS else System
            words = os.strerror(e.errno) if e.errno else str(e)
            what = f"{self._verb(e, entry)} {os.fsdecode(self._shown + b'/' + clean(entry.name))}"
            raise kind(f"error processing tar file: {what}: {words[:1].lower()}{words[1:]}") from e

    def _name(self, name: bytes) -> bytes:
        """An entry's place below the directory; b"" for the directory itself."""
        try:
            name = clean(name)
        except Malformed:
            raise Malformed(f"{printable(name)} is outside of {self._path(b'')}") from None
        renamed = self._manner.renamed
        if renamed is None:
            return name
        old, new = renamed
        if old == name:
            return new
        if not old:
            return b"/".join(part for part in (new, name) if part)
        if name.startswith(old + b"/"):
            return (new + name[len(old) :]).lstrip(b"/")
        return name

    def _verb(self, error: OSError, entry: TarEntry) -> str:
        kinds = {DIRECTORY: "mkdir", SYMLINK: "symlink", HARDLINK: "link", FILE: "open"}
        if error.errno == errno.EBUSY:
            return "unlinkat"
        return kinds.get(entry.kind, "mknod") if error.errno != errno.ENOSPC else "write"

    def _path(self, name: bytes) -> str:
        return printable(self._shown + b"/" + name if name else self._shown or b"/")

    # Directories

    def _directory_of(self, path: bytes) -> int:
        """The directory at a clean path, made if it is missing; open until the next one is asked for."""
        if self._parent is not None and self._parent[0] == path:
            return self._parent[1]
        self._forget_parent()
        way = self._way(path)
        try:
            fd = os.open(".", _DIRECTORY, dir_fd=way)
        finally:
            os.close(way)
        self._parent = (path, fd)
        return fd

    def _way(self, path: bytes) -> int:
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            return open_in_root(self._top, path, flags, no_symlinks=True)
        except KernelError as e:
            if e.errno == errno.ELOOP and self._root >= 0:
                # A link is on the way. It means what it means to the container, whose root is not this directory.
                return makedirs_in_root(self._root, self._shown + b"/" + path, _IMPLIED_MODE)
            if e.errno != errno.ENOENT:
                raise
        if self._root >= 0:
            return makedirs_in_root(self._root, self._shown + b"/" + path, _IMPLIED_MODE)
        above, _, name = path.rpartition(b"/")
        parent = self._way(above)
        try:
            os.mkdir(name, _IMPLIED_MODE, dir_fd=parent)
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _leave(self, name: bytes) -> None:
        """Give the directories that `name` is not in the times that the archive says: nothing more is put into them."""
        while self._times and not name.startswith(self._times[-1][0] + b"/"):
            path, times = self._times.pop()
            try:
                fd = open_in_root(self._top, path, os.O_RDONLY | os.O_DIRECTORY, no_symlinks=True)
            except KernelError as e:
                if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # Somebody has moved it.
                raise
            try:
                os.utime(fd, ns=times)
            finally:
                os.close(fd)

    # Entries

    def _put_at(self, name: bytes, entry: TarEntry, reader: TarReader, check: Callable[[], None] | None) -> None:
        above, _, base = name.rpartition(b"/")
        if entry.kind == HARDLINK:
            self._hard_link(above, base, entry)
            return
        parent = self._directory_of(above)
        if entry.kind == DIRECTORY:
            self._directory(parent, base, name, entry)
        elif entry.kind == FILE:
            self._file(parent, base, name, entry, reader, check)
        elif entry.kind == SYMLINK:
            self._replace(parent, base, name, lambda: os.symlink(entry.target, base, dir_fd=parent))
            self._finish(parent, base, entry, stat.S_IFLNK)
        else:
            self._node(parent, base, name, entry)

    def _replace(self, parent: int, base: bytes, name: bytes, make: Callable[[], object]) -> None:
        """Make something; what has its name goes, once it is plain that it may."""
        for _ in range(_ATTEMPTS):
            try:
                make()
                return
            except FileExistsError:
                self._make_room(parent, base, name)
        raise KernelError(errno.EEXIST, "open", name)

    def _make_room(self, parent: int, base: bytes, name: bytes) -> None:
        try:
            is_directory = stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if is_directory and self._manner.keep_kinds:
            raise Malformed(f"cannot overwrite directory {self._path(name)} with non-directory {self._path(b'')}")
        _remove(parent, base)

    def _directory(self, parent: int, base: bytes, name: bytes, entry: TarEntry) -> None:
        for _ in range(_ATTEMPTS):
            try:
                os.mkdir(base, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            try:
                fd = os.open(base, _DIRECTORY, dir_fd=parent)
                break
            except FileNotFoundError:
                continue  # It went in this moment.
            except OSError as e:
                if e.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
            if self._manner.keep_kinds:
                raise Malformed(f"cannot overwrite non-directory {self._path(name)} with directory {self._path(b'')}")
            _remove(parent, base)
        else:
            raise KernelError(errno.EEXIST, "mkdir", name)
        try:
            set_metadata(fd, entry)
        finally:
            os.close(fd)
        self._times.append((name, _times(entry)))

    def _file(
        self,
        parent: int,
        base: bytes,
        name: bytes,
        entry: TarEntry,
        reader: TarReader,
        check: Callable[[], None] | None,
    ) -> None:
        made: list[int] = []
        self._replace(parent, base, name, lambda: made.append(os.open(base, _NEW_FILE, 0o600, dir_fd=parent)))
        fd = made[0]
        try:
            try:
                self._write(fd, entry, reader, check)
                set_metadata(fd, entry)
            except BaseException:
                _withdraw(parent, base, fd)
                raise
        finally:
            os.close(fd)

    def _write(self, fd: int, entry: TarEntry, reader: TarReader, check: Callable[[], None] | None) -> None:
        if entry.regions is not None:
            write_sparse(fd, entry, reader)
            return
        for _, data in reader.chunks():
            if check is not None:
                check()
            write_all(fd, data)

    def _node(self, parent: int, base: bytes, name: bytes, entry: TarEntry) -> None:
        if not 0 <= entry.major < 1 << 12 or not 0 <= entry.minor < 1 << 20:
            raise Malformed(f"the device number {entry.major}:{entry.minor} of {printable(entry.name)} is out of range")
        device = os.makedev(entry.major, entry.minor) if entry.kind != FIFO else 0
        kind = _FORMATS[entry.kind]
        self._replace(parent, base, name, lambda: os.mknod(base, kind | 0o600, device, dir_fd=parent))
        self._finish(parent, base, entry, kind, device)

    def _finish(self, parent: int, base: bytes, entry: TarEntry, kind: int, device: int = 0) -> None:
        """Give what was made a moment ago, and cannot be opened, its metadata: by a descriptor of it and not by its name."""
        fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if (stat.S_IFMT(status.st_mode), status.st_rdev, status.st_nlink) != (kind, device, 1):
                raise KernelError(errno.ESTALE, "open", base)  # Somebody has put something else there.
            place = by_descriptor(fd)
            os.chown(place, entry.uid, entry.gid)
            if kind != stat.S_IFLNK:
                os.chmod(place, entry.mode)
            # No xattrs: what an archive holds of them only files and directories can have (xattr(7)).
            os.utime(place, ns=_times(entry))
        finally:
            os.close(fd)

    def _hard_link(self, above: bytes, base: bytes, entry: TarEntry) -> None:
        """link(2): no metadata is set, it is the other name's. The link leads to a name of this archive, or one that is there."""
        try:
            target = self._name(entry.target)
        except Malformed:
            raise Malformed(f"invalid hardlink {printable(entry.target)} -> {printable(entry.name)}") from None
        target_above, _, target_base = target.rpartition(b"/")
        if not target_base:
            raise Malformed(f"invalid hardlink {printable(entry.target)} -> {printable(entry.name)}")
        source = os.dup(self._directory_of(target_above))
        try:
            parent = self._directory_of(above)
            status = os.stat(target_base, dir_fd=source, follow_symlinks=False)

            def link() -> None:
                os.link(target_base, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

            try:
                link()
            except FileExistsError:
                if not os.path.samestat(status, os.stat(base, dir_fd=parent, follow_symlinks=False)):
                    self._replace(parent, base, b"/".join((above, base)) if above else base, link)
        finally:
            os.close(source)


def _remove(parent: int, base: bytes) -> None:
    """Remove a name with all that is below it, unless something is mounted there: volumes are not emptied by the way."""
    try:
        if is_mount_point(parent, base):
            raise KernelError(errno.EBUSY, "unlinkat", base)
        descent = Descent(os.open(base, _DIRECTORY, dir_fd=parent))
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
    else:
        try:
            walk(descent, _refuse_mounts)
        finally:
            descent.close()
    remove_tree(parent, base)


def _refuse_mounts(fd: int) -> list[str]:
    directories: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if is_mount_point(fd, os.fsencode(entry.name)):
                raise KernelError(errno.EBUSY, "unlinkat", entry.name)
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
    return directories


def _make_plain(entry: TarEntry) -> None:
    if entry.kind != DIRECTORY:
        entry.mode &= ~_SET_ID
    if b"security.capability" in entry.xattrs:
        entry.xattrs = {name: value for name, value in entry.xattrs.items() if name != b"security.capability"}


def _withdraw(parent: int, base: bytes, fd: int) -> None:
    """Take back a file of which only a part is there, if it is still the one that has the name."""
    try:
        if os.path.samestat(os.stat(base, dir_fd=parent, follow_symlinks=False), os.fstat(fd)):
            os.unlink(base, dir_fd=parent)
    except OSError:
        pass  # It has gone; what went wrong before that is told.


def _times(entry: TarEntry) -> tuple[int, int]:
    return entry.mtime_ns if entry.atime_ns is None else entry.atime_ns, entry.mtime_ns
