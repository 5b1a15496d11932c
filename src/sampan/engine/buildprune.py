"""`builder prune`, and what `system df` says of the cache of builds."""

from __future__ import annotations

from sampan.engine import times
from sampan.engine.failures import told
from sampan.engine.imagegraph import blobs_of
from sampan.errors import InvalidParameter, NotFound
from sampan.kernel import clock
from sampan.kernel.tree import disk_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.images import Content, Lock
    from sampan.oci.image import Descriptor
    from sampan.store.buildcache import BuildCache, Entry
    from sampan.store.cachemounts import CacheMounts, Kept

    class Name(Protocol):
        @property
        def target(self) -> Descriptor: ...

    class Names(Protocol):
        def list(self) -> Sequence[Name]: ...

    class Layers(Protocol):
        def layer_path(self, chain_id: str) -> str: ...

    class Images(Protocol):
        def collect_now(self) -> None: ...

    Filters = Mapping[str, str | Sequence[str]]


_FILTERS = ("id", "inuse", "label", "label!", "private", "shared", "type", "until", "unused-for")
_TRUE, _FALSE = ("1", "true"), ("0", "false")
_TYPE, _MOUNT = "regular", "exec.cachemount"
"""Of BuildKit's kinds of records those that there are here: what steps came to, and what RUN --mount=type=cache keeps."""


class BuildPruner:
    """`POST /build/prune`. Bytes are those of the disk that nothing but the cache keeps."""

    def __init__(
        self,
        cache: BuildCache,
        mounts: CacheMounts,
        content: Content,
        names: Names,
        layers: Layers,
        lock: Lock,
        images: Images,
    ) -> None:
        self._cache = cache
        self._mounts = mounts
        self._content = content
        self._names = names
        self._layers = layers
        self._lock = lock
        self._images = images

    def items(self) -> list[dict[str, Any]]:
        """The entries as `GET /system/df` has them, the oldest first."""
        needed, held = self._needed(), self._content.held()
        found = self._cache.entries()
        ordered = sorted(found.items(), key=lambda one: (one[1].made, one[0]))
        steps = [self._item(key, entry, found, needed, held) for key, entry in ordered]
        return [*steps, *(_mount(one) for one in self._mounts.kept())]

    @told
    def prune(
        self, filters: Filters | None = None, *, all: bool = False, keep_storage: int = 0, dry_run: bool = False
    ) -> dict[str, Any]:
        """Remove entries that no build uses now: {"CachesDeleted": [ids], "SpaceReclaimed": bytes of the disk that are free again}.

        Without `all` those stay whose layer an image has too: they cost nothing. keep_storage: bytes of the cache that may stay, what was used
        last first. `filters`: id, until (or unused-for: not used since that time, or for that long), inuse, shared, private, type. `dry_run`: say so
        and remove nothing. Raises InvalidParameter.
        """
        wanted = _Wanted(filters or {})
        removed = []
        with self._lock.shared() if dry_run else self._lock.exclusive():
            items = self.items()
            chosen, left = [], sum(item["DiskSize"] for item in items)
            for item in sorted(items, key=lambda one: (times.parse(one["LastUsedAt"]), one["ID"])):
                if item["InUse"] or (item["Shared"] and not all) or not wanted.fits(item):
                    continue
                if keep_storage and left <= keep_storage:
                    break
                left -= item["DiskSize"]
                chosen.append(item)
            for item in chosen:
                if dry_run or self._removed(item):
                    removed.append(item)
        if not dry_run:
            # Whoever has the store now collects, or the next collection does.
            self._images.collect_now()
        return {
            "CachesDeleted": [item["ID"] for item in removed],
            "SpaceReclaimed": sum(item["DiskSize"] for item in removed),
        }

    def _removed(self, item: Mapping[str, Any]) -> bool:
        """Remove one; False if it came into use meanwhile."""
        if item["Type"] == _MOUNT:
            return self._mounts.remove(item["Key"])
        self._cache.forget(item["Key"])
        return True

    def _needed(self) -> set[str]:
        """The blobs that images lead to. One that is damaged leads nowhere."""
        blobs: set[str] = set()
        for record in self._names.list():
            try:
                blobs |= blobs_of(self._content, record.target)
            except (NotFound, InvalidParameter):
                continue
        return blobs

    def _item(
        self, key: str, entry: Entry, entries: Mapping[str, Entry], needed: set[str], held: set[str]
    ) -> dict[str, Any]:
        shared = entry.blob in needed
        disk = 0
        if entry.blob and not shared:
            disk = disk_blocks(self._content.path(entry.blob)) + disk_blocks(self._layers.layer_path(entry.chain_id))
        return {
            "ID": key.removeprefix("sha256:")[:25],
            "Key": key,
            "Parents": [entry.before.removeprefix("sha256:")[:25]] if entry.before in entries else [],
            "Type": _TYPE,
            "Description": entry.what,
            "InUse": bool(entry.blob) and entry.blob in held,
            "Shared": shared,
            "Size": entry.size,
            "DiskSize": disk,
            "CreatedAt": clock.rfc3339(entry.made),
            "LastUsedAt": clock.rfc3339(entry.used),
            "UsageCount": entry.uses,
        }


def _mount(kept: Kept) -> dict[str, Any]:
    """A cache mount, as an entry has it."""
    size = disk_blocks(kept.path)
    return {
        "ID": kept.name[:25] + kept.name[64:],
        "Key": kept.name,
        "Parents": [],
        "Type": _MOUNT,
        "Description": f"cached mount {kept.target}",
        "InUse": kept.in_use,
        "Shared": False,
        "Size": size,
        "DiskSize": size,
        "CreatedAt": clock.rfc3339(kept.made),
        "LastUsedAt": clock.rfc3339(kept.used),
        "UsageCount": 1,
    }


class _Wanted:
    def __init__(self, filters: Filters) -> None:
        self._values = {name: [value] if isinstance(value, str) else list(value) for name, value in filters.items()}
        for name in self._values:
            if name not in _FILTERS:
                raise InvalidParameter(f"invalid filter '{name}'")
        # What `system prune --filter label=...` says of everything: steps have no labels.
        self._labelled = bool(self._values.pop("label", []))
        self._values.pop("label!", None)
        until = [value for name in ("until", "unused-for") for value in self._values.pop(name, [])]
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        self._until = times.moment(until[0]) if until else None

    def fits(self, item: Mapping[str, Any]) -> bool:
        if self._labelled:
            return False
        if self._until is not None and times.parse(item["LastUsedAt"]) > self._until:
            return False
        if "type" in self._values and item["Type"] not in self._values["type"]:
            return False
        facts = {"inuse": item["InUse"], "shared": item["Shared"], "private": not item["Shared"]}
        for name, values in self._values.items():
            if name in facts:
                if not all(_truth(name, value) is facts[name] for value in values):
                    return False
            elif name == "id" and not any(item["ID"].startswith(value) for value in values):
                return False
        return True


def _truth(name: str, value: str) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise InvalidParameter(f"invalid filter '{name}={value}'")
    return value.lower() in _TRUE
