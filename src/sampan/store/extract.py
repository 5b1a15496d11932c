"""Entries of a layer's archive become files: the meaning of a layer (OCI image-spec, layer.md), entry by entry.

As in Docker a later entry replaces an earlier one; a directory over a directory keeps what is in it and changes
its metadata; names are cleaned, and one that leads above the root is an error. Nothing is written but by a
single component below the descriptor of a `LayerTree`'s directory.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import InvalidParameter, System
from sampan.kernel.files import begin_writing, by_descriptor, is_whiteout, make_whiteout, set_opaque, write_all
from sampan.kernel.tree import Descent, copy_node, remove_tree, walk
from sampan.store.tarfields import Malformed
from sampan.store.tarstream import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    TarEntry,
    TarReader,
    printable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.store.layertree import Directory, LayerTree
    from sampan.store.lower import LowerLayers

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGE = 1 << 17
"""Bytes of a file that the disk may begin with at once: a few hundred files of an image hold half of its bytes."""
_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_ODD_COMPONENTS = frozenset((b"", b".", b".."))
_DEVICE_FORMATS = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}

# What the kernel says to a name or a value that the archive chose; anything else is the machine's fault.
ARCHIVE_ERRORS = frozenset(
    (
        errno.EEXIST,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EOVERFLOW,
        errno.ERANGE,
    )
)


class Extractor:
    """Puts entries into a tree.

    `lower` is given for overlay form: deleted names become the marks that overlayfs reads. Without it, deleted
    names are removed from the tree itself.
    """

    def __init__(self, tree: LayerTree, lower: LowerLayers | None) -> None:
        self._tree = tree
        self._lower = lower

    def put(self, entry: TarEntry, reader: TarReader) -> None:
        """Apply one entry. Raises `InvalidParameter` for what the archive got wrong, `System` for anything else."""
        try:
            self._put(entry, reader)
        except Malformed as e:
            raise InvalidParameter(f"error processing tar file: {_place(entry)}: {e}") from None
        except OSError as e:
            kind = InvalidParameter if e.errno in ARCHIVE_ERRORS else System
            words = os.strerror(e.errno) if e.errno else str(e)
            raise kind(f"error processing tar file: {_place(entry)}: {words[:1].lower()}{words[1:]}") from e

    def _put(self, entry: TarEntry, reader: TarReader) -> None:
        name = clean(entry.name)
        if name.startswith(_META) and name != _OPAQUE:
            return  # What AUFS kept for itself at the top of a layer.
        parent_path, _, base = name.rpartition(b"/")
        if not base:
            self._root(entry)
            return
        parent = self._tree.directory(parent_path, entry.mtime_ns)
        kind = entry.kind
        if base.startswith(_WHITEOUT):
            self._whiteout(parent, base)
        elif kind == FILE:
            self._file(parent, base, entry, reader)
        elif kind == DIRECTORY:
            self._directory(parent, base, entry)
        elif kind == SYMLINK:
            self._symlink(parent, base, entry)
        elif kind == HARDLINK:
            self._hardlink(parent_path, base, entry)
        else:
            self._device(parent, base, entry)

    def begin_file(self, entry: TarEntry) -> int:
        """The descriptor of a regular file that is new in an overlay's layer; its data are the caller's to write, then `end_file`. Raises as `put`."""
        mode = entry.mode & 0o777  # as `_file`
        try:
            parent_path, _, base = clean(entry.name).rpartition(b"/")
            parent = self._tree.directory(parent_path, entry.mtime_ns)
            try:
                return os.open(base, _NEW_FILE, mode, dir_fd=parent.fd)
            except FileExistsError:
                self._tree.remove(parent, base)
                return os.open(base, _NEW_FILE, mode, dir_fd=parent.fd)
        except OSError as e:
            raise System(f"{_place(entry)}: {os.strerror(e.errno or errno.EIO).lower()}") from e

    def end_file(self, fd: int, entry: TarEntry) -> None:
        """Give it what its entry says. The descriptor stays the caller's. Raises OSError."""
        self._settle(fd, entry)
        os.utime(fd, ns=_times(entry))

    # Kinds

    def _file(self, parent: Directory, base: bytes, entry: TarEntry, reader: TarReader) -> None:
        # Nobody else can come into the tree yet, so that a file may have its permissions before it has its content.
        mode = entry.mode & 0o777
        try:
            fd = os.open(base, _NEW_FILE, mode, dir_fd=parent.fd)
        except FileExistsError:
            self._tree.remove(parent, base)
            fd = os.open(base, _NEW_FILE, mode, dir_fd=parent.fd)
        try:
            if entry.regions is not None:
                write_sparse(fd, entry, reader)
            elif (data := reader.whole()) is not None:
                write_all(fd, data)
            elif entry.size:
                for _, data in reader.chunks():
                    write_all(fd, data)
            if entry.size >= _LARGE and entry.regions is None:
                begin_writing(fd)  # While the processor goes on; else all waits for the disk in the end (`snapshots`).
            self._settle(fd, entry)
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)

    def _directory(self, parent: Directory, base: bytes, entry: TarEntry) -> None:
        try:
            # With its mode, as a file; what a parent with the set-group-ID bit hands on `_settle` takes back.
            os.mkdir(base, entry.mode & 0o777, dir_fd=parent.fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(base, dir_fd=parent.fd, follow_symlinks=False).st_mode):
                self._tree.replace_by_directory(parent, base)
        directory = self._tree.enter(parent, base)
        self._settle(directory.fd, entry)
        directory.times = _times(entry)

    def _root(self, entry: TarEntry) -> None:
        if entry.kind != DIRECTORY:
            raise Malformed("the root of a layer must be a directory")
        set_metadata(self._tree.root.fd, entry)
        self._tree.root.times = _times(entry)

    def _symlink(self, parent: Directory, base: bytes, entry: TarEntry) -> None:
        try:
            os.symlink(entry.target, base, dir_fd=parent.fd)
        except FileExistsError:
            self._tree.remove(parent, base)
            os.symlink(entry.target, base, dir_fd=parent.fd)
        self._finish(parent, base, entry)

    def _device(self, parent: Directory, base: bytes, entry: TarEntry) -> None:
        if not 0 <= entry.major < 1 << 12 or not 0 <= entry.minor < 1 << 20:
            raise Malformed(f"the device number {entry.major}:{entry.minor} is out of range")
        if entry.kind == CHARACTER and entry.major == entry.minor == 0:
            # On disk this is a whiteout, however it is meant (archives of an overlay's upper directory hold them).
            self._remove_shown(parent, base)
            return
        mode = _DEVICE_FORMATS[entry.kind] | (entry.mode & 0o777)
        device = os.makedev(entry.major, entry.minor) if entry.kind != FIFO else 0
        try:
            os.mknod(base, mode, device, dir_fd=parent.fd)
        except FileExistsError:
            self._tree.remove(parent, base)
            os.mknod(base, mode, device, dir_fd=parent.fd)
        self._finish(parent, base, entry)

    def _hardlink(self, parent_path: bytes, base: bytes, entry: TarEntry) -> None:
        """link(2): no metadata is set, it is the other name's."""
        target_path, _, target = clean(entry.target).rpartition(b"/")
        # A copy of the descriptor, because the tree may close its own while it looks for the new name's parent.
        source = os.dup(self._tree.directory(target_path, entry.mtime_ns).fd)
        try:
            status = self._link_target(target_path, target, entry)
            if self._tree.own is not None:
                self._tree.own.add(status.st_ino)
            parent = self._tree.directory(parent_path, entry.mtime_ns)
            try:
                os.link(target, base, src_dir_fd=source, dst_dir_fd=parent.fd, follow_symlinks=False)
            except FileExistsError:
                if os.path.samestat(status, os.stat(base, dir_fd=parent.fd, follow_symlinks=False)):
                    return
                self._tree.remove(parent, base)
                os.link(target, base, src_dir_fd=source, dst_dir_fd=parent.fd, follow_symlinks=False)
        finally:
            os.close(source)

    def _link_target(self, path: bytes, name: bytes, entry: TarEntry) -> os.stat_result:
        """The status of what a hard link leads to. From a lower layer it is copied up first, as overlayfs does."""
        directory = self._tree.directory(path, entry.mtime_ns)
        if not name:
            raise Malformed("a hard link to the root")
        try:
            status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            found = self._tree.shown_below(directory, name)
            if found is None:
                raise Malformed(f"the hard link's target {printable(entry.target)} is not there") from None
            with found:
                if not found.is_directory:
                    copy_node(found.dir_fd, found.name, directory.fd, name, found.status)
                    return os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
                status = found.status
        if is_whiteout(status):
            raise Malformed(f"the hard link's target {printable(entry.target)} is not there")
        if stat.S_ISDIR(status.st_mode):
            raise Malformed(f"the hard link's target {printable(entry.target)} is a directory")
        return status

    # Deleting

    def _whiteout(self, parent: Directory, base: bytes) -> None:
        if base == _OPAQUE:
            self._cover(parent)
            return
        if base.startswith(_META):
            return
        name = base[len(_WHITEOUT) :]
        if name in _ODD_COMPONENTS:
            raise Malformed(f"invalid whiteout name: {printable(base)}")
        self._remove_shown(parent, name)

    def _remove_shown(self, parent: Directory, name: bytes) -> None:
        """Make a name vanish: what this layer has there, and by a mark what lower layers show."""
        self._tree.remove(parent, name)
        found = self._tree.shown_below(parent, name)
        if found is not None:
            # A mark over nothing would be visible as a device in a directory that only this layer has.
            found.close()
            make_whiteout(parent.fd, name)

    def _cover(self, directory: Directory) -> None:
        """Make everything vanish in a directory that is not of this layer."""
        self._tree.forget(directory)
        if self._tree.own is not None:
            _remove_lower(directory.fd, self._tree.own)
        elif self._lower is not None and not directory.covered:
            if directory.path:
                self._mark_opaque(directory)
            else:
                self._cover_root(self._lower)

    def _mark_opaque(self, directory: Directory) -> None:
        set_opaque(directory.fd)
        directory.covered = True
        _remove_whiteouts(directory.fd)

    def _cover_root(self, lower: LowerLayers) -> None:
        """overlayfs joins the layers' roots whatever their marks say, so each name of the lower ones is dealt with."""
        root = self._tree.root
        for name in lower.names():
            try:
                status = os.stat(name, dir_fd=root.fd, follow_symlinks=False)
            except FileNotFoundError:
                make_whiteout(root.fd, name)
                continue
            if stat.S_ISDIR(status.st_mode):
                self._mark_opaque(self._tree.enter(root, name))

    # Metadata

    def _settle(self, fd: int, entry: TarEntry) -> None:
        """Give an open file or directory what its entry says and it has not, but for its times.

        Nearly every one is root's and was made with its mode: one look at it costs less than two changes that change nothing, each
        of which the file system notes in its journal.
        """
        status = os.fstat(fd)
        if self._tree.own is not None:
            self._tree.own.add(status.st_ino)
        foreign = status.st_uid != entry.uid or status.st_gid != entry.gid
        if foreign:
            os.fchown(fd, entry.uid, entry.gid)
        if foreign or stat.S_IMODE(status.st_mode) != entry.mode:  # chown clears set-id bits.
            os.fchmod(fd, entry.mode)
        if entry.xattrs:
            set_xattrs(fd, entry)

    def _finish(self, parent: Directory, base: bytes, entry: TarEntry) -> None:
        finish_node(parent.fd, base, entry)
        if self._tree.own is not None:
            self._tree.own.add(os.stat(base, dir_fd=parent.fd, follow_symlinks=False).st_ino)


