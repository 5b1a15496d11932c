"""The driver `local`: Docker's binary log, smaller and quicker than JSON, with the bytes as they are.

A record is a message between two copies of its length, so that files can be read from both ends (moby,
daemon/logger/local; api/types/plugins/logdriver/entry.proto). Only the shim of a container with this driver imports this.
"""

from __future__ import annotations

import os

from sampan.shim.logs import Log

_SIZE = 4
"""Bytes of a length, which is big-endian."""


class LocalFile(Log):
    """Appends records of the driver `local`."""

    def _record(self, stream: str, piece: bytes, now: int) -> bytes:
        if piece.endswith(b"\n"):
            return self._lines(stream, [piece[:-1]], now)
        # partial, and that it is not the last one: how a reader knows that no newline follows.
        return _framed(b"%s%s%s\x20\x01\x2a\x00" % (_head(stream, now), _varint(len(piece)), piece))

    def _lines(self, stream: str, lines: list[bytes], now: int) -> bytes:
        head = _head(stream, now)
        return b"".join([_framed(b"%s%s%s" % (head, _varint(len(line)), line)) for line in lines])

    def _cut(self, records: bytes, room: int, least: bool) -> int:
        at = 0
        while at < len(records):
            end = at + 2 * _SIZE + int.from_bytes(records[at : at + _SIZE], "big")
            if end > room and (at or not least):
                break
            at = end
            if end > room:
                break
        return at

    def _count(self, records: bytes) -> int:
        count = at = 0
        while at < len(records):
            at += 2 * _SIZE + int.from_bytes(records[at : at + _SIZE], "big")
            count += 1
        return count

    def _mend(self) -> None:
        if self._is_whole(self._size):
            return
        at = 0
        while at + _SIZE <= self._size:
            end = at + 2 * _SIZE + int.from_bytes(os.pread(self._fd, _SIZE, at), "big")
            if end > self._size or not self._is_whole(end):
                break
            at = end
        os.ftruncate(self._fd, at)
        self._size = at

    def _is_whole(self, end: int) -> bool:
        """Whether a record ends there: the two copies of its length agree."""
        size = os.pread(self._fd, _SIZE, end - _SIZE)
        begin = end - 2 * _SIZE - int.from_bytes(size, "big")
        return begin >= 0 and os.pread(self._fd, _SIZE, begin) == size


def _head(stream: str, now: int) -> bytes:
    """A message up to its line: source (1), time_nano (2), and the key of line (3)."""
    return b"\x0a%c%s\x10%s\x1a" % (len(stream), stream.encode(), _varint(now))


def _framed(message: bytes) -> bytes:
    size = len(message).to_bytes(_SIZE, "big")
    return b"%s%s%s" % (size, message, size)


def _varint(value: int) -> bytes:
    """A number as protocol buffers have it: seven bits a byte, the lowest first."""
    if value < 0x80:
        return b"%c" % value
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
