"""Tar archives made field by field, right and wrong ones, and what is on a disk afterwards."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

END = bytes(1024)


def header(
    name: bytes = b"file",
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: int = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    device: tuple[int, int] = (0, 0),
    extra: dict[int, bytes] | None = None,
) -> bytes:
    """One header block. Numbers given as bytes are put as they are; `extra` overwrites at positions."""

    def number(value: int | bytes, width: int) -> bytes:
        return value if isinstance(value, bytes) else b"%0*o\0" % (width - 1, value)

    block = bytearray(512)
    fields = [
        (0, name[:100]),
        (100, number(mode, 8)),
        (108, number(uid, 8)),
        (116, number(gid, 8)),
        (124, number(size, 12)),
        (136, number(mtime, 12)),
        (156, kind),
        (157, target[:100]),
        (257, magic),
        (329, number(device[0], 8)),
        (337, number(device[1], 8)),
        (345, prefix),
        *sorted((extra or {}).items()),
    ]
    for at, value in fields:
        block[at : at + len(value)] = value
    return summed(block)


def summed(block: bytes | bytearray) -> bytes:
    """The block with the right checksum."""
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: bytes, data: bytes = b"", **fields: Any) -> bytes:
    """A header, and the data of a regular file; names that ustar cannot hold get a pax header."""
    records: dict[bytes, bytes] = {}
    target = fields.get("target", b"")
    assert isinstance(target, bytes)
    if len(name) > 100:
        records[b"path"] = name
    if len(target) > 100:
        records[b"linkpath"] = target
    fields.setdefault("size", len(data))
    return (pax(records) if records else b"") + header(name, **fields) + padded(data)


def pax(records: dict[bytes, bytes] | list[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """An extended header with its data."""
    items = records.items() if isinstance(records, dict) else records
    data = b"".join(record(key, value) for key, value in items)
    return header(b"PaxHeaders/x", kind, len(data)) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def base256(value: int, width: int = 12) -> bytes:
    """A number as GNU tar writes large and negative ones."""
    data = bytearray((value & ((1 << (8 * width)) - 1)).to_bytes(width, "big"))
    data[0] |= 0x80
    return bytes(data)


def directory(name: bytes, mode: int = 0o755, **fields: Any) -> bytes:
    return member(name, kind=b"5", mode=mode, **fields)


def symlink(name: bytes, target: bytes, **fields: Any) -> bytes:
    return member(name, kind=b"2", target=target, **fields)


def hardlink(name: bytes, target: bytes, **fields: Any) -> bytes:
    return member(name, kind=b"1", target=target, **fields)


def whiteout(path: bytes) -> bytes:
    parent, slash, name = path.rpartition(b"/")
    return member(parent + slash + b".wh." + name)


def opaque(path: bytes) -> bytes:
    return member((path + b"/" if path else b"") + b".wh..wh..opq")


def fingerprint(top: Path | str, times: bool = True, inodes: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Everything that can be seen of a tree: types, modes, owners, contents, xattrs, times, inode numbers.

    A link is followed only if it is the top itself (/proc/self/fd/N).
    """
    root = os.fsencode(top)
    found: dict[bytes, tuple[object, ...]] = {}
    pending = [root]
    while pending:
        path = pending.pop()
        status = os.lstat(path) if path != root else os.stat(path)
        seen: list[object] = [status.st_mode, status.st_uid, status.st_gid, status.st_rdev]
        if times:
            seen.append(status.st_mtime_ns)
        if inodes:
            seen += [status.st_ino, status.st_ctime_ns, status.st_nlink]
        seen.append(sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in attributes(path)))
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as stream:
                seen.append(hashlib.file_digest(stream, "sha256").hexdigest())
        elif stat.S_ISLNK(status.st_mode):
            seen.append(os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            pending += [path + b"/" + name for name in os.listdir(path)]
        found[path[len(root) :]] = tuple(seen)
    return found


def attributes(path: bytes) -> list[str]:
    return [n for n in os.listxattr(path, follow_symlinks=False) if not n.startswith("trusted.overlay.")]
