"""The journal of events, read back: what was written, in the order of its times, and what is being written.

It is a log of two files (`kernel.appendlog`) of JSON objects, one an event:

    {"type":"container","id":"4f66...","attributes":{...},"action":"start","time":1795485845030461761}

A reader takes no lock. What is no whole event, because its writer was killed in the middle of it, is left out.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.kernel.appendlog import OLDER, RS, is_named
from sampan.kernel.inotify import DirectoryWatch
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_CHUNK = 1 << 20


class Entry(Struct):
    """One event. type: "container", "image", "volume" or "network". time: nanoseconds since the epoch."""

    type: str
    action: str
    id: str
    attributes: dict[str, str]
    time: int


class Journal:
    """The journal whose newer file is `path`. It need not be there yet; its directory has to be."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, about: str = "") -> list[Entry]:
        """Everything that it has, by time; only of the id `about`, which is ten times as fast, for the rest is not parsed."""
        with Tail(self._path, backlog=True, watched=False, about=about) as tail:
            return tail.take()

    def follow(self, backlog: bool) -> Tail:
        """A reader of what is written from now on, and with `backlog` of all that was before. To be closed."""
        return Tail(self._path, backlog, watched=True)


class Tail:
    """See `Journal.follow`."""

    def __init__(self, path: str, backlog: bool, watched: bool, about: str = "") -> None:
        # The watch first: what is written from then on wakes who waits, also when it is read before.
        self._path = path
        self._about = jsontext.dumps({"id": about})[1:-1] if about else b""
        self._watch = DirectoryWatch(os.path.dirname(path)) if watched else None
        self._fd = -1
        self._rest = b""
        if not backlog:
            # The newer one last; between a rename and the next event there is but the older.
            for fd in _open_both(path):
                self._turn_to(fd)
                os.lseek(fd, 0, os.SEEK_END)

    def take(self) -> list[Entry]:
        """What was written since the last call, by time: writers read the clock a moment before they write."""
        found: list[Entry] = []
        while True:
            found += self._read_on()
            if self._fd >= 0 and is_named(self._path, self._fd):
                break
            # It was renamed: nobody appends to it any more. What came in between the two looks is still to be read.
            found += self._read_on()
            if not self._next(found):
                break
        found.sort(key=lambda entry: entry.time)
        return found

    def wait(self, seconds: float | None) -> None:
        """Until there may be something to take, at most so long (None: without end). Not without a watch."""
        assert self._watch is not None, "a tail that is followed is watched"
        self._watch.wait(seconds)

    def wake(self) -> None:
        """End a `wait`, and every one to come, from any thread."""
        if self._watch is not None:
            self._watch.wake()

    def close(self) -> None:
        """Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._watch is not None:
            self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def _read_on(self) -> list[Entry]:
        """The entries from where it stopped to the end of the file; the beginning of one that is not whole yet waits."""
        entries: list[Entry] = []
        while self._fd >= 0 and (data := os.read(self._fd, _CHUNK)):
            *records, self._rest = (self._rest + data).split(RS)
            if self._rest.endswith(b"\n"):
                records.append(self._rest)
                self._rest = b""
            wanted = [record for record in records if self._about in record]
            entries += [entry for record in wanted if (entry := parse(record)) is not None]
        return entries

    def _next(self, found: list[Entry]) -> bool:
        """Go on to the file that has the name now; False if there is none. One that had it in between is read too."""
        moved = False
        for fd in _open_both(self._path):
            if self._fd >= 0 and os.path.sameopenfile(fd, self._fd):
                os.close(fd)
                continue
            found += self._read_on()
            self._turn_to(fd)
            moved = True
        return moved

    def _turn_to(self, fd: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._rest = fd, b""


def _open_both(path: str) -> list[int]:
    """Descriptors of the older and the newer file, as far as they are there.

    The newer one is opened first: a rename in between shows it twice, and never hides it.
    """
    found = [fd for fd in (_open(path), _open(path + OLDER)) if fd >= 0]
    if len(found) == 2 and os.path.sameopenfile(*found):
        os.close(found.pop())
    return found[::-1]


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return -1


def parse(record: bytes) -> Entry | None:
    """The event in a record, None for what is none."""
    try:
        value = jsontext.loads(record)
        attributes = {str(name): str(text) for name, text in value["attributes"].items()}
        return Entry(str(value["type"]), str(value["action"]), str(value["id"]), attributes, int(value["time"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
