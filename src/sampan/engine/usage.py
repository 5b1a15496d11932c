"""What takes how much of the disk: `GET /system/df`. Everything is looked up when it is asked for, nothing is counted along.

Bytes are lengths of files, hard links once, as Docker counts; `du --apparent-size` says the same of the same places:

    images       content/, layers/ and images/: packed and unpacked, what images share counted once
    containers   snapshots/: what containers have written (their logs and records, in containers/, are not in it)
    volumes      volumes/NAME/_data
"""

from __future__ import annotations

import os

from sampan.engine.failures import told
from sampan.engine.imagegraph import blobs_of
from sampan.errors import Damaged, InvalidParameter, NotFound
from sampan.kernel.tree import disk_usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from sampan.oci.image import Descriptor
    from sampan.store.images import NameRecord
    from sampan.store.layout import Layout
    from sampan.store.record import Record
    from sampan.store.states import Observation
    from sampan.store.volumes import VolumeRecord

    class Content(Protocol):
        def list(self) -> list[str]: ...
        def size(self, digest: str) -> int: ...
        def exists(self, digest: str) -> bool: ...
        def read(self, digest: str, limit: int) -> bytes: ...

    class Names(Protocol):
        def list(self) -> list[NameRecord]: ...

    class Image(Protocol):
        @property
        def layers(self) -> tuple[str, ...]: ...
        @property
        def target(self) -> Descriptor: ...

    class Images(Protocol):
        def list(self) -> list[dict[str, Any]]: ...
        def read(self, record: Any) -> Image: ...

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...

    class Janitor(Protocol):
        def observe(self, record: Record) -> Observation | None: ...

    class Inspector(Protocol):
        def summary(self, record: Record, seen: Observation, size: bool = ...) -> dict[str, Any]: ...

    class LayerInfo(Protocol):
        @property
        def size(self) -> int: ...

    class Layers(Protocol):
        def info(self, chain_id: str) -> LayerInfo: ...

    class VolumeStore(Protocol):
        def list(self) -> list[VolumeRecord]: ...
        def usage(self, name: str) -> int: ...


class Usage:
    """One look at the disk."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        janitor: Janitor,
        inspector: Inspector,
        images: Images,
        names: Names,
        content: Content,
        layers: Layers,
        volumes: VolumeStore,
    ) -> None:
        self._layout = layout
        self._records = records
        self._janitor = janitor
        self._inspector = inspector
        self._images = images
        self._names = names
        self._content = content
        self._layers = layers
        self._volumes = volumes

    @told
    def df(self) -> dict[str, Any]:
        """LayersSize (bytes of all images), ImagesReclaimable (of those that no container uses), Images, Containers, Volumes."""
        found = [r for i in self._records.ids() if (r := self._records.try_read(i)) is not None]
        used = [record.image for record in found]
        total, reclaimable = self._image_bytes(set(used))
        return {
            "LayersSize": total,
            "ImagesReclaimable": reclaimable,
            "Images": self._image_items(used),
            "Containers": self._container_items(found),
            "Volumes": self._volume_items(found),
            "BuildCache": [],
        }

    def image_bytes(self) -> int:
        """Bytes of all that images take."""
        return self._image_bytes(set())[0]

    def _container_items(self, found: list[Record]) -> list[dict[str, Any]]:
        items = []
        for record in found:
            seen = self._janitor.observe(record)
            if seen is None:
                continue
            try:
                items.append(self._inspector.summary(record, seen, size=True))
            except NotFound:
                # It is being removed, or its writable part was lost (`system check` tells).
                items.append({**self._inspector.summary(record, seen), "SizeRw": 0})
        return sorted(items, key=lambda item: -item["Created"])

    def _volume_items(self, found: list[Record]) -> list[dict[str, Any]]:
        from sampan.engine.volumes import shown

        users: dict[str, int] = {}
        for record in found:
            for name in record.volumes():
                users[name] = users.get(name, 0) + 1
        return [
            {**shown(v), "UsageData": {"Size": self._volumes.usage(v.name), "RefCount": users.get(v.name, 0)}}
            for v in self._volumes.list()
        ]

    # Images

    def _image_items(self, used: list[str]) -> list[dict[str, Any]]:
        """The items of `images`, with what an image shares with others and how many containers it has."""
        layers = {r.image: self._layers_of(r) for r in self._names.list() if r.is_image}
        owners: dict[str, int] = {}
        for chain in layers.values():
            for chain_id in set(chain):
                owners[chain_id] = owners.get(chain_id, 0) + 1
        items = []
        for item in self._images.list():
            chain = layers.get(item["Id"], ())
            shared = sum(self._layer_size(chain_id) for chain_id in set(chain) if owners[chain_id] > 1)
            items.append({**item, "SharedSize": shared, "Containers": used.count(item["Id"])})
        return items

    def _layers_of(self, record: NameRecord) -> tuple[str, ...]:
        try:
            return self._images.read(record).layers
        except Damaged:
            return ()  # It is listed all the same, with what can be known.

    def _layer_size(self, chain_id: str) -> int:
        try:
            return self._layers.info(chain_id).size
        except NotFound:
            return 0  # not unpacked

    def _image_bytes(self, used: set[str]) -> tuple[int, int]:
        """Bytes of all that images take, and of what would be free if all went that no container uses."""
        layout = self._layout
        # A layer's directory is its chain id's, with a suffix for the form that it is in.
        layers = {name: _usage(layout.layers, name) for name in os.listdir(layout.layers)}
        blobs = {digest: self._content.size(digest) for digest in self._content.list()}
        names = _usage(layout.root, os.path.basename(layout.images))
        kept_blobs: set[str] = set()
        kept_layers: set[str] = set()
        for record in self._names.list():
            if record.image not in used:
                continue
            kept_layers |= {chain_id.removeprefix("sha256:") for chain_id in self._layers_of(record)}
            try:
                kept_blobs |= blobs_of(self._content, record.target)
            except (NotFound, InvalidParameter):
                kept_blobs |= blobs.keys()  # Nothing is deleted as long as it does not say what it needs.
        total = sum(layers.values()) + sum(blobs.values()) + names
        free = sum(size for digest, size in blobs.items() if digest not in kept_blobs)
        free += sum(size for name, size in layers.items() if name.partition(".")[0] not in kept_layers)
        return total, free


def _usage(directory: str, name: str) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return disk_usage(fd, name)
    except (FileNotFoundError, NotADirectoryError):
        return 0  # gone meanwhile, or a lock's file
    finally:
        os.close(fd)
