"""Writing tar archives: the same entries give the same bytes, always.

ustar headers, with a pax header in front of what ustar cannot hold: long or non-ASCII names, large numbers,
times finer than a second, xattrs. No user names, no time of writing, records sorted by key.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.store.tarstream import BLOCK, DIRECTORY, FILE, HARDLINK, SYMLINK, XATTR_PREFIX, TarEntry, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from sampan.store.tarfields import Regions

    class Sink(Protocol):
        """What is written to: any binary file, unbuffered ones excepted (all of `data` must be taken)."""

        def write(self, data: bytes, /) -> object: ...


_END = bytes(2 * BLOCK)
_NO_NAMES = bytes(64)  # Of the owner and the group.
_NO_DEVICE = b"0000000\0" * 2
_MAGIC = b"ustar\x0000"
_CONSTANTS = 8 * 0x20 + sum(_MAGIC)
"""What the bytes of every header sum up to that are always the same: the checksum itself counts as spaces."""
_OCTAL_7 = 1 << 21
_OCTAL_11 = 1 << 33


_PAX_BLOCKS: dict[int, bytes] = {}
"""The blocks before extended headers of a block at most, by their length, which is all they tell: most files have one."""


class TarWriter:
    """Writes entries one after the other; `close()` writes the end mark.

    `entry.name` of a directory may end in a slash or not; in the archive it does, as Docker's layers have it.
    A file whose `entry.regions` are set is written sparse (GNU's format 1.0 in pax headers, which GNU tar, libarchive,
    Python and Go read): its data are those regions alone. All others are written whole, holes as zeros.
    """

    def __init__(self, sink: Sink) -> None:
        self._write = sink.write
        self._name = b""
        self._left = 0
        self._padding = 0

    def add(self, entry: TarEntry, data: bytes | Iterable[bytes] = b"") -> None:
        """Write an entry and, for a regular file, its data in pieces that together have `entry.size` bytes.

        Raises `InvalidParameter` if they have not, or for a name with a NUL. After an error the archive is useless.
        """
        self.begin(entry)
        if entry.kind == FILE:
            for piece in (data,) if isinstance(data, bytes) else data:
                self.write(piece)
        self.end()

    def begin(self, entry: TarEntry) -> None:
        """Write an entry's header; the data of a file follow by `write`, then `end`. Raises as `add`."""
        if b"\0" in entry.name or b"\0" in entry.target or not entry.name:
            raise InvalidParameter(f"a tar archive cannot hold the name {printable(entry.name)}")
        self._name = entry.name
        if entry.kind != FILE:
            self._left = self._padding = 0
            self._write(_header(entry, 0))
        elif entry.regions is None:
            self._left, self._padding = entry.size, -entry.size % BLOCK
            self._write(_header(entry, entry.size))
        else:
            self._left = sum(entry.regions[1::2])
            self._padding = -self._left % BLOCK
            table = _sparse_map(entry.regions)
            self._write(_header(entry, len(table) + self._left) + table)

    def write(self, data: bytes) -> None:
        """The next data of the file that was begun. Raises `InvalidParameter` for more than were announced."""
        self._left -= len(data)
        if self._left < 0:
            raise _changed(self._name)
        self._write(data)

    def end(self) -> None:
        """The data of the file that was begun are complete. Raises `InvalidParameter` if they are not."""
        if self._left:
            raise _changed(self._name)
        if self._padding:
            self._write(bytes(self._padding))

    def close(self) -> None:
        """Write the end mark. The sink stays open."""
        self._write(_END)


def _changed(name: bytes) -> InvalidParameter:
    return InvalidParameter(f"{printable(name)} changed while it was read: its size is another one")


def _sparse_map(regions: Regions) -> bytes:
    """The map that precedes a sparse file's data: the count of regions, then offset and length of each, a line each."""
    numbers = (len(regions) // 2, *regions)
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % BLOCK)


