"""The part of `system check` that looks at images: records, blobs, layers.

It runs under the image store's exclusive lock: nobody is between a blob and the record that will lead to it then. The long
part, `deep_findings`, reads under the shared lock, which only deletions wait for.
"""

from __future__ import annotations

import os

from sampan.engine.check import ERROR, GARBAGE, found
from sampan.engine.imagegraph import blobs_of
from sampan.errors import Conflict, Damaged, InvalidParameter, NotFound
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci.digest import is_hex
from sampan.oci.image import Descriptor, Manifest
from sampan.store.images import NameRecord
from sampan.store.layout import EMPTY
from sampan.store.locks import RecordLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from sampan.engine.check import Found
    from sampan.kernel.files import FileLock
    from sampan.store.content import VerifiedReader
    from sampan.store.layout import ContainerPaths, Layout
    from sampan.store.record import Record

    class Content(Protocol):
        directory: str

        def path(self, digest: str) -> str: ...
        def exists(self, digest: str) -> bool: ...
        def size(self, digest: str) -> int: ...
        def read(self, digest: str, limit: int) -> bytes: ...
        def open_verified(self, digest: str) -> VerifiedReader: ...
        def delete(self, digest: str) -> None: ...
        def ingests(self) -> tuple[set[str], set[str]]: ...
        def collect_ingests(self) -> int: ...
        def list(self) -> list[str]: ...

    class Names(Protocol):
        def path(self, reference: str) -> str: ...
        def survey(self) -> tuple[tuple[NameRecord, ...], dict[str, str], tuple[str, ...]]: ...
        def collect(self) -> int: ...
        def set(self, record: NameRecord) -> None: ...

    class Image(Protocol):
        @property
        def id(self) -> str: ...
        @property
        def layers(self) -> tuple[str, ...]: ...
        @property
        def diff_ids(self) -> tuple[str, ...]: ...
        @property
        def target(self) -> Descriptor: ...

    class Images(Protocol):
        def read(self, record: NameRecord) -> Image: ...
        def manifest(self, target: Descriptor, image_id: str) -> Manifest: ...

    class Layers(Protocol):
        name: str

        def has(self, chain_id: str) -> bool: ...
        def info(self, chain_id: str) -> Any: ...
        def examine(self, chain_ids: tuple[str, ...], stream: Any, diff_id: str, replace: bool = ...) -> str: ...

    class Staging(Protocol):
        directory: str

        def leftovers(self) -> list[str]: ...
        def remove(self, name: str) -> bool: ...
        def collect_garbage(self) -> None: ...

    class Lock(Protocol):
        def shared(self) -> FileLock: ...
        def exclusive(self) -> FileLock: ...

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...
        def paths(self, container_id: str) -> ContainerPaths: ...
        def leftovers(self) -> list[ContainerPaths]: ...


_SUFFIXES = {"overlay": "", "vfs": ".vfs"}


