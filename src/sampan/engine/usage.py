"""What takes how much of the disk: `GET /system/df`. Everything is looked up when it is asked for, nothing is counted along.

Docker's members (Size, SizeRw, UsageData) are lengths of files, as they are elsewhere. What the disk is really taken by is
beside them, as `du` counts it: DiskSize of each image, container and volume, SharedDiskSize of an image, LayersSize,
ContainersSize and VolumesSize of all of them. `engine.space` and docs/disk.md say what belongs to whom.
"""

from __future__ import annotations

from sampan.engine.failures import told
from sampan.engine.imagegraph import blobs_of
from sampan.errors import Damaged, InvalidParameter, NotFound
from sampan.kernel.tree import disk_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol

    from sampan.oci.image import Descriptor
    from sampan.store.images import NameRecord
    from sampan.store.record import Record
    from sampan.store.states import Observation
    from sampan.store.volumes import VolumeRecord

    class Content(Protocol):
        def path(self, digest: str) -> str: ...
        def exists(self, digest: str) -> bool: ...
        def read(self, digest: str, limit: int) -> bytes: ...

    class Names(Protocol):
        def path(self, reference: str) -> str: ...
        def list(self) -> list[NameRecord]: ...

    class Image(Protocol):
        @property
        def layers(self) -> tuple[str, ...]: ...
        @property
        def target(self) -> Descriptor: ...

    class Images(Protocol):
        def list(self, *, all: bool) -> list[dict[str, Any]]: ...
        def read(self, record: Any) -> Image: ...
        def prune(self, filters: dict[str, Any], dry_run: bool) -> dict[str, Any]: ...

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...

    class Janitor(Protocol):
        def sweep(self) -> None: ...
        def observe(self, record: Record) -> Observation | None: ...

    class Inspector(Protocol):
        def summary(self, record: Record, seen: Observation, size: bool = ...) -> dict[str, Any]: ...

    class LayerInfo(Protocol):
        @property
        def size(self) -> int: ...

    class Layers(Protocol):
        def info(self, chain_id: str) -> LayerInfo: ...
        def layer_path(self, chain_id: str) -> str: ...

    class VolumeStore(Protocol):
        def list(self) -> list[VolumeRecord]: ...
        def usage(self, name: str) -> int: ...
        def space(self, name: str) -> int: ...

    class Space(Protocol):
        def container(self, record: Record) -> int: ...
        def images(self) -> int: ...
        def containers(self) -> int: ...
        def volumes(self) -> int: ...


class Usage:
    """One look at the disk."""

    def __init__(
        self,
        records: Records,
        janitor: Janitor,
        inspector: Inspector,
        images: Images,
        names: Names,
        content: Content,
        layers: Layers,
        volumes: VolumeStore,
        space: Space,
        cache: Callable[[], list[dict[str, Any]]],
    ) -> None:
        """`cache` gives what builds keep."""
        self._records = records
        self._janitor = janitor
        self._inspector = inspector
        self._images = images
        self._names = names
        self._content = content
        self._layers = layers
        self._volumes = volumes
        self._space = space
        self._cache = cache

    @told
    def df(self) -> dict[str, Any]:
        """`GET /system/df`, and the bytes of the disk; ImagesReclaimable are those that `image prune -a` would give back."""
        self._janitor.sweep()
        found = [r for i in self._records.ids() if (r := self._records.try_read(i)) is not None]
        cache = self._cache()
        return {
            # What only the cache keeps is not the images'.
            "LayersSize": self._space.images() - sum(item["DiskSize"] for item in cache),
            "ImagesReclaimable": self._images.prune({"dangling": "false"}, dry_run=True)["SpaceReclaimed"],
            "ContainersSize": self._space.containers(),
            "VolumesSize": self._space.volumes(),
            "Images": self._image_items([record.image for record in found]),
            "Containers": self._container_items(found),
            "Volumes": self._volume_items(found),
            "BuildCache": cache,
        }

    def _container_items(self, found: list[Record]) -> list[dict[str, Any]]:
        items = []
        for record in found:
            seen = self._janitor.observe(record)
            if seen is None:
                continue
            try:
                item = self._inspector.summary(record, seen, size=True)
            except NotFound:
                # It is being removed, or its writable part was lost (`system check` tells).
                item = {**self._inspector.summary(record, seen), "SizeRw": 0}
            items.append({**item, "DiskSize": self._space.container(record)})
        return sorted(items, key=lambda item: -item["Created"])

    def _volume_items(self, found: list[Record]) -> list[dict[str, Any]]:
        from sampan.engine.volumes import shown

        users: dict[str, int] = {}
        for record in found:
            for name in record.volumes():
                users[name] = users.get(name, 0) + 1
        return [
            {
                **shown(volume),
                "UsageData": {"Size": self._volumes.usage(volume.name), "RefCount": users.get(volume.name, 0)},
                "DiskSize": self._volumes.space(volume.name),
            }
            for volume in self._volumes.list()
        ]

    # Images

    def _image_items(self, used: list[str]) -> list[dict[str, Any]]:
        """The items of `images`, with what an image shares with others and how many containers it has."""
        records = self._names.list()
        layers = {r.image: self._layers_of(r) for r in records if r.is_image}
        parts = {
            r.image: list(dict.fromkeys(self._parts_of(r, records, layers[r.image]))) for r in records if r.is_image
        }
        layer_owners, part_owners = _count(layers.values()), _count(parts.values())
        sizes = {path: disk_blocks(path) for path in part_owners}
        items = []
        for item in self._images.list(all=True):
            image_id = item["Id"]
            chain, own = layers.get(image_id, ()), parts.get(image_id, [])
            shared = sum(self._layer_size(chain_id) for chain_id in set(chain) if layer_owners[chain_id] > 1)
            items.append(
                {
                    **item,
                    "SharedSize": shared,
                    "Containers": used.count(image_id),
                    "DiskSize": sum(sizes[path] for path in own),
                    "SharedDiskSize": sum(sizes[path] for path in own if part_owners[path] > 1),
                }
            )
        return items

    def _parts_of(self, record: NameRecord, records: list[NameRecord], layers: tuple[str, ...]) -> Iterator[str]:
        """The paths of all that an image is made of on the disk."""
        for name in records:
            if name.image == record.image:
                yield self._names.path(name.reference)
        for chain_id in layers:
            yield self._layers.layer_path(chain_id)
        try:
            for digest in sorted(blobs_of(self._content, record.target)):
                yield self._content.path(digest)
        except (NotFound, InvalidParameter):
            pass  # It is damaged, and listed all the same with what is known to be its own.

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


def _count(groups: Iterable[Iterable[str]]) -> dict[str, int]:
    """In how many of the groups something is."""
    counts: dict[str, int] = {}
    for group in groups:
        for one in set(group):
            counts[one] = counts.get(one, 0) + 1
    return counts
