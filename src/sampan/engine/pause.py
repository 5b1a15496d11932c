"""Pausing: the kernel's freezer stops every process of a container, and lets them go on."""

from __future__ import annotations

import errno

from sampan.errors import Conflict, System
from sampan.kernel import cgroup
from sampan.oci import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.steps.trace import Trace
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def lock(self, container_id: str) -> RecordLock: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str) -> None: ...

    class Settler(Protocol):
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...


_GONE = (errno.ENOENT, errno.ENODEV)
"""What the kernel says of a cgroup that went between the look at the state and this: the container has just ended."""


class Pauser:
    """`POST /containers/{id}/pause` and `/unpause`. That a container is paused is what its cgroup says, and nothing else."""

    def __init__(
        self, records: Records, settler: Settler, cgroups: CgroupDriver, events: Announcer, trace: Trace
    ) -> None:
        self._records = records
        self._settler = settler
        self._cgroups = cgroups
        self._events = events
        self._trace = trace

    def pause(self, record: Record) -> None:
        """Freeze all processes. Raises Conflict if the container does not run or is paused, System if the kernel cannot.

        Under the record lock, so that of two pauses one is told that it came second.
        """
        with self._records.lock(record.id) as lock:
            self._check(lifecycle.PAUSE, record, lock)
            group = cgroup.container_group(record.id, record.host_config)
            try:
                with self._trace.step("freeze cgroup", group):
                    self._cgroups.freeze(group)
            except OSError as e:
                if e.errno in _GONE:
                    raise Conflict(f"container {record.id} is not running") from None
                why = e.strerror if isinstance(e, TimeoutError) else e
                raise System(f"Cannot pause container {record.id}: {why}") from None
            self._events.container(record, "pause")

    def unpause(self, record: Record) -> None:
        """Let them go on. Raises Conflict if the container is not paused."""
        with self._records.lock(record.id) as lock:
            self._check(lifecycle.UNPAUSE, record, lock)
            group = cgroup.container_group(record.id, record.host_config)
            try:
                with self._trace.step("thaw cgroup", group):
                    self._cgroups.thaw(group)
            except OSError as e:
                if e.errno in _GONE:
                    raise Conflict(f"Container {record.id} is not paused") from None
                raise
            self._events.container(record, "unpause")

    def _check(self, verb: str, record: Record, lock: RecordLock) -> None:
        seen = self._settler.recover(record, lock)
        lifecycle.check(verb, seen.status, record.id, record.name)