class ImageCheck:
    """All images of one root."""

    def __init__(
        self,
        layout: Layout,
        content: Content,
        names: Names,
        images: Images,
        layers: Layers,
        staging: tuple[Staging, Staging],
        lock: Lock,
        records: Records,
        cached: Callable[[], tuple[set[str], set[str]]],
    ) -> None:
        """`cached` gives what the cache of builds leads to; `staging`: that of the layers and that of the writable parts."""
        self._layout = layout
        self._content = content
        self._names = names
        self._images = images
        self._layers = layers
        self._staging = staging
        self._lock = lock
        self._records = records
        self._cached = cached

    def findings(self) -> Iterator[Found]:
        with self._lock.exclusive():
            yield from self._unfinished()
            good, bad, _ = self._names.survey()
            yield from self._damaged_names(bad)
            # Once more: a name that was rebuilt leads to content again.
            good, bad, _ = self._names.survey()
            images, broken = [], bool(bad)
            for record in good:
                problems = list(self._image(record, good))
                broken = broken or any(p.finding.kind == "image" for p in problems)
                yield from problems
                if record.is_image and not any(p.finding.kind == "image" for p in problems):
                    images.append(self._images.read(record))
            yield from self._damaged_layers(images)
            living, _ = self._content.ingests()
            if not broken and not living:
                # As long as an image does not say what it needs, or one comes in, nothing is known to be needed by nobody.
                yield from self._unused(images, good)

    def _unfinished(self) -> Iterator[Found]:
        what = "the command that was writing it was killed"
        for path in sorted(self._content.ingests()[1]):
            yield found(GARBAGE, "ingest", path, what, "remove it", self._content.collect_ingests)
        for path in self._names.survey()[2]:
            yield found(GARBAGE, "ingest", path, what, "remove it", self._names.collect)
        for staging in self._staging:
            for path in staging.leftovers():
                yield found(GARBAGE, "staging", path, what, "remove it", staging.collect_garbage)

    # Names and documents

    def _damaged_names(self, bad: dict[str, str]) -> Iterator[Found]:
        candidates = self._candidates() if bad else {}
        for path, why in bad.items():
            record = candidates.get(path)
            if record is not None:
                yield found(ERROR, "image name", path, why, f"write the record of image {record.image} anew",
                            self._names.set, record)  # fmt: skip
            else:
                yield found(ERROR, "image name", path, why)

    def _candidates(self) -> dict[str, NameRecord]:
        """What the record of each image that there is a manifest of would be, by its path."""
        made = {}
        for digest in self._content.list():
            if self._content.size(digest) > documents.MANIFEST_LIMIT:
                continue
            try:
                data = self._content.read(digest, documents.MANIFEST_LIMIT)
                manifest = documents.parse_manifest(data, documents.OCI_MANIFEST)
            except (InvalidParameter, NotFound):
                continue  # a layer, a config, an index
            if isinstance(manifest, Manifest):
                target = Descriptor(manifest.media_type, digest, len(data))
                image_id = manifest.config.digest
                made[self._names.path(image_id)] = NameRecord(image_id, target, image_id, clock.now())
        return made

    def _image(self, record: NameRecord, good: tuple[NameRecord, ...]) -> Iterator[Found]:
        path = self._names.path(record.reference)
        try:
            self._images.read(record)
            blobs = blobs_of(self._content, record.target)
        except (Damaged, InvalidParameter, NotFound) as e:
            if record.is_image:
                yield found(ERROR, "image", path, str(e))
            return
        missing = sorted(digest for digest in blobs if not self._content.exists(digest))
        if missing and record.is_image:
            why = f"image {record.image} is damaged: content {missing[0]} is not in the store"
            yield found(ERROR, "image", path, f"{why}: remove it (rmi) and bring it in again")
        if not record.is_image and not any(r.is_image and r.image == record.image for r in good):
            own = NameRecord(record.image, record.target, record.image, record.tagged)
            yield found(ERROR, "image name", path, f"it names an image without a record of its own: {record.image}",
                        "write that record anew", self._names.set, own)  # fmt: skip

    # Layers

    def _damaged_layers(self, images: list[Image]) -> Iterator[Found]:
        seen: set[str] = set()
        stood_on = self._stood_on()
        for image in images:
            for position, chain_id in enumerate(image.layers):
                unpacked = self._layers.has(chain_id) or chain_id in stood_on
                if chain_id in seen or not unpacked or not os.path.lexists(self._layer_path(chain_id)):
                    continue  # It is unpacked when a container needs it.
                seen.add(chain_id)
                if why := self._shape(chain_id):
                    yield found(ERROR, "layer", self._layer_path(chain_id), why, "unpack it again from its verified blob",
                                self._replace, image, position)  # fmt: skip

    def _stood_on(self) -> set[str]:
        """The layers that containers are made of, which therefore were unpacked."""
        records = (self._records.try_read(i) for i in self._records.ids())
        return {chain_id for r in records if r is not None and not r.broken for chain_id in r.layers}

    def _shape(self, chain_id: str) -> str:
        """What can be seen of a layer without reading it: its document, its directory."""
        try:
            info = self._layers.info(chain_id)
        except NotFound:
            return "it has no layer.json"
        except (ValueError, KeyError, TypeError, OSError) as e:
            return f"its layer.json is damaged: {e}"
        if info.chain_id != chain_id:
            return f"its layer.json is that of {info.chain_id}"
        return "" if os.path.isdir(f"{self._layer_path(chain_id)}/diff") else "its files are gone"

    def _layer_path(self, chain_id: str) -> str:
        return f"{self._layout.layers}/{chain_id.removeprefix('sha256:')}{_SUFFIXES[self._layers.name]}"

    def _examine(self, image: Image, position: int, replace: bool = False) -> str:
        blob = self._images.manifest(image.target, image.id).layers[position]
        with self._content.open_verified(blob.digest) as stream:
            chain = image.layers[: position + 1]
            return self._layers.examine(chain, stream, image.diff_ids[position], replace)

    def _replace(self, image: Image, position: int) -> None:
        """Unpack a layer again, while nobody runs on it nor can be started. Under the exclusive lock."""
        locks = []
        try:
            # In the order of their ids, and none is waited for (docs/locks.md).
            for container_id in sorted(self._records.ids()):
                record = self._records.try_read(container_id)
                if record is None or image.layers[position] not in record.layers:
                    continue
                paths = self._records.paths(container_id)
                lock = RecordLock.attempt(paths)
                if lock is None or _runs(paths):
                    if lock is not None:
                        lock.release()
                    raise Conflict(f"container {record.name} runs on it, or is in use: stop it first")
                locks.append(lock)
            self._examine(image, position, replace=True)
        finally:
            for lock in locks:
                lock.release()

    # What nothing leads to

    def _unused(self, images: list[Image], names: tuple[NameRecord, ...]) -> Iterator[Found]:
        blobs = {digest for record in names for digest in blobs_of(self._content, record.target)} | self._cached()[0]
        for digest in self._content.list():
            if digest not in blobs:
                yield found(GARBAGE, "blob", self._content.path(digest), "nothing leads to it", "remove it",
                            self._content.delete, digest)  # fmt: skip
        wanted = self._wanted_layers(images)
        if wanted is None:
            return
        for name in sorted(os.listdir(self._layout.layers)):
            path = f"{self._layout.layers}/{name}"
            if name.startswith(".") or name in wanted:
                continue
            stem = name.removesuffix(".vfs")
            if stem == EMPTY or (len(stem) == 64 and is_hex(stem)):
                yield found(GARBAGE, "layer", path, "no image and no container needs it in this form", "remove it",
                            self._staging[0].remove, name)  # fmt: skip
            else:
                yield found(ERROR, "layer", path, "it is none of ours")

    def _wanted_layers(self, images: list[Image]) -> set[str] | None:
        """The names of the directories of layers that somebody needs; None if a container does not say."""
        suffix = _SUFFIXES[self._layers.name]
        wanted = {id_.removeprefix("sha256:") + suffix for image in images for id_ in image.layers}
        # What containers without layers share stays when a build has removed its last one; the next collection takes it.
        wanted.add(EMPTY + suffix)
        wanted |= {chain_id.removeprefix("sha256:") + suffix for chain_id in self._cached()[1]}
        if self._records.leftovers():
            return None  # One that is being removed stands on its layers until it is gone.
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            if record is None:
                continue
            if record.broken:
                return None
            form = _SUFFIXES.get(record.snapshotter, "")
            wanted |= {chain_id.removeprefix("sha256:") + form for chain_id in record.layers or (EMPTY,)}
        return wanted

    # Every byte

    def deep_findings(self) -> Iterator[Found]:
        with self._lock.shared():
            damaged = set()
            for digest in self._content.list():
                try:
                    with self._content.open_verified(digest) as blob:
                        blob.drain()
                except NotFound:
                    continue  # an ingest that was given up
                except InvalidParameter as e:
                    damaged.add(digest)
                    yield found(ERROR, "content", self._content.path(digest), str(e))
            suspects = [] if damaged else self._different_layers()
        for image, position, difference in suspects:
            path = self._layer_path(image.layers[position])
            what = f"it is not what its archive holds: {difference}"
            yield found(ERROR, "layer", path, what, "unpack it again from its verified blob",
                        self._replace_alone, image, position)  # fmt: skip

    def _different_layers(self) -> list[tuple[Image, int, str]]:
        different = []
        seen: set[str] = set()
        for record in self._names.survey()[0]:
            if not record.is_image:
                continue
            try:
                image = self._images.read(record)
                for position, chain_id in enumerate(image.layers):
                    if chain_id in seen or not self._layers.has(chain_id) or self._shape(chain_id):
                        continue
                    seen.add(chain_id)
                    if difference := self._examine(image, position):
                        different.append((image, position, difference))
            except (Damaged, InvalidParameter, NotFound):
                continue  # told already, by what is damaged
        return different

    def _replace_alone(self, image: Image, position: int) -> None:
        with self._lock.exclusive():
            self._replace(image, position)


def _runs(paths: ContainerPaths) -> bool:
    from sampan.kernel.files import lock_is_held

    return lock_is_held(paths.monitor_lock)
