"""Images as Docker's API shows them: the items of `GET /images/json`, and `GET /images/{name}/json`."""

from __future__ import annotations

from sampan.engine import times
from sampan.errors import Damaged, NotFound
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from sampan.engine.images import Image, Names, Snapshotter
    from sampan.store.images import NameRecord

    class Loader(Protocol):
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

    def summaries(self, pattern: str, dangling: bool | None) -> list[dict[str, Any]]:
        """The items of `GET /images/json`, newest first."""
        records = self._names.list()
        found = []
        for record in records:
            if not record.is_image:
                continue
            tags, repo_digests = _names(records, record.image)
            if pattern and not (tags := [tag for tag in tags if matches(pattern, tag)]):
                continue
            if dangling is None or dangling == (not tags):
                found.append(self._item(record, tags, repo_digests))
        return sorted(found, key=lambda item: (-item["Created"], item["Id"]))

    def _item(self, record: NameRecord, tags: list[str], repo_digests: list[str]) -> dict[str, Any]:
        item = {
            "Containers": -1,
            "Created": 0,
            "Id": record.image,
            "Labels": None,
            "ParentId": "",
            "RepoDigests": repo_digests,
            "RepoTags": tags,
            "SharedSize": -1,
            "Size": 0,
        }
        try:
            image = self._images.read(record)
        except Damaged as e:
            # Listed all the same, so that it can be seen and removed.
            return item | {"Damaged": str(e)}
        created = seconds(str(image.document.get("created") or ""))
        return item | {"Created": created, "Labels": image.config.get("Labels"), "Size": self._size(image)}

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
            "Parent": "",
            "Comment": document.get("comment") or _last_comment(document),
            "Created": document.get("created") or "",
            "DockerVersion": "",
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
        total = 0
        for chain_id in image.layers:
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


def matches(pattern: str, familiar: str) -> bool:
    """Whether a familiar `name:tag`, or its name alone, fits a pattern whose wildcards stop at slashes."""
    return _fits(pattern, familiar) or _fits(pattern, familiar.rpartition(":")[0])


def _fits(pattern: str, text: str) -> bool:
    from fnmatch import fnmatchcase

    patterns, parts = pattern.split("/"), text.split("/")
    return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))


def seconds(created: str) -> int:
    """RFC 3339 as seconds since the epoch; 0 for what is none (an image may say anything)."""
    try:
        return times.parse(created) // 1_000_000_000
    except ValueError:
        return 0
