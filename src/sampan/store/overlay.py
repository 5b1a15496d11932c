"""The overlay snapshotter: each layer in a directory of its own, joined by the kernel when a container starts."""

from __future__ import annotations

import errno
import os

from sampan.kernel.tree import copy_metadata, disk_usage
from sampan.store.snapshots import (
    EMPTY_LAYER,
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
    from sampan.store.prepared import Prepared
    from sampan.store.snapshots import FilledSink, LayerSink
    from sampan.store.tarstream import Source
    from sampan.store.tarwriter import Sink


_UNWRITTEN = ("upper", "work/work", "work")
"""The directories of a container that has written nothing, with the one that the kernel makes for its first mount."""


class OverlaySnapshotter:
    """layers/HEX/{diff, init, layer.json} and snapshots/ID/{upper, work}. See `snapshots.Snapshotter`."""

    name = "overlay"

    def __init__(self, layers_directory: str, snapshots_directory: str, trace: Trace) -> None:
        self._trace = trace
        self._layers = LayerDirectory(layers_directory, "", trace)
        self._parts = WritableParts(snapshots_directory, "upper", trace, _UNWRITTEN)

    # Layers

    def unpack(self, parent_chain_ids: Sequence[str], stream: Source, expected_diff_id: str | None = None) -> LayerInfo:
        return self._layers.add(parent_chain_ids, expected_diff_id, self._filler(parent_chain_ids, stream))

    def examine(self, chain_ids: Sequence[str], stream: Source, diff_id: str, replace: bool = False) -> str:
        return self._layers.examine(chain_ids[-1], diff_id, self._filler(chain_ids[:-1], stream), replace)

    def _filler(self, parent_chain_ids: Sequence[str], stream: Source) -> Callable[[int], LayerInfo]:
        def fill(diff_fd: int) -> LayerInfo:
            from sampan.store.layers import apply

            lower = self._diffs(parent_chain_ids)
            if lower:
                # A layer without an entry for its root does not change it; the topmost layer's is the one that shows.
                _copy_root(lower[0], diff_fd)
            return apply(stream, diff_fd, whiteouts="overlay", lower=lower)

        return fill

    def write(
        self,
        parent_chain_ids: Sequence[str],
        sink: FilledSink,
        newest: int,
        fill: Callable[[Writer], None],
        known: bool,
    ) -> LayerInfo:
        from sampan.store.layerwriter import write_archive, write_layer

        if known:
            info = write_archive(sink, newest, fill)
            return self.unpack(parent_chain_ids, sink.reader(), info.diff_id) if info.entries else info
        lower = self._diffs(parent_chain_ids)

        def into(diff_fd: int) -> LayerInfo:
            if lower:
                _copy_root(lower[0], diff_fd)
            return write_layer(diff_fd, lower, sink, newest, fill)

        return self._layers.write(parent_chain_ids, into)

    def prepare(self, parent_chain_ids: Sequence[str], newest: int, fill: Callable[[Writer], None]) -> Prepared:
        from sampan.store.prepared import prepare

        return prepare(self._layers, self._diffs(parent_chain_ids), newest, fill, self._trace)

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

    def create(self, container_id: str, chain_ids: Sequence[str], owner: tuple[int, int] | None = None) -> None:
        self._layers.require(chain_ids)
        init = self._init_layer(chain_ids)
        below = self._layers.diff(chain_ids[-1]) if chain_ids else init

        def fill(path: str) -> None:
            with self._trace.step("make directory", f"{path}/upper"):
                upper = make_directory(f"{path}/upper")
                try:
                    _copy_root(below, upper)
                    if owner is not None:
                        # Its own, and of the ids that write into it. What the layers' root has for an owner is root, or lost.
                        os.fchown(upper, *owner)
                finally:
                    os.close(upper)
            with self._trace.step("make directory", f"{path}/work"):
                os.mkdir(f"{path}/work", 0o700)

        self._parts.add(container_id, fill)

    def root(self, container_id: str, chain_ids: Sequence[str]) -> RootMount:
        path = self._parts.path(container_id)
        lower = (self._init_of(chain_ids), *self._diffs(chain_ids))
        return RootMount("overlay", lower=lower, upper=f"{path}/upper", work=f"{path}/work")

    def image_root(self, chain_ids: Sequence[str]) -> RootMount:
        self._layers.require(chain_ids)
        return RootMount("overlay", lower=self._diffs(chain_ids))

    def remove(self, container_id: str) -> None:
        self._parts.remove(container_id)

    def containers(self) -> list[str]:
        return self._parts.list()

    def usage(self, container_id: str) -> int:
        fd = open_directory(self._parts.require(container_id))
        try:
            return disk_usage(fd, "upper")
        finally:
            os.close(fd)

    # Changes

    def changes(self, container_id: str, chain_ids: Sequence[str], ids: int = -1) -> list[Change]:
        from sampan.store.changes import find_changes
        from sampan.store.lower import LowerLayers

        upper = open_for_reading(f"{self._parts.require(container_id)}/upper", ids)
        # The init layer as well: it is not the container's doing.
        lower = LowerLayers(self.root(container_id, chain_ids).lower)
        try:
            return find_changes(upper, lower)
        finally:
            lower.close()
            os.close(upper)

    def commit(
        self,
        container_id: str,
        chain_ids: Sequence[str],
        sink: LayerSink,
        reading: AbstractContextManager[object],
        ids: int = -1,
        newest: int | None = None,
    ) -> LayerInfo:
        from sampan.store.forms import OverlayForm
        from sampan.store.lower import LowerLayers

        upper = open_for_reading(f"{self._parts.require(container_id)}/upper", ids)
        # Without the init layer: the new one will not lie above that.
        diffs = self._diffs(chain_ids)
        lower = LowerLayers(diffs)
        try:
            with reading:
                return archive_changes(upper, OverlayForm(lower), diffs[0] if diffs else "", sink, newest)
        finally:
            lower.close()
            os.close(upper)

    def adopt(
        self,
        container_id: str,
        chain_ids: Sequence[str],
        sink: LayerSink,
        newest: int,
        ids: int = -1,
    ) -> LayerInfo | None:
        if ids >= 0:
            return None  # Its owners are not the image's.
        from sampan.oci.image import chain_ids as chained
        from sampan.store.forms import OverlayForm
        from sampan.store.lower import LowerLayers
        from sampan.store.settled import settle

        directory = f"{self._parts.require(container_id)}/upper"
        diffs = self._diffs(chain_ids)
        lower = LowerLayers(diffs)
        upper = open_directory(directory)
        try:
            form = OverlayForm(lower)
            with self._trace.step("settle layer", directory):
                settle(upper, form, newest)
                info = archive_changes(upper, form, diffs[0] if diffs else "", sink, newest)
        finally:
            lower.close()
            os.close(upper)
        if info.diff_id != EMPTY_LAYER:
            info = info.replace(chain_id=chained((*chain_ids[-1:], info.diff_id))[-1])
            # What is there already was made of the same before: this one goes with its container.
            if not self._layers.has(info.chain_id):
                self._layers.adopt(info, directory)
        return info

    def export(self, container_id: str, chain_ids: Sequence[str], sink: Sink, ids: int = -1) -> Iterator[None]:
        upper = open_for_reading(f"{self._parts.require(container_id)}/upper", ids)
        return export_layers(upper, self.root(container_id, chain_ids).lower, sink)

    def leftovers(self) -> tuple[str, ...]:
        return (*self._layers.staging.leftovers(), *self._parts.leftovers())

    def collect_garbage(self) -> None:
        self._layers.staging.collect_garbage()
        self._parts.collect_garbage()

    def _diffs(self, chain_ids: Sequence[str]) -> tuple[str, ...]:
        """The layers' directories, topmost first."""
        return tuple(self._layers.diff(chain_id) for chain_id in reversed(chain_ids))

    def _init_of(self, chain_ids: Sequence[str]) -> str:
        """Where the init layer above a chain of layers is."""
        init = f"{self._layers.top(chain_ids)}/init"
        try:
            return os.path.normpath(f"{init}/../{os.readlink(init)}")
        except OSError as e:
            if e.errno in (errno.EINVAL, errno.ENOENT):
                return init
            raise

    def _init_layer(self, chain_ids: Sequence[str]) -> str:
        """The init layer above a chain of layers, made when the first container needs it.

        Where the upper ones of them do not change what is below it, it is that of the lower ones, and here is a link to it: each step of a build
        would make one more that is the same. The link leads to a layer of the chain, which goes with the chain's last image or later; where that
        was collected, and is back without its init layer, this is made again where the link leads.
        """
        init = f"{self._layers.top(chain_ids)}/init"
        if os.path.isdir(init):
            return init
        decisive = self._decisive(chain_ids)
        if decisive < len(chain_ids):
            shared = os.path.dirname(self._init_layer(chain_ids[:decisive]))
            with self._trace.step("symlink", init):
                try:
                    os.symlink(f"../{os.path.basename(shared)}/init", init)
                except FileExistsError:
                    pass  # somebody else was faster, or it led to the one that is there again
            return init
        return self._make_init_layer(chain_ids)

    def _decisive(self, chain_ids: Sequence[str]) -> int:
        """How many of the layers, from the bottom, decide what the init layer is: those above them have none of its names."""
        from sampan.store.initlayer import is_below_init_layer

        number = len(chain_ids)
        while number > 1:
            fd = open_directory(self._layers.diff(chain_ids[number - 1]))
            try:
                if is_below_init_layer(fd):
                    break
            finally:
                os.close(fd)
            number -= 1
        return number

    def _make_init_layer(self, chain_ids: Sequence[str]) -> str:
        from sampan.store.initlayer import write_init_layer
        from sampan.store.lower import LowerLayers

        top = self._layers.top(chain_ids)
        if not chain_ids:
            os.makedirs(top, mode=0o700, exist_ok=True)
        diffs = self._diffs(chain_ids)
        with self._layers.staging.begin() as staged:
            with self._trace.step("write init layer", staged.path):
                lower = LowerLayers(diffs)
                root = open_directory(staged.path)
                try:
                    if diffs:
                        _copy_root(diffs[0], root)
                    else:
                        os.fchmod(root, 0o755)
                    write_init_layer(root, lower)
                finally:
                    os.close(root)
                    lower.close()
            staged.publish(f"{top}/init")
        return f"{top}/init"


def _copy_root(source: str, target_fd: int) -> None:
    """Give a layer's root the metadata of the one below: in the joined file system the topmost root's shows."""
    fd = open_directory(source)
    try:
        copy_metadata(fd, target_fd)
    finally:
        os.close(fd)
