"""Finishing what killed commands left, and settling what nobody waited for.

A create or remove that is not finished shows in one directory listing; every create looks for it. Exits are
settled for the containers that a command touches; a listing touches all of them. Nothing here is needed for a
store to be consistent: readers see whole containers or none. It gives back names, disk and cgroups.
"""

from __future__ import annotations

import os

from sampan.engine.settle import BRIEF
from sampan.errors import NotFound, SampanError
from sampan.kernel.files import lock_is_held
from sampan.oci import lifecycle
from sampan.store.record import parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sampan.engine.settle import Patience
    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths, Layout
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def leftovers(self) -> list[ContainerPaths]: ...
        def adopt(self, paths: ContainerPaths) -> RecordLock | None: ...
        def release_stale_names(self) -> None: ...
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...
        def paths(self, container_id: str) -> ContainerPaths: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def settle(self, record: Record, patience: Patience = ...) -> Observation | None: ...
        def dismantle(
            self, paths: ContainerPaths, record: Record | None, patience: Patience = ..., resumed: bool = ...
        ) -> None: ...
        def drop_parts(self, paths: ContainerPaths) -> None: ...

    class Snapshots(Protocol):
        def collect_garbage(self) -> None: ...

    class Remover(Protocol):
        def remove(self, record: Record, force: bool, volumes: bool, *, patience: Patience) -> None: ...

    class Volumes(Protocol):
        def release_unused(self) -> None: ...
        def collect_garbage(self) -> None: ...


_ID_LENGTH = 64


class Janitor:
    """Puts right what is left half done. Everything is idempotent and may be done by several processes at once."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        settler: Settler,
        snapshots: Snapshots,
        volumes: Callable[[], Volumes],
        remover: Callable[[], Remover],
        trace: Trace,
    ) -> None:
        self._layout = layout
        self._snapshots = snapshots
        self._volumes = volumes
        self._records = records
        self._settler = settler
        self._remover = remover
        self._trace = trace

    def finish_leftovers(self) -> None:
        """Finish creates and removes whose command is dead. One directory listing if there are none.

        What cannot be finished now (a process in uninterruptible sleep) is left to the next command, and keeps nobody
        from his own work; the trace has the reason.
        """
        collected = nameless = False
        for paths in self._records.leftovers():
            lock = self._records.adopt(paths)
            if lock is None:
                continue  # its command is alive, and so is whoever deletes in the background: what is its to do is not done here
            with lock:
                if not collected:
                    # First: the directories that say that there is something to do go last, so that whoever is killed here leaves them.
                    _attempt(self._snapshots.collect_garbage)
                    _attempt(self._volumes().collect_garbage)
                    collected = True
                record = _record_in(paths)
                nameless = nameless or record is None
                try:
                    self._settler.dismantle(paths, record, BRIEF, resumed=True)
                except (SampanError, OSError):
                    continue
        if nameless:
            # A create that was killed before it wrote its record: only the claim itself knows the name.
            self._records.release_stale_names()
        if _has_entries(self._layout.mounted_volumes):
            _attempt(self._volumes().release_unused)

    def observe(self, record: Record) -> Observation | None:
        """A container's state, what is due being done: a lost one is settled, an exited `--rm` one is removed (None), a restart
        whose monitor was killed is begun.

        For listings: what cannot be put right now (a process in uninterruptible sleep, a lock that is held, a monitor that is
        at its end) is shown as it is, so that one bad container neither hides the others nor keeps them waiting.
        """
        try:
            seen = self._settler.observe(record)
        except NotFound:
            return None
        due = seen.status == lifecycle.LOST or seen.orphaned or (seen.status == lifecycle.EXITED and record.auto_remove)
        try:
            if record.build and not lock_is_held(f"{self._layout.ingest}/{record.build}"):
                # What is left of a build that was killed.
                self._remover().remove(record, force=True, volumes=True, patience=BRIEF)
                return None
            if not due:
                return seen
            return self._settler.settle(record, BRIEF)
        except SampanError:
            return seen

    def end_builds(self) -> None:
        """Remove the containers of builds that were killed."""
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            if record is not None and record.build:
                self.observe(record)

    def sweep(self) -> None:
        """Remove parts that belong to no container at all: none are ever made so, but files may be restored or lost.

        Five directory listings, when all is well.
        """
        self.finish_leftovers()
        # A container has a directory before it has a name and as long as it has one: more names than that are a killed rename's.
        if len(os.listdir(self._layout.names)) > len(os.listdir(self._layout.containers)):
            self._records.release_stale_names()
        parts = {*os.listdir(self._layout.snapshots), *os.listdir(self._layout.run_root)}
        for container_id in parts.difference(self._records.ids()):
            # Once more, and one by one: it may have come to be, or be on its way out. In the order of a container's life, so that one which moves on meanwhile is seen at its next place.
            places = (self._layout.creating, self._layout.container, self._layout.removing)
            if len(container_id) == _ID_LENGTH and not any(os.path.isdir(p(container_id).directory) for p in places):
                with self._trace.step("remove orphan", container_id):
                    self._settler.drop_parts(self._layout.container(container_id))


def _attempt(action: Callable[[], None]) -> None:
    """Do what may be left to the next command if it cannot be done now; the trace has the reason."""
    try:
        action()
    except (SampanError, OSError):
        pass


def _has_entries(directory: str) -> bool:
    try:
        return bool(os.listdir(directory))
    except FileNotFoundError:
        return False


def _record_in(paths: ContainerPaths) -> Record | None:
    """The record in an unfinished container's directory, if it was written already."""
    try:
        with open(paths.record, "rb") as file:
            return parse_record(paths.id, file.read(), paths.record)
    except FileNotFoundError:
        return None
