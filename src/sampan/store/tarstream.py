"""Tar archives as a stream of entries: what an archive says, with nothing written anywhere.

Formats: POSIX.1-2001 pax and ustar, GNU (long names, base-256 numbers, sparse files old and new), star, v7.
Where archives are ambiguous this follows Go's archive/tar, because that is what gave all existing layers
their meaning: global pax headers are skipped, links and devices have no data whatever their size field says,
a missing end mark is no error. Names, link targets and attributes are bytes, and nothing is cleaned:
that is for whoever writes them to a disk (`sampan.store.extract`).

Memory is bounded whatever an archive claims: see `Limits`.
"""

from __future__ import annotations

import array
import struct

from sampan.errors import InvalidParameter
from sampan.store.tarfields import (
    FAR,
    Malformed,
    check_regions,
    checksum_holds,
    decimal,
    is_octal,
    number,
    old_gnu_regions,
    pax_records,
    pax_regions,
    pax_time,
)
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Protocol

    from sampan.store.tarfields import Regions

    class Source(Protocol):
        """What is read: any binary file. `read` gives at most `size` bytes, none only at the end.

        A source that can go on without reading has `skip(size)` too, which gives the bytes that it went, fewer than
        `size` only at the end. One that has its bytes in pieces has `piece`, how many of them are best asked for at once.
        """

        def read(self, size: int, /) -> bytes: ...


BLOCK = 512

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
KINDS = frozenset((FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))

XATTR_PREFIX = b"SCHILY.xattr."

_CHUNK = 1 << 18  # Small enough to stay in a core's cache between being hashed and being written.
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")  # POSIX.1-1988, ustar header block
_ZEROS = bytes(BLOCK)
_CUT = "unexpected EOF"
_ID_MAX = (1 << 32) - 2  # 2^32-1 means "leave it" to chown(2).


class Limits(Struct):
    """What an archive may make a reader hold in memory. The first is Go's own limit (archive/tar, maxSpecialFileSize)."""

    extended_header: int = 1 << 20
    """Bytes of one pax header or GNU long name."""
    sparse_regions: int = 1 << 20
    """Data regions of one sparse file (16 bytes of memory each)."""


