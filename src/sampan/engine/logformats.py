"""What the files of the log drivers mean: cut into records from the front or from the back, and records read.

A file may end in the middle of a record (the monitor is writing it, or was killed). Of a json-file a later start may have gone
on right behind such an end: what cannot be read is left out, what follows it is not.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.kernel import clock
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Protocol

    class Format(Protocol):
        overhead: int
        """Bytes that a record takes in a file besides its own."""

        def split(self, data: bytes) -> list[bytes]: ...
        def parse(self, record: bytes) -> LogEntry | None: ...
        def parse_all(self, records: list[bytes]) -> Iterator[LogEntry]: ...
        def backwards(self, fd: int) -> Iterator[tuple[int, bytes]]: ...


CHUNK = 1 << 16
_BEGIN = b'{"log":'
PART = 16384 - 3
"""A record without a newline that has as many bytes is a part of a longer line; a shorter one is the end of a stream. (Parts are
of 16 KiB, a character that would be cut in two less.)"""


class LogEntry(Struct):
    """A piece of output: a line with its newline, 16 KiB of a longer one, or the end of a stream that had none.

    time: RFC 3339; of a line in several pieces, when it began. stream: "stdout" or "stderr". attributes: what the log
    options labels, env and tag pick. partial: the line goes on in the stream's next entry.
    """

    time: str
    stream: str
    data: bytes
    attributes: Mapping[str, str] = {}
    partial: bool = False

    def __init__(
        self,
        time: str,
        stream: str,
        data: bytes,
        attributes: Mapping[str, str] = {},  # never changed
        partial: bool = False,
    ) -> None:
        # As of any `Struct`, but by hand: a log has millions.
        values = self.__dict__
        values["time"] = time
        values["stream"] = stream
        values["data"] = data
        values["attributes"] = attributes
        values["partial"] = partial


_NO_ENTRY = (ValueError, KeyError, TypeError, AttributeError)


class JsonLines:
    """The driver json-file: a JSON object a line."""

    overhead = 1

    def split(self, data: bytes) -> list[bytes]:
        """The records in `data`, and last what is not a whole one (yet)."""
        return data.split(b"\n")

    def parse(self, record: bytes) -> LogEntry | None:
        """The entry in a record; None if there is none that is whole."""
        while record:
            try:
                return self._entry(jsontext.loads(record))
            except _NO_ENTRY:
                # An end of a killed monitor may stand before the first entry of the next one, on the same line.
                at = record.find(_BEGIN, 1)
                record = record[at:] if at > 0 else b""
        return None

    def parse_all(self, records: list[bytes]) -> Iterator[LogEntry]:
        """The entries in records that follow one another, without those that are none."""
        try:
            # One document of them all: what is around the reading of one costs four times as much as that.
            values = jsontext.loads(b"[%s]" % b",".join(records))
        except ValueError:
            values = ()
        if len(values) != len(records):
            values = (None,) * len(records)  # one of them is not whole: each by itself
        for record, value in zip(records, values, strict=True):
            try:
                yield self._entry(value)
            except _NO_ENTRY:
                if entry := self.parse(record):
                    yield entry

    def _entry(self, value: Any) -> LogEntry:
        """Raises what `_NO_ENTRY` lists for what is none."""
        data = value["log"].encode("utf-8", "surrogatepass")
        partial = len(data) >= PART and not data.endswith(b"\n")
        return LogEntry(str(value["time"]), str(value["stream"]), data, value.get("attrs") or {}, partial)

    def backwards(self, fd: int) -> Iterator[tuple[int, bytes]]:
        """The records of a file from the last on, each with its offset."""
        position = os.fstat(fd).st_size
        rest = b""
        while position > 0:
            begin = max(0, position - CHUNK)
            first, *lines = (os.pread(fd, position - begin, begin) + rest).split(b"\n")
            end = position + len(rest)
            for line in reversed(lines):
                end -= len(line)
                yield end, line
                end -= 1
            rest, position = first, begin
        if rest:
            yield 0, rest


class LocalRecords:
    """The driver local: messages between two copies of their length (see `shim.locallog`)."""

    _SIZE = 4
    overhead = 2 * _SIZE

    def split(self, data: bytes) -> list[bytes]:
        """As `JsonLines.split`; records are without their lengths."""
        records = []
        at = 0
        while at + self._SIZE <= len(data):
            size = int.from_bytes(data[at : at + self._SIZE], "big")
            if at + size + 2 * self._SIZE > len(data):
                break
            records.append(data[at + self._SIZE : at + self._SIZE + size])
            at += size + 2 * self._SIZE
        return [*records, data[at:]]

    def parse(self, record: bytes) -> LogEntry | None:
        """As `JsonLines.parse`."""
        try:
            numbers, texts = _fields(record)
            # Docker has `partial` on the last part as well, and there says so in its metadata (5, in which 1 is `last`).
            partial = bool(numbers.get(4)) and not _fields(texts.get(5, b""))[0].get(1)
            line = texts.get(3, b"") + (b"" if partial else b"\n")
            # The end of a stream without a newline is kept as a part, too, but is not as long as one.
            more = partial and len(line) >= PART
            return LogEntry(clock.rfc3339(numbers[2]), texts[1].decode(), line, {}, more)
        except (ValueError, KeyError, IndexError, OverflowError):
            return None

    def parse_all(self, records: list[bytes]) -> Iterator[LogEntry]:
        """As `JsonLines.parse_all`."""
        return filter(None, map(self.parse, records))

    def backwards(self, fd: int) -> Iterator[tuple[int, bytes]]:
        """As `JsonLines.backwards`."""
        end = self._end(fd)
        while end >= 2 * self._SIZE:
            size = self._size(fd, end - self._SIZE)
            begin = end - 2 * self._SIZE - size
            yield begin, os.pread(fd, size, begin + self._SIZE)
            end = begin

    def _end(self, fd: int) -> int:
        """Of the last whole record: behind it may be half a one, of a writer that is at it or was killed."""
        end = os.fstat(fd).st_size
        begin = end - 2 * self._SIZE - self._size(fd, end - self._SIZE) if end >= 2 * self._SIZE else -1
        if begin >= 0 and self._size(fd, begin) == end - begin - 2 * self._SIZE:
            return end
        at = 0
        while at + 2 * self._SIZE <= end:
            after = at + 2 * self._SIZE + self._size(fd, at)
            if after > end or self._size(fd, after - self._SIZE) != after - at - 2 * self._SIZE:
                break
            at = after
        return at

    def _size(self, fd: int, at: int) -> int:
        return int.from_bytes(os.pread(fd, self._SIZE, at), "big")


def _fields(message: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    """The fields of a protocol buffer by their numbers: those that are numbers, those that are bytes.

    Raises ValueError, IndexError for what is none.
    """
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key < 8:
            raise ValueError("no field has the number 0")  # the length of half a record
        if key & 7 == 0:
            numbers[key >> 3] = value
        elif key & 7 == 2 and at + value <= len(message):
            texts[key >> 3] = message[at : at + value]
            at += value
        else:
            raise ValueError(f"field {key}")
    return numbers, texts


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def of_driver(driver: str) -> Format:
    """The format of a driver's files."""
    return LocalRecords() if driver == "local" else JsonLines()
