"""`commit`: an image of what a container has changed, on top of the image that it was made from.

The writable layer is read once, while the container stands still: hashed and stored as a blob. It is unpacked when a
container is made of the image (docs/adr/0006): most images that are committed are pushed, saved or committed upon.
Nothing has a name until all of it was read; a command that dies before that leaves a dead ingest, which is collected. The parent's layers are taken over as they
are, so its blobs must be there: an image that was removed by force cannot be continued.
"""

from __future__ import annotations

import os

from sampan import __version__
from sampan.engine.fields import normalise_config
from sampan.engine.standstill import Standstill
from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.kernel import clock
from sampan.oci import changes as instructions
from sampan.oci import image as documents
from sampan.oci import lifecycle, reference
from sampan.oci.image import Descriptor
from sampan.oci.process import merge
from sampan.store.snapshots import EMPTY_LAYER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    from sampan.engine.images import Content, Image, Lock
    from sampan.engine.progress import Progress
    from sampan.kernel.cgroup import CgroupDriver
    from sampan.oci.image import Manifest
    from sampan.oci.reference import Reference
    from sampan.steps.trace import Trace
    from sampan.store.images import NameRecord
    from sampan.store.ingest import Ingest
    from sampan.store.layers import LayerInfo
    from sampan.store.layout import ContainerPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...
        def lock(self, container_id: str) -> RecordLock: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...

    class Snapshots(Protocol):
        def commit(self, record: Record, sink: Ingest, reading: AbstractContextManager[object]) -> LayerInfo: ...
        def note(self, layer: LayerInfo) -> None: ...

    class Images(Protocol):
        def find(self, name: str) -> NameRecord | None: ...
        def read(self, record: NameRecord) -> Image: ...
        def manifest(self, target: Descriptor, image_id: str) -> Manifest: ...
        def publish(
            self,
            config: bytes,
            layers: Sequence[Descriptor],
            name: Reference | None,
            parent: str = "",
            unpack: bool = ...,
        ) -> Image: ...
        def collect_now(self) -> None: ...
        def announce_tag(self, image: Image, name: Reference) -> None: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str, extra: Mapping[str, str] = ...) -> None: ...


# What of a container's Config an image has (image-spec, config.md, and Docker's extensions of it). The rest is about
# this container: its host name, its terminal, what was attached to it.
_IMAGE_KEYS = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Healthcheck",
    "ArgsEscaped",
    "Volumes",
    "WorkingDir",
    "OnBuild",
    "Labels",
    "StopSignal",
    "Shell",
)


