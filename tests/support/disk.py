"""What a store takes of the disk, in blocks and names."""

from __future__ import annotations

import os

from support.roots import Root


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
