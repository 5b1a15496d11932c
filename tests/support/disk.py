"""What a store takes of the disk, in blocks and names."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.roots import Root

# What `system df` tells of -> the directories whose entries that is.
PLACES = {
    "Images": ("content/sha256", "content/ingest", "layers", "images"),
    "Containers": ("containers", "snapshots", "names"),
    "Volumes": ("volumes",),
}


def du(paths: Iterable[str | Path]) -> int:
    """What du(1) says that these take of the disk together, in bytes; 0 for none at all."""
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if not names:
        return 0
    command = ["du", "--summarize", "--total", "--block-size=1", "--one-file-system", "--files0-from=-"]
    done = subprocess.run(command, input=names, capture_output=True, check=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def du_of(root: Root, kind: str) -> int:
    """What du(1) says of all images, containers or volumes of a store."""
    places = [root.root / place for place in PLACES[kind]]
    return du(path for place in places for path in place.iterdir() if path.name != ".mounted")


def disk(root: Root) -> dict[str, tuple[int, int]]:
    """Blocks and names of everything below the root, by place: what `du` sees, without the growth of directories.

    A directory's own blocks are not counted (ext4 never gives those back), its name is. The journal of events is left
    out: it grows with whatever is done, up to its bound.
    """
    found = {}
    for place in sorted(set(os.listdir(root.root)) - {"events"}):
        blocks = names = 0
        seen = set()
        for directory, directories, files in os.walk(root.root / place):
            names += len(directories) + len(files)
            for name in files:
                status = os.lstat(os.path.join(directory, name))
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    blocks += status.st_blocks
        found[place] = (blocks, names)
    return found
