"""Images as Docker's API shows them: the items of `GET /images/json`, and `GET /images/{name}/json`."""

from __future__ import annotations

from sampan.engine import times
from sampan.errors import Damaged, NotFound
from sampan.oci import reference
from sampan.store.images import no_such_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from sampan.engine.imagefilters import Filters
    from sampan.engine.images import Image, Names, Snapshotter
    from sampan.store.images import NameRecord

    class Loader(Protocol):
        def find(self, name: str) -> NameRecord | None: ...
        def read(self, record: NameRecord) -> Image: ...


# The members of Config that Docker shows also when they are empty, and those that it leaves out then.
_ALWAYS: dict[str, Any] = {
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
_WHEN_SET = ("ExposedPorts", "Healthcheck", "StopSignal", "Shell", "ArgsEscaped")


class Views:
    """What is told about the images of one root."""

    def __init__(self, names: Names, snapshots: Snapshotter, images: Loader) -> None:
        self._names = names
        self._snapshots = snapshots
        self._images = images

    def summaries(self, filters: Filters, every: bool, shared: bool) -> list[dict[str, Any]]:
        """The items of `GET /images/json`, newest first.

        `every`: also images without a name that others were made from. `shared`: say how much of each others have too.
        """
        from sampan.engine.imagefilters import ImageFilter

        wanted = ImageFilter(filters, self._created)
        records = self._names.list()
        parents = {record.parent for record in records if record.is_image}
        found = []
        for record in records:
            if not record.is_image:
                continue
            tags, repo_digests = _names(records, record.image)
            names = wanted.names(tags, repo_digests)
            if names is None or wanted.dangling not in (None, not tags):
                continue
            if not tags and not every and record.image in parents:
                continue
            created, item = self._item(record, *names)
            if wanted.fits(created, item["Labels"]):
                found.append((-created, record.image, item))
        items = [item for _, _, item in sorted(found, key=lambda found: found[:2])]
        if shared:
            self._add_shared_sizes(items, records)
        return items

    def _created(self, name: str) -> int:
        record = self._images.find(name)
        if record is None:
            raise no_such_image(name)
        return times.lenient(str(self._images.read(record).document.get("created") or ""))

    def _add_shared_sizes(self, items: list[dict[str, Any]], records: list[NameRecord]) -> None:
        """`SharedSize`: bytes of the layers that other images have too."""
        layers: dict[str, tuple[str, ...]] = {}
        users: dict[str, int] = {}
        for record in records:
            if not record.is_image:
                continue
            try:
                layers[record.image] = self._images.read(record).layers
            except Damaged:
                continue
            for chain_id in layers[record.image]:
                users[chain_id] = users.get(chain_id, 0) + 1
        for item in items:
            both = [chain_id for chain_id in layers.get(item["Id"], ()) if users[chain_id] > 1]
            item["SharedSize"] = self._bytes(both)

    def history(self, image: Image) -> list[dict[str, Any]]:
        """`GET /images/{name}/history`."""
        from sampan.engine.imagehistory import history, steps_of, unexplained

        records = self._names.list()
        by_id = {record.image: record for record in records if record.is_image}
        parents = []
        above, record = {image.id}, by_id.get(image.id)
        while record is not None and record.parent in by_id and record.parent not in above:
            record = by_id[record.parent]
            above.add(record.image)
            try:
                below = self._images.read(record)
            except Damaged:
                continue
            count = len(steps_of(below)) + unexplained(below)
            parents.append((below.id, count, _names(records, below.id)[0]))
        return history(image, _names(records, image.id)[0], parents, self._snapshots)

    def _item(self, record: NameRecord, tags: list[str], repo_digests: list[str]) -> tuple[int, dict[str, Any]]:
        """When an image was made, in nanoseconds since the epoch, and what is listed of it."""
        item = {
            "Containers": -1,
            "Created": 0,
            "Id": record.image,
            "Labels": None,
            "ParentId": self._parent(record),
            "RepoDigests": repo_digests,
            "RepoTags": tags,
            "SharedSize": -1,
            "Size": 0,
        }
        try:
            image = self._images.read(record)
        except Damaged as e:
            # Listed all the same, so that it can be seen and removed.
            return 0, item | {"Damaged": str(e)}
        created = times.lenient(str(image.document.get("created") or ""))
        seconds = created // 1_000_000_000
        return created, item | {"Created": seconds, "Labels": image.config.get("Labels"), "Size": self._size(image)}

    def inspect(self, image: Image) -> dict[str, Any]:
        """`GET /images/{name}/json`."""
        records = self._names.list()
        tags, repo_digests = _names(records, image.id)
        document = image.document
        config = {key: image.config.get(key) or default for key, default in _ALWAYS.items()}
        shown = {
            "Id": image.id,
            "RepoTags": tags,
            "RepoDigests": repo_digests,
            "Parent": self._parent(self._names.get(image.id)),
            "Comment": document.get("comment") or _last_comment(document),
            "Created": document.get("created") or "",
            "DockerVersion": document.get("docker_version") or "",
            "Author": document.get("author") or "",
            "Config": config | {key: image.config[key] for key in _WHEN_SET if image.config.get(key)},
            "Architecture": document.get("architecture") or "",
            "Os": document.get("os") or "",
            "Size": self._size(image),
            "GraphDriver": {"Name": self._snapshots.name, "Data": None},
            "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
            "Metadata": {"LastTagTime": max((r.tagged for r in records if r.image == image.id), default="")},
        }
        if document.get("variant"):
            shown["Variant"] = document["variant"]
        return shown

    def _size(self, image: Image) -> int:
        """Bytes of all files of all layers; of those that are unpacked, if some are not."""
        return self._bytes(image.layers)

    def _parent(self, record: NameRecord | None) -> str:
        """The image that one was made from, as long as that is there."""
        parent = record.parent if record is not None else ""
        return parent if parent and self._names.get(parent) is not None else ""

    def _bytes(self, chain_ids: Sequence[str]) -> int:
        total = 0
        for chain_id in chain_ids:
            try:
                total += self._snapshots.info(chain_id).size
            except NotFound:
                continue
        return total


def _names(records: list[NameRecord], image_id: str) -> tuple[list[str], list[str]]:
    """Docker's RepoTags and RepoDigests of an image."""
    tags, repo_digests = [], set()
    for record in records:
        if record.image != image_id or record.is_image:
            continue
        name = reference.parse(record.reference)
        if name.tag:
            tags.append(name.familiar)
        repo_digests.add(f"{name.familiar_name}@{record.target.digest}")
    return tags, sorted(repo_digests)


def _last_comment(document: dict[str, Any]) -> str:
    history = document.get("history") or [{}]
    return str(history[-1].get("comment") or "") if isinstance(history[-1], dict) else ""
