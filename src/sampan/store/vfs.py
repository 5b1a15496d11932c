"""The vfs snapshotter: plain copies, for where overlayfs is not to be had. Each layer holds all below it."""

from __future__ import annotations

import os

from sampan.kernel.tree import copy_tree, disk_usage
from sampan.store.snapshots import LayerDirectory, RootMount, WritableParts, make_directory, open_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.steps.trace import Trace
    from sampan.store.layers import LayerInfo
    from sampan.store.tarstream import Source


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
        def fill(diff_fd: int) -> LayerInfo:
            from sampan.store.layers import apply

            self._copy_top(parent_chain_ids, diff_fd)
            return apply(stream, diff_fd, whiteouts="delete")

        return self._layers.add(parent_chain_ids, expected_diff_id, fill)

    def has(self, chain_id: str) -> bool:
        return self._layers.has(chain_id)

    def info(self, chain_id: str) -> LayerInfo:
        return self._layers.info(chain_id)

    def layers(self) -> list[str]:
        return self._layers.list()

    def remove_layer(self, chain_id: str) -> None:
        self._layers.remove(chain_id)

    # Containers

    def create(self, container_id: str, chain_ids: Sequence[str]) -> None:
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
