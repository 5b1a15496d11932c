"""Layers compressed for a registry: gzip on all processors, or zstd; the same bytes for the same layer.

gzip is cut into blocks that are compressed at the same time, each with the end of the one before as its dictionary, and put
together to one member (RFC 1951, 1952), as pigz does: any reader takes it, and it is as small.
"""

from __future__ import annotations

import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future

    from sampan.store.tarstream import Source

GZIP, ZSTD = "gzip", "zstd"
KINDS = (GZIP, ZSTD)

_BLOCK = 1 << 19
_DICTIONARY = 1 << 15
_AHEAD = 4  # blocks that are in the works at most, for each layer
_GZIP_LEVEL = 6  # zlib's own choice, and Docker's
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
    queue: list[Future[bytes]] = []
    checksum = size = 0
    before = b""
    yield _HEADER
    for block in _blocks(source):
        queue.append(workers.submit(_deflate, block, before))
        checksum = zlib.crc32(block, checksum)
        size += len(block)
        before = block[-_DICTIONARY:]
        if len(queue) == _AHEAD:
            yield queue.pop(0).result()
    for one in queue:
        yield one.result()
    # An empty block that is the last one: which of the others would be was not known before.
    yield b"\x03\0" + struct.pack("<II", checksum, size & 0xFFFFFFFF)


def _deflate(block: bytes, before: bytes) -> bytes:
    make: Callable[..., zlib._Compress] = zlib.compressobj
    packer = make(
        _GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, *([before] if before else ())
    )
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)


def _zstd(source: Source) -> Iterator[bytes]:
    import zstandard

    packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    for block in _blocks(source):
        if data := packer.compress(block):
            yield data
    yield packer.flush()
