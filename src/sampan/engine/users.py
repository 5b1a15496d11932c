"""The containers as images see them: who stands on an image, and on which layers."""

from __future__ import annotations

import os

from sampan.errors import NotFound
from sampan.oci import lifecycle
from sampan.store.layout import EMPTY, REMOVING
from sampan.store.record import parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Protocol

    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...
        def leftovers(self) -> list[ContainerPaths]: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...

    class Cache(Protocol):
        def roots(self) -> tuple[set[str], set[str]]: ...


class ImageUsers:
    """Who needs an image: every container, also one that is being made. What it is made of is needed until the last of it is gone."""

    def __init__(
        self, records: Records, settler: Settler, cache: Callable[[], Cache], without: Collection[str] = ()
    ) -> None:
        """`cache` gives the cache of builds; `without`: ids of containers that do not count."""
        self._records = records
        self._cache = cache
        self._settler = settler
        self._without = frozenset(without)

    def without(self, containers: Collection[str]) -> ImageUsers:
        """As it will be when these containers are gone."""
        return ImageUsers(self._records, self._settler, self._cache, containers)

    def containers_using(self, image_id: str) -> list[tuple[str, bool]]:
        """The id of each container made from the image or with it mounted, and whether it runs."""
        found = []
        for record in self._all(also_going=False):
            # By --mount type=image too: nothing else has an image's id for its source.
            if record.image == image_id or any(point.source == image_id for point in record.mounts):
                found.append((record.id, self._runs(record)))
        return found

    def layers_in_use(self) -> set[str]:
        """The chain ids of all layers that containers stand on, and EMPTY for those that stand on none."""
        records = list(self._all(also_going=True))
        mounted = {chain_id for record in records for point in record.mounts for chain_id in point.layers}
        return mounted | {chain_id for record in records for chain_id in record.layers or (EMPTY,)}

    def cached(self) -> tuple[set[str], set[str]]:
        """The digests of the blobs, and the chain ids of the layers, that the cache of builds leads to."""
        return self._cache().roots()

    def _all(self, also_going: bool) -> Iterator[Record]:
        """also_going: those as well that are removed for everybody, and of which something may still be there."""
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            if record is not None and record.id not in self._without:
                yield record
        # After the others: a container moves from `.creating-` to its own name, and from there to `.removing-`.
        # One that is moved in between is seen twice, or is being removed, never overlooked while it is made: that
        # happens under the image store's shared lock.
        for paths in self._records.leftovers():
            if not also_going and os.path.basename(paths.directory).startswith(REMOVING):
                continue
            try:
                with open(paths.record, "rb") as file:
                    yield parse_record(paths.id, file.read(), paths.record)
            except FileNotFoundError:
                continue

    def _runs(self, record: Record) -> bool:
        try:
            return self._settler.observe(record).status in lifecycle.BUSY
        except NotFound:
            return False
