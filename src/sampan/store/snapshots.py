"""Root file systems out of layers: what every snapshotter does, and what they all share.

A snapshotter keeps unpacked layers (made once, shared, never changed) and the writable part of each container,
and tells how the two become a root file system as data: it mounts nothing.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.kernel.files import read_bounded, sync_directory, sync_filesystem, write_atomic
from sampan.oci.digest import is_hex, sha256_hex
from sampan.store.staging import Staging
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from sampan.steps.trace import Trace
    from sampan.store.layers import LayerInfo
    from sampan.store.staging import Staged
    from sampan.store.tarstream import Source

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

        def has(self, chain_id: str) -> bool: ...

        def info(self, chain_id: str) -> LayerInfo:
            """What was learned when a layer was unpacked. Raises `NotFound`."""

        def layers(self) -> list[str]:
            """The chain ids of all layers."""

        def remove_layer(self, chain_id: str) -> None:
            """Remove a layer that nothing uses any more (that is for the caller to know); nothing if it is gone."""

        def create(self, container_id: str, chain_ids: Sequence[str]) -> None:
            """Make the writable part of a container. Raises `Conflict` if it has one, `NotFound` for a lost layer."""

        def root(self, container_id: str, chain_ids: Sequence[str]) -> RootMount: ...

        def remove(self, container_id: str) -> None:
            """Remove a container's writable part; nothing if it is gone."""

        def containers(self) -> list[str]:
            """The containers that have a writable part."""

        def usage(self, container_id: str) -> int:
            """Bytes of the files in a container's writable part, as Docker counts them. Raises `NotFound`."""

        def collect_garbage(self) -> None:
            """Delete what killed processes left."""


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


EMPTY = "scratch"
"""Stands for the top layer of an image without layers, in names of directories."""

_INFO = "layer.json"
_INFO_LIMIT = 1 << 16


class LayerDirectory:
    """layers/HEX/{diff/, layer.json}: layers by chain id. `suffix` keeps snapshotters' different forms apart."""

    def __init__(self, directory: str, suffix: str, trace: Trace) -> None:
        self._directory = directory
        self._suffix = suffix
        self._trace = trace
        self.staging = Staging(directory, trace)

    def path(self, chain_id: str) -> str:
        """Where a layer is. Raises `InvalidParameter` for what is no sha256 digest: it becomes a file name."""
        return f"{self._directory}/{sha256_hex(chain_id)}{self._suffix}"

    def diff(self, chain_id: str) -> str:
        return f"{self.path(chain_id)}/diff"

    def top(self, chain: Sequence[str]) -> str:
        """The directory of the topmost layer, also of an image without any."""
        return self.path(chain[-1]) if chain else f"{self._directory}/{EMPTY}{self._suffix}"

    def has(self, chain_id: str) -> bool:
        return os.path.exists(self.path(chain_id))

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
        from sampan.oci.image import chain_ids

        self.require(parents)
        if expected_diff_id is not None:
            chain_id = chain_ids((*parents[-1:], expected_diff_id))[-1]
            if self.has(chain_id):
                return self.info(chain_id)
        with self.staging.begin() as staged:
            with self._trace.step("unpack layer", staged.path):
                info = _fill(f"{staged.path}/diff", fill)
            if expected_diff_id not in (None, info.diff_id):
                raise InvalidParameter(f'invalid diffID: expected "{expected_diff_id}", got "{info.diff_id}"')
            info = info.replace(chain_id=chain_ids((*parents[-1:], info.diff_id))[-1])
            if not self.has(info.chain_id):
                self._publish(staged, info)
        return info

    def _publish(self, staged: Staged, info: LayerInfo) -> None:
        document = {"schema": 1, "layer": info.to_json()}
        with self._trace.step("write", f"{staged.path}/{_INFO}"):
            write_atomic(f"{staged.path}/{_INFO}", jsontext.dumps(document), sync=False)
        # A layer that has its name is taken for whole ever after, so its bytes come first; one syncfs instead of
        # an fsync for each of thousands of files.
        with self._trace.step("sync layer", staged.path):
            fd = os.open(staged.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sync_filesystem(fd)
            finally:
                os.close(fd)
        if staged.publish(self.path(info.chain_id)):
            with self._trace.step("sync directory", self._directory):
                sync_directory(self._directory)

    def remove(self, chain_id: str) -> None:
        self.staging.remove(os.path.basename(self.path(chain_id)))


class WritableParts:
    """snapshots/ID/: one directory for each container, which holds the directory `part`."""

    def __init__(self, directory: str, part: str, trace: Trace) -> None:
        self._directory = directory
        self._part = part
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
        self._staging.remove(os.path.basename(self.path(container_id)))

    def collect_garbage(self) -> None:
        self._staging.collect_garbage()


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
