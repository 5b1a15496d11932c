"""Compressed archives as plain streams: in this process, by the first bytes, with bounded memory.

Never by a program: an `xz` or `unpigz` found by PATH may come from a container (class CVE-2026-41567), and
never more than a chunk ahead, however much a few bytes unfold to.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, Unavailable
from sampan.store.room import Room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from sampan.store.tarstream import Source

    Buffer = bytes | memoryview

    class _Decoder(Protocol):
        """One compressed member or frame: gives at most `limit` bytes a call (zstd: a multiple of its input)."""

        eof: bool
        unused: Buffer

        def decode(self, data: Buffer, limit: int) -> bytes: ...


_INPUT = 1 << 20
_HEAD = 10  # Bytes that tell the formats apart.
_GZIP = b"\x1f\x8b\x08"  # RFC 1952, with its only compression method
_ZSTD = b"\x28\xb5\x2f\xfd"  # RFC 8878
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a first byte of 0x50 to 0x5f
_BZIP2 = b"BZh"
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")  # pi, and for nothing at all sqrt(pi)
_XZ = b"\xfd7zXZ\0"
_GZIP_WINDOW = 31  # 15 bits of window, with a gzip header and its checksum (zlib.h, inflateInit2)
_WINDOW = 1 << 27  # What zstd itself takes without being asked (zstd(1), --long).
_XZ_MEMORY = 1 << 28


def decompress(source: Source, disk: str | int | None = None) -> Source:
    """The plain bytes of `source`, whatever it is compressed with: gzip, zstd, bzip2, xz, or nothing.

    `disk` is a path or descriptor on the disk that they are written to: a bomb is not let fill it (see `store.room`).

    Reading raises `InvalidParameter` for bytes that are not valid and for an end in the middle. Raises
    `Unavailable` if zstd is needed and the package `zstandard` is not installed.
    """
    head = source.read(_INPUT)
    while len(head) < _HEAD:  # A pipe may give less.
        more = source.read(_INPUT)
        if not more:
            break
        head += more
    name = _compression(head)
    if name is None:
        return _Prefixed(head, source)
    return _Decompressed(name, head, source, None if disk is None else Room(disk))


def is_compressed(head: bytes) -> bool:
    """Whether a stream that begins with these bytes (ten are enough) is not read as it is."""
    return _compression(head) is not None


def _compression(head: bytes) -> str | None:
    """The format by its first bytes. A plain archive begins with a name, and one may well begin with "BZh"."""
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or (head[1:4] == _ZSTD_SKIPPABLE and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    if head.startswith(_BZIP2) and head[4:10] in _BZIP2_BLOCKS:
        return "bzip2"
    if head.startswith(_XZ):
        return "xz"
    return None


class _Prefixed:
    """A stream of which the beginning was read already."""

    def __init__(self, head: bytes, source: Source) -> None:
        self._head = head
        self._source = source

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._source.read(size)


class _Decompressed:
    """The members or frames of a compressed stream, one after the other."""

    def __init__(self, name: str, head: bytes, source: Source, room: Room | None) -> None:
        self._name = name
        self._new_decoder, self._errors = _decoders(name)
        self._input: Buffer = memoryview(head)  # Cut without being copied.
        self._source = source
        self._decoder: _Decoder | None = self._new_decoder()
        self._room = room
        self._packed = len(head)
        self._plain = 0

    def read(self, size: int, /) -> bytes:
        while True:
            if not self._input:
                self._input = memoryview(self._source.read(_INPUT))
                self._packed += len(self._input)
                if not self._input and self._decoder is None:
                    return b""
            if self._decoder is None:
                if not bytes(self._input).strip(b"\0"):
                    self._input = b""  # Tapes and some mirrors fill up with zeros.
                    continue
                self._decoder = self._new_decoder()
            data = self._decode(self._decoder, size)
            if data:
                self._plain += len(data)
                if self._room is not None and self._plain >= self._room.look_at:
                    self._room.look(self._plain, self._packed - len(self._input))
                return data

    def _decode(self, decoder: _Decoder, size: int) -> bytes:
        ended = not self._input
        try:
            data = decoder.decode(self._input, size)
        except self._errors as e:
            raise InvalidParameter(f"error processing tar file: {self._name}: {e}") from None
        self._input = decoder.unused
        if decoder.eof:
            self._decoder = None
        elif ended and not data:
            raise InvalidParameter(f"error processing tar file: {self._name}: unexpected EOF")
        return data


def _decoders(name: str) -> tuple[Callable[[], _Decoder], type[Exception]]:
    """What makes a decoder, and the error that it raises. The modules are imported by whoever meets such a stream."""
    if name == "gzip":
        zlib = _zlib()
        return lambda: _Gzip(zlib.decompressobj(_GZIP_WINDOW)), zlib.error
    if name == "bzip2":
        import bz2

        return lambda: _Standard(bz2.BZ2Decompressor()), OSError
    if name == "xz":
        import lzma

        return lambda: _Standard(lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)), lzma.LZMAError
    try:
        import zstandard
    except ImportError:
        raise Unavailable(
            "the archive is compressed with zstd, which needs the Python package zstandard (pip install zstandard)"
        ) from None
    return _Zstd, zstandard.ZstdError


def _zlib() -> _ZlibModule:
    """ISA-L, which takes half of the time, or where there is none for the machine zlib, whose interface it has."""
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib
    return isal_zlib


class _Gzip:
    """zlib's interface: what was not used is a property of the object."""

    def __init__(self, decompressor: _ZlibObject) -> None:
        self._object = decompressor
        self.eof = False
        self.unused: Buffer = b""

    def decode(self, data: Buffer, limit: int) -> bytes:
        plain = self._object.decompress(data, limit)
        self.eof = self._object.eof
        self.unused = self._object.unused_data if self.eof else self._object.unconsumed_tail
        return plain


