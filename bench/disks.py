"""A file system for each engine that is measured, so that none of them pays for what another, or the machine, has done.

An ext4 as mkfs makes it by default, with a journal, in a sparse file. The machine's own file system tells less: where it is an
ext4 without a journal, each new file is dear for minutes after files were removed, by whomever; and who writes his layers
to the disk before they have a name writes everything with them that others have left in memory.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "24G"  # of which what is written takes room


@contextmanager
def disk() -> Iterator[Path]:
    """Where an empty one is mounted. A short path: engines make sockets below it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench.") as name:
        image, place = Path(name) / "image", Path(name) / "d"
        image.touch()
        place.mkdir()
        subprocess.run(["mkfs.ext4", "-q", str(image), _SIZE], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
        try:
            yield place
        finally:
            _unmount(place)


def _unmount(place: Path) -> None:
    """Whoever has just ended may be on it for a moment."""
    deadline = time.monotonic() + 30
    while (done := subprocess.run(["umount", str(place)], capture_output=True, text=True)).returncode:
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {done.stderr.strip()}")
        time.sleep(0.2)
