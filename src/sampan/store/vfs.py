"""The vfs snapshotter: plain copies, for where overlayfs is not to be had. Each layer holds all below it."""

from __future__ import annotations

import os

from sampan.kernel.tree import copy_tree, disk_usage
from sampan.store.snapshots import (
    LayerDirectory,
    RootMount,
    WritableParts,
    archive_changes,
    export_layers,
    make_directory,
    open_directory,
    open_for_reading,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sampan.steps.trace import Trace
    from sampan.store.changes import Change
    from sampan.store.layers import LayerInfo
    from sampan.store.layerwriter import Writer
    from sampan.store.snapshots import FilledSink, LayerSink
    from sampan.store.tarstream import Source
    from sampan.store.tarwriter import Sink


class VfsSnapshotter:
    """layers/HEX.vfs/{diff, layer.json} and snapshots/ID/rootfs. See `snapshots.Snapshotter`.

    Data is shared with the copy it was made of where the file system can (reflinks on xfs and btrfs).
    """

    name = "vfs"

    def __init__(self, layers_directory: str, snapshots_directory: str, trace: Trace) -> None:
        self._trace = trace
        self._layers = LayerDirectory(layers_directory, ".vfs", trace)
        self._parts = WritableParts(snapshots_directory, "rootfs", trace)

    # Layers

    def unpack(self, parent_chain_ids: Sequence[str], stream: Source, expected_diff_id: str | None = None) -> LayerInfo:
        return self._layers.add(parent_chain_ids, expected_diff_id, self._filler(parent_chain_ids, stream))

    def examine(self, chain_ids: Sequence[str], stream: Source, diff_id: str, replace: bool = False) -> str:
        return self._layers.examine(chain_ids[-1], diff_id, self._filler(chain_ids[:-1], stream), replace)

    def _filler(self, parent_chain_ids: Sequence[str], stream: Source) -> Callable[[int], LayerInfo]:
        def fill(diff_fd: int) -> LayerInfo:
            from sampan.store.layers import apply

            self._copy_top(parent_chain_ids, diff_fd)
            return apply(stream, diff_fd, whiteouts="delete")

        return fill

    def write(
        self,
        parent_chain_ids: Sequence[str],
        sink: FilledSink,
        newest: int,
        fill: Callable[[Writer], None],
        known: bool,
    ) -> LayerInfo:
        from sampan.store.layerwriter import write_archive

        info = write_archive(sink, newest, fill)
        return self.unpack(parent_chain_ids, sink.reader(), info.diff_id) if info.entries else info

    def prepare(self, parent_chain_ids: Sequence[str], newest: int, fill: Callable[[Writer], None]) -> None:
        return None  # A layer is a copy of all that is below it.

    def sync(self, chain_ids: Iterable[str]) -> int:
        return self._layers.sync(chain_ids)

    def note(self, info: LayerInfo) -> None:
        self._layers.note(info)

    def has(self, chain_id: str) -> bool:
        return self._layers.has(chain_id)

    def info(self, chain_id: str) -> LayerInfo:
        return self._layers.info(chain_id)

    def layers(self) -> list[str]:
        return self._layers.list()

    def layer_path(self, chain_id: str) -> str:
        return self._layers.path(chain_id)

    def remove_layer(self, chain_id: str) -> None:
        self._layers.remove(chain_id)

    # Containers

    # The whole tree is the container's own, and is shown to it through a map: on disk it has the image's owners, `owner` and
    # `ids` change nothing.

    def create(self, container_id: str, chain_ids: Sequence[str], owner: tuple[int, int] | None = None) -> None:
        from sampan.store.initlayer import write_init_layer

        self._layers.require(chain_ids)

        def fill(path: str) -> None:
            with self._trace.step("copy layer", f"{path}/rootfs"):
                root = make_directory(f"{path}/rootfs")
                try:
                    self._copy_top(chain_ids, root)
                    write_init_layer(root, None)
                finally:
                    os.close(root)

        self._parts.add(container_id, fill)

    def root(self, container_id: str, chain_ids: Sequence[str]) -> RootMount:
        return RootMount("bind", source=f"{self._parts.path(container_id)}/rootfs")

    def image_root(self, chain_ids: Sequence[str]) -> RootMount:
        self._layers.require(chain_ids)
        return RootMount("bind", source=self._layers.diff(chain_ids[-1]))

    def remove(self, container_id: str) -> None:
        self._parts.remove(container_id)

    def containers(self) -> list[str]:
        return self._parts.list()

    def usage(self, container_id: str) -> int:
        fd = open_directory(self._parts.require(container_id))
        try:
            return disk_usage(fd, "rootfs")
        finally:
            os.close(fd)

    # Changes

    def changes(self, container_id: str, chain_ids: Sequence[str], ids: int = -1) -> list[Change]:
        from sampan.store.changes import find_changes
        from sampan.store.initlayer import is_of_init_layer
        from sampan.store.lower import LowerLayers

        root = open_for_reading(f"{self._parts.require(container_id)}/rootfs")
        lower = LowerLayers([self._layers.diff(chain_id) for chain_id in chain_ids[-1:]])
        try:
            return find_changes(root, lower, whole=True, untouched=is_of_init_layer)
        finally:
            lower.close()
            os.close(root)

    def commit(
        self,
        container_id: str,
        chain_ids: Sequence[str],
        sink: LayerSink,
        reading: AbstractContextManager[object],
        ids: int = -1,
        newest: int | None = None,
    ) -> LayerInfo:
        from sampan.store.forms import WholeForm

        root = open_for_reading(f"{self._parts.require(container_id)}/rootfs")
        below = self._layers.diff(chain_ids[-1]) if chain_ids else ""
        try:
            with reading:
                return archive_changes(root, WholeForm(self.changes(container_id, chain_ids)), below, sink, newest)
        finally:
            os.close(root)

    def adopt(
        self,
        container_id: str,
        chain_ids: Sequence[str],
        sink: LayerSink,
        newest: int,
        ids: int = -1,
    ) -> LayerInfo | None:
        return None  # Its layers have what is below them in them, too.

    def export(self, container_id: str, chain_ids: Sequence[str], sink: Sink, ids: int = -1) -> Iterator[None]:
        return export_layers(open_for_reading(f"{self._parts.require(container_id)}/rootfs"), (), sink)

    def leftovers(self) -> tuple[str, ...]:
        return (*self._layers.staging.leftovers(), *self._parts.leftovers())

    def collect_garbage(self) -> None:
        self._layers.staging.collect_garbage()
        self._parts.collect_garbage()

    def _copy_top(self, chain_ids: Sequence[str], target_fd: int) -> None:
        """Copy the topmost layer, which holds all others."""
        if not chain_ids:
            return
        source = open_directory(self._layers.diff(chain_ids[-1]))
        try:
            copy_tree(source, target_fd)
        finally:
            os.close(source)