def _place(entry: TarEntry) -> str:
    return f"entry {printable(entry.name)} at byte {entry.offset}"


def clean(name: bytes) -> bytes:
    """An archive's name as a path below the root, without a slash in front or at the end; b"" is the root.

    ".." is resolved by the text, as Docker does. Raises `Malformed` where it leads above the root.
    """
    parts = name.split(b"/")
    if not _ODD_COMPONENTS.isdisjoint(parts):
        cleaned: list[bytes] = []
        for part in parts:
            if part == b"..":
                if not cleaned:
                    raise Malformed(f"{printable(name)} is outside of the layer")
                cleaned.pop()
            elif part not in _ODD_COMPONENTS:
                cleaned.append(part)
        return b"/".join(cleaned)
    return name


def write_sparse(fd: int, entry: TarEntry, reader: TarReader) -> None:
    """The data of a sparse entry into a new file, holes left as holes."""
    os.ftruncate(fd, entry.size)
    for position, data in reader.chunks():
        os.lseek(fd, position, os.SEEK_SET)
        write_all(fd, data)


def finish_node(dir_fd: int, base: bytes, entry: TarEntry) -> None:
    """Give a new name in a directory, one that cannot be opened (a link, device, pipe), what its entry says of it."""
    os.chown(base, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
    if entry.kind != SYMLINK:
        os.chmod(base, entry.mode, dir_fd=dir_fd)  # Ours since a moment ago: no link that could be followed.
    if entry.xattrs:
        set_xattrs(by_descriptor(dir_fd, base), entry)
    os.utime(base, ns=_times(entry), dir_fd=dir_fd, follow_symlinks=False)


def set_metadata(fd: int, entry: TarEntry) -> None:
    """Give a new file or directory the owner, mode, xattrs and times that its entry says."""
    # chown before chmod and before security.capability, both of which it would clear; the times last.
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    if entry.xattrs:
        set_xattrs(fd, entry)
    os.utime(fd, ns=_times(entry))


def set_xattrs(target: int | bytes, entry: TarEntry) -> None:
    """Set an entry's xattrs, as containerd does: trusted ones never, what the file system cannot hold not at all.

    A layer that could set trusted.overlay.redirect or .opaque would decide what other layers show.
    """
    for name, value in entry.xattrs.items():
        if name.startswith((b"trusted.", b"user.overlay.")):
            continue
        if not name or b"\0" in name:
            raise Malformed("an extended attribute without a valid name")
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def _times(entry: TarEntry) -> tuple[int, int]:
    """Access and modification time, as utime takes them; the kernel cuts them to what the file system can hold."""
    return entry.mtime_ns if entry.atime_ns is None else entry.atime_ns, entry.mtime_ns


def _remove_lower(directory_fd: int, own: set[int]) -> None:
    """Remove all below a directory whose inode is not among `own`."""
    _prune(directory_fd, lambda status: status.st_ino not in own)


def _remove_whiteouts(directory_fd: int) -> None:
    """Remove the marks below a directory that has become opaque: nothing is there for them to hide."""
    _prune(directory_fd, is_whiteout)


def _prune(directory_fd: int, unwanted: Callable[[os.stat_result], bool]) -> None:
    """Remove what is unwanted below a directory; the times of the directories stay as they are."""

    def visit(fd: int) -> list[str]:
        before = os.fstat(fd)
        kept: list[str] = []
        for name in os.listdir(fd):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if unwanted(status):
                remove_tree(fd, name)
            elif stat.S_ISDIR(status.st_mode):
                kept.append(name)
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        return kept

    descent = Descent(os.dup(directory_fd))
    try:
        walk(descent, visit)
    finally:
        descent.close()
