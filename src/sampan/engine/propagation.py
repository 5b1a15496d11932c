"""Whether a bind's source can do what its propagation asks: the mount that it is on has to be shared with the host's others."""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.kernel.libc import kernel_version
from sampan.kernel.mountinfo import unescape
from sampan.oci.mountpoint import FORCED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.oci.mountpoint import MountPoint


def check(point: MountPoint, mountinfo: str = "/proc/self/mountinfo") -> None:
    """Refuse a bind whose propagation or read-only mode cannot be had. Raises InvalidParameter in Docker's words."""
    if not point.rw and point.read_only == FORCED and kernel_version() < (5, 12):
        raise InvalidParameter("rro is not supported by the kernel: it needs Linux 5.12 or later")
    wanted = point.propagation.removeprefix("r")
    if wanted not in ("shared", "slave"):
        return
    place, tags = _mount_of(os.path.realpath(point.source), mountinfo)
    if "shared:" in tags or (wanted == "slave" and "master:" in tags):
        return
    kind = "shared" if wanted == "shared" else "shared or slave"
    raise InvalidParameter(f"path {point.source} is mounted on {place} but it is not a {kind} mount")


def _mount_of(path: str, mountinfo: str) -> tuple[str, str]:
    """The mount point that a path without links is on, and the mount's optional fields (proc_pid_mountinfo(5))."""
    best, tags = "", ""
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" - ")[0].split()
            point = unescape(fields[4])
            inside = point == "/" or path == point or path.startswith(f"{point}/")
            # Of two on the same place the later one is on top.
            if inside and len(point) >= len(best):
                best, tags = point, " ".join(fields[6:])
    return best, tags
