"""Reading a container's log back: across its files, and on while it grows and they are renamed."""

from __future__ import annotations

import os
import time

from sampan.engine import logfiles, logformats, logoptions, times
from sampan.engine.logformats import LogEntry
from sampan.errors import Conflict, System
from sampan.oci import lifecycle
from sampan.runtime.handle import Handle
from sampan.store import states
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any, Protocol

    from sampan.engine.logfiles import LogFile
    from sampan.engine.logformats import Format
    from sampan.kernel.inotify import DirectoryWatch
    from sampan.runtime.handle import Attachment
    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...


_TICK = 100_000_000
"""Nanoseconds by which a file's time may lie before that of what was written last: it is the clock's at its last tick."""

_NO_LIMIT = (1 << 63) - 1


class Wanted(Struct):
    """Which entries: nanoseconds since the epoch, and how many lines from the end (None: all)."""

    since: int = 0
    until: int = _NO_LIMIT
    tail: int | None = None

    @property
    def has_bounds(self) -> bool:
        return self.since > 0 or self.until != _NO_LIMIT

    def has(self, entry: LogEntry) -> bool:
        return self.since <= times.lenient(entry.time) <= self.until

    def is_over(self, entry: LogEntry) -> bool:
        """Whether nothing that comes after it is wanted."""
        return self.until != _NO_LIMIT and times.lenient(entry.time) > self.until


class LogReader:
    """`GET /containers/{id}/logs`."""

    def __init__(self, records: Records, settler: Settler, notify: Callable[[str], None]) -> None:
        self._records = records
        self._settler = settler
        self._notify = notify

    def read(
        self,
        record: Record,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
        until: str = "",
        stop: int = -1,
        before_wait: Callable[[], None] | None = None,
    ) -> Iterator[LogEntry]:
        """The log's entries: of the last `tail` lines (None: all), then, with `follow`, those to come until the container ends.

        `since` and `until` are RFC 3339 times, durations before now, or seconds since the epoch; a time to come ends a `follow`.
        stop: a descriptor that is readable when a `follow` is to end. before_wait: called when all that is there has been given.
        Raises Conflict for a container whose log cannot be read (driver none), InvalidParameter for what is no time.
        """
        if logoptions.driver_of(record) == logoptions.NONE:
            raise Conflict("configured logging driver does not support reading")
        self._settler.observe(record)  # NotFound now, and not when the first entry is asked for
        wanted = Wanted(times.moment(since) if since else 0, times.moment(until) if until else _NO_LIMIT, tail)
        return self._entries(record, follow, wanted, stop, before_wait)

    def lost(self, record: Record) -> dict[str, Any] | None:
        """What of the newest run could not be written: {"lines", "error", "since"}; None if all of it is there."""
        paths = self._records.paths(record.id)
        try:
            start = paths.start(paths.newest_start())
        except FileNotFoundError:
            return None
        ended = states.read_json(start.exit)
        lost: dict[str, Any] | None = states.read_json(paths.log_loss) if ended is None else ended.get("log_lost")
        return lost

    def _entries(
        self, record: Record, follow: bool, wanted: Wanted, stop: int, before_wait: Callable[[], None] | None
    ) -> Iterator[LogEntry]:
        paths = self._records.paths(record.id)
        path = logoptions.path_of(record, paths)
        reader = _Reader(path, logformats.of_driver(logoptions.driver_of(record)), wanted, self._notify)
        try:
            waiting = _Waiting(self._waiter(record, paths), path, stop, before_wait) if follow else None
            try:
                entries = reader.run(waiting)
                if not wanted.has_bounds:
                    yield from entries
                    return
                for entry in entries:
                    if wanted.has(entry):
                        yield entry
                    elif wanted.is_over(entry):
                        return
            finally:
                if waiting is not None:
                    waiting.close()
        except FileNotFoundError:
            return  # the container was removed
        finally:
            reader.close()

    def _waiter(self, record: Record, paths: ContainerPaths) -> Attachment | None:
        """A connection that ends with the container's run; None if it does not run."""
        seen = self._settler.observe(record)
        if seen.status not in lifecycle.BUSY:
            return None
        try:
            return Handle(paths, paths.start(seen.number).directory).attach(stdout=False, stderr=False)
        except (Conflict, System):
            return None  # it has ended in this moment


