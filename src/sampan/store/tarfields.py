"""The fields of tar headers as text and bytes: numbers, pax records, maps of sparse files. No stream, no state.

Everything here takes what a hostile archive may hold and raises `Malformed` for what is not valid.
"""

from __future__ import annotations

import array
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Regions = array.array[int]

FAR = 1 << 62
"""Sizes and times beyond this are nonsense, and would overflow the kernel's."""


class Malformed(ValueError):
    """The archive is not valid; the text says what is wrong and the reader says where."""


def number(field: bytes, what: str) -> int:
    """A number of a header: octal text, or two's complement base 256 after a set high bit (GNU tar, star)."""
    text = field.rstrip(b" \0")
    if not text.isdigit():
        if field[0] & 0x80:
            return _base_256(field, what)
        text = text.lstrip(b" \0").partition(b"\0")[0]
        if not text:
            return 0
    try:
        # Digits only: int() alone would take "+7", "0o7" and "1_0".
        if text.isdigit():
            return int(text, 8)
    except ValueError:
        pass  # 8 and 9 are digits, too.
    raise Malformed(f"archive/tar: invalid tar header: the {what} {shown(text)} is no octal number")


def _base_256(field: bytes, what: str) -> int:
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    if field[0] & 0x40:
        value -= 1 << bits
    if not -FAR < value < FAR:
        raise Malformed(f"archive/tar: invalid tar header: the {what} is out of range")
    return value


def shown(field: bytes) -> str:
    """A field's text for a message: in quotes, 32 bytes at most, what is not printable ASCII escaped."""
    return '"' + "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in field[:32]) + '"'


def decimal(text: bytes, what: str) -> int:
    """A decimal number of a pax record or of a sparse map; never negative."""
    if not text.isdigit() or len(text) > 19 or int(text) >= FAR:
        raise Malformed(f"the {what} {shown(text)} is no number")
    return int(text)


def pax_time(text: bytes) -> int:
    """Seconds with a fraction, as ns since the epoch. What is finer than a ns is cut off towards the past."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    if fraction and not fraction.isdigit():
        raise Malformed(f"the time {shown(text)} is no number")
    seconds = decimal(whole[1:] if negative else whole, "time")
    nanoseconds = seconds * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    if not negative:
        return nanoseconds
    return -nanoseconds - (1 if fraction[9:].strip(b"0") else 0)


def pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header, in order (POSIX.1-2001, pax, "Extended Header")."""
    records: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data) and data[at]:  # Some writers fill up with NULs.
        space = data.find(b" ", at, at + 20)
        length = data[at:space] if space > at else b""
        # A record is at least as long as its length field, so that each round gets on.
        end = at + int(length) if length.isdigit() else 0
        if end <= space + 2 or end > len(data) or data[end - 1] != 0x0A:
            raise Malformed("archive/tar: invalid tar header: a malformed pax record")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise Malformed("archive/tar: invalid tar header: a malformed pax record")
        records.append((key, value))
        at = end
    return records


def checksum_holds(block: bytes) -> bool:
    """Whether a header's checksum is right: the sum of its bytes, the checksum's own counted as spaces."""
    expected = number(block[148:156], "checksum")
    # Adler-32 sums bytes modulo 65521 in its lower half (RFC 1950): of a half block, that is the sum itself.
    total = (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2
    total += 256 - sum(block[148:156])
    if total == expected:
        return True
    # Sun's old tar summed signed chars.
    return total - 256 * sum(1 for byte in block[:148] + block[156:] if byte & 0x80) == expected


def is_octal(field: bytes) -> bool:
    """Whether a field holds a number and no text."""
    text = field.strip(b" \0")
    return bool(field[0] & 0x80) or (text.isdigit() and b"8" not in text and b"9" not in text)


# Sparse files (GNU tar manual, "Storing Sparse Files"): flat arrays offset, length, offset, length, ...


def old_gnu_regions(table: bytes, count: int) -> list[int]:
    """Up to `count` pairs of 12-byte numbers; an empty one ends the table."""
    regions: list[int] = []
    for at in range(0, count * 24, 24):
        if not table[at]:
            break
        regions.append(number(table[at : at + 12], "sparse offset"))
        regions.append(number(table[at + 12 : at + 24], "sparse length"))
    return regions


def pax_regions(records: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The map of the sparse formats 0.0 (repeated records) and 0.1 (one record), as text."""
    repeated: list[bytes] = []
    for key, value in records:
        if key == b"GNU.sparse.map":
            return value.split(b",") if value else []
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            repeated.append(value)
    return repeated


def check_regions(regions: Regions, size: int, stored: int) -> None:
    """A sparse file's regions are in order, inside the file, and together exactly the stored data."""
    if len(regions) % 2:
        raise Malformed("a malformed sparse map")
    position = total = 0
    for at in range(0, len(regions), 2):
        start, length = regions[at], regions[at + 1]
        if start < position or length < 0 or start + length > size:
            raise Malformed("a malformed sparse map")
        position = start + length
        total += length
    if total != stored:
        raise Malformed(f"a sparse map of {total} bytes for {stored} bytes of data")
