"""A container that stands still while its files are read: frozen for a moment, and thawed whatever happens.

A paused container is one whose cgroup is frozen, and nothing else says so: who freezes it and dies would leave it frozen
for good, looking as if somebody had paused it. So a keeper is started before the freezer is told (`runtime.keeper`). If
that is killed together with us (a service that is stopped with all its processes), the container is shown as paused, and
`unpause` helps.
"""

from __future__ import annotations

import errno

from sampan.errors import System
from sampan.kernel import cgroup
from sampan.kernel.files import FileLock
from sampan.oci import lifecycle
from sampan.runtime.keeper import Keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...
        def lock(self, container_id: str) -> RecordLock: ...

    class Settler(Protocol):
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...


class Standstill:
    """`with Standstill(...)`: a running container is frozen in between; one that is paused or does not run stays as it is.

    Several wait for each other, so that none thaws what another one is reading. Raises System if the kernel cannot
    freeze it, NotFound if the container is gone.
    """

    def __init__(self, record: Record, records: Records, settler: Settler, cgroups: CgroupDriver, trace: Trace) -> None:
        self._record = record
        self._records = records
        self._settler = settler
        self._cgroups = cgroups
        self._trace = trace
        self._group = cgroup.container_group(record.id, record.host_config)
        self._turn: FileLock | None = None
        self._keeper: Keeper | None = None

    def __enter__(self) -> None:
        paths = self._records.paths(self._record.id)
        with self._records.lock(self._record.id) as lock:
            if self._settler.recover(self._record, lock).status not in lifecycle.ALIVE:
                return
        # Without the record lock: whoever has the turn may take long.
        self._turn = FileLock.acquire(f"{paths.directory}/standstill.lock")
        try:
            with self._records.lock(self._record.id) as lock:
                if self._settler.recover(self._record, lock).status == lifecycle.RUNNING:
                    self._freeze()
        except BaseException:
            self._turn.release()
            raise

    def _freeze(self) -> None:
        try:
            keeper = Keeper(*self._cgroups.thawing(self._group))
            try:
                with self._trace.step("freeze cgroup", self._group):
                    self._cgroups.freeze(self._group)
            except BaseException:
                self._thaw(keeper)
                raise
        except OSError as e:
            if e.errno == errno.ENOENT:
                return  # Its cgroup has gone: it has ended in this moment, and nothing of it moves any more.
            why = e.strerror if isinstance(e, TimeoutError) else e
            raise System(f"Cannot pause container {self._record.id}: {why}") from None
        self._keeper = keeper

    def _thaw(self, keeper: Keeper) -> None:
        try:
            with self._trace.step("thaw cgroup", self._group):
                self._cgroups.thaw(self._group)
        except BaseException:
            keeper.abandon()  # It tries once more.
            raise
        keeper.dismiss()

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        try:
            if self._keeper is not None:
                self._thaw(self._keeper)
        finally:
            if self._turn is not None:
                self._turn.release()
