"""Removing what nobody needs: stopped containers, and with `system prune` unused images and volumes too."""

from __future__ import annotations

from sampan.engine import times
from sampan.engine.failures import told
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.oci import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.store.records import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...

    class Janitor(Protocol):
        def sweep(self) -> None: ...
        def observe(self, record: Record) -> Observation | None: ...

    class Snapshots(Protocol):
        def usage(self, record: Record) -> int: ...

    class Remover(Protocol):
        def remove(self, record: Record) -> None: ...

    class Images(Protocol):
        def remove(self, name: str) -> list[dict[str, str]]: ...
        def collect(self) -> None: ...
        def list(self) -> list[dict[str, Any]]: ...

    class Volumes(Protocol):
        def prune(self, filters: Mapping[str, Any]) -> dict[str, Any]: ...

    Filters = Mapping[str, str | Sequence[str]]


_AT_REST = (lifecycle.CREATED, lifecycle.EXITED)


class Pruner:
    """`POST /containers/prune`, and all prunes one after the other."""

    def __init__(
        self,
        records: Records,
        janitor: Janitor,
        snapshots: Snapshots,
        remover: Remover,
        images: Callable[[], Images],
        volumes: Callable[[], Volumes],
        measure: Callable[[], int],
    ) -> None:
        """`images` and `volumes` give those services when they are pruned too; `measure`, the bytes of all images."""
        self._records = records
        self._janitor = janitor
        self._snapshots = snapshots
        self._remover = remover
        self._images = images
        self._volumes = volumes
        self._measure = measure

    def containers(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove all containers that do not run: {"ContainersDeleted": [ids], "SpaceReclaimed": bytes written in them}.

        `filters`: until (a time or a duration), label and label! (KEY or KEY=VALUE). Raises InvalidParameter for others.
        Volumes stay, also anonymous ones, as with Docker.
        """
        wanted = PruneFilter(filters or {})
        self._janitor.sweep()
        deleted, freed = [], 0
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            if record is None or record.broken or not wanted.matches(record):
                continue  # A broken record does not say what it is a record of: it goes by `rm -f` only.
            size = self._remove(record)
            if size is not None:
                deleted.append(record.id)
                freed += size
        return {"ContainersDeleted": deleted, "SpaceReclaimed": freed}

    def _remove(self, record: Record) -> int | None:
        """Remove a container that is at rest; the bytes of its writable part, None if it stays or somebody else has it."""
        seen = self._janitor.observe(record)
        if seen is None or seen.status not in _AT_REST:
            return None
        try:
            size = self._snapshots.usage(record)
        except NotFound:
            size = 0  # Its writable part was lost; `system check` tells.
        try:
            self._remover.remove(record)
        except (Conflict, NotFound):
            return None  # It was started meanwhile, or is being removed.
        return size

    @told
    def everything(
        self, all_images: bool = False, volumes: bool = False, filters: Filters | None = None
    ) -> dict[str, Any]:
        """`system prune`: containers, then anonymous volumes if they are asked for, then images without a name.

        `all_images`: every image that no container uses. The members are those of the single prunes, SpaceReclaimed
        the sum. Raises InvalidParameter for a filter that one of them does not know.
        """
        filters = dict(filters or {})
        if volumes and "until" in filters:
            raise InvalidParameter('the "until" filter is not supported with "--volumes"')
        wanted = PruneFilter(filters)
        done = [self.containers(filters)]
        if volumes:
            done.append(self._volumes().prune(filters))
        done.append(self._prune_images(wanted, all_images))
        total = {key: value for one in done for key, value in one.items()}
        return {**total, "SpaceReclaimed": sum(one["SpaceReclaimed"] for one in done)}

    def _prune_images(self, wanted: PruneFilter, all_images: bool) -> dict[str, Any]:
        """Remove the images that no container uses: those without a name, or all."""
        images = self._images()
        used = {record.image for i in self._records.ids() if (record := self._records.try_read(i)) is not None}
        deleted: list[dict[str, str]] = []
        before = self._measure()  # Not the images' sizes: what they share is given back once.
        for item in images.list():
            names = item["RepoTags"] or item["RepoDigests"]
            if item["Id"] in used or (names and not all_images):
                continue
            if not wanted.fits(item["Created"] * 1_000_000_000, item["Labels"]):
                continue
            try:
                done = [step for name in (names or [item["Id"]]) for step in images.remove(name)]
            except (Conflict, NotFound):
                continue  # A container came in between, or somebody else removes it.
            deleted += done
        images.collect()
        return {"ImagesDeleted": deleted, "SpaceReclaimed": max(0, before - self._measure())}


class PruneFilter:
    """until, label and label!, as the prunes of containers take them."""

    def __init__(self, filters: Filters) -> None:
        """Raises InvalidParameter, in Docker's words."""
        values = {name: [value] if isinstance(value, str) else list(value) for name, value in filters.items()}
        for name in values:
            if name not in ("until", "label", "label!"):
                raise InvalidParameter(f"invalid filter '{name}'")
        until = values.get("until", [])
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        self._until = times.moment(until[0]) if until else None
        self._labels = values.get("label", [])
        self._not_labels = values.get("label!", [])

    def matches(self, record: Record) -> bool:
        return self.fits(times.parse(record.created), record.config.get("Labels"))

    def fits(self, created: int, labels: Mapping[str, str] | None) -> bool:
        """`created` is in nanoseconds since the epoch."""
        labels = labels or {}
        return (
            (self._until is None or created <= self._until)
            and all(_has(labels, label) for label in self._labels)
            and not any(_has(labels, label) for label in self._not_labels)
        )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
