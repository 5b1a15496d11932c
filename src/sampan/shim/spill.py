"""Output that clients have not heard yet and that memory is not to hold: exact bytes, in order, on disk, bounded.

Not in the log, which replaces what is no UTF-8, keeps each stream's lines together, and drops the oldest (docs/adr/0009).
"""

from __future__ import annotations

import os

from sampan.kernel.holes import punch_hole
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

CHUNK = 65536
LIMIT = 1 << 30
"""Bytes that the slowest client may be behind. Then the program waits for it: better than a full disk, or a lost byte."""
RESERVE = 20
"""One part in so many of the file system is left to others."""
_PUNCH = 4 << 20


class Spill:
    """A queue of frames in a file without a name, made when it is needed. Offsets grow for as long as anybody is behind.

    What a disk that is full does not take is held in memory. That is little, for then the program's output is not read.
    """

    def __init__(self, path: str) -> None:
        """`path`: a name for it, for the moment in which it has one."""
        self._path = path
        self._fd = -1
        self._unwritten = bytearray()
        self._freed = 0
        self._scarce = False
        self.end = 0
        """Where what comes next will be."""

    @property
    def full(self) -> bool:
        """Whether there is to be no more before somebody has caught up, or the disk has room again."""
        return bool(self._unwritten) or self._scarce or self.end - self._freed > LIMIT

    def append(self, frame: bytes) -> None:
        """Put a frame behind the others."""
        self._unwritten += frame
        self.end += len(frame)
        self._store()

    def _store(self) -> None:
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                os.unlink(self._path)
            disk = os.fstatvfs(self._fd)
            self._scarce = disk.f_bavail < disk.f_blocks // RESERVE
            at = self.end - len(self._unwritten)
            written = 0
            while written < len(self._unwritten):
                written += os.pwrite(self._fd, self._unwritten[written:], at + written)
            self._unwritten.clear()  # not before all of it is there: a frame is in one place
        except OSError:
            pass

    def read(self, offset: int, kinds: Container[int]) -> tuple[bytes, int]:
        """Some frames from `offset` on, those of `kinds`, and where the next ones are: -1 when that was all."""
        stored = self.end - len(self._unwritten)
        if offset < stored:
            data = os.pread(self._fd, min(CHUNK + protocol.HEADER_SIZE, stored - offset), offset)
        else:
            data = bytes(self._unwritten[offset - stored :])
        wanted = []
        at = 0
        while at + protocol.HEADER_SIZE <= len(data):
            end = at + protocol.HEADER_SIZE + int.from_bytes(data[at + 1 : at + protocol.HEADER_SIZE], "big")
            if end > len(data):
                break
            if data[at] in kinds:
                wanted.append(data[at:end])
            at = end
        return b"".join(wanted), -1 if offset + at == self.end else offset + at

    def release(self, offset: int) -> None:
        """Nobody needs what is before `offset` any more; or anything, if that is -1."""
        if offset < 0:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1
            self._unwritten.clear()
            self._freed = self.end = 0
            self._scarce = False
            return
        if offset - self._freed >= _PUNCH:
            try:
                punch_hole(self._fd, self._freed, offset - self._freed)
            except OSError:
                pass  # a file system without holes: then the bound is on all of it together
            else:
                self._freed = offset
        if self._scarce or self._unwritten:
            self._store()
