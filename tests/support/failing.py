"""A file system on a device that says that it has more room than it has, as of a pool that was promised twice.

A test module takes `failing` by importing it, and names it in its `__all__`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Path]:
    """One of 64 MiB on a device that has room for 4."""
    with on_loop(tmp_path, "4m") as place:
        yield place


@contextmanager
def on_loop(tmp_path: Path, room: str) -> Iterator[Path]:
    """An ext4 of 64 MiB in a sparse file `pool/image`, in a memory of `room`, and where it is mounted."""
    pool, place = tmp_path / "pool", tmp_path / "failing"
    pool.mkdir()
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "sampan-test", str(pool)], check=True)
    try:
        (pool / "image").touch()
        os.truncate(pool / "image", 64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(pool / "image")], check=True)
        subprocess.run(["mount", "-o", "loop", str(pool / "image"), str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(pool)], check=True)
