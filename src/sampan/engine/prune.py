"""Removing what nobody needs: stopped containers, and with `system prune` unused images and volumes too."""

from __future__ import annotations

from sampan.engine.failures import told
from sampan.engine.prunefilter import PruneFilter
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.oci import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.store.record import Record
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
        def prune(self, filters: Mapping[str, Any]) -> dict[str, Any]: ...

    class Volumes(Protocol):
        def prune(self, filters: Mapping[str, Any]) -> dict[str, Any]: ...

    class Announcer(Protocol):
        def pruned(self, kind: str, reclaimed: int) -> None: ...

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
        events: Announcer,
    ) -> None:
        """`images` and `volumes` give those services when they are pruned too; `measure`, the bytes of all images."""
        self._records = records
        self._janitor = janitor
        self._snapshots = snapshots
        self._remover = remover
        self._images = images
        self._volumes = volumes
        self._measure = measure
        self._events = events

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
        self._events.pruned("container", freed)
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
        PruneFilter(filters)  # What is wrong is told before anything is removed.
        done = [self.containers(filters)]
        if volumes:
            done.append(self._volumes().prune(filters))
        done.append(self._prune_images(filters, all_images))
        total = {key: value for one in done for key, value in one.items()}
        return {**total, "SpaceReclaimed": sum(one["SpaceReclaimed"] for one in done)}

    def _prune_images(self, filters: Mapping[str, Any], all_images: bool) -> dict[str, Any]:
        """Remove the images that no container uses: those without a name, or all."""
        before = self._measure()  # Not the images' sizes: what they share is given back once, and blobs go too.
        done = self._images().prune({**filters, "dangling": not all_images})
        return {**done, "SpaceReclaimed": max(0, before - self._measure())}
