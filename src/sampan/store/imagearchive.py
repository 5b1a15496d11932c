"""A tar of images as a set of files that can be read in any order: what `load` is given.

Nothing is unpacked. The archive is read once for its headers; the data stays where it is, in the caller's file if that
is a plain tar, else in a spool file without a name. The names in it are keys of a table and never paths of the host:
there is no place that `../x` or a link could lead to, and one that tries is refused all the same, as Docker does.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import InvalidParameter
from sampan.kernel.files import write_all
from sampan.store.decompress import decompress, is_compressed
from sampan.store.tarstream import DIRECTORY, FILE, HARDLINK, SYMLINK, TarReader, printable
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Protocol, Self

    from sampan.store.tarstream import TarEntry

    class Source(Protocol):
        def read(self, size: int, /) -> bytes: ...


MEMBER_LIMIT = 1 << 16
"""Members of an archive at most: five hundred images of a hundred layers in Docker's oldest form."""
ARCHIVE_LIMIT = 1 << 40
"""Bytes of an archive at most, once it is decompressed."""

_LINKS = 8
_CHUNK = 1 << 18
_HEAD = 16


class Member(Struct):
    """One entry: `offset` and `size` of its data in the file, or what a link leads to."""

    kind: bytes
    offset: int
    size: int
    target: str = ""


class ImageArchive:
    """The members of one archive by their cleaned names. A context manager, which closes what was spooled."""

    def __init__(self, fd: int, owned: bool, members: dict[str, Member]) -> None:
        self._fd = fd
        self._owned = owned
        self._members = members

    @classmethod
    def open(cls, stream: Source, spool: Callable[[], int]) -> Self:
        """Index an archive, plain or compressed; `spool` gives a file for one that cannot be read twice.

        Raises `InvalidParameter` for what is no archive or tries to lead out of it, OSError for a full disk.
        """
        start = _plain_file(stream)
        if start is not None:
            fd: int = stream.fileno()  # type: ignore[attr-defined]
            return cls(fd, False, _index(_FileSource(fd, start)))
        fd = spool()
        try:
            source = _Spooling(decompress(stream, fd), fd)
            members = _index(source)
            # What follows the end mark is read as well: whoever writes into our pipe is to come to his end.
            while source.read(_CHUNK):
                pass
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, True, members)

    def has(self, name: str) -> bool:
        """Whether there is a regular file of this name, or a link that leads to one."""
        return self._follow(name) is not None

    def size(self, name: str) -> int:
        """Bytes of a file. Raises `InvalidParameter` if it is not there."""
        return self._find(name).size

    def read(self, name: str, limit: int) -> bytes:
        """A whole small file. Raises `InvalidParameter` if it is not there or larger than `limit` bytes."""
        member = self._find(name)
        if member.size > limit:
            raise InvalidParameter(f"invalid archive: {_shown(name)} has {member.size} bytes, more than {limit}")
        parts = []
        section = Section(self._fd, member.offset, member.size)
        while part := section.read(_CHUNK):
            parts.append(part)
        return b"".join(parts)

    def open_member(self, name: str) -> Section:
        """A reader of a file. Raises `InvalidParameter` if it is not there."""
        member = self._find(name)
        return Section(self._fd, member.offset, member.size)

    def _find(self, name: str) -> Member:
        member = self._follow(name)
        if member is None:
            raise InvalidParameter(f"invalid archive: it does not contain {_shown(name)}")
        return member

    def _follow(self, name: str) -> Member | None:
        try:
            member = self._members.get(clean(name))
        except ValueError:
            raise InvalidParameter(f"invalid archive: {_shown(name)} is outside of it") from None
        for _ in range(_LINKS):
            if member is None or member.kind == FILE:
                return member
            member = self._members.get(member.target)
        raise InvalidParameter(f"invalid archive: {_shown(name)}: too many links")

    def close(self) -> None:
        """Give back the spool file; safe to call twice. The caller's own file stays open."""
        if self._owned:
            self._owned = False
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


class Section:
    """A part of a file as a stream. Raises `InvalidParameter` if the file has become shorter meanwhile."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._at = offset
        self._left = size

    def read(self, size: int, /) -> bytes:
        wanted = min(size, self._left)
        data = os.pread(self._fd, wanted, self._at)
        if wanted and not data:
            raise InvalidParameter("error processing tar file: unexpected EOF: the file was cut while it was read")
        self._at += len(data)
        self._left -= len(data)
        return data


class _FileSource:
    """A file that is read from a position on, without moving the caller's."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd = fd
        self.start = self._at = start

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, size, self._at)
        self._at += len(data)
        return data

    def skip(self, size: int, /) -> int:
        """Go on without reading; data of layers is not looked at before it is wanted."""
        step = max(0, min(size, os.fstat(self._fd).st_size - self._at))
        self._at += step
        return step


class _Spooling:
    """Hands on what it reads, and writes it to the spool file on the way."""

    start = 0

    def __init__(self, source: Source, fd: int) -> None:
        self._source = source
        self._fd = fd
        self._size = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._size += len(data)
        if self._size > ARCHIVE_LIMIT:
            raise InvalidParameter(f"error processing tar file: more than {ARCHIVE_LIMIT} bytes")
        write_all(self._fd, data)
        return data


def _plain_file(stream: Source) -> int | None:
    """The position of a stream that is a regular file with a plain archive; None if it must be spooled."""
    try:
        fd: int = stream.fileno()  # type: ignore[attr-defined]
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        start: int = stream.tell()  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None  # no file at all, as io.BytesIO
    return None if is_compressed(os.pread(fd, _HEAD, start)) else start


def _index(source: _FileSource | _Spooling) -> dict[str, Member]:
    reader = TarReader(source)
    members: dict[str, Member] = {}
    for entry in reader:
        name = _entry_name(entry)
        if entry.kind == DIRECTORY or not name:
            continue
        if name in members:
            raise InvalidParameter(f"invalid archive: it contains {printable(entry.name)} twice")
        if len(members) >= MEMBER_LIMIT:
            raise InvalidParameter(f"invalid archive: it has more than {MEMBER_LIMIT} files")
        if entry.kind == FILE:
            if entry.regions is not None:
                raise InvalidParameter(f"invalid archive: {printable(entry.name)} is a sparse file")
            members[name] = Member(FILE, source.start + reader.offset, entry.size)
        elif entry.kind in (SYMLINK, HARDLINK):
            members[name] = Member(entry.kind, 0, 0, _target(entry, name))
    return members


def _entry_name(entry: TarEntry) -> str:
    try:
        return clean(os.fsdecode(entry.name))
    except ValueError:
        raise InvalidParameter(f"invalid archive: {printable(entry.name)} is outside of it") from None


def _target(entry: TarEntry, name: str) -> str:
    """The member that a link leads to. A hard link's target is counted from the top, a symbolic one's from its place."""
    target = os.fsdecode(entry.target)
    kind = "symlink" if entry.kind == SYMLINK else "hardlink"
    try:
        if entry.kind == HARDLINK:
            return clean(target)
        if target.startswith("/"):
            raise ValueError
        return clean(f"{name.rpartition('/')[0]}/{target}")
    except ValueError:
        raise InvalidParameter(
            f"invalid archive: invalid {kind} {printable(entry.name)} -> {printable(entry.target)}"
        ) from None


def clean(name: str) -> str:
    """A name without empty, "." and ".." components. Raises ValueError for one that leads above the top."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise ValueError(name)
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _shown(name: str) -> str:
    return printable(os.fsencode(name))
