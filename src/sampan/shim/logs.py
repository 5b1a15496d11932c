"""What a container says, kept on disk: lines, in files of bounded size. The format is the driver's; json-file's is here.

A line is written when it is whole, or in parts of 16 KiB, or when its stream ends. A file that is full is renamed to
PATH.1, that one to PATH.2, and so on; the oldest goes. Who has a file open can read it to its end nevertheless, and who
comes later finds the files in their order (`engine.logfiles`), wherever a killed writer left off.
"""

from __future__ import annotations

import _json
import os
import time

from sampan.kernel import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.protocol import LogPlan

PARTIAL = 16384
"""Bytes after which a line is written in parts (Docker's `defaultBufSize`)."""

_quote = _json.encode_basestring
_REPORT_SECONDS = 1.0


class Log:
    """Appends to the files of a plan. A disk that is full loses lines, which are counted and told; it stops nobody."""

    def __init__(self, plan: LogPlan) -> None:
        self._path, self._limit, self._files = plan.path, plan.max_size, plan.max_files
        self._rest: dict[str, bytes] = {}
        self._begun: dict[str, int] = {}  # streams in the middle of a line that has parts in the file: when it began
        self._fd, self._size = -1, 0
        self.lost: dict[str, Any] = {}
        """{"lines": how many, "error": of the first, "since": when}, if some could not be written."""
        self.tell_loss: Callable[[], None] = lambda: None
        """Is called when `lost` has changed, about once a second at most."""
        self._told = 0.0
        self._untold = False
        self.rotated: Callable[[], None] = lambda: None
        """Is called when each file has taken the next one's name."""
        self._append(
            b""
        )  # the file is there when the container runs; where it cannot be, that is told with the first line

    def write(self, stream: str, data: bytes) -> None:
        """Take output of `stream` ("stdout" or "stderr"); whole lines go to the file in one write."""
        data = self._rest.pop(stream, b"") + data
        lines = data.split(b"\n")
        rest = lines.pop()
        now = time.time_ns()
        if stream not in self._begun and len(rest) < PARTIAL and (not lines or max(map(len, lines)) < PARTIAL):
            self._append(self._lines(stream, lines, now))
        else:
            at, records = 0, []
            while at < len(data) - len(rest) or len(data) - at >= PARTIAL:
                end = data.find(b"\n", at, at + PARTIAL) + 1 or at + _boundary(data, at)
                records.append(self._part(stream, data[at:end], now))
                at = end
            self._append(b"".join(records))
            rest = data[at:]
        if rest:
            self._rest[stream] = rest

    def _part(self, stream: str, piece: bytes, now: int) -> bytes:
        """A record of a line that may have several: all are of the time when it began."""
        begun = self._begun.pop(stream, now)
        if not piece.endswith(b"\n"):
            self._begun[stream] = begun
        return self._record(stream, piece, begun)

    def end(self, stream: str) -> None:
        """The stream is at its end: what had no newline is written as it is."""
        rest = self._rest.pop(stream, b"")
        if rest:
            self._append(self._part(stream, rest, time.time_ns()))
        self._begun.pop(stream, None)

    def close(self) -> None:
        for stream in list(self._rest):
            self.end(stream)
        if self._fd >= 0:
            os.close(self._fd)

    # what the drivers do

    def _lines(self, stream: str, lines: list[bytes], now: int) -> bytes:
        """Records of whole lines that are not too long, given without their newlines."""
        return b"".join([self._record(stream, line + b"\n", now) for line in lines])

    def _record(self, stream: str, piece: bytes, now: int) -> bytes:
        raise NotImplementedError

    def _cut(self, records: bytes, room: int, least: bool) -> int:
        """Bytes of the whole records that fit into `room` bytes; of the first one in any case if `least`."""
        raise NotImplementedError

    def _count(self, records: bytes) -> int:
        raise NotImplementedError

    def _mend(self) -> None:
        """Make a file fit to be gone on with, at whose end a killed writer may have left half a record."""

    # the files

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        if self._size:
            self._mend()

    def _append(self, records: bytes) -> None:
        try:
            if self._fd < 0:
                self._open()
            while self._limit and self._size + len(records) > self._limit:
                cut = self._cut(records, self._limit - self._size, least=not self._size)
                self._put(records[:cut])
                records = records[cut:]
                if not records:
                    break
                self._rotate()
            self._put(records)
        except OSError as e:
            self._lose(records, e)
        else:
            if self._untold:
                self._tell()

    def _put(self, records: bytes) -> None:
        written = 0
        try:
            while written < len(records):
                written += os.write(self._fd, records[written:])
        except OSError:
            self._take_back(written)
            raise
        self._size += written

    def _take_back(self, size: int) -> None:
        """Half a record, before the disk was full, would spoil the next one as well."""
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - size)
        except OSError:
            pass  # readers pass over what is no record

    def _rotate(self) -> None:
        """Begin the next file. The oldest goes first: at whichever step this ends, no file has taken another's place."""
        os.close(self._fd)
        self._fd = -1
        names = [self._path, *(f"{self._path}.{n}" for n in range(1, self._files))]
        for suffix in ("", ".gz"):
            _if_there(os.unlink, names[-1] + suffix)
            for number in range(self._files - 1, 0, -1):
                _if_there(os.rename, names[number - 1] + suffix, names[number] + suffix)
        self._open()
        self.rotated()

    # a full disk

    def _lose(self, records: bytes, error: OSError) -> None:
        if not records:
            return
        if not self.lost:
            words = f"write {self._path}: {(error.strerror or str(error)).lower()}"
            self.lost = {"lines": 0, "error": words, "since": clock.now()}
        self.lost["lines"] += self._count(records)
        self._untold = True
        if not self._told or time.monotonic() - self._told > _REPORT_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told, self._untold = time.monotonic(), False
        self.tell_loss()


