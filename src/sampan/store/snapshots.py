"""Root file systems out of layers: what every snapshotter does, and what they all share.

A snapshotter keeps unpacked layers (made once, shared, never changed) and the writable part of each container,
and tells how the two become a root file system as data: it mounts nothing.
"""

from __future__ import annotations

import errno
import os

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.kernel.clock import boot_id
from sampan.kernel.files import read_bounded, sync_directory, sync_filesystem, write_atomic
from sampan.oci.digest import is_hex, sha256_hex
from sampan.store.layout import EMPTY
from sampan.store.staging import Staging
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from sampan.steps.trace import Trace
    from sampan.store.archive import Form
    from sampan.store.changes import Change
    from sampan.store.layers import LayerInfo
    from sampan.store.layerwriter import Writer
    from sampan.store.prepared import Prepared
    from sampan.store.staging import Staged
    from sampan.store.tarstream import Source
    from sampan.store.tarwriter import Sink
    from sampan.store.writeback import WriteBack

    class Snapshotter(Protocol):
        """Layers and writable parts. `chain_ids` are bottom first everywhere; an image may have none."""

        name: str

        def unpack(
            self, parent_chain_ids: Sequence[str], stream: Source, expected_diff_id: str | None = None
        ) -> LayerInfo:
            """Unpack a layer on top of others, unless it is there; return what it is, with its chain id.

            With `expected_diff_id` the stream is not read if the layer is there, and a stream that has another
            digest raises `InvalidParameter` before the layer has a name. Safe for two processes at once.
            Raises `NotFound` if a parent is not there, `System` for a full disk; nothing stays behind.
            """

        def write(
            self,
            parent_chain_ids: Sequence[str],
            sink: FilledSink,
            newest: int,
            fill: Callable[[Writer], None],
            known: bool,
        ) -> LayerInfo:
            """Add a layer that `fill` writes, and write its archive into `sink`; nothing is added for one without an entry.

            `newest`: no time in it is later, nanoseconds since 1970. `known`: most probably the layer is there, so that its files are not
            written unless it is not. It is to be synced (`sync`). Raises as `unpack`, and what `fill` raises.
            """

        def prepare(
            self, parent_chain_ids: Sequence[str], newest: int, fill: Callable[[Writer], None]
        ) -> Prepared | None:
            """The files of a layer that is to come; `newest` and `fill` as of `write`. None if this snapshotter has to know what is below.

            It may be published on others than these, if what `fill` names leads through the same directories there. Raises as `write`.
            """

        def sync(self, chain_ids: Iterable[str]) -> int:
            """Have on the disk what `write` and `adopt` have added. A power cut before takes it, and nobody finds it after that.

            The number (st_dev) of the file system that was synced, -1 if none had to be. Raises OSError.
            """

        def note(self, info: LayerInfo) -> None:
            """Remember what a layer is whose archive is in the content store; it is unpacked when a container needs it.

            Most images that are committed are pushed, saved or committed upon, and never run.
            """

        def has(self, chain_id: str) -> bool:
            """Whether a layer is unpacked."""

        def examine(self, chain_ids: Sequence[str], stream: Source, diff_id: str, replace: bool = False) -> str:
            """Compare the layer on top of `chain_ids` with its archive: "" if it is what that unpacks to, else what differs.

            With `replace` what differs is exchanged; nothing may run on the layer then. Raises `InvalidParameter` for
            an archive that has another digest, `System` for a full disk.
            """

        def info(self, chain_id: str) -> LayerInfo:
            """What was learned when a layer was unpacked, or noted. Raises `NotFound`."""

        def layers(self) -> list[str]:
            """The chain ids of all layers, unpacked or noted."""

        def layer_path(self, chain_id: str) -> str:
            """The directory that a layer has, or would have."""

        def remove_layer(self, chain_id: str) -> None:
            """Remove a layer, or EMPTY, that nothing uses any more (that is for the caller to know); nothing if it is gone."""

        def create(self, container_id: str, chain_ids: Sequence[str], owner: tuple[int, int] | None = None) -> None:
            """Make the writable part of a container. Raises `Conflict` if it has one, `NotFound` for a lost layer.

            owner: who is root in the container, where that is another one than in the image. What is written belongs to
            such ids then (overlay), or to the image's all the same (vfs, `maps_writes`).
            """

        def root(self, container_id: str, chain_ids: Sequence[str]) -> RootMount: ...

        def image_root(self, chain_ids: Sequence[str]) -> RootMount:
            """Unpacked layers alone, to be mounted read-only. Raises `NotFound` for a lost layer."""

        def remove(self, container_id: str) -> None:
            """Remove a container's writable part; nothing if it is gone."""

        def containers(self) -> list[str]:
            """The containers that have a writable part."""

        def usage(self, container_id: str) -> int:
            """Bytes of the files in a container's writable part, as Docker counts them. Raises `NotFound`."""

        def changes(self, container_id: str, chain_ids: Sequence[str], ids: int = -1) -> list[Change]:
            """What is changed in a container's writable part; see `changes.find_changes`. Raises `NotFound`.

            ids, here and below: a user namespace that maps the container's ids to the image's.
            """

        def commit(
            self,
            container_id: str,
            chain_ids: Sequence[str],
            sink: LayerSink,
            reading: AbstractContextManager[object],
            ids: int = -1,
            newest: int | None = None,
        ) -> LayerInfo:
            """Write the changes into `sink` as the plain archive of a layer; return what it is. Nothing is unpacked.

            The writable part is read inside `reading`, and only that is done there. An archive without an entry is
            `EMPTY_LAYER`. `newest`: no time in it is later, nanoseconds since 1970. Raises `NotFound`, OSError; nothing stays behind then.
            """

        def adopt(
            self,
            container_id: str,
            chain_ids: Sequence[str],
            sink: LayerSink,
            newest: int,
            ids: int = -1,
        ) -> LayerInfo | None:
            """`commit` of a container that is at its end, of which the writable part becomes the layer; with `newest` for the latest time.

            The layer is there then, and is to be synced (`sync`). None if this snapshotter has to unpack it.
            Raises as `commit`; the writable part is good for nothing afterwards.
            """

        def export(self, container_id: str, chain_ids: Sequence[str], sink: Sink, ids: int = -1) -> Iterator[None]:
            """Write the whole root file system into `sink` as a tar archive, mounted or not, what is mounted on it left out.

            Stops now and then for the sink to be emptied. Raises `NotFound`, OSError.
            """

        def leftovers(self) -> tuple[str, ...]:
            """The paths of what killed processes left, by this moment."""

        def collect_garbage(self) -> None:
            """Delete what killed processes left."""

    class LayerSink(Protocol):
        """Where the bytes of a layer go; see `content.Ingest`."""

        @property
        def digest(self) -> str: ...
        @property
        def size(self) -> int: ...
        def write(self, data: bytes, /) -> object: ...

    class FilledSink(LayerSink, Protocol):
        """One of which can be read what was written."""

        def reader(self) -> Source: ...


