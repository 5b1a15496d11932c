"""The one door to the C library, and the one check that turns its errno into an exception.

System calls go through syscall(2), by number. On `_ctypes`, not on `ctypes`, whose fifty classes of C types
cost each command 3 ms and each shim 190 KiB (docs/adr/0008-below-ctypes.md).
"""

from __future__ import annotations

import _ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _CLong = _ctypes._SimpleCData[int]
    _CChar = _ctypes._SimpleCData[bytes]
else:
    _CLong = _CChar = _ctypes._SimpleCData


class _Long(_CLong):
    """long: the size of a register, in which the kernel takes every argument (syscall(2))."""

    _type_ = "l"


class _Char(_CChar):
    _type_ = "c"


class _Text(_CChar):
    """char *"""

    _type_ = "z"


class _Function(_ctypes.CFuncPtr):
    """A C function that gives a long and sets errno; while it runs, other threads do."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


class _FunctionOfPython(_Function):
    """The same, while which no other thread of Python runs."""

    _flags_ = _Function._flags_ | _ctypes.FUNCFLAG_PYTHONAPI


_LIBRARY = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # this process (dlopen(3))


def _address(name: str) -> int:
    return _ctypes.dlsym(_LIBRARY, name)


_syscall = _Function(_address("syscall"))
_syscall_alone = _FunctionOfPython(_address("syscall"))
_before_fork, _after_fork_in_child, _after_fork_in_parent = (
    _FunctionOfPython(_address(name)) for name in ("PyOS_BeforeFork", "PyOS_AfterFork_Child", "PyOS_AfterFork_Parent")
)

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


_version: list[tuple[int, int]] = []


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel (uname(2)), which stays what it is: steps ask by the dozen."""
    if not _version:
        major, minor, *_ = os.uname().release.split(".")
        _version.append((int(major), int("".join(c for c in minor if c.isdigit()))))
    return _version[0]


_there: dict[str, bool] = {}


def has_file(path: str) -> bool:
    """Whether this kernel shows a file that it has or has not as long as it runs, in /proc or /sys; each is looked for once."""
    found = _there.get(path)
    if found is None:
        found = _there[path] = os.path.exists(path)
    return found


class KernelError(OSError):
    """The kernel refused a system call: an `OSError` that also knows which call it was."""

    syscall: str

    def __init__(self, errno: int, syscall: str, path: str | bytes = "") -> None:
        super().__init__(errno, os.strerror(errno), os.fsdecode(path) if path else None)
        self.syscall = syscall

    def __str__(self) -> str:
        where = f" {self.filename!r}" if self.filename else ""
        return f"{self.syscall}{where}: {self.strerror}"


def buffer(size: int) -> Any:
    """Room for `size` bytes that a system call fills; they are its `raw`."""
    return (_Char * size)()


def filled(data: bytes) -> Any:
    """A `buffer` with something in it, which the kernel may change."""
    return (_Char * len(data)).from_buffer_copy(data)


def pointers(texts: list[bytes]) -> Any:
    """A char *[] that ends with a null pointer, as execve(2) takes it."""
    return (_Text * (len(texts) + 1))(*texts)


def address(value: Any) -> int:
    """Where a `buffer` is in memory, for a structure that points to it."""
    return _ctypes.addressof(value)


def number_at(where: int) -> int:
    """The number at an address of this process' memory, as large as a register."""
    return _Long.from_address(where).value


def put_number(where: int, number: int) -> None:
    """The same, written."""
    _Long.from_address(where).value = number


def syscall(number: int, *args: Any) -> int:
    """Make the system call `number`: what it returned, and the errno is `last_errno`.

    Integers are passed as longs, so that a negative descriptor stays one; bytes and buffers as pointers to them; None as
    the null pointer.
    """
    result: int = _syscall(_Long(number), *[_Long(a) if isinstance(a, int) else a for a in args])
    return result


def last_errno() -> int:
    """The errno of this thread's last `syscall`."""
    return _ctypes.get_errno()


def raw(number: int, name: str, path: str | bytes, *args: Any) -> int:
    """Make the system call `number` and return what it returned. Raises `KernelError` for -1.

    `name` and `path` go into the error: a failure without its path is of no use to a user.
    """
    # As `syscall`, and not by it: of all that a start calls, this is called most.
    result: int = _syscall(_Long(number), *[_Long(a) if isinstance(a, int) else a for a in args])
    if result == -1:
        raise KernelError(_ctypes.get_errno(), name, path)
    return result


def fork_by(number: int, name: str, *args: Any) -> int:
    """Make a system call that forks: 0 in the child, the child's pid in the parent. Raises `KernelError` in the parent.

    The GIL is kept over the call: the child must come back to Python with it, and no thread of this process may run
    between what Python does before a fork and the fork.
    """
    arguments = [_Long(a) if isinstance(a, int) else a for a in args]
    _before_fork()
    pid: int = _syscall_alone(_Long(number), *arguments)
    if pid == 0:
        _after_fork_in_child()
        return 0
    failure = _ctypes.get_errno()
    _after_fork_in_parent()
    if pid == -1:
        raise KernelError(failure, name)
    return pid


def give_memory_back() -> None:
    """Return the heap's free pages to the kernel (malloc_trim(3)); a C library without it keeps them."""
    try:
        trim = _Function(_address("malloc_trim"))
    except OSError:
        return
    trim(_Long(0))