class JsonFile(Log):
    """The driver json-file: a JSON object a line, as Docker keeps it. What is no UTF-8 is replaced."""

    def __init__(self, plan: LogPlan) -> None:
        super().__init__(plan)
        self._attributes = f',"attrs":{plan.extra}' if plan.extra else ""

    def _tail(self, stream: str, now: int) -> str:
        return f',"stream":"{stream}"{self._attributes},"time":"{clock.rfc3339(now)}"}}\n'

    def _record(self, stream: str, piece: bytes, now: int) -> bytes:
        return f'{{"log":{_quote(piece.decode("utf-8", "replace"))}{self._tail(stream, now)}'.encode()

    def _lines(self, stream: str, lines: list[bytes], now: int) -> bytes:
        text = b"\n".join(lines).decode("utf-8", "replace")
        tail = self._tail(stream, now)
        if "\\" not in text and lines:
            # All at once, five times as fast: what is "\n" in the quoted text was a newline.
            between = f'\\n"{tail}{{"log":"'
            return f'{{"log":{_quote(text)[:-1]}'.replace("\\n", between).encode() + f'\\n"{tail}'.encode()
        return "".join([f'{{"log":{_quote(line)[:-1]}\\n"{tail}' for line in text.split("\n") if lines]).encode()

    def _cut(self, records: bytes, room: int, least: bool) -> int:
        return records.rfind(b"\n", 0, max(room, 0)) + 1 or (records.find(b"\n") + 1 if least else 0)

    def _count(self, records: bytes) -> int:
        return records.count(b"\n")


def _if_there(action: Callable[..., None], *paths: str) -> None:
    try:
        action(*paths)
    except FileNotFoundError:
        pass


def _boundary(data: bytes, at: int) -> int:
    """How many of the bytes from `at` on are a part: at most PARTIAL, without cutting a UTF-8 character in two."""
    for back in range(1, 4):
        byte = data[at + PARTIAL - back]
        if byte < 0x80:
            break
        if byte >= 0xC0:  # the first byte of a character: of how many?
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return PARTIAL - back if length > back else PARTIAL
    return PARTIAL
