"""The one handle on the C library and the one check that turns its errno into an exception.

Importing this module costs the 6 ms of `ctypes`; every other module of `kernel` goes through it.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
"""The C library; calls release the GIL."""

libc.syscall.restype = ctypes.c_long

# System call numbers since Linux 5.0 are the same on every architecture but alpha (Documentation/process/adding-syscalls.rst),
# and glibc 2.31 (Debian 11) has wrappers for none of these.
SYS_PIDFD_SEND_SIGNAL = 424
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_PIDFD_OPEN = 434
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

_MACHINE = os.uname().machine


def by_machine(x86_64: int, generic: int) -> int:
    """A system call number that differs: x86-64's own table, or the generic one (aarch64, riscv64)."""
    return x86_64 if _MACHINE == "x86_64" else generic


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel (uname(2))."""
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int("".join(c for c in minor if c.isdigit()))


class KernelError(OSError):
    """The kernel refused a system call: an `OSError` that also knows which call it was."""

    syscall: str

    def __init__(self, errno: int, syscall: str, path: str | bytes = "") -> None:
        super().__init__(errno, os.strerror(errno), os.fsdecode(path) if path else None)
        self.syscall = syscall

    def __str__(self) -> str:
        where = f" {self.filename!r}" if self.filename else ""
        return f"{self.syscall}{where}: {self.strerror}"


def check(ret: int, syscall: str, path: str | bytes = "") -> int:
    """Return what a system call returned, or raise `KernelError` for -1.

    `syscall` and `path` go into the error: a failure without its path is of no use to a user.
    """
    if ret == -1:
        raise KernelError(ctypes.get_errno(), syscall, path)
    return ret


def raw(number: int, syscall: str, path: str | bytes, *args: Any) -> int:
    """Make the system call `number`; integers are passed as longs, so that a negative descriptor stays one."""
    return check(
        libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args)),
        syscall,
        path,
    )


def give_memory_back() -> None:
    """Return the heap's free pages to the kernel (malloc_trim(3)); a C library without it keeps them."""
    trim = getattr(libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
