"""Which snapshotter serves whom: new containers the one that is set or fits the root, old ones the one that made them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sampan.steps.trace import Trace
    from sampan.store.changes import Change
    from sampan.store.ingest import Ingest
    from sampan.store.layers import LayerInfo
    from sampan.store.layerwriter import Writer
    from sampan.store.layout import Layout
    from sampan.store.prepared import Prepared
    from sampan.store.record import Record
    from sampan.store.snapshots import LayerSink, RootMount, Snapshotter
    from sampan.store.tarstream import Source
    from sampan.store.tarwriter import Sink

# Magic numbers (statfs(2)) of file systems that overlayfs refuses for its upper layer: they have no whiteouts, no
# trusted xattrs or no file handles (overlayfs.rst, "Upper and Lower").
_NO_UPPER = frozenset(
    (
        0x794C7630,  # overlayfs itself
        0x6969,  # nfs
        0x65735546,  # fuse
        0x4D44,  # vfat
        0xFF534D42,  # cifs
        0xFE534D42,  # smb3
        0x01021997,  # 9p
        0x61756673,  # aufs
        0xF15F,  # ecryptfs
    )
)


class Snapshots:
    """The root file systems of containers. `layers` is where images are unpacked for new ones."""

    def __init__(self, layout: Layout, configured: str, trace: Trace) -> None:
        self._layout = layout
        self._trace = trace
        self._name = configured

    @property
    def name(self) -> str:
        """The snapshotter of new containers; found out when it is first asked for, which a listing never does."""
        self._name = self._name or fitting(self._layout.root)
        return self._name

    @property
    def layers(self) -> Snapshotter:
        return self._of(self.name)

    def create(self, record: Record) -> None:
        """Make the writable part of a new container."""
        owner = None
        if record.uids:
            from sampan.oci import subids  # in here: few containers have ids of their own

            owner = subids.outside(record.uids, 0), subids.outside(record.gids, 0)
        self.layers.create(record.id, record.layers, owner)

    def root(self, record: Record) -> RootMount:
        """What a container's root file system is joined of; nothing is mounted."""
        found = self._of(record.snapshotter).root(record.id, record.layers)
        return found.replace(volatile=True) if record.build else found

    def image_root(self, record: Record, chain_ids: Sequence[str]) -> RootMount:
        """What an image is joined of that is mounted into a container, which was unpacked for it as its own image was."""
        return self._of(record.snapshotter).image_root(chain_ids)

    def layer_directories(self, chain_ids: Sequence[str]) -> tuple[str, ...]:
        """Unpacked layers to be read together, topmost first. Raises NotFound for a lost one."""
        root = self.layers.image_root(chain_ids) if chain_ids else None
        return () if root is None else root.lower or (root.source,)

    def usage(self, record: Record) -> int:
        """Bytes of the files in its writable part."""
        return self._of(record.snapshotter).usage(record.id)

    def changes(self, record: Record) -> list[Change]:
        """What its container has changed."""
        with _reading_ids(record) as ids:
            return self._of(record.snapshotter).changes(record.id, record.layers, ids)

    def commit(self, record: Record, sink: LayerSink, reading: AbstractContextManager[object]) -> LayerInfo:
        """Its container's changes as a layer; see `store.snapshots.Snapshotter`."""
        with _reading_ids(record) as ids:
            return self._of(record.snapshotter).commit(record.id, record.layers, sink, reading, ids)

    def has(self, chain_id: str) -> bool:
        """Whether a layer is unpacked for new containers."""
        return self.layers.has(chain_id)

    def adopt(self, record: Record, sink: Ingest, newest: int) -> LayerInfo:
        """`commit` of a container that is at its end and good for nothing afterwards: the layer is unpacked, too, and to be synced (`sync`).

        `newest`: as of `store.snapshots.Snapshotter.adopt`, whose way this goes where it can.
        """
        from contextlib import nullcontext  # in here: a listing comes by this module

        snapshotter = self._of(record.snapshotter)
        with _reading_ids(record) as ids:
            info = snapshotter.adopt(record.id, record.layers, sink, newest, ids)
            if info is None:
                info = snapshotter.commit(record.id, record.layers, sink, nullcontext(), ids, newest)
                if info.entries:
                    info = snapshotter.unpack(record.layers, sink.reader(), info.diff_id)
        return info

    def write(
        self, below: Sequence[str], sink: Ingest, newest: int, fill: Callable[[Writer], None], known: bool
    ) -> LayerInfo:
        """A layer that `fill` writes, on top of `below`, unpacked; see `store.snapshots.Snapshotter`."""
        return self.layers.write(below, sink, newest, fill, known)

    def prepare(self, below: Sequence[str], newest: int, fill: Callable[[Writer], None]) -> Prepared | None:
        """The files of a layer that is to come; see `store.snapshots.Snapshotter`."""
        return self.layers.prepare(below, newest, fill)

    def sync(self, chain_ids: Sequence[str]) -> int:
        """Have on the disk what `adopt` and `write` have added; see `store.snapshots.Snapshotter`."""
        return self.layers.sync(chain_ids)

    def unpack(self, parent_chain_ids: Sequence[str], stream: Source, expected_diff_id: str | None) -> LayerInfo:
        """A layer that a build was given, on top of others; see `store.snapshots.Snapshotter`."""
        return self.layers.unpack(parent_chain_ids, stream, expected_diff_id)

    def note(self, layer: LayerInfo) -> None:
        """A layer that was committed, for when a container needs it."""
        self.layers.note(layer)

    def export(self, record: Record, sink: Sink) -> Iterator[None]:
        """Its container's whole root file system as an archive; see `store.snapshots.Snapshotter`."""
        with _reading_ids(record) as ids:
            yield from self._of(record.snapshotter).export(record.id, record.layers, sink, ids)

    def image_size(self, record: Record) -> int:
        """Bytes of the files in the layers below it."""
        layers = self._of(record.snapshotter)
        return sum(layers.info(chain_id).size for chain_id in record.layers)

    def remove(self, container_id: str) -> None:
        """Remove a container's writable part, whichever kind it is: it is one directory. Idempotent."""
        self.layers.remove(container_id)

    def collect_garbage(self) -> None:
        """Delete what killed commands left half made."""
        self.layers.collect_garbage()

    def _of(self, name: str) -> Snapshotter:
        layout = self._layout
        if name == "vfs":
            from sampan.store.vfs import VfsSnapshotter

            return VfsSnapshotter(layout.layers, layout.snapshots, self._trace)
        from sampan.store.overlay import OverlaySnapshotter

        return OverlaySnapshotter(layout.layers, layout.snapshots, self._trace)


class _reading_ids:
    """`with _reading_ids(record) as ids`: a user namespace that takes its ids back to the image's, -1 if it has none of its own."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._fd = -1

    def __enter__(self) -> int:
        record = self._record
        if record.uids and record.snapshotter != "vfs":
            from sampan.oci import subids
            from sampan.runtime.idmapper import user_namespace

            self._fd = user_namespace(subids.reverse(record.uids), subids.reverse(record.gids))
        return self._fd

    def __exit__(self, _kind: object, _error: object, _traceback: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def fitting(directory: str) -> str:
    """The snapshotter for what `directory` lies on: "overlay" wherever that can work, else "vfs".

    In a user namespace nobody may write the trusted xattrs by which an overlay marks what it hides.
    """
    from sampan.kernel import mount, namespaces  # in here: a listing comes by this module without asking

    if namespaces.in_user_namespace() or not mount.has_filesystem("overlay"):
        return "vfs"
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return "vfs" if mount.filesystem_magic(fd) in _NO_UPPER else "overlay"
    finally:
        os.close(fd)
