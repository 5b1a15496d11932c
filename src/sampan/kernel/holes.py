"""Giving back the blocks of a part of a file."""

from __future__ import annotations

from sampan.kernel.libc import by_machine, raw

_SYS_FALLOCATE = by_machine(285, 47)
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2


def punch_hole(fd: int, start: int, length: int) -> None:
    """Free what a file holds there; it reads as zeros (fallocate(2)). Raises OSError (EOPNOTSUPP on some file systems)."""
    raw(_SYS_FALLOCATE, "fallocate", "", fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, start, length)
