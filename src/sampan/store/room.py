"""How far a disk may be filled by what a few compressed bytes unfold to.

No ratio tells a bomb from an image: a preallocated file of zeros is a thousandth of its size in gzip, less than a
ten-thousandth in zstd, and quite legitimate. So nothing is refused for its ratio; but what unfolds to more than
32 times its size, as no programs and texts do, may not take the last of a disk, which others on the machine need. It is
stopped while something is free. What is less strange gets as far as the disk goes, as with Docker.
"""

from __future__ import annotations

import os

from sampan.errors import System

RATIO = 32
_RESERVE = 1 << 30  # bytes at most, and a twentieth of the disk at most
_STEP = 32 << 20


class Room:
    """What is free on the disk of a file or directory, looked at again and again while something unfolds to it."""

    def __init__(self, disk: str | int) -> None:
        self._disk = disk
        status = os.statvfs(disk)
        self.reserve = min(_RESERVE, status.f_blocks * status.f_frsize // 20)
        self._step = max(1 << 16, min(_STEP, self.reserve // 4))
        self.look_at = self._step
        """Plain bytes after which the next look is due."""

    def look(self, plain: int, packed: int) -> None:
        """`packed` bytes have unfolded to `plain` until now. Raises `System` if the disk is too full for more of that."""
        self.look_at = plain + self._step
        if plain <= RATIO * packed:
            return
        status = os.statvfs(self._disk)
        # Some file systems have no table of inodes that could be full; they say 0.
        few_names = status.f_files > 0 and status.f_favail < status.f_files // 20
        if status.f_bavail * status.f_frsize < self.reserve or few_names:
            raise System(
                f"error processing tar file: no space left on device: {packed} bytes have unfolded to {plain} by now, "
                f"and what unfolds like that must leave {self.reserve} bytes, or a twentieth of all inodes, free"
            )
