"""A layer's directory and its archive, written at once: what is copied into a build is read once and hashed on its way.

Both writers take entries as `tarwriter.TarWriter` does. `LayerWriter`'s directory is what the archive would unpack to (`extract`), for
the same code puts the entries there. `ArchiveWriter` writes no directory: of a layer that most probably is there already.
`TreeWriter` writes nothing else: of one whose archive is written.
"""

from __future__ import annotations

import os

from sampan.kernel.files import write_all
from sampan.store.extract import Extractor
from sampan.store.layers import LayerInfo
from sampan.store.layertree import LayerTree
from sampan.store.lower import LowerLayers
from sampan.store.tarstream import FILE, SYMLINK, TarEntry
from sampan.store.tarwriter import TarWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from sampan.store.snapshots import LayerSink

    class Writer(Protocol):
        """Who takes the entries of a layer."""

        def add(self, entry: TarEntry, data: bytes = ...) -> None: ...
        def begin(self, entry: TarEntry) -> None: ...
        def write(self, data: bytes) -> None: ...
        def end(self) -> None: ...
        def close(self) -> None: ...


_BUFFERED = 1 << 18


class ArchiveWriter:
    """Writes a layer's archive into `sink`. newest: no time is later, nanoseconds since 1970. To be ended by `finish`."""

    def __init__(self, sink: LayerSink, newest: int) -> None:
        self._sink = sink
        self._parts: list[bytes] = []
        self._buffered = 0
        self._newest = newest
        self._archive = TarWriter(_Buffer(self))
        self._size = self._entries = 0

    def buffer(self, data: bytes) -> None:
        """What the archive's own writer hands on: mostly two small pieces an entry."""
        self._parts.append(data)
        self._buffered += len(data)
        if self._buffered >= _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        self._sink.write(b"".join(self._parts))
        self._parts.clear()
        self._buffered = 0

    def add(self, entry: TarEntry, data: bytes = b"") -> None:
        """An entry and, for a regular file, its data. Raises OSError, InvalidParameter for what the tree cannot take."""
        self.begin(entry)
        if data:
            self.write(data)
        self.end()

    def begin(self, entry: TarEntry) -> None:
        """An entry; the data of a file follow by `write`, then `end`. Raises as `add`."""
        entry.mtime_ns = min(entry.mtime_ns, self._newest)
        self._archive.begin(entry)
        self._entries += 1
        if entry.kind == FILE:
            self._size += entry.size
        elif entry.kind == SYMLINK:
            self._size += len(entry.target)

    def write(self, data: bytes) -> None:
        """The next data of the file that was begun; of a sparse one no piece is of two regions."""
        self._archive.write(data)

    def end(self) -> None:
        """The end of the entry that was begun."""
        self._archive.end()

    def close(self) -> None:
        """One of several sources is at its end; the layer is not (`finish`)."""

    def finish(self) -> LayerInfo:
        """The end of the layer."""
        self._archive.close()
        self._flush()
        return LayerInfo(self._sink.digest, self._size, self._entries, self._sink.size)


class TreeWriter:
    """Writes the files of a layer into the empty directory `dir_fd`, on top of `lower` (directories, topmost first). To be ended by `finish` or `abandon`."""

    def __init__(self, dir_fd: int, lower: Sequence[str], newest: int) -> None:
        self._newest = newest
        self._layers = LowerLayers(lower) if lower else None
        self._tree = LayerTree(dir_fd, self._layers)
        self._extractor = Extractor(self._tree, self._layers)
        self._file = -1
        self._entry: TarEntry | None = None
        self._regions: list[int] = []  # Of a sparse file, what is left of them, in reverse.
        self._left = 0

    def add(self, entry: TarEntry, data: bytes = b"") -> None:
        """As `ArchiveWriter.add`."""
        self.begin(entry)
        if data:
            self.write(data)
        self.end()

    def begin(self, entry: TarEntry) -> None:
        """As `ArchiveWriter.begin`."""
        entry.mtime_ns = min(entry.mtime_ns, self._newest)
        if entry.kind != FILE:
            self._extractor.put(entry, _NO_DATA)
            return
        self._entry = entry
        self._file = self._extractor.begin_file(entry)
        self._regions = list(entry.regions or ())[::-1]
        self._left = 0
        if entry.regions is not None:
            os.ftruncate(self._file, entry.size)

    def write(self, data: bytes) -> None:
        """As `ArchiveWriter.write`."""
        if self._file < 0:
            return
        if self._regions and not self._left:
            os.lseek(self._file, self._regions.pop(), os.SEEK_SET)
            self._left = self._regions.pop()
        self._left = max(0, self._left - len(data))
        write_all(self._file, data)

    def end(self) -> None:
        """The end of the entry that was begun."""
        fd, self._file = self._file, -1
        if fd >= 0:
            try:
                assert self._entry is not None
                self._extractor.end_file(fd, self._entry)
            finally:
                os.close(fd)

    def close(self) -> None:
        """As `ArchiveWriter.close`."""

    def finish(self) -> None:
        """The end of the layer: the directories get their times."""
        self._tree.close()
        self._let_go()

    def abandon(self) -> None:
        """Give it up half written."""
        self._tree.abandon()
        self._let_go()

    def _let_go(self) -> None:
        fd, self._file = self._file, -1
        if fd >= 0:
            os.close(fd)
        if self._layers is not None:
            self._layers.close()


class LayerWriter(ArchiveWriter):
    """Writes the archive, and the files as a `TreeWriter` does. To be ended by `finish` or `abandon`."""

    def __init__(self, dir_fd: int, lower: Sequence[str], sink: LayerSink, newest: int) -> None:
        super().__init__(sink, newest)
        self._files = TreeWriter(dir_fd, lower, newest)

    def begin(self, entry: TarEntry) -> None:
        super().begin(entry)
        self._files.begin(entry)

    def write(self, data: bytes) -> None:
        super().write(data)
        self._files.write(data)

    def end(self) -> None:
        super().end()
        self._files.end()

    def finish(self) -> LayerInfo:
        info = super().finish()
        self._files.finish()
        return info

    def abandon(self) -> None:
        """Give it up half written."""
        self._files.abandon()


def write_archive(sink: LayerSink, newest: int, fill: Callable[[Writer], None]) -> LayerInfo:
    """Have `fill` write a layer's archive. Raises OSError, and what that raises."""
    writer = ArchiveWriter(sink, newest)
    fill(writer)
    return writer.finish()


def write_layer(
    dir_fd: int, lower: Sequence[str], sink: LayerSink, newest: int, fill: Callable[[Writer], None]
) -> LayerInfo:
    """The same, and the layer's directory. Raises as `write_archive`; the directory is half full then."""
    writer = LayerWriter(dir_fd, lower, sink, newest)
    try:
        fill(writer)
        return writer.finish()
    except BaseException:
        writer.abandon()
        raise


def write_tree(dir_fd: int, lower: Sequence[str], newest: int, fill: Callable[[Writer], None]) -> None:
    """The layer's directory alone. Raises as `write_archive`; the directory is half full then."""
    writer = TreeWriter(dir_fd, lower, newest)
    try:
        fill(writer)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise


class _Buffer:
    def __init__(self, writer: ArchiveWriter) -> None:
        self.write = writer.buffer


_NO_DATA: Any = None
"""Only a file's entry has data, and those are not put by `Extractor.put`."""