class TarEntry:
    """One member of an archive.

    `kind` is one of the type flags above. `name` and `target` (of links) are as the archive has them. Times are in
    ns since the epoch; `size` is the file's length, holes included. `regions` is None, or for a sparse file the
    flat sequence offset, length, offset, length ... of its data. `xattrs` maps names to values. `offset` is the
    place of the header in the archive (of the first extended one, if there are any).
    """

    __slots__ = (
        "atime_ns",
        "gid",
        "kind",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "offset",
        "regions",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        kind: bytes = FILE,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        target: bytes = b"",
        major: int = 0,
        minor: int = 0,
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.target = target
        self.major = major
        self.minor = minor
        self.xattrs: Mapping[bytes, bytes] = xattrs if xattrs is not None else {}
        self.regions: Regions | None = None
        self.atime_ns: int | None = None
        self.offset = 0

    def __repr__(self) -> str:
        return f"TarEntry({self.name!r}, {self.kind!r}, mode={self.mode:#o}, size={self.size})"


class TarReader:
    """Iterates over the entries of an archive; `chunks()` gives the data of the newest one.

    Data that is not asked for is skipped. Raises `InvalidParameter` that names the entry and the offset for
    whatever is no valid archive; errors of reading come through as they are.
    """

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        self._read = source.read
        self._leap: Callable[[int], int] | None = getattr(source, "skip", None)
        self._piece: int = getattr(source, "piece", _CHUNK)
        self._limits = limits or Limits()
        self._chunk = b""
        self._view = memoryview(b"")
        self._at = 0  # Position in the chunk.
        self._base = 0  # Position of the chunk in the archive.
        self._stored = 0  # Bytes of the newest entry's data that were not read yet ...
        self._padding = 0  # ... and what fills up its last block.
        self._entry: TarEntry | None = None
        self._header_at = 0

    @property
    def offset(self) -> int:
        """Bytes of the archive that were consumed."""
        return self._base + self._at

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> TarEntry | None:
        """The next entry; None after the last one."""
        try:
            missing = self._skip(self._stored + self._padding)
            if missing not in (0, self._padding):
                raise Malformed(_CUT)
            self._stored = self._padding = 0
            self._entry = None
            # Some writers end with the last byte of data (umoci insert); Go's reader takes that for the end, too.
            return None if missing else self._next()
        except Malformed as e:
            raise self._located(e) from None

    def whole(self) -> memoryview | None:
        """All data of the newest entry, if it is a plain file with data that is in memory at once: instead of `chunks`, which gives what else there is."""
        entry = self._entry
        if entry is None or entry.kind != FILE or entry.regions is not None:
            return None
        end = self._at + entry.size
        if end > len(self._chunk) or not entry.size or self._stored != entry.size:
            return None
        view = self._view[self._at : end]
        self._at = end
        self._stored = 0
        return view

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        """The newest entry's data, holes left out, in order: (offset in the file, bytes)."""
        entry = self._entry
        if entry is None or entry.kind != FILE:
            return
        try:
            if entry.regions is None:
                yield from self._run(0, entry.size)
                return
            numbers = iter(entry.regions)
            for start, length in zip(numbers, numbers, strict=True):
                yield from self._run(start, length)
        except Malformed as e:
            raise self._located(e) from None

    def drain(self) -> None:
        """Read what follows the end mark: it belongs to the layer's digest."""
        self._at = len(self._chunk)
        while self._fill():
            self._at = len(self._chunk)

    def _located(self, error: Malformed) -> InvalidParameter:
        where = f"header at byte {self._header_at}"
        if self._entry is not None:
            where = f"entry {printable(self._entry.name)} at byte {self._entry.offset}"
        return InvalidParameter(f"error processing tar file: {error} ({where}, read up to byte {self.offset})")

    # The stream

    def _fill(self) -> bool:
        """Read the next chunk; only called when the present one is used up. False at the end of the source."""
        self._base += len(self._chunk)
        self._at = 0
        self._chunk = self._read(self._piece)
        self._view = memoryview(self._chunk)
        return bool(self._chunk)

    def _take(self, size: int) -> bytes:
        """The next `size` bytes, less at the end of the source."""
        end = self._at + size
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
            return data
        parts: list[bytes] = []
        while size:
            if self._at == len(self._chunk) and not self._fill():
                break
            part = self._chunk[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _take_exactly(self, size: int) -> bytes:
        data = self._take(size)
        if len(data) != size:
            raise Malformed(_CUT)
        return data

    def _skip(self, size: int) -> int:
        """Go on by `size` bytes; return how many of them the source did not have."""
        rest = len(self._chunk) - self._at
        if self._leap is not None and size >= rest + _CHUNK:
            step = rest + self._leap(size - rest)
            self._base += self._at + step
            self._chunk = b""
            self._at = 0
            size -= step
        while size:
            if self._at == len(self._chunk) and not self._fill():
                break
            step = min(size, len(self._chunk) - self._at)
            self._at += step
            size -= step
        return size

    def _pass(self, size: int) -> None:
        if self._skip(size):
            raise Malformed(_CUT)

    def _run(self, position: int, length: int) -> Iterator[tuple[int, memoryview]]:
        while length:
            if self._at == len(self._chunk) and not self._fill():
                raise Malformed(_CUT)
            view = self._view[self._at : self._at + length]
            size = len(view)
            self._at += size
            self._stored -= size
            length -= size
            yield position, view
            position += size

    # Headers

    def _next(self) -> TarEntry | None:
        start = self.offset
        records: list[tuple[bytes, bytes]] = []
        long_name = long_target = None
        extended = False
        while True:
            block = self._next_block()
            if block is None:
                if extended:
                    raise Malformed("unexpected EOF after an extended header")
                return None
            fields = _HEADER.unpack(block)
            kind = fields[7]
            if kind not in b"xXgKLV":
                break
            extended = True
            data = self._extension(kind, fields[4])
            if kind in b"xX":  # X is Solaris' name for x.
                records = pax_records(data)
            elif kind == b"L":
                long_name = data.partition(b"\0")[0]
            elif kind == b"K":
                long_target = data.partition(b"\0")[0]
        entry = self._entry = self._plain(block, fields)
        entry.offset = start
        if records:
            _apply_records(entry, records)
        if long_name is not None:
            entry.name = long_name
        if long_target is not None:
            entry.target = long_target
        self._settle(entry, block, records)
        return entry

    def _next_block(self) -> bytes | None:
        """The next header block; None at the end mark or at the end of the source."""
        self._header_at = self.offset
        block = self._take(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise Malformed(_CUT)
        if block == _ZEROS:
            if self._take(BLOCK).strip(b"\0"):
                raise Malformed("archive/tar: invalid tar header: a lone block of zeros before it")
            return None
        if not checksum_holds(block):
            raise Malformed("archive/tar: invalid tar header: wrong checksum")
        return block

    def _extension(self, kind: bytes, size_field: bytes) -> bytes:
        """The data of a header that describes the next entry; nothing for g (global) and V (a volume's label)."""
        size = _size(number(size_field, "size"))
        padding = -size % BLOCK
        if kind in b"gV":
            self._pass(size + padding)
            return b""
        if size > self._limits.extended_header:
            raise Malformed(f"an extended header of {size} bytes, more than {self._limits.extended_header}")
        data = self._take_exactly(size)
        self._pass(padding)
        return data

    def _plain(self, block: bytes, fields: tuple[bytes, ...]) -> TarEntry:
        """The entry that the 512 bytes of a header alone describe."""
        name = fields[0].partition(b"\0")[0]
        major = minor = 0
        if block[257:262] == b"ustar":
            if fields[7] in b"34":
                major, minor = number(fields[12], "device number"), number(fields[13], "device number")
            prefix = _prefix(block)
            if prefix:
                name = prefix + b"/" + name
        return TarEntry(
            name,
            fields[7],
            number(fields[1], "mode") & 0o7777,
            number(fields[2], "owner"),
            number(fields[3], "group"),
            number(fields[4], "size"),
            number(fields[5], "time") * 1_000_000_000,
            fields[8].partition(b"\0")[0],
            major,
            minor,
        )

    def _settle(self, entry: TarEntry, block: bytes, records: list[tuple[bytes, bytes]]) -> None:
        """Check what all headers together say, and find out where the data is."""
        flag = entry.kind
        if flag == b"\0":
            entry.kind = DIRECTORY if entry.name.endswith(b"/") else FILE
        elif flag in b"7S":  # 7 is a contiguous file (nobody has a file system for it), S a sparse one.
            entry.kind = FILE
        elif flag not in KINDS:
            raise Malformed(f"unhandled tar header type {flag[0]}")
        for owner in (entry.uid, entry.gid):
            if not 0 <= owner <= _ID_MAX:
                raise Malformed(f"the owner or group {owner} is out of range")
        if entry.kind == FILE:
            self._stored = _size(entry.size)
            self._padding = -self._stored % BLOCK
            if flag == b"S":
                self._old_sparse(entry, block)
            elif any(key.startswith(b"GNU.sparse.") for key, _ in records):
                self._pax_sparse(entry, records)
        else:
            entry.size = 0
        if b"\0" in entry.name or b"\0" in entry.target:
            raise Malformed("a NUL in a name")

    # Sparse files

    def _old_sparse(self, entry: TarEntry, block: bytes) -> None:
        """GNU's first format: a table in the header, continued in blocks before the data."""
        entry.size = _size(number(block[483:495], "size"))
        regions = array.array("q", old_gnu_regions(block[386:482], 4))
        more = block[482]
        while more:
            table = self._take_exactly(BLOCK)
            regions.extend(old_gnu_regions(table, 21))
            self._check_count(len(regions) // 2)
            more = table[504]
        check_regions(regions, entry.size, self._stored)
        entry.regions = regions

    def _pax_sparse(self, entry: TarEntry, records: list[tuple[bytes, bytes]]) -> None:
        """GNU's formats in pax headers: 0.0 and 0.1 with the map in records, 1.0 with the map before the data."""
        last = dict(records)
        size = last.get(b"GNU.sparse.realsize") or last.get(b"GNU.sparse.size")
        if size is None:
            return
        version = last.get(b"GNU.sparse.major", b"0"), last.get(b"GNU.sparse.minor", b"0")
        if version == (b"1", b"0"):
            regions = self._map_before_data()
        elif version in ((b"0", b"0"), (b"0", b"1")):
            texts = pax_regions(records)
            self._check_count(len(texts) // 2)
            regions = array.array("q", [decimal(text, "sparse map") for text in texts])
        else:
            raise Malformed(f"unknown sparse format {version[0]!r}.{version[1]!r}")
        entry.name = last.get(b"GNU.sparse.name") or entry.name
        entry.size = decimal(size, "size")
        check_regions(regions, entry.size, self._stored)
        entry.regions = regions

    def _map_before_data(self) -> Regions:
        """Decimal numbers, one a line, filled up to a block: the count of regions, then offset and length of each."""
        numbers = array.array("q")
        wanted = 1
        rest = b""
        while len(numbers) < wanted:
            if self._stored < BLOCK:
                raise Malformed("a sparse map that does not end")
            lines = (rest + self._take_exactly(BLOCK)).split(b"\n")
            self._stored -= BLOCK
            rest = lines.pop()[:32]  # A longer one is no number and fails in the next round.
            for line in lines[: wanted - len(numbers)] if numbers else lines:
                numbers.append(decimal(line, "sparse map"))
                if len(numbers) == 1:
                    self._check_count(numbers[0])
                    wanted = 1 + 2 * numbers[0]
                if len(numbers) == wanted:
                    break
        return numbers[1:]

    def _check_count(self, count: int) -> None:
        if count > self._limits.sparse_regions:
            raise Malformed(f"a sparse file of {count} regions, more than {self._limits.sparse_regions}")


def printable(name: bytes) -> str:
    """A name of an archive for a message: quoted, what is not printable text escaped, cut after 256 bytes."""
    text = name[:256].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return f'"{shown}{"..." if len(name) > 256 else ""}"'


def _prefix(block: bytes) -> bytes:
    """What a ustar header puts before a name of more than 100 bytes."""
    if not block[345]:
        return b""
    if block[257:265] == b"ustar  \0":
        # GNU keeps times here; but Go's writer before 1.8 put a prefix (golang.org/issue/21005).
        prefix = block[345:500].partition(b"\0")[0]
        return b"" if is_octal(block[345:357]) or not prefix.isascii() else prefix
    end = 476 if block[508:512] == b"tar\0" else 500  # In star's format times follow the prefix.
    return block[345:end].partition(b"\0")[0]


def _apply_records(entry: TarEntry, records: list[tuple[bytes, bytes]]) -> None:
    """Let pax records override the header's fields (POSIX.1-2001, pax, "pax Extended Header Keywords")."""
    xattrs: dict[bytes, bytes] = {}
    for key, value in records:
        if key.startswith(XATTR_PREFIX):
            xattrs[key[len(XATTR_PREFIX) :]] = value
        elif not value:
            continue  # An empty value takes an override back.
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.target = value
        elif key == b"size":
            entry.size = decimal(value, "size")
        elif key == b"mtime":
            entry.mtime_ns = pax_time(value)
        elif key == b"atime":
            entry.atime_ns = pax_time(value)
        elif key == b"uid":
            entry.uid = decimal(value, "owner")
        elif key == b"gid":
            entry.gid = decimal(value, "group")
    entry.xattrs = xattrs


def _size(size: int) -> int:
    if not 0 <= size < FAR:
        raise Malformed(f"archive/tar: invalid tar header: a size of {size}")
    return size
