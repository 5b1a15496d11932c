"""A step of a build that is done before its turn: its archive and its files are written, and have no names.

Whoever finds when its turn comes that it would write the same takes it over; it leaves nothing otherwise, nor when its process is killed.
"""

from __future__ import annotations

from sampan.store.layerwriter import write_archive
from sampan.store.snapshots import EMPTY_LAYER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from sampan.engine.buildcopy import Fill
    from sampan.store.ingest import Ingest
    from sampan.store.layers import LayerInfo
    from sampan.store.layerwriter import Writer
    from sampan.store.prepared import Prepared
    from sampan.store.tarstream import Source, TarEntry

    class Content(Protocol):
        def exists(self, digest: str) -> bool: ...
        def writer(self) -> Ingest: ...

    class Snapshots(Protocol):
        def prepare(self, below: Sequence[str], newest: int, fill: Fill) -> Prepared | None: ...
        def unpack(
            self, parent_chain_ids: Sequence[str], stream: Source, expected_diff_id: str | None
        ) -> LayerInfo: ...


class PreparedStep:
    """To be taken over by `layer`, after which `archive` is the caller's, or left."""

    def __init__(self, archive: Ingest, info: LayerInfo, files: Prepared | None, snapshots: Snapshots) -> None:
        self.archive = archive
        self._info = info
        self._files = files
        self._snapshots = snapshots

    def layer(self, below: Sequence[str]) -> LayerInfo:
        """The layer on top of those. The caller has the store's lock shared. Raises as `store.snapshots.Snapshotter.write`."""
        files, self._files = self._files, None
        if files is not None:
            return files.publish(below, self._info)
        # Most probably it is there; then nothing is read.
        return self._snapshots.unpack(below, self.archive.reader(), self._info.diff_id)

    def leave(self) -> None:
        """Remove what was written."""
        files, self._files = self._files, None
        try:
            if files is not None:
                files.leave()
        finally:
            self.archive.abort()


def prepare(
    below: Sequence[str],
    newest: int,
    fill: Fill,
    known: bool,
    going: Callable[[], None],
    content: Content,
    snapshots: Snapshots,
) -> PreparedStep | None:
    """Have `fill` write a layer that is to come above `below`, None if it has no entry.

    known: it most probably is there, if its archive is. going: called before each entry; what it raises ends it, and leaves nothing. Raises what
    `store.snapshots.Snapshotter.write` raises.
    """

    def watched(writer: Writer) -> None:
        fill(_Watched(writer, going))

    archive = content.writer()
    try:
        info = write_archive(archive, newest, watched)
        if info.diff_id == EMPTY_LAYER:
            archive.abort()
            return None
        is_there = known and content.exists(info.diff_id)
        return PreparedStep(archive, info, None if is_there else snapshots.prepare(below, newest, watched), snapshots)
    except BaseException:
        archive.abort()
        raise


class _Watched:
    """Hands on to a writer as long as somebody wants it."""

    def __init__(self, writer: Writer, going: Callable[[], None]) -> None:
        self._writer = writer
        self._going = going
        self.write = writer.write
        self.end = writer.end
        self.close = writer.close

    def add(self, entry: TarEntry, data: bytes = b"") -> None:
        self._going()
        self._writer.add(entry, data)

    def begin(self, entry: TarEntry) -> None:
        self._going()
        self._writer.begin(entry)
