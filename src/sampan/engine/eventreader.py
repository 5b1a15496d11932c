"""Events, read: `GET /events`. What the journal has of the past, then what comes, until a time or until somebody ends it."""

from __future__ import annotations

import _thread
import time

from sampan.engine import times
from sampan.engine.eventfilters import EventFilter
from sampan.errors import InvalidParameter
from sampan.oci import lifecycle
from sampan.store import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any, Protocol, Self

    from sampan.store.journal import Entry, Tail
    from sampan.store.layout import ContainerPaths

    class Journal(Protocol):
        def follow(self, backlog: bool) -> Tail: ...

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...

    Filters = Mapping[str, str | Sequence[str]]


_SEEN_NANOSECONDS = 2_000_000_000
_LOOK_AGAIN = 0.002


class EventReader:
    """Opens streams of events. `journal` and `records` are those of one root."""

    def __init__(self, journal: Journal, records: Records) -> None:
        self._journal = journal
        self._records = records

    def open(
        self, since: str | float | None = None, until: str | float | None = None, filters: Filters | None = None
    ) -> EventStream:
        """The events between two times (`times.moment`), of the past only if one of them is given.

        Raises InvalidParameter in Docker's words.
        """
        wanted = EventFilter(filters or {})
        first = times.moment(str(since)) if since not in (None, "") else None
        last = times.moment(str(until)) if until not in (None, "") else None
        if first is not None and last is not None and last < first:
            raise InvalidParameter(f"`since` time ({since}) cannot be after `until` time ({until})")
        tail = self._journal.follow(backlog=(first, last) != (None, None))
        return EventStream(tail, wanted, first, last, self._records)


class EventStream:
    """Messages of Docker's Engine API, one after the other. Waits for the next one unless its end is in the past."""

    def __init__(self, tail: Tail, wanted: EventFilter, first: int | None, last: int | None, records: Records) -> None:
        """`first` and `last`: nanoseconds since the epoch that bound what is told of the past; `last` also when to end."""
        self._tail = tail
        self._wanted = wanted
        self._records = records
        self._first = first or 0
        self._last = last
        # By the clock that nobody sets: one that goes backwards would never come to the end.
        self._deadline = None if last is None else time.monotonic() + (last - time.time_ns()) / 1e9
        self._ready: list[Entry] = []
        self._past = True
        self._ended = False
        self._busy = _thread.allocate_lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        with self._busy:
            entry = None if self._ended else self._next()
        if entry is None or self._ended:
            self.close()
            raise StopIteration
        if entry.action == "die" and entry.type == "container":
            _see_the_end(self._records.paths(entry.id), entry.time)
        return message(entry)

    def _next(self) -> Entry | None:
        while not self._ready:
            # The time is looked at first: what was written until then is still taken.
            left = None if self._deadline is None else self._deadline - time.monotonic()
            self._ready = [entry for entry in self._tail.take() if self._fits(entry)][::-1]
            self._past = False
            if not self._ready:
                if left is not None and left <= 0:
                    return None
                self._tail.wait(left)
            if self._ended:
                return None
        return self._ready.pop()

    def _fits(self, entry: Entry) -> bool:
        # What comes while we wait comes now, whatever its clock says.
        if self._past and entry.time < self._first:
            return False
        return (self._last is None or entry.time <= self._last) and self._wanted.matches(entry)

    def close(self) -> None:
        """End it, also while it waits for the next event: from another thread or a signal handler. Safe to call twice."""
        self._ended = True
        self._tail.wake()
        if self._busy.acquire(blocking=False):
            try:
                self._tail.close()
            finally:
                self._busy.release()
        # Else it waits, and closes the rest when it has woken up.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


def _see_the_end(paths: ContainerPaths, told: int) -> None:
    """Hold the news of an end back until the end can be seen: who hears of it removes the container, or asks for its exit code.

    The shim tells of it right before it writes the exit file, so that a shim that is killed in between has told it.
    """
    until = told + _SEEN_NANOSECONDS
    while time.time_ns() < until:
        try:
            seen = states.observe(paths)
        except FileNotFoundError:
            return  # it is gone
        if seen.status != lifecycle.RUNNING or times.parse((seen.started or {}).get("started", "")) > told:
            return
        time.sleep(_LOOK_AGAIN)


def message(entry: Entry) -> dict[str, Any]:
    """An event as the Engine API sends it (api/types/events, Message); "status", "id" and "from" are its old names."""
    old: dict[str, Any] = {}
    if entry.type in ("container", "image"):
        old = {"status": entry.action, "id": entry.id}
    if entry.type == "container" and "image" in entry.attributes:
        old["from"] = entry.attributes["image"]
    return {
        **{name: value for name, value in old.items() if value},
        "Type": entry.type,
        "Action": entry.action,
        "Actor": {"ID": entry.id, "Attributes": dict(sorted(entry.attributes.items()))},
        "scope": "local",
        "time": entry.time // 1_000_000_000,
        "timeNano": entry.time,
    }
