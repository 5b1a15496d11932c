"""The pseudo-terminal of another process, as it is found through what that has open (proc(5), /proc/PID/fd)."""

from __future__ import annotations

import errno
import os
import stat

_PTS_MAJORS = range(136, 144)
"""Of the devices that are peers of pseudo-terminals (Linux, Documentation/admin-guide/devices.txt)."""


def open_terminal(pid: int) -> int:
    """A pseudo-terminal that is one of a process's standard streams, -1 if none is.

    Looked at before it is opened: another device, a fifo or a socket in its place would notice the opening, or hold it up. Raises
    ProcessLookupError.
    """
    for number in (0, 1, 2):
        try:
            seen = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            if not os.path.exists(f"/proc/{pid}"):
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
            continue  # it has closed that one
        try:
            status = os.fstat(seen)
            if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _PTS_MAJORS:
                return os.open(f"/proc/self/fd/{seen}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(seen)
    return -1
