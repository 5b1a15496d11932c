"""A layer's archive into a directory: decompressed, hashed and unpacked in one pass."""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.oci.digest import SHA256, new_hash
from sampan.store.decompress import decompress
from sampan.store.extract import Extractor
from sampan.store.layertree import LayerTree
from sampan.store.lower import LowerLayers
from sampan.store.tarstream import SYMLINK, Limits, TarReader
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from sampan.oci.digest import Hash
    from sampan.store.tarstream import Source

    Whiteouts = Literal["overlay", "delete"]

ARCHIVE_LIMIT = 1 << 40
"""Bytes of one layer's plain archive: no image has that, but a few kilobytes of zstd can claim to."""

ENTRY_LIMIT = 4_000_000
"""Entries of one layer: several times what the largest images have; empty files cost an archive nothing, and a disk its inodes."""


class LayerInfo(Struct):
    """What an archive turned out to be.

    `diff_id` is the sha256 digest of the plain archive, `archive_size` its bytes; `size` is what Docker calls a
    layer's size, the sum of the lengths of its files and of the paths in its links; `chain_id` is empty where no layers below are known.
    """

    diff_id: str
    size: int
    entries: int
    archive_size: int
    chain_id: str = ""


class DigestStream:
    """Hashes and counts what is read through it. Raises `InvalidParameter` above `limit` bytes."""

    def __init__(self, source: Source, limit: int = ARCHIVE_LIMIT, hasher: Hash | None = None) -> None:
        """hasher: one that was not used yet, instead of one of its own."""
        self._read = source.read
        self._hash = hasher or new_hash()
        self._limit = limit
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._read(size)
        self._hash.update(data)
        self.size += len(data)
        if self.size > self._limit:
            raise InvalidParameter(f"error processing tar file: more than {self._limit} bytes")
        return data

    @property
    def digest(self) -> str:
        """The digest of all that was read until now."""
        return f"{SHA256}:{self._hash.hexdigest()}"


def apply(
    stream: Source, dir_fd: int, *, whiteouts: Whiteouts, lower: Sequence[str] = (), limits: Limits | None = None
) -> LayerInfo:
    """Unpack an archive, compressed or not, into the directory `dir_fd`, and never outside of it.

    `whiteouts`: with "overlay" the directory takes this layer alone, in the form that overlayfs reads, and `lower`
    are the directories of the layers below, topmost first. With "delete" the directory holds a copy of all layers
    below already, and deleted names are removed.

    A stream that can be interrupted (see `store.ahead`) is decompressed in a thread of its own, and hashed in another one.

    Reads to the end of the stream, since that is what the digest is of. Raises `InvalidParameter` for what is wrong
    with the archive and `System` where the disk refuses; the directory is then half full, and the caller's to remove.
    """
    plain = decompress(stream, dir_fd)
    interrupt: Callable[[], None] | None = getattr(stream, "interrupt", None)
    if interrupt is None:
        source = DigestStream(plain)
        size, entries = _apply(source, dir_fd, whiteouts, lower, limits)
        return LayerInfo(source.digest, size, entries, source.size)

    from sampan.store.ahead import ReadAhead
    from sampan.store.hashing import HashingThread

    with HashingThread() as hasher:
        source = DigestStream(plain, hasher=hasher)
        with ReadAhead(source, interrupt) as ahead:
            size, entries = _apply(ahead, dir_fd, whiteouts, lower, limits)
        return LayerInfo(source.digest, size, entries, source.size)


def _apply(
    source: Source, dir_fd: int, whiteouts: Whiteouts, lower: Sequence[str], limits: Limits | None
) -> tuple[int, int]:
    """Unpack a plain archive: the layer's size, and the number of its entries."""
    reader = TarReader(source, limits)
    layers = LowerLayers(lower) if whiteouts == "overlay" and lower else None
    tree = LayerTree(dir_fd, layers, whole=whiteouts == "delete" and bool(os.listdir(dir_fd)))
    try:
        found = _unpack(reader, Extractor(tree, layers))
        tree.close()
    except BaseException:
        tree.abandon()
        raise
    finally:
        if layers is not None:
            layers.close()
    reader.drain()
    return found


def _unpack(reader: TarReader, extractor: Extractor) -> tuple[int, int]:
    size = entries = 0
    for entry in reader:
        if entries == ENTRY_LIMIT:
            raise InvalidParameter(f"error processing tar file: more than {ENTRY_LIMIT} entries")
        extractor.put(entry, reader)
        size += len(entry.target) if entry.kind == SYMLINK else entry.size
        entries += 1
    return size, entries