class Committer:
    """`POST /commit`."""

    def __init__(
        self,
        records: Records,
        settler: Settler,
        snapshots: Snapshots,
        content: Content,
        lock: Lock,
        images: Images,
        cgroups: CgroupDriver,
        events: Announcer,
        trace: Trace,
    ) -> None:
        self._records = records
        self._settler = settler
        self._snapshots = snapshots
        self._content = content
        self._lock = lock
        self._images = images
        self._cgroups = cgroups
        self._events = events
        self._trace = trace

    def commit(
        self,
        record: Record,
        name: str,
        author: str,
        message: str,
        changes: Sequence[str],
        pause: bool,
        progress: Progress | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> str:
        """Make the image and return its id. given: a `Config` that goes before the container's. What is wrong in the arguments is told before anything is read.

        Raises `InvalidParameter` in Docker's words, `NotFound` if the container or its image is gone, `Conflict` if its
        state forbids it, `System` for a disk that is full; nothing is left behind then.
        """
        target = new_name(name) if name else None
        config = committed_config(record.config, changes, given)
        before = self._settler.observe(record)
        if before.status == lifecycle.DEAD:
            raise Conflict(f"You cannot commit container {record.id} which is Dead")
        self._parent(record)
        self._content.collect_ingests(partial=False)
        with self._content.writer() as ingest:
            layer = self._read(record, ingest, before.number, pause, progress)
            try:
                with self._lock.shared():
                    # Once more: as long as the lock was not held, it could be removed.
                    parent, layers = self._parent(record)
                    added = layer.diff_id != EMPTY_LAYER
                    if added:
                        digest, size = ingest.commit(layer.diff_id)
                        layers.append(Descriptor(documents.OCI_LAYER, digest, size))
                        self._snapshots.note(layer.replace(chain_id=_chain_id(parent, layer.diff_id)))
                    document = _document(parent, record, config, layer.diff_id if added else "", author, message)
                    image = self._images.publish(document, layers, target, parent.id, unpack=False)
            except BaseException:
                # The layer is noted, and perhaps its blob has its name: nothing leads to them.
                self._images.collect_now()
                raise
        if target is not None:
            self._images.announce_tag(image, target)
        name = target.familiar if target is not None else ""
        self._events.container(record, "commit", {"comment": message, "imageID": image.id, "imageRef": name})
        return image.id

    def _read(self, record: Record, ingest: Ingest, start: int, pause: bool, progress: Progress | None) -> LayerInfo:
        from contextlib import nullcontext

        sink: Any = ingest
        if progress is not None:
            from sampan.engine.progress import WatchedSink

            sink = WatchedSink(ingest, progress, "Committing")

        still: AbstractContextManager[object] = nullcontext()
        if pause:
            still = Standstill(record, self._records, self._settler, self._cgroups, self._trace)
        paths = self._records.paths(record.id)
        try:
            with self._trace.step("read writable layer", record.id):
                layer = self._snapshots.commit(record, sink, still)
            # Its files go after its name: as long as that is there, all of them were.
            number = paths.newest_start()
        except (OSError, NotFound) as e:
            if not os.path.isdir(paths.directory):
                raise NotFound(f"No such container: {record.id}") from None
            if isinstance(e, NotFound):
                raise
            raise System(f"commit of container {record.id}: {_told(e)}") from e
        if pause and number != start:
            raise Conflict(f"container {record.id} was started while it was committed, try again")
        return layer

    def _parent(self, record: Record) -> tuple[Image, list[Descriptor]]:
        """The image that the container was made from, and its layers' blobs, all there."""
        found = self._images.find(record.image)
        if found is None:
            raise NotFound(
                f"No such image: {record.image}: container {record.id[:12]} was made from it, and it was removed since; "
                "bring it in again, or use export and import"
            )
        image = self._images.read(found)
        if len(image.layers) >= documents.LAYER_LIMIT - 1:  # The init layer needs a place, too.
            raise InvalidParameter("max depth exceeded")
        layers = [documents.as_oci(layer) for layer in self._images.manifest(image.target, image.id).layers]
        for layer in layers:
            if not self._content.exists(layer.digest):
                raise NotFound(f"image {image.id} is not complete: content {layer.digest} is not in the store")
        return image, layers


def _chain_id(parent: Image, diff_id: str) -> str:
    return documents.chain_ids((*parent.layers[-1:], diff_id))[-1]


def _document(parent: Image, record: Record, config: dict[str, Any], diff_id: str, author: str, message: str) -> bytes:
    """The new image's config: the parent's history and layers, and one more of each."""
    before = documents.parse_config(documents.dump(parent.document))
    created = clock.now()
    entry: dict[str, Any] = {"created": created, "created_by": " ".join(record.config.get("Cmd") or ())}
    entry |= {key: value for key, value in (("author", author), ("comment", message)) if value}
    if not diff_id:
        entry["empty_layer"] = True
    return documents.make_config(
        before.platform,
        created,
        config,
        [*parent.diff_ids, *filter(None, [diff_id])],
        [*before.history, entry],
        message,
        author,
        {"container": record.id, "docker_version": __version__},
    )


def committed_config(
    config: dict[str, Any], changes: Sequence[str], given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `Config` of the image: the one that is given, or else the container's, with Dockerfile instructions carried out.

    What an instruction empties comes back from the container's, as in Docker. Raises `InvalidParameter`.
    """
    own = config if given is None else normalise_config(dict(given))
    merged = merge(instructions.apply(own, changes), config)
    return {key: merged[key] for key in _IMAGE_KEYS if merged.get(key)}


def new_name(text: str) -> Reference:
    """The name of the image. Raises `InvalidParameter` in Docker's words."""
    found = reference.parse(text)
    if found.digest:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    return found.tagged()


def _told(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
