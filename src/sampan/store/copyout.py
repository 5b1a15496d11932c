"""A file, or a directory with all that is in it, as the archive that `GET /containers/{id}/archive` gives of it.

Its names begin with the name of what is copied, as `docker cp` expects them; its times are whole seconds, as Docker's are. It
is read as `archive` reads every tree: by descriptors, without following a link.
"""

from __future__ import annotations

import os

from sampan.errors import System
from sampan.kernel import mount
from sampan.oci import subids
from sampan.store.archive import Archive, Level, PlainTree
from sampan.store.tarstream import FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.oci.subids import Map
    from sampan.store.tarstream import TarEntry

_SECOND = 1_000_000_000
_NOBODY = 65534
_CHUNK = 1 << 20
_MADE_UP_LIMIT = 64 << 20
"""Bytes of a file that the kernel makes up as it is read: its size is known when all of it was, and has to be told first."""

# Magic numbers (statfs(2)) of file systems whose files are made up by the kernel: what it says of itself, or of a container.
_MADE_UP = frozenset(
    (
        mount.PROC_SUPER_MAGIC,
        mount.DEVPTS_SUPER_MAGIC,
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
        0x6165676C,  # pstore
    )
)


class CopyOut(Archive):
    """One copy; `write_directory` or `write_named` makes its archive.

    ids: the maps of users and groups of a container with ids of its own, which the archive has as the container sees them.
    """

    ids: tuple[Map, Map] | None = None

    def write_directory(self, shown: bytes) -> Iterator[None]:
        """The tree's present directory as the directory `shown`: "." and "/" are names, too. Raises OSError, System."""
        self._directory(self._tree.fd, shown)
        yield from self._rest([self._level(shown, False)])

    def write_named(self, name: bytes, shown: bytes) -> Iterator[None]:
        """What has the name `name` in the tree's present directory, as `shown`. Nothing if it has gone, or is a socket."""
        levels = [Level(b"", [], False)]
        yield from self._entry(levels, name, shown)
        yield from self._rest(levels)

    def _described(self, path: bytes, kind: bytes, status: os.stat_result) -> TarEntry:
        entry = super()._described(path, kind, status)
        entry.mtime_ns -= entry.mtime_ns % _SECOND
        if self.ids is not None:
            # Whoever the container does not know is nobody, as it sees him.
            uid, gid = (subids.outside(m, i) for m, i in zip(self.ids, (entry.uid, entry.gid), strict=True))
            entry.uid, entry.gid = (i if i >= 0 else _NOBODY for i in (uid, gid))
        return entry

    def _at_once(self, file: int, path: bytes, status: os.stat_result) -> bool:
        if status.st_blocks or not is_made_up(file):
            return super()._at_once(file, path, status)
        content = _made_up(file, path)
        entry = self._described(path, FILE, status)
        entry.size = len(content)
        self._writer.add(entry, content)
        self._wrote(path, status)
        return True


class ContainerTree(PlainTree):
    """A directory of a container's root with all that is in it and mounted on it.

    But for what the kernel makes up, and for /dev: they are there as empty directories, unless the copy begins in them.
    """

    def __init__(self, top_fd: int, device_directory: tuple[int, int]) -> None:
        """`device_directory`: (st_dev, st_ino) of the container's /dev."""
        super().__init__(top_fd)
        self._left_out = device_directory
        self._inside = _is_left_out(top_fd, device_directory)

    def names(self) -> list[bytes]:
        return super().names() if self._inside or not _is_left_out(self.fd, self._left_out) else []


def _is_left_out(fd: int, device_directory: tuple[int, int]) -> bool:
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino) == device_directory or is_made_up(fd)


def is_made_up(fd: int) -> bool:
    """Whether a file or directory is the kernel's own, without anything on a disk or in memory behind it."""
    return mount.filesystem_magic(fd) in _MADE_UP


def _made_up(file: int, path: bytes) -> bytes:
    """What can be read of it now: one that waits for something, or does not want to be read, ends there."""
    parts: list[bytes] = []
    left = _MADE_UP_LIMIT
    while left > 0:
        try:
            part = os.read(file, _CHUNK)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise System(
            f"{os.fsdecode(path)}: more than {_MADE_UP_LIMIT >> 20} MiB of a file that the kernel makes up as it is read"
        )
    return b"".join(parts)
