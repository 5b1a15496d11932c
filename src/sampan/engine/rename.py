"""Giving a container another name."""

from __future__ import annotations

from sampan.errors import Conflict, InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from sampan.store.locks import RecordLock
    from sampan.store.record import Record

    class Announcer(Protocol):
        def container(self, record: Record, action: str, extra: Mapping[str, str] = ...) -> None: ...

    class Connector(Protocol):
        def rename(self, record: Record) -> None: ...

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str) -> RecordLock: ...
        def rename(self, lock: RecordLock, name: str) -> Record: ...


class Renamer:
    """`POST /containers/{id}/rename`."""

    def __init__(self, records: Records, connector: Callable[[], Connector], events: Announcer) -> None:
        """`connector` knows by which names it is found in networks."""
        self._records = records
        self._connector = connector
        self._events = events

    def rename(self, record: Record, name: str) -> Record:
        """The container's record with its new name, in whatever state the container is: what runs does not know its name, but its neighbours in networks do.

        Raises InvalidParameter for what is no name, Conflict if it is taken or the container's record is broken.
        """
        if not name:
            raise InvalidParameter("Neither old nor new names may be empty")
        wanted = f"/{name.removeprefix('/')}"
        with self._records.lock(record.id) as lock:
            current = self._records.read(record.id)
            if current.broken:
                raise Conflict(f"cannot rename container {record.id}: its record cannot be read")
            if f"/{current.name}" == wanted:
                raise InvalidParameter("Renaming a container with the same name as its current name")
            try:
                renamed = self._records.rename(lock, wanted)
            except (InvalidParameter, Conflict) as e:
                raise e.within("Error when allocating new name") from None
            if renamed.networks:
                self._connector().rename(renamed)
            self._events.container(renamed, "rename", {"oldName": f"/{current.name}"})
            return renamed
