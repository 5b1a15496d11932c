"""The containers as volumes see them: who uses which, and which are used by one that runs."""

from __future__ import annotations

from sampan.errors import Conflict
from sampan.oci import lifecycle
from sampan.store import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Protocol

    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...
        def paths(self, container_id: str) -> ContainerPaths: ...


# What is paused, starting or in a state that comes later counts as running.
_AT_REST = (lifecycle.CREATED, lifecycle.EXITED, lifecycle.LOST, lifecycle.DEAD)


class VolumeUsers:
    """Every container counts, also one that does not run. Nothing is counted anywhere: all of it is looked up.

    One that is being made is not seen here: it holds the volumes' shared lock until it is.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def all(self) -> dict[str, list[str]]:
        """The ids of the containers that use a volume, by the volume's name."""
        users: dict[str, list[str]] = {}
        for record in self._all():
            for name in record.volumes():
                users.setdefault(name, []).append(record.id)
        return users

    def require_readable(self) -> None:
        """Raises Conflict if a container's record cannot be read: nobody knows which volumes it uses."""
        for record in self._all():
            if record.broken:
                raise Conflict(
                    f"nobody knows which volumes container {record.id} uses, for its record cannot be read "
                    f"({record.broken}): remove that container first"
                )

    def running(self, names: Collection[str]) -> set[str]:
        """Those of `names` that a container uses which runs or is being started."""
        found: set[str] = set()
        for record in self._all():
            used = record.volumes().intersection(names) - found
            if used and self._runs(record):
                found |= used
        return found

    def _all(self) -> Iterator[Record]:
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            if record is not None:
                yield record

    def _runs(self, record: Record) -> bool:
        if record.broken:
            return False  # nobody knows what it uses, so it is not asked for either
        try:
            return states.observe(self._records.paths(record.id)).status not in _AT_REST
        except FileNotFoundError:
            return False
