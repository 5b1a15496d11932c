"""Where our helper processes live: in a cgroup of their own, forked away from whoever asked for them, and last in line for the out-of-memory killer."""

from __future__ import annotations

import errno
import os

from sampan.kernel import cgroupfs, process


def fork_away(birthplace: str, join_files: list[str]) -> bool:
    """Fork into the helpers' cgroup; True in the child, which goes on, False in the parent, which has to end.

    Neither the end of the caller's session nor its limits are ours: so not in its cgroups. In a cgroup v2
    hierarchy, at `birthplace` ("" for none), the child is born (moving there costs 10 ms, a grace period of the kernel);
    v1's it joins by `join_files`. Where that is not allowed, it stays where it is.
    """
    if _fork(birthplace):
        return False
    for path in join_files:
        try:
            cgroupfs.write(path, "0", required=False)
        except OSError:
            continue  # one hierarchy less in which it is apart
    return True


def _fork(birthplace: str) -> int:
    if birthplace:
        try:
            directory = os.open(birthplace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            return process.clone3(0, directory)
        except OSError:
            pass  # the group takes no processes, as below a cgroup that is not ours to arrange
    return process.fork()


def be_spared() -> None:
    """Ask the out-of-memory killer to take others first; needs CAP_SYS_RESOURCE, and does without."""
    try:
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("-500")
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EPERM):
            raise
