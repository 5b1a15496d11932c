"""Reading a container's log back: Docker's json-file, one JSON object a line.

The file may end in the middle of a line (the monitor is writing it, or was killed), and a later start may have
gone on right behind such an end: what cannot be read is left out, what follows it is not.
"""

from __future__ import annotations

import os
import select

from sampan import jsontext
from sampan.engine import times
from sampan.errors import Conflict, System
from sampan.oci import lifecycle
from sampan.runtime.handle import Handle
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from sampan.runtime.handle import Attachment
    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...


_CHUNK = 1 << 16
_POLL_MS = 100
_BEGIN = b'{"log":'


class LogEntry(Struct):
    """A piece of output: a line with its newline, 16 KiB of a longer one, or the end of a stream that had none.

    time: RFC 3339. stream: "stdout" or "stderr".
    """

    time: str
    stream: str
    data: bytes


class LogReader:
    """`GET /containers/{id}/logs`."""

    def __init__(self, records: Records, settler: Settler) -> None:
        self._records = records
        self._settler = settler

    def read(
        self,
        record: Record,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
        until: str = "",
    ) -> Iterator[LogEntry]:
        """The log's entries: the last `tail` ones (None: all), then, with `follow`, those to come until the container ends.

        `since` and `until` are RFC 3339 times. Raises Conflict for a container whose log cannot be read (driver none).
        """
        if record.host_config.get("LogConfig", {}).get("Type") == "none":
            raise Conflict("configured logging driver does not support reading")
        self._settler.observe(record)  # NotFound now, and not when the first entry is asked for
        first, last = times.parse(since), times.parse(until)
        entries = self._entries(record, follow, tail)
        return (e for e in entries if _within(e, first, last))

    def _entries(self, record: Record, follow: bool, tail: int | None) -> Iterator[LogEntry]:
        paths = self._records.paths(record.id)
        waiter = self._waiter(record, paths) if follow else None
        try:
            fd = os.open(paths.log, os.O_RDONLY | os.O_CLOEXEC | os.O_CREAT, 0o640)
            try:
                os.lseek(fd, 0 if tail is None else _tail_offset(fd, tail), os.SEEK_SET)
                yield from _follow(fd, waiter)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return  # the container was removed
        finally:
            if waiter is not None:
                waiter.close()

    def _waiter(self, record: Record, paths: ContainerPaths) -> Attachment | None:
        """A connection that ends with the container's run; None if it does not run."""
        seen = self._settler.observe(record)
        if seen.status not in lifecycle.BUSY:
            return None
        try:
            return Handle(paths, paths.start(seen.number).directory).attach(stdout=False, stderr=False)
        except (Conflict, System):
            return None  # it has ended in this moment


def _follow(fd: int, waiter: Attachment | None) -> Iterator[LogEntry]:
    """Entries from the descriptor's position on; with a waiter, until that says that no more will come."""
    rest = b""
    ended = waiter is None
    poll = select.poll()
    if waiter is not None:
        poll.register(waiter.fileno(), select.POLLIN)
    while True:
        data = os.read(fd, _CHUNK)
        if data:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if entry := parse_line(line):
                    yield entry
        elif ended:
            # The file was read to its end after the run's end was known: nothing can come after it.
            if entry := parse_line(rest):
                yield entry
            return
        elif poll.poll(_POLL_MS) and waiter is not None:
            ended = waiter.receive() is None or waiter.exit is not None


def parse_line(line: bytes) -> LogEntry | None:
    """The entry in a line; None if there is none that is whole."""
    while line:
        try:
            value = jsontext.loads(line)
            data = value["log"].encode("utf-8", "surrogatepass")
            return LogEntry(str(value["time"]), str(value["stream"]), data)
        except (ValueError, KeyError, TypeError, AttributeError):
            # An end of a killed monitor may stand before the first entry of the next one, on the same line.
            at = line.find(_BEGIN, 1)
            line = line[at:] if at > 0 else b""
    return None


def _tail_offset(fd: int, count: int) -> int:
    """Where the last `count` lines begin, found from the end of the file."""
    position = os.fstat(fd).st_size
    if count <= 0:
        return position
    # The newline at the very end ends the last line; it begins none.
    newlines = count + 1
    if position and os.pread(fd, 1, position - 1) != b"\n":
        newlines = count
    while position > 0:
        begin = max(0, position - _CHUNK)
        block = os.pread(fd, position - begin, begin)
        found = block.count(b"\n")
        if found >= newlines:
            at = len(block)
            for _ in range(newlines):
                at = block.rindex(b"\n", 0, at)
            return begin + at + 1
        newlines -= found
        position = begin
    return 0


def _within(entry: LogEntry, first: int, last: int) -> bool:
    if not first and not last:
        return True
    then = times.parse(entry.time)
    return then >= first and (not last or then <= last)