def _header(entry: TarEntry, size: int) -> bytes:
    """The blocks before an entry's data."""
    name = entry.name
    if entry.kind == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    records: dict[bytes, bytes] = {XATTR_PREFIX + key: value for key, value in entry.xattrs.items()}
    prefix, short = _split(name)
    if not short:
        records[b"path"] = name
        short = _ascii(name)[:100]
    target = entry.target if entry.kind in (HARDLINK, SYMLINK) else b""
    if len(target) > 100 or not target.isascii():
        records[b"linkpath"] = target
        target = _ascii(target)[:100]
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    if nanoseconds or not 0 <= seconds < _OCTAL_11:
        records[b"mtime"] = _time(entry.mtime_ns)
        seconds = min(max(seconds, 0), _OCTAL_11 - 1)
    if entry.uid >= _OCTAL_7:
        records[b"uid"] = b"%d" % entry.uid
    if entry.gid >= _OCTAL_7:
        records[b"gid"] = b"%d" % entry.gid
    if size >= _OCTAL_11:
        records[b"size"] = b"%d" % size
    if entry.regions is not None:
        records |= {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"%d" % entry.size}
        # Readers that do not know the format find the map and the data under a name that says so.
        records[b"GNU.sparse.name"] = name
        records.pop(b"path", None)
        prefix, short = b"", b"GNUSparseFile.0/" + _ascii(name.rpartition(b"/")[2])[:80]
    block = _block(entry, prefix, short, target, size, seconds)
    if not records:
        return block
    if any(key in records and not _is_utf8(records[key]) for key in (b"path", b"linkpath", b"GNU.sparse.name")):
        records[b"hdrcharset"] = b"BINARY"  # Without it, names in pax headers are UTF-8.
    return _pax_header(records) + block


def _block(entry: TarEntry, prefix: bytes, name: bytes, target: bytes, size: int, seconds: int) -> bytes:
    """One ustar header block; numbers that do not fit are 0, and in the pax header. `seconds` fit."""
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        entry.mode & 0o7777,
        _fitting(entry.uid, _OCTAL_7),
        _fitting(entry.gid, _OCTAL_7),
        _fitting(size, _OCTAL_11),
        seconds,
    )
    device = _NO_DEVICE
    if entry.major or entry.minor:
        device = b"%07o\0%07o\0" % (_fitting(entry.major, _OCTAL_7), _fitting(entry.minor, _OCTAL_7))
    # Of all bytes of the block. Most are the zeros behind a name, which are not looked at.
    checksum = _CONSTANTS + sum(name) + sum(numbers) + sum(entry.kind) + sum(target) + sum(device) + sum(prefix)
    return b"%b%b%06o\0 %b%b%b%b%b%b" % (
        name.ljust(100, b"\0"),
        numbers,
        checksum,
        entry.kind,
        target.ljust(100, b"\0"),
        _MAGIC,
        _NO_NAMES,
        device,
        prefix.ljust(167, b"\0"),
    )


def _pax_header(records: dict[bytes, bytes]) -> bytes:
    """An extended header with these records. Its own name is for readers that do not know pax and see a file."""
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    block = _PAX_BLOCKS.get(len(data))
    if block is None:
        member = TarEntry(b"PaxHeaders.0", b"x", 0o644)
        block = _block(member, b"", member.name, b"", len(data), 0)
        if len(data) <= BLOCK:
            _PAX_BLOCKS[len(data)] = block
    return block + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """ "LENGTH KEY=VALUE\\n", where the length counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest)
    while length != len(b"%d" % length) + len(rest):
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _split(name: bytes) -> tuple[bytes, bytes]:
    """A name as ustar's prefix and name; both empty if it does not fit."""
    if not name.isascii():
        return b"", b""
    if len(name) <= 100:
        return b"", name
    # The slash between the two is in neither; one at the end of a directory's name is no place to split.
    slash = name.find(b"/", max(0, len(name) - 101), len(name) - 1)
    if 0 < slash <= 155:
        return name[:slash], name[slash + 1 :]
    return b"", b""


def _time(nanoseconds: int) -> bytes:
    """Seconds with as many digits after the point as it needs."""
    sign = b"-" if nanoseconds < 0 else b""
    whole, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return sign + (b"%d.%09d" % (whole, fraction)).rstrip(b"0").rstrip(b".")


def _fitting(value: int, limit: int) -> int:
    return value if 0 <= value < limit else 0


def _ascii(name: bytes) -> bytes:
    return bytes(byte if byte < 0x80 else 0x3F for byte in name)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
