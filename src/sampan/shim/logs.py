"""The json-file log: what a container says, a JSON object a line, as Docker keeps it on disk.

A line of output is written when it is whole, or 16 KiB long (then without its newline, which is how readers know
that it goes on), or when the stream ends.
"""

from __future__ import annotations

import _json
import os
import time

from sampan.kernel import clock

PARTIAL = 16384
"""Bytes after which a line is written in parts (Docker's `defaultBufSize`)."""

_quote = _json.encode_basestring


class JsonFile:
    """Appends to one log file. A disk that is full loses lines and is counted; it stops nobody."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._rest: dict[str, bytes] = {}
        self.lost = 0

    def write(self, stream: str, data: bytes) -> None:
        """Take output of `stream` ("stdout" or "stderr"); whole lines go to the file in one write."""
        data = self._rest.pop(stream, b"") + data
        lines = data.split(b"\n")
        rest = lines.pop()
        pieces = []
        for line in lines:
            pieces += _parts(line + b"\n")
        while len(rest) >= PARTIAL:
            cut = _boundary(rest)
            pieces.append(rest[:cut])
            rest = rest[cut:]
        if rest:
            self._rest[stream] = rest
        self._append(stream, pieces)

    def end(self, stream: str) -> None:
        """The stream is at its end: what had no newline is written as it is."""
        rest = self._rest.pop(stream, b"")
        if rest:
            self._append(stream, [rest])

    def _append(self, stream: str, pieces: list[bytes]) -> None:
        if not pieces:
            return
        tail = f',"stream":"{stream}","time":"{clock.rfc3339(time.time_ns())}"}}\n'
        records = "".join([f'{{"log":{_quote(p.decode("utf-8", "replace"))}{tail}' for p in pieces]).encode("utf-8")
        written = 0
        try:
            while written < len(records):
                written += os.write(self._fd, records[written:])
        except OSError:
            self.lost += len(pieces)
            self._take_back(written)

    def _take_back(self, size: int) -> None:
        """Half a record, before the disk was full, would spoil the next one as well."""
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - size)
        except OSError:
            pass  # readers pass over what is no record

    def close(self) -> None:
        for stream in list(self._rest):
            self.end(stream)
        os.close(self._fd)


def _parts(line: bytes) -> list[bytes]:
    if len(line) <= PARTIAL:
        return [line]
    parts = []
    while len(line) > PARTIAL:
        cut = _boundary(line)
        parts.append(line[:cut])
        line = line[cut:]
    return [*parts, line]


def _boundary(data: bytes) -> int:
    """Where to cut, at most PARTIAL bytes in, without cutting a UTF-8 character in two."""
    cut = PARTIAL
    for back in range(1, 4):
        byte = data[cut - back]
        if byte < 0x80:
            break
        if byte >= 0xC0:  # the first byte of a character: of how many?
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return cut - back if length > back else cut
    return cut
