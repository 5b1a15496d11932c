"""Layers compressed for a registry: gzip on all processors, or zstd; the same bytes for the same layer on one machine.

gzip is cut into blocks that are compressed at the same time, each with the end of the one before as its dictionary, and put
together to one member (RFC 1951, 1952), as pigz does: any reader takes it. ISA-L does the work where it is there: seven times as fast
as zlib at its own choice of level, which Docker takes, for blobs that are a tenth larger.
"""

from __future__ import annotations

import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future
    from typing import Protocol

    from sampan.store.tarstream import Source

    class _Packer(Protocol):
        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self, mode: int, /) -> bytes: ...

    Packers = Callable[[bytes], _Packer]

GZIP, ZSTD = "gzip", "zstd"
KINDS = (GZIP, ZSTD)

_BLOCK = 1 << 19
_DICTIONARY = 1 << 15
_AHEAD = 4  # blocks that are in the works at most, for each layer
_ISAL_LEVEL = 3  # its best
_ZLIB_LEVEL = 6  # zlib's own choice, and Docker's
_ZSTD_LEVEL = 3  # zstd's own choice
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, no system


def compressed(source: Source, kind: str, workers: Executor) -> Iterator[bytes]:
    """The bytes of a stream, compressed, piece by piece. What reading raises comes through."""
    return _zstd(source) if kind == ZSTD else _gzip(source, workers)


def _blocks(source: Source) -> Iterator[bytes]:
    """Blocks of one size, but for the last: what comes out does not depend on how the stream is read."""
    parts: list[bytes] = []
    have = 0
    while data := source.read(_BLOCK - have):
        parts.append(data)
        have += len(data)
        if have == _BLOCK:
            yield b"".join(parts)
            parts, have = [], 0
    if have:
        yield b"".join(parts)


def _gzip(source: Source, workers: Executor) -> Iterator[bytes]:
    packers = _packers()
    queue: list[Future[bytes]] = []
    checksum = size = 0
    before = b""
    yield _HEADER
    for block in _blocks(source):
        queue.append(workers.submit(_deflate, packers, block, before))
        checksum = zlib.crc32(block, checksum)
        size += len(block)
        before = block[-_DICTIONARY:]
        if len(queue) == _AHEAD:
            yield queue.pop(0).result()
    for one in queue:
        yield one.result()
    # An empty block that is the last one: which of the others would be was not known before.
    yield b"\x03\0" + struct.pack("<II", checksum, size & 0xFFFFFFFF)


def _packers() -> Packers:
    """What makes a compressor of raw deflate that knows what came before."""
    make: Callable[..., _Packer]
    try:
        from isal import isal_zlib
    except ImportError:
        make, level = zlib.compressobj, _ZLIB_LEVEL
    else:
        make, level = isal_zlib.compressobj, _ISAL_LEVEL

    def packer(before: bytes) -> _Packer:
        dictionary = (before,) if before else ()
        return make(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, *dictionary)

    return packer


def _deflate(packers: Packers, block: bytes, before: bytes) -> bytes:
    packer = packers(before)
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)


def _zstd(source: Source) -> Iterator[bytes]:
    import zstandard

    packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    for block in _blocks(source):
        if data := packer.compress(block):
            yield data
    yield packer.flush()
