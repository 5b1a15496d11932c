"""Descriptors of other processes: pidfd_getfd(2)."""

from __future__ import annotations

import errno
import os

from sampan.kernel import capabilities
from sampan.kernel.libc import KernelError, raw

_SYS_PIDFD_GETFD = 438

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_NOBODY = "3"


def take(pidfd: int, fd: int) -> int:
    """A descriptor here of what `fd` is in another process, close-on-exec.

    Raises `KernelError`: EBADF if it has no such descriptor, ESRCH if it has ended, EPERM if it may not be traced by us.
    """
    return raw(_SYS_PIDFD_GETFD, "pidfd_getfd", "", pidfd, fd, 0)


def why_not_taken() -> str:
    """What would keep another process with our privileges from a descriptor of ours; "" if nothing does (ptrace(2))."""
    try:
        with open(_YAMA, encoding="ascii") as file:
            scope = file.read().strip()
    except FileNotFoundError:
        scope = "0"
    if scope == _NOBODY:
        return f"no process may trace another one here ({_YAMA} is {scope})"
    if scope != "0" and not capabilities.have("CAP_SYS_PTRACE"):
        return f"it needs CAP_SYS_PTRACE where {_YAMA} is {scope}"
    pidfd = os.pidfd_open(os.getpid())
    try:
        os.close(take(pidfd, pidfd))
    except KernelError as e:
        return f"pidfd_getfd: {os.strerror(e.errno or errno.EPERM).lower()} (a seccomp filter of ours?)"
    finally:
        os.close(pidfd)
    return ""