class _Reader:
    """Goes through the files of one log, once."""

    def __init__(self, path: str, form: Format, wanted: Wanted, notify: Callable[[str], None]) -> None:
        self._path = path
        self._form = form
        self._wanted = wanted
        self._notify = notify
        self._files: list[LogFile] = []

    def run(self, waiting: _Waiting | None) -> Iterator[LogEntry]:
        """The entries, from the first that `wanted.tail` leaves; with `waiting`, until that says that no more will come."""
        self._files = logfiles.open_files(self._path)
        tail = _Tail(self._form, self._wanted)
        if self._wanted.tail is not None:
            tail.find(self._files)
        index = 0
        while self._files:
            file = self._files[0]
            place = _Place(file.descriptor(), self._form, tail.start if index == tail.file else 0)
            if index >= tail.file and file.written + _TICK >= self._wanted.since:
                yield from place.entries(tail.skipped.get(index, set()))
            while len(self._files) == 1 and waiting is not None:
                if (newer := logfiles.newer_than(self._path, file)) is None:
                    self._notify(f"some lines of {self._path} were rotated away before they were read")
                    newer = logfiles.open_files(self._path)
                self._files += newer
                if not newer and not waiting.wait(self._wanted.until):
                    yield from place.rest()
                    return
                # Whoever renamed it had written all that goes into it.
                yield from place.entries()
            yield from place.rest()
            self._files.pop(0).close()
            index += 1

    def close(self) -> None:
        logfiles.close(self._files)
        self._files = []


class _Place:
    """How far a file has been read."""

    def __init__(self, fd: int, form: Format, offset: int) -> None:
        self._fd = fd
        self._form = form
        self._offset = offset  # of what was not read yet
        self._rest = b""

    def entries(self, skipped: Collection[int] = ()) -> Iterator[LogEntry]:
        """Those that are there now, without the records at some offsets."""
        while data := os.pread(self._fd, logformats.CHUNK, self._offset):
            at = self._offset - len(self._rest)
            self._offset += len(data)
            whole = self._rest + data
            *records, self._rest = self._form.split(whole)
            if not skipped:
                yield from self._form.parse_all(records)
                continue
            for record in records:
                if at not in skipped and (entry := self._form.parse(record)):
                    yield entry
                at += len(record) + self._form.overhead

    def rest(self) -> Iterator[LogEntry]:
        """What is in a record without an end, of a writer that was killed."""
        if entry := self._form.parse(self._rest):
            yield entry


class _Tail:
    """Where the last lines begin. Of records that lie between the pieces of a long line some may have to be skipped."""

    def __init__(self, form: Format, wanted: Wanted) -> None:
        self._form = form
        self._wanted = wanted
        self._left = wanted.tail or 0
        self._keeping: set[str] = set()  # streams whose line is kept and may have begun before
        self.file = 0
        """The first file, by its place in the list, and `start`, an offset in it."""
        self.start = 0
        self.skipped: dict[int, set[int]] = {}

    def find(self, files: list[LogFile]) -> None:
        """From the end of the last file on."""
        passed: list[tuple[int, int]] = []
        self.file = len(files)
        for index in range(len(files) - 1, -1, -1):
            for offset, record in self._form.backwards(files[index].descriptor()):
                if not self._left and not self._keeping:
                    break
                entry = self._form.parse(record)
                if entry is None or self._wanted.is_over(entry):
                    continue
                if self._keeps(entry):
                    self.file, self.start = index, offset
                    for skip in passed:
                        self.skipped.setdefault(skip[0], set()).add(skip[1])
                    passed.clear()
                else:
                    passed.append((index, offset))
        if self.file == len(files) and files:
            # Nothing is wanted of what there is; what comes is.
            self.file, self.start = len(files) - 1, os.fstat(files[-1].descriptor()).st_size

    def _keeps(self, entry: LogEntry) -> bool:
        if entry.partial and entry.stream in self._keeping:
            return True
        # Another line: nothing before it belongs to the stream's one that was kept.
        self._keeping.discard(entry.stream)
        if not self._left:
            return False
        self._left -= 1
        self._keeping.add(entry.stream)
        return True


class _Waiting:
    """For more of a log: until something is written beside it, or its container has ended."""

    def __init__(self, waiter: Attachment | None, path: str, stop: int, before_wait: Callable[[], None] | None) -> None:
        from sampan.kernel.inotify import DirectoryWatch

        self._waiter = waiter
        self._ended = waiter is None
        self._stop = stop
        self._before_wait = before_wait
        self._watch: DirectoryWatch | None = None
        if waiter is not None:
            self._watch = DirectoryWatch(os.path.dirname(path))

    def wait(self, until: int) -> bool:
        """False if the end was known before the last look already: nothing can come after it."""
        if self._ended:
            return False
        assert self._waiter is not None
        assert self._watch is not None
        seconds = None if until == _NO_LIMIT else (until - time.time_ns()) / 1e9
        if seconds is not None and seconds <= 0:
            self._ended = True
            return True
        if self._before_wait is not None:
            self._before_wait()
        ready = self._watch.wait(seconds, self._waiter.fileno(), self._stop)
        if self._stop in ready:
            self._ended = True
        elif ready:
            self._ended = self._waiter.receive() is None or self._waiter.exit is not None
        return True

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.close()
        if self._watch is not None:
            self._watch.close()
