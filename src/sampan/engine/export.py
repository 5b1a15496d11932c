"""`diff` and `export`: a container's changes as names, its whole root file system as an archive."""

from __future__ import annotations

import os

from sampan.engine.archive import Buffer
from sampan.errors import Conflict, NotFound, System
from sampan.oci import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from sampan.store.changes import Change
    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record
    from sampan.store.states import Observation
    from sampan.store.tarwriter import Sink

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...

    class Snapshots(Protocol):
        def changes(self, record: Record) -> list[Change]: ...
        def export(self, record: Record, sink: Sink) -> Iterator[None]: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str) -> None: ...


_CHUNK = 1 << 18


class Exporter:
    """`GET /containers/{id}/changes` and `/export`: both read, and neither stops nor locks anything."""

    def __init__(self, records: Records, settler: Settler, snapshots: Snapshots, events: Announcer) -> None:
        self._records = records
        self._settler = settler
        self._snapshots = snapshots
        self._events = events

    def changes(self, record: Record) -> list[dict[str, Any]]:
        """`[{"Path": "/etc/x", "Kind": 0}]`: 0 is changed, 1 added, 2 deleted; directories before what is in them.

        Raises NotFound. Bytes of a path that are not UTF-8 are surrogate escapes.
        """

        self._check(record, "diff")
        try:
            found = self._snapshots.changes(record)
        except FileNotFoundError:
            raise self._gone(record) from None
        self._check(record, "diff")
        return [{"Path": "/" + os.fsdecode(change.path), "Kind": change.kind} for change in found]

    def export(self, record: Record) -> Iterator[bytes]:
        """The archive in pieces, while it is made. Raises NotFound (also if it is removed in the middle) and System."""
        self._check(record, "export")
        buffer = Buffer()
        try:
            for _ in self._snapshots.export(record, buffer):
                if buffer.size >= _CHUNK:
                    yield buffer.take()
        except OSError as e:
            if isinstance(e, FileNotFoundError):
                raise self._gone(record) from None
            raise System(f"export of container {record.id}: {(e.strerror or str(e)).lower()}") from e
        # Its files go after its name: as long as that is there, all of them were.
        self._check(record, "export")
        self._events.container(record, "export")
        yield buffer.take()

    def _check(self, record: Record, verb: str) -> None:
        if self._settler.observe(record).status == lifecycle.DEAD:
            raise Conflict(f"You cannot {verb} container {record.id} which is Dead")

    def _gone(self, record: Record) -> NotFound | System:

        if os.path.isdir(self._records.paths(record.id).directory):
            return System(f"container {record.id} has no root file system any more")
        return NotFound(f"No such container: {record.id}")