class _Standard:
    """The interface of bz2 and lzma: what was not used stays inside until more is asked for."""

    def __init__(self, decompressor: _StandardObject) -> None:
        self._object = decompressor
        self.eof = False
        self.unused: Buffer = b""

    def decode(self, data: Buffer, limit: int) -> bytes:
        if self._object.needs_input:
            plain = self._object.decompress(data, limit)
            self.unused = b""
        else:
            plain = self._object.decompress(b"", limit)
            self.unused = data
        self.eof = self._object.eof
        if self.eof:
            self.unused = self._object.unused_data + bytes(self.unused)
        return plain


class _Zstd:
    """zstandard's object has no limit for its output, so it gets its input in small pieces.

    Its stream_reader has one, but takes a truncated stream for a complete one.
    """

    _PIECE = 512  # A zstd block unfolds to 128 KiB at most and takes 4 bytes at least: 16 MiB from one piece.

    def __init__(self) -> None:
        import zstandard

        self._object = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self.eof = False
        self.unused: Buffer = b""
        self._plain = memoryview(b"")

    def decode(self, data: Buffer, limit: int) -> bytes:
        parts = [self._plain]
        have = len(self._plain)
        ended = self._object.eof
        while have < limit and data and not ended:
            parts.append(memoryview(self._object.decompress(data[: self._PIECE])))
            have += len(parts[-1])
            data = data[self._PIECE :]
            ended = self._object.eof
            if ended:
                data = self._object.unused_data + bytes(data)
        plain = b"".join(parts)
        self._plain = memoryview(plain)[limit:]
        self.eof = ended and not self._plain
        self.unused = data
        return plain[:limit]


if TYPE_CHECKING:

    class _ZlibObject(Protocol):
        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        @property
        def unconsumed_tail(self) -> bytes: ...
        def decompress(self, data: Buffer, max_length: int = 0, /) -> bytes: ...

    class _ZlibModule(Protocol):
        @property
        def error(self) -> Any: ...  # a class of exceptions
        @property
        def decompressobj(self) -> Callable[[int], _ZlibObject]: ...

    class _StandardObject(Protocol):
        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: Buffer, max_length: int = -1) -> bytes: ...
