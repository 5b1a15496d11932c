"""Where a shim lives: in a cgroup of its own, forked away from whoever asked for it."""

from __future__ import annotations

import os

from sampan.errors import Unavailable
from sampan.kernel import cgroup, process

GROUP = f"{cgroup.DEFAULT_PARENT}/shims"


def fork_away() -> bool:
    """Fork into the shims' cgroup; True in the child, which is the monitor, False in the parent, which has to end.

    Neither the end of the caller's session nor its limits are the container's: so not in its cgroups. Into a cgroup v2
    hierarchy the child is born (moving there costs 10 ms, a grace period of the kernel); v1's it joins, by `tasks`.
    Where cgroups cannot be made (a read-only file system inside another container) it stays where it is.
    """
    files: list[str] = []
    birthplace = -1
    try:
        driver = cgroup.detect()
        for directory in driver.directories(GROUP):
            cgroup.make_directory(directory)
        for write in driver.prepare(GROUP):
            cgroup.apply(write)
        files = driver.join_files(GROUP)
        birthplace = _open(driver.clone_directory(GROUP))
    except (OSError, Unavailable):
        pass
    if _fork(birthplace):
        return False
    for path in files:
        try:
            cgroup.apply(cgroup.Write(path, "0", False))
        except OSError:
            continue  # one hierarchy less in which it is apart
    return True


def _open(directory: str | None) -> int:
    return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if directory else -1


def _fork(birthplace: int) -> int:
    if birthplace >= 0:
        try:
            return process.clone3(0, birthplace)
        except OSError:
            pass  # the group takes no processes, as below a cgroup that is not ours to arrange
    return process.fork()
