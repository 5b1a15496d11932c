"""Files of a layer that is to come, written before it is known what the layer stands on: a build does so while commands run (`engine.buildahead`).

Nobody sees them until they are published, and they go with a killed process as all that is staged (`store.staging`).
"""

from __future__ import annotations

import os

from sampan.kernel.tree import copy_metadata
from sampan.oci.image import chain_ids
from sampan.store.layerwriter import write_tree
from sampan.store.snapshots import make_directory, open_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.steps.trace import Trace
    from sampan.store.layers import LayerInfo
    from sampan.store.layerwriter import Writer
    from sampan.store.snapshots import LayerDirectory
    from sampan.store.staging import Staged


class Prepared:
    """To be published or left, once."""

    def __init__(self, layers: LayerDirectory, staged: Staged) -> None:
        self._layers = layers
        self._staged = staged

    def publish(self, parents: Sequence[str], info: LayerInfo) -> LayerInfo:
        """Add the layer, whose archive is that of `info`, on top of others; it is to be synced. Raises `NotFound`, OSError; nothing stays behind then."""
        with self._staged as staged:
            self._layers.require(parents)
            info = info.replace(chain_id=chain_ids((*parents[-1:], info.diff_id))[-1])
            if not self._layers.has(info.chain_id):
                if parents:
                    _copy_root(self._layers.diff(parents[-1]), f"{staged.path}/diff")
                self._layers.publish(staged, info)
        return info

    def leave(self) -> None:
        """Remove it."""
        self._staged.discard()


def prepare(
    layers: LayerDirectory, lower: Sequence[str], newest: int, fill: Callable[[Writer], None], trace: Trace
) -> Prepared:
    """The files that `fill` writes; see `snapshots.Snapshotter.prepare`."""
    staged = layers.staging.begin()
    try:
        with trace.step("write layer", staged.path):
            fd = make_directory(f"{staged.path}/diff")
            try:
                write_tree(fd, lower, newest, fill)
            finally:
                os.close(fd)
    except BaseException:
        staged.discard()
        raise
    return Prepared(layers, staged)


def _copy_root(source: str, target: str) -> None:
    """The root of what is below shows on top. In the end: it may be another one now than when the files were written."""
    below, above = open_directory(source), open_directory(target)
    try:
        copy_metadata(below, above)
    finally:
        os.close(below)
        os.close(above)
