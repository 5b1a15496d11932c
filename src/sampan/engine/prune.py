"""Removing what nobody needs: stopped containers, and with `system prune` unused networks, images and volumes too."""

from __future__ import annotations

from sampan.engine.failures import told
from sampan.engine.prunefilter import PruneFilter
from sampan.engine.settle import BRIEF
from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.oci import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.settle import Patience
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...

    class Janitor(Protocol):
        def sweep(self) -> None: ...
        def observe(self, record: Record) -> Observation | None: ...

    class Space(Protocol):
        def container(self, record: Record) -> int: ...

    class Remover(Protocol):
        def remove(self, record: Record, *, patience: Patience) -> None: ...

    class Networks(Protocol):
        def prune(
            self, filters: Mapping[str, Any], dry_run: bool = ..., without: Collection[str] = ...
        ) -> dict[str, Any]: ...

    class Images(Protocol):
        def prune(
            self, filters: Mapping[str, Any], dry_run: bool = ..., without: Collection[str] = ...
        ) -> dict[str, Any]: ...
        def collectable(self, image_ids: Iterable[str], without: Collection[str]) -> int: ...

    class Volumes(Protocol):
        def prune(
            self, filters: Mapping[str, Any], dry_run: bool = ..., without: Collection[str] = ...
        ) -> dict[str, Any]: ...

    class Builds(Protocol):
        def prune(self, filters: Mapping[str, Any], *, all: bool = ..., dry_run: bool = ...) -> dict[str, Any]: ...

    class Announcer(Protocol):
        def pruned(self, kind: str, reclaimed: int) -> None: ...

    Filters = Mapping[str, str | Sequence[str]]


_AT_REST = (lifecycle.CREATED, lifecycle.EXITED)


class Pruner:
    """`POST /containers/prune`, and all prunes one after the other.

    Bytes are those of the disk, as `system df` tells them. A dry run says what a prune would say, and removes nothing.
    """

    def __init__(
        self,
        records: Records,
        janitor: Janitor,
        space: Space,
        remover: Remover,
        networks: Callable[[], Networks],
        images: Callable[[], Images],
        volumes: Callable[[], Volumes],
        builds: Callable[[], Builds],
        events: Announcer,
    ) -> None:
        """`networks`, `images`, `volumes` and `builds` give those services when they are needed."""
        self._records = records
        self._janitor = janitor
        self._space = space
        self._remover = remover
        self._networks = networks
        self._images = images
        self._volumes = volumes
        self._builds = builds
        self._events = events

    def containers(self, filters: Filters | None = None, dry_run: bool = False) -> dict[str, Any]:
        """Remove all containers that do not run: {"ContainersDeleted": [ids], "SpaceReclaimed": bytes}.

        `filters`: until (a time or a duration), label and label! (KEY or KEY=VALUE). Raises InvalidParameter for others.
        Volumes stay, also anonymous ones, as with Docker.
        """
        found = self._at_rest(filters)
        freed = 0
        if found:
            # Layers of an image that was removed by force go with the last container that stands on them.
            freed = self._images().collectable([record.image for record in found], [record.id for record in found])
        return self._remove_containers(found, freed, dry_run)

    def _at_rest(self, filters: Filters | None) -> list[Record]:
        """The containers that do not run and fit the filters."""
        wanted = PruneFilter(filters or {})
        self._janitor.sweep()
        found = []
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            if record is None or record.broken or not wanted.matches(record):
                continue  # A broken record does not say what it is a record of: it goes by `rm -f` only.
            seen = self._janitor.observe(record)
            if seen is not None and seen.status in _AT_REST:
                found.append(record)
        return found

    def _remove_containers(self, found: list[Record], freed: int, dry_run: bool) -> dict[str, Any]:
        deleted = []
        for record in found:
            size = self._space.container(record)
            if dry_run or self._remove(record):
                deleted.append(record.id)
                freed += size
        if not dry_run:
            self._events.pruned("container", freed)
        return {"ContainersDeleted": deleted, "SpaceReclaimed": freed}

    def _remove(self, record: Record) -> bool:
        """Remove a container; False if it was started meanwhile, somebody else removes it, or a process of it does not die."""
        try:
            self._remover.remove(record, patience=BRIEF)
        except (Conflict, NotFound, System):
            return False
        return True

    @told
    def everything(
        self, all_images: bool = False, volumes: bool = False, filters: Filters | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """`system prune`: containers, then networks, then anonymous volumes if they are asked for, then images without a name, and the cache of builds.

        `all_images`: every image that no container uses. The members are those of the single prunes, SpaceReclaimed
        the sum. Raises InvalidParameter for a filter that one of them does not know.
        """
        filters = dict(filters or {})
        if volumes and "until" in filters:
            raise InvalidParameter('the "until" filter is not supported with "--volumes"')
        if not dry_run:
            done = [self.containers(filters)]
        else:
            # What these containers release is counted with the images, that are looked at as if they were gone.
            done = [self._remove_containers(self._at_rest(filters), 0, dry_run)]
        gone = done[0]["ContainersDeleted"] if dry_run else ()
        # As with Docker before the volumes.
        done.append(self._networks().prune(filters, dry_run, gone))
        if volumes:
            done.append(self._volumes().prune(filters, dry_run, gone))
        done.append(self._images().prune({**filters, "dangling": not all_images}, dry_run, gone))
        # The cache has no labels: a prune by them is not meant for it (moby, builder prune).
        if not filters.keys() - {"until"}:
            done.append(self._builds().prune(filters, all=all_images, dry_run=dry_run))
        total = {key: value for one in done for key, value in one.items()}
        return {**total, "SpaceReclaimed": sum(one["SpaceReclaimed"] for one in done)}
