"""Starting again, after the machine has come up, what should be running by its restart policy.

What dockerd does when it starts (moby daemon/daemon.go, restore): every container that does not run is judged by its policy as if
its program had just ended. So `always` starts also what was stopped by hand, `unless-stopped` does not, and `on-failure` starts
what failed, which a container that the power cut took has (its exit code is 255 then). What never ran is not started.
"""

from __future__ import annotations

from sampan.engine.failures import told
from sampan.engine.parallel import at_once
from sampan.errors import NotFound
from sampan.oci import lifecycle, restart, restartpolicy
from sampan.oci.network import BRIDGE
from sampan.store import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from sampan.engine.container import Container
    from sampan.engine.parallel import Outcome
    from sampan.store.layout import ContainerPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str) -> RecordLock: ...

    class Janitor(Protocol):
        def sweep(self) -> None: ...
        def observe(self, record: Record) -> Observation | None: ...

    class Settler(Protocol):
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...

    class Starter(Protocol):
        def start(self, record: Record, *, lock: RecordLock) -> object: ...


_JOINS = ("NetworkMode", "PidMode", "IpcMode")
_JOIN = "container:"

STARTED = "started"


class Booter:
    """What `sampan boot` does."""

    def __init__(
        self,
        records: Records,
        janitor: Janitor,
        settler: Settler,
        starter: Starter,
        handle: Callable[[Record], Container],
    ) -> None:
        """`handle` gives the container of a record."""
        self._records = records
        self._janitor = janitor
        self._settler = settler
        self._starter = starter
        self._handle = handle

    def boot(self) -> Iterator[tuple[Container, BaseException | None]]:
        """Start what should run and does not, many at the same time; each that was started, or could not be and why.

        A container that joins namespaces of another one, or is linked with it, waits for that one. Nothing is remembered of a boot: one that was
        killed is completed by the next, which finds running what the first has started.
        """
        self._janitor.sweep()
        records = [record for record in map(self._records.try_read, self._records.ids()) if record is not None]
        donors = _donors(records)
        records = _donors_first(sorted(records, key=lambda record: record.created), donors)
        by_id = {record.id: record for record in records}
        place = {container_id: number for number, container_id in enumerate(by_id)}
        outcomes: dict[str, Outcome] = {}

        def one(container_id: str) -> str | None:
            for donor in donors[container_id]:
                if place.get(donor, len(place)) < place[container_id]:  # else two would wait for each other
                    outcomes[donor].wait()
            return self._start_if_wanted(by_id[container_id])

        for container_id, outcome in at_once(list(by_id), one, outcomes):
            if outcome.value == STARTED or outcome.error is not None:
                yield self._handle(by_id[container_id]), outcome.error

    @told
    def _start_if_wanted(self, record: Record) -> str | None:
        if self._janitor.observe(record) is None or restartpolicy.is_none(
            record.host_config.get("RestartPolicy") or {}
        ):
            return None
        try:
            # Judged under its lock, and started under the same: somebody else may be at work on it, and is waited for.
            with self._records.lock(record.id) as lock:
                record = self._records.read(record.id)
                if not self._is_wanted(record, lock.paths, self._settler.recover(record, lock)):
                    return None
                self._starter.start(record, lock=lock)
        except NotFound:
            return None  # removed meanwhile
        return STARTED

    def _is_wanted(self, record: Record, paths: ContainerPaths, seen: Observation) -> bool:
        """Whether the policy would have it restarted; a command that was killed in the middle of `restart` stopped nothing."""
        if seen.status != lifecycle.EXITED or not self._has_run(paths, seen):
            return False
        stopped = seen.intent is not None and not seen.intent.get("again")
        # The one that is due counts already, and has not been made.
        count = states.restarts(paths, seen) - bool(seen.restart)
        return restart.wanted(record.host_config.get("RestartPolicy") or {}, seen.exit_code, stopped, count)

    def _has_run(self, paths: ContainerPaths, seen: Observation) -> bool:
        return not seen.failed or states.earlier_success(paths, seen.number) > 0


def _donors(records: list[Record]) -> dict[str, list[str]]:
    """Of each container the ids of those that have to run before it: whose namespaces it joins, whom it is linked with."""
    ids = {record.name: record.id for record in records}
    found = {}
    for record in records:
        modes = (str(record.host_config.get(field) or "") for field in _JOINS)
        joined = [mode.removeprefix(_JOIN) for mode in modes if mode.startswith(_JOIN)]
        networks = [attachment for attachment in record.networks if attachment.network == BRIDGE]
        linked = [text.partition(":")[0] for attachment in networks for text in attachment.links]
        found[record.id] = [*joined, *(ids[name] for name in linked if name in ids and ids[name] != record.id)]
    return found


def _donors_first(records: list[Record], donors: dict[str, list[str]]) -> list[Record]:
    """In such an order that whoever waits for another one waits for one that was begun before.

    Of those who would wait for each other (`network connect --link` makes it possible) one is placed first.
    """
    by_id = {record.id: record for record in records}
    placed: dict[str, Record] = {}

    def place(record: Record, above: tuple[str, ...]) -> None:
        for donor in donors[record.id]:
            if donor in by_id and donor not in placed and donor not in above:
                place(by_id[donor], (*above, record.id))
        placed.setdefault(record.id, record)

    for record in records:
        place(record, ())
    return list(placed.values())
