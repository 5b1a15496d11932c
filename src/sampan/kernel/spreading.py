"""Where an ext4 puts new directories: ioctl_iflags(2), and `T` in chattr(1)."""

from __future__ import annotations

import array
import fcntl
import os

_FS_IOC_GETFLAGS = 0x80086601  # _IOR('f', 1, long), as the manual page has it; the kernel reads and writes an int
_FS_IOC_SETFLAGS = 0x40086602  # _IOW('f', 2, long)
_FS_TOPDIR_FL = 0x20000


def spread_subdirectories(path: str) -> None:
    """Have each new directory in this one begin in a part of the disk with few directories, and not beside its parent.

    For directories that have nothing to do with each other and hold thousands of files. An ext4 looks for a free inode from
    the beginning of its directory's group, and where it has no journal it passes over each one that was removed in the
    last minutes, by a look at it: after a large removal thousands of times for every new file. In another group there are none.

    A hint: nothing happens where the file system knows no such thing, or the directory is not ours.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = array.array("i", [0, 0])
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        if not flags[0] & _FS_TOPDIR_FL:
            flags[0] |= _FS_TOPDIR_FL
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, flags)
    except OSError:
        pass
    finally:
        os.close(fd)
