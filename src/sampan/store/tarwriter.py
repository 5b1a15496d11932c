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

    class Sink(Protocol):
        """What is written to: any binary file, unbuffered ones excepted (all of `data` must be taken)."""

        def write(self, data: bytes, /) -> object: ...


_END = bytes(2 * BLOCK)
_OCTAL_7 = 1 << 21
_OCTAL_11 = 1 << 33


class TarWriter:
    """Writes entries one after the other; `close()` writes the end mark.

    `entry.name` of a directory may end in a slash or not; in the archive it does, as Docker's layers have it.
    Sparse files are written whole: no reader of layers but GNU's and Go's would know them.
    """

    def __init__(self, sink: Sink) -> None:
        self._write = sink.write

    def add(self, entry: TarEntry, data: bytes | Iterable[bytes] = b"") -> None:
        """Write an entry and, for a regular file, its data in pieces that together have `entry.size` bytes.

        Raises `InvalidParameter` if they have not, or for a name with a NUL. After an error the archive is useless.
        """
        if b"\0" in entry.name or b"\0" in entry.target or not entry.name:
            raise InvalidParameter(f"a tar archive cannot hold the name {printable(entry.name)}")
        size = entry.size if entry.kind == FILE else 0
        self._write(_header(entry, size))
        if entry.kind != FILE:
            return
        written = 0
        for piece in (data,) if isinstance(data, bytes) else data:
            written += len(piece)
            if written > size:
                break
            self._write(piece)
        if written != size:
            raise InvalidParameter(f"{printable(entry.name)} changed while it was read: {size} bytes were expected")
        self._write(bytes(-size % BLOCK))

    def close(self) -> None:
        """Write the end mark. The sink stays open."""
        self._write(_END)


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
    numbers = {b"uid": entry.uid, b"gid": entry.gid}
    records |= {key: b"%d" % value for key, value in numbers.items() if value >= _OCTAL_7}
    if size >= _OCTAL_11:
        records[b"size"] = b"%d" % size
    block = _block(entry, prefix, short, target, size, seconds)
    if not records:
        return block
    if any(not _is_utf8(records.get(key, b"")) for key in (b"path", b"linkpath")):
        records[b"hdrcharset"] = b"BINARY"  # Without it, names in pax headers are UTF-8.
    return _pax_header(name, records) + block


def _block(entry: TarEntry, prefix: bytes, name: bytes, target: bytes, size: int, seconds: int) -> bytes:
    """One ustar header block; numbers that do not fit are 0, and in the pax header."""
    block = bytearray(BLOCK)
    _text(block, 0, name)
    _octal(block, 100, 8, entry.mode & 0o7777)
    _octal(block, 108, 8, entry.uid)
    _octal(block, 116, 8, entry.gid)
    _octal(block, 124, 12, size)
    _octal(block, 136, 12, seconds)
    block[156:157] = entry.kind
    _text(block, 157, target)
    block[257:265] = b"ustar\x0000"
    _octal(block, 329, 8, entry.major)
    _octal(block, 337, 8, entry.minor)
    _text(block, 345, prefix)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax_header(name: bytes, records: dict[bytes, bytes]) -> bytes:
    """An extended header with these records. Its own name is for readers that do not know pax and see a file."""
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    base = _ascii(name.rstrip(b"/").rpartition(b"/")[2])
    member = TarEntry(b"PaxHeaders.0/" + base[:80], b"x", 0o644)
    return _block(member, b"", member.name, b"", len(data), 0) + data + bytes(-len(data) % BLOCK)


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


def _octal(block: bytearray, at: int, width: int, value: int) -> None:
    if not 0 <= value < 1 << (3 * (width - 1)):
        value = 0
    block[at : at + width] = b"%0*o\0" % (width - 1, value)


def _text(block: bytearray, at: int, value: bytes) -> None:
    block[at : at + len(value)] = value


def _ascii(name: bytes) -> bytes:
    return bytes(byte if byte < 0x80 else 0x3F for byte in name)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