class RootMount(Struct):
    """How a container's root file system is mounted.

    kind "overlay": `lower` (directories, topmost first, the init layer among them), `upper` and `work`.
    kind "bind": the directory `source`.
    """

    kind: str
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    source: str = ""
    volatile: bool = False


EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""The diff id of a layer without an entry: two blocks of zeros, the end mark of a tar archive."""

_UNSYNCED = "unsynced"
"""Beside a layer's files: a link to the name of the boot that wrote them, as long as they were not synced. After a power cut the layer is not there."""

_INFO = "layer.json"
_INFO_LIMIT = 1 << 16


class LayerDirectory:
    """layers/HEX/{diff/, layer.json}: layers by chain id; one without diff/ is known, and not unpacked yet.

    `suffix` keeps snapshotters' different forms apart.
    """

    def __init__(self, directory: str, suffix: str, trace: Trace) -> None:
        self._directory = directory
        self._suffix = suffix
        self._trace = trace
        self.staging = Staging(directory, trace)

    def path(self, chain_id: str) -> str:
        """Where a layer is, or EMPTY. Raises `InvalidParameter` for what is no sha256 digest: it becomes a file name."""
        return f"{self._directory}/{chain_id if chain_id == EMPTY else sha256_hex(chain_id)}{self._suffix}"

    def diff(self, chain_id: str) -> str:
        return f"{self.path(chain_id)}/diff"

    def top(self, chain: Sequence[str]) -> str:
        """The directory of the topmost layer, also of an image without any."""
        return self.path(chain[-1] if chain else EMPTY)

    def has(self, chain_id: str) -> bool:
        path = self.path(chain_id)
        return os.path.exists(f"{path}/diff") and not self._is_lost(path)

    def _is_lost(self, path: str) -> bool:
        """Whether a layer was not on the disk when the machine went down: what of it is there now is anything."""
        try:
            return os.readlink(f"{path}/{_UNSYNCED}") != boot_id()
        except OSError:
            return False

    def sync(self, chain_ids: Iterable[str]) -> int:
        """Have these layers on the disk: what a build has added, or a killed one. The number of the file system that was synced, -1 if none had to be."""
        marks = [mark for mark in (f"{self.path(one)}/{_UNSYNCED}" for one in chain_ids) if os.path.lexists(mark)]
        if not marks:
            return -1
        try:
            device = self._sync_layer(self._directory)
        except OSError:
            # The kernel has dropped what it could not write: what is read there now is not what a power cut leaves.
            for mark in marks:
                self._give_up(mark)
            raise
        for mark in marks:
            _unlink(mark)  # another build may have had it, too
        return device

    def _give_up(self, mark: str) -> None:
        """Mark a layer as one that nobody finds any more."""
        os.symlink("failed", f"{mark}.new")
        os.rename(f"{mark}.new", mark)

    def require(self, chain: Sequence[str]) -> None:
        """Raises `NotFound` unless all these layers are there."""
        for chain_id in chain:
            if not self.has(chain_id):
                raise NotFound(f"layer does not exist: {chain_id}")

    def list(self) -> list[str]:
        names = os.listdir(self._directory)
        keys = [name.removesuffix(self._suffix) for name in names if name.endswith(self._suffix)]
        return sorted(f"sha256:{key}" for key in keys if len(key) == 64 and is_hex(key))

    def info(self, chain_id: str) -> LayerInfo:
        from sampan.store.layers import LayerInfo

        try:
            fd = os.open(f"{self.path(chain_id)}/{_INFO}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"layer does not exist: {chain_id}") from None
        try:
            return LayerInfo(**jsontext.loads(read_bounded(fd, _INFO_LIMIT))["layer"])
        finally:
            os.close(fd)

    def add(self, parents: Sequence[str], expected_diff_id: str | None, fill: Callable[[int], LayerInfo]) -> LayerInfo:
        """Add a layer that `fill` unpacks into the directory that it gets. See `Snapshotter.unpack`."""
        from sampan.kernel.spreading import spread_subdirectories
        from sampan.oci.image import chain_ids
        from sampan.store.writeback import WriteBack

        self.require(parents)
        if expected_diff_id is not None:
            chain_id = chain_ids((*parents[-1:], expected_diff_id))[-1]
            if self.has(chain_id):
                return self.info(chain_id)
        spread_subdirectories(self._directory)
        with self.staging.begin() as staged, WriteBack(staged.path) as disk:
            with self._trace.step("unpack layer", staged.path):
                info = _fill(f"{staged.path}/diff", fill)
            if expected_diff_id not in (None, info.diff_id):
                raise InvalidParameter(f'invalid diffID: expected "{expected_diff_id}", got "{info.diff_id}"')
            info = info.replace(chain_id=chain_ids((*parents[-1:], info.diff_id))[-1])
            if not self.has(info.chain_id):
                self.publish(staged, info, disk)
        return info

    def write(self, parents: Sequence[str], fill: Callable[[int], LayerInfo]) -> LayerInfo:
        """Add a layer that `fill` writes into the directory that it gets, unless it has no entry. See `Snapshotter.write`."""
        from sampan.oci.image import chain_ids

        self.require(parents)
        with self.staging.begin() as staged:
            with self._trace.step("write layer", staged.path):
                info = _fill(f"{staged.path}/diff", fill)
            if info.diff_id != EMPTY_LAYER:
                info = info.replace(chain_id=chain_ids((*parents[-1:], info.diff_id))[-1])
                if not self.has(info.chain_id):
                    self.publish(staged, info)
        return info

    def adopt(self, info: LayerInfo, directory: str) -> None:
        """Add a layer whose files are in a directory beside ours, which becomes the layer's."""
        with self.staging.begin() as staged:
            with self._trace.step("rename", f"{directory} to {staged.path}/diff"):
                os.rename(directory, f"{staged.path}/diff")
            # One that is there already is not written to the disk, only to be deleted from it.
            if not self.has(info.chain_id):
                self.publish(staged, info)

    def note(self, info: LayerInfo) -> None:
        """Add the document of a layer alone. See `Snapshotter.note`."""
        path = self.path(info.chain_id)
        if os.path.exists(path):
            return
        with self.staging.begin() as staged:
            self._write_info(staged.path, info, sync=True)
            if staged.publish(path):
                self._sync_names()

    def examine(self, chain_id: str, diff_id: str, fill: Callable[[int], LayerInfo], replace: bool) -> str:
        """Unpack the layer once more, beside itself, and compare. See `Snapshotter.examine`."""
        from sampan.store.treediff import first_difference
        from sampan.store.writeback import WriteBack

        path = self.path(chain_id)
        with self.staging.begin() as staged, WriteBack(staged.path, ahead=False) as disk:
            with self._trace.step("unpack layer", staged.path):
                info = _fill(f"{staged.path}/diff", fill)
            if info.diff_id != diff_id:
                raise InvalidParameter(f'invalid diffID: expected "{diff_id}", got "{info.diff_id}"')
            info = info.replace(chain_id=chain_id)
            difference = first_difference(f"{path}/diff", f"{staged.path}/diff")
            if not difference:
                try:
                    if self.info(chain_id) == info:
                        return ""
                    difference = f"{_INFO}: it is not what the archive says"
                except (NotFound, ValueError, KeyError, TypeError, OSError) as e:
                    difference = f"{_INFO}: {e}"
            if replace:
                self._exchange(staged, info, disk)
            return difference

    def _exchange(self, staged: Staged, info: LayerInfo, disk: WriteBack) -> None:
        """Put what was unpacked in the place of what is damaged; the init layer beside it stays."""
        path = self.path(info.chain_id)
        self._write_info(path, info, sync=False)
        with self._trace.step("exchange", f"{path}/diff"):
            if os.path.lexists(f"{path}/diff"):
                os.rename(f"{path}/diff", f"{staged.path}/damaged")
            os.rename(f"{staged.path}/diff", f"{path}/diff")
        with self._trace.step("sync layer", path):
            disk.sync()
        _unlink(f"{path}/{_UNSYNCED}")

    def publish(self, staged: Staged, info: LayerInfo, disk: WriteBack | None = None) -> None:
        """Name a layer, once it is on its `disk`. Without one it is marked, and to be synced by who needs it to last (`sync`)."""
        self._write_info(staged.path, info, sync=False)
        path = self.path(info.chain_id)
        if disk is not None:
            # A layer that has its name is taken for whole ever after, so its bytes come first; one syncfs instead of
            # an fsync for each of thousands of files.
            with self._trace.step("sync layer", staged.path):
                disk.sync()
        else:
            # Before it has its name: no journal has the name without the mark. A link, whose content is in its inode.
            os.symlink(boot_id(), f"{staged.path}/{_UNSYNCED}")
        while not staged.publish(path):
            # Until one of the two succeeds: what has the name now may be collected before we join it.
            if self.has(info.chain_id) or self._join(staged, path, disk is not None):
                return
        if disk is not None:
            self._sync_names()

    def _join(self, staged: Staged, path: str, synced: bool) -> bool:
        """Put a layer's files beside its document, or init layer: it was noted, or lost. False if that is not there any more."""
        if not synced:
            self._sync_layer(staged.path)
        with self._trace.step("rename", f"{staged.path}/diff to {path}/diff"):
            if self._is_lost(path):
                try:
                    os.rename(f"{path}/diff", f"{staged.path}/lost")
                except FileNotFoundError:
                    pass  # another one was killed at this point
            try:
                os.rename(f"{staged.path}/diff", f"{path}/diff")
            except FileNotFoundError:
                return False
            except OSError as e:
                if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return True  # somebody else was faster
        with self._trace.step("sync directory", path):
            _unlink(f"{path}/{_UNSYNCED}")
            try:
                sync_directory(path)
            except FileNotFoundError:
                pass  # collected with what we put there: as if that had been a moment later
        return True

    def _write_info(self, directory: str, info: LayerInfo, sync: bool) -> None:
        with self._trace.step("write", f"{directory}/{_INFO}"):
            write_atomic(f"{directory}/{_INFO}", jsontext.dumps({"schema": 1, "layer": info.to_json()}), sync=sync)

    def _sync_layer(self, path: str) -> int:
        """The number of the file system that was synced."""
        with self._trace.step("sync layer", path):
            fd = open_directory(path)
            try:
                sync_filesystem(fd)
                return os.fstat(fd).st_dev
            finally:
                os.close(fd)

    def _sync_names(self) -> None:
        with self._trace.step("sync directory", self._directory):
            sync_directory(self._directory)

    def remove(self, chain_id: str) -> None:
        self.staging.remove(os.path.basename(self.path(chain_id)))


class WritableParts:
    """snapshots/ID/: one directory for each container, which holds the directory `part`.

    skeleton: the directories in there if the container has written nothing, deepest first; () for what always has more.
    """

    def __init__(self, directory: str, part: str, trace: Trace, skeleton: tuple[str, ...] = ()) -> None:
        self._directory = directory
        self._part = part
        self._skeleton = skeleton
        self._staging = Staging(directory, trace)

    def path(self, container_id: str) -> str:
        if not container_id or "/" in container_id or container_id.startswith("."):
            raise InvalidParameter(f"invalid container id: {container_id!r}")
        return f"{self._directory}/{container_id}"

    def add(self, container_id: str, fill: Callable[[str], None]) -> None:
        path = self.path(container_id)
        with self._staging.begin() as staged:
            fill(staged.path)
            if not staged.publish(path):
                raise Conflict(f"container {container_id} has a root file system already")

    def require(self, container_id: str) -> str:
        path = self.path(container_id)
        if not os.path.isdir(f"{path}/{self._part}"):
            raise NotFound(f"container {container_id} has no root file system of this kind: {path}")
        return path

    def list(self) -> list[str]:
        names = os.listdir(self._directory)
        return sorted(
            n for n in names if not n.startswith(".") and os.path.isdir(f"{self._directory}/{n}/{self._part}")
        )

    def remove(self, container_id: str) -> None:
        self._staging.remove(os.path.basename(self.path(container_id)), self._skeleton)

    def leftovers(self) -> tuple[str, ...]:
        return tuple(self._staging.leftovers())

    def collect_garbage(self) -> None:
        self._staging.collect_garbage()


def open_for_reading(path: str, ids: int = -1) -> int:
    """A writable part, to be read while a container may write to it: a private view in which nothing can go wrong.

    ids: a user namespace by whose map owners are shown. Read-only; a file that is exchanged for a device under our hands cannot be opened (opening some does things), and
    reading changes no times.
    """
    from sampan.kernel import mount
    from sampan.kernel.libc import KernelError

    try:
        view = mount.clone_tree_with(path, mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOATIME)
    except KernelError as e:
        if e.errno != errno.EINVAL:
            raise
        return open_directory(path)  # Before Linux 5.12 a detached mount has no attributes.
    try:
        if ids >= 0:
            mount.map_ids(view, ids)
        return os.open(f"/proc/self/fd/{view}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(view)


def archive_changes(top_fd: int, form: Form, below: str, sink: LayerSink, newest: int | None = None) -> LayerInfo:
    """Write what `form` takes of a writable part into the sink. `below` is the directory under it, "" for none.

    `newest`: no time in it is later than this, nanoseconds since 1970.
    """
    from sampan.store.archive import Archive, PlainTree, has_root_of
    from sampan.store.layers import LayerInfo

    tree = PlainTree(top_fd)
    try:
        archive = Archive(tree, sink, form)
        if newest is not None:
            from sampan.store.settled import DatedArchive

            archive = DatedArchive(tree, sink, form)
            archive.newest = newest
        for _ in archive.write(with_root=not has_root_of(top_fd, below)):
            pass
    finally:
        tree.close()
    return LayerInfo(sink.digest, archive.size, archive.entries, sink.size)


def export_layers(top_fd: int, below: Sequence[str], sink: Sink) -> Iterator[None]:
    """Write layers as one tree into a tar archive: the open directory on top, which is closed, and those below it."""
    from sampan.store.archive import Archive, MergedTree, is_plain_root
    from sampan.store.lower import LowerLayers

    layers = LowerLayers((f"/proc/self/fd/{top_fd}/.", *below))
    try:
        tree = MergedTree(layers)
        try:
            yield from Archive(tree, sink).write(with_root=not is_plain_root(top_fd))
        finally:
            tree.close()
    finally:
        layers.close()
        os.close(top_fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _fill(path: str, fill: Callable[[int], LayerInfo]) -> LayerInfo:
    fd = make_directory(path)
    try:
        return fill(fd)
    finally:
        os.close(fd)


def make_directory(path: str, mode: int = 0o755) -> int:
    """mkdir with exactly this mode; return a descriptor of it."""
    os.mkdir(path, 0o700)
    fd = open_directory(path)
    os.fchmod(fd, mode)
    return fd


def open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
