"""Removing a container: `rm`, with `--force` also one that runs."""

from __future__ import annotations

from sampan.engine.settle import FULL, await_monitor, kill_monitor
from sampan.errors import Conflict, NotFound
from sampan.oci import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sampan.engine.settle import Patience
    from sampan.store.layout import ContainerPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def lock(self, container_id: str, patience: float = ...) -> RecordLock: ...
        def paths(self, container_id: str) -> ContainerPaths: ...
        def leftovers(self) -> list[ContainerPaths]: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def recover(self, record: Record, lock: RecordLock, patience: Patience = ...) -> Observation: ...
        def remove_locked(
            self, record: Record, lock: RecordLock, volumes: bool = ..., patience: Patience = ...
        ) -> None: ...

    class Killer(Protocol):
        def kill_and_wait(self, record: Record) -> None: ...


_ATTEMPTS = 5


class Remover:
    """`DELETE /containers/{id}`."""

    def __init__(self, records: Records, settler: Settler, killer: Killer) -> None:
        self._records = records
        self._settler = settler
        self._killer = killer

    def remove(
        self,
        record: Record,
        force: bool = False,
        volumes: bool = False,
        reference: str = "",
        patience: Patience = FULL,
    ) -> None:
        """Remove a container; with `force` a running one is killed first, with `volumes` its anonymous volumes go too.

        `reference` is what the caller knows it by, for messages.

        Raises NotFound if it is not there, Conflict if its state or another command forbids it: also if somebody else
        removes it in this moment; System if processes of it do not die.
        """
        name = reference or record.name
        if self._remove_at_once(record, force, volumes, patience):
            return
        first: Observation | None = self._require(record, name)
        killed = False
        for _ in range(_ATTEMPTS):
            try:
                seen, first = first or self._settler.observe(record), None
                if seen.running and not force:
                    # Not after the wait for its monitor: one that is restarting rests there.
                    lifecycle.check(lifecycle.REMOVE, seen.status, record.id, record.name)
                if seen.running:
                    # Without the record lock: it is not held while a process is waited for.
                    killed = True
                    self._kill(record)
                if seen.monitor or killed or record.broken:
                    await_monitor(self._records.paths(record.id), patience.others)
                with self._records.lock(record.id, patience.others) as lock:
                    seen = self._settler.recover(record, lock, patience)
                    if self._remove_locked(record, lock, seen, force, volumes, patience):
                        return
            except NotFound:
                if killed and record.auto_remove:
                    return  # our kill was its end, and its end was its removal
                # It was there a moment ago: another command was quicker, and is still at it or has just ended.
                raise _in_progress(name) from None
        raise Conflict(f"container {record.id} is started again and again by another command")

    def _remove_at_once(self, record: Record, force: bool, volumes: bool, patience: Patience) -> bool:
        """Remove one that does not run and that nobody is at work on, as most are: it is looked at once, under its lock.

        False: it takes more than that, of which nothing is done yet.
        """
        if record.broken:
            return False
        try:
            lock = self._records.lock(record.id, 0)
        except (Conflict, NotFound):
            return False
        with lock:
            seen = self._settler.observe(record)
            if seen.monitor or (seen.number and seen.exit is None):
                return False  # who runs or has to be waited for is not met under the lock
            return self._remove_locked(record, lock, seen, force, volumes, patience)

    def _require(self, record: Record, name: str) -> Observation:
        """Its state. Raises NotFound for a container that went long ago, which is no removal in progress."""
        try:
            return self._settler.observe(record)
        except NotFound:
            if any(paths.id == record.id for paths in self._records.leftovers()):
                raise _in_progress(name) from None
            raise NotFound(f"No such container: {name}") from None

    def _remove_locked(
        self, record: Record, lock: RecordLock, seen: Observation, force: bool, volumes: bool, patience: Patience
    ) -> bool:
        """Remove the container if its state allows it; False if it has to be killed (once more) first."""
        if force and seen.running:
            return False
        if force and seen.status == lifecycle.STARTING:
            # Its command was killed, and it has not come to an end for as long as one waits for that.
            kill_monitor(lock.paths)
            return False
        verb = lifecycle.FORCE_REMOVE if force else lifecycle.REMOVE
        lifecycle.check(verb, seen.status, record.id, record.name)
        self._settler.remove_locked(record, lock, volumes, patience)
        return True

    def _kill(self, record: Record) -> None:
        try:
            self._killer.kill_and_wait(record)
        except Conflict:
            pass  # It ended, or is busy, in this moment: the judgement comes under the lock.


def _in_progress(name: str) -> Conflict:
    return Conflict(f"removal of container {name} is already in progress")
