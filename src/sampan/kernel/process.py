"""Processes: clone3(2), pidfds, prctl(2), signals, credentials. The only file with fork or clone in it.

Every function here is safe in a process that has never started a thread and is about to execute another
program; see "Laws of the child side" in docs/tour.md.
"""

from __future__ import annotations

import _struct
import errno
import os

from sampan.kernel.libc import SYS_CLONE3, SYS_CLOSE_RANGE, KernelError, buffer, by_machine, fork_by, pointers, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    import threading
    from typing import NoReturn
else:
    import _signal  # `signal` wraps every number in an enum: 10 ms of imports in each shim

CLONE_PARENT = 0x8000
CLONE_PARENT_SETTID = 0x100000
CLONE_INTO_CGROUP = 0x200000000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 15, 38
PR_SET_CHILD_SUBREAPER = 36

_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = by_machine(250, 219)
_SYS_EXECVEAT = by_machine(322, 281)
_SYS_MMAP = by_machine(9, 222)
_SYS_MUNMAP = by_machine(11, 215)
SYS_PRCTL = by_machine(157, 167)
_SYS_PRLIMIT64 = by_machine(302, 261)
_SYS_RT_SIGACTION = by_machine(13, 134)
_LIBRARY_SIGNALS = (32, 33)
_CLOSE_RANGE_CLOEXEC = 4
_PROT_READ, _PROT_WRITE, _MAP_SHARED, _MAP_ANONYMOUS = 1, 2, 1, 32
_PLACE_SIZE = 8192

# struct clone_args of clone3(2), up to `cgroup` (Linux 5.7): flags, pidfd, child_tid, parent_tid, exit_signal, stack,
# stack_size, tls, set_tid, set_tid_size, cgroup
_CLONE_ARGS = _struct.Struct("=11Q")


def fork() -> int:
    """fork(2) for a process that goes on running Python: only where no thread was ever started."""
    return os.fork()


def clone3(flags: int, cgroup_fd: int = -1, place: int = 0) -> int:
    """fork with namespace flags: 0 in the child, the child's pid in the parent (clone3(2)).

    With `CLONE_PARENT` the child is a sibling: the caller's parent is told of its end by the signal that it is told
    of the caller's, and `exit_signal` has to be 0. `cgroup_fd`, a cgroup v2 directory, makes the child start there.
    `place`: of `make_place`, where the kernel writes the child's pid before this returns.
    """
    if place:
        flags |= CLONE_PARENT_SETTID
    exit_signal = 0 if flags & CLONE_PARENT else _signal.SIGCHLD
    if cgroup_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    args = _CLONE_ARGS.pack(flags, 0, 0, place, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0))
    return fork_by(SYS_CLONE3, "clone3", args, len(args))


def make_place() -> int:
    """The address of 1024 numbers that this process shares with those that it forks from now on (mmap(2)); 0 at first.

    The first is for `clone3` in one of them: who made the place knows of the child even if the one between them is stopped, or killed. The others
    are the caller's (`libc.put_number`): what a process has written there outlives it, and costs no system call.
    """
    flags = _MAP_SHARED | _MAP_ANONYMOUS
    return raw(_SYS_MMAP, "mmap", "", 0, _PLACE_SIZE, _PROT_READ | _PROT_WRITE, flags, -1, 0)


def drop_place(place: int) -> None:
    """Give a place's memory back (munmap(2))."""
    raw(_SYS_MUNMAP, "munmap", "", place, _PLACE_SIZE)


def prctl(option: int, argument: int = 0, syscall: str = "prctl") -> int:
    """prctl(2) with one argument; `syscall` names the option in errors."""
    return raw(SYS_PRCTL, syscall, "", option, argument, 0, 0, 0)


def prctl2(option: int, first: int, second: int, syscall: str = "prctl") -> int:
    """prctl(2) with two arguments."""
    return raw(SYS_PRCTL, syscall, "", option, first, second, 0, 0)


def die_with_parent(signal: int) -> None:
    """Ask for `signal` when the parent dies; cleared by execve of a setuid program and by a change of credentials."""
    prctl(PR_SET_PDEATHSIG, signal, "prctl(PR_SET_PDEATHSIG)")


def set_dumpable(dumpable: bool) -> None:
    """Whether others may read /proc/PID and ptrace this process (proc(5), ptrace(2))."""
    prctl(PR_SET_DUMPABLE, int(dumpable), "prctl(PR_SET_DUMPABLE)")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    prctl(PR_SET_CHILD_SUBREAPER, 1, "prctl(PR_SET_CHILD_SUBREAPER)")


def set_no_new_privileges() -> None:
    """No execve grants more from here on (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    prctl(PR_SET_NO_NEW_PRIVS, 1, "prctl(PR_SET_NO_NEW_PRIVS)")


def set_name(name: str) -> None:
    """The process' name in ps, at most 15 bytes."""
    raw(SYS_PRCTL, "prctl(PR_SET_NAME)", "", PR_SET_NAME, name.encode()[:15] + b"\0", 0, 0, 0)


def set_credentials(uid: int, gid: int, groups: list[int]) -> None:
    """Become `uid`:`gid` with exactly `groups` as supplementary groups (credentials(7)).

    Groups first, then gid, then uid: each needs a privilege that the next one takes away.
    """
    call = "setgroups"
    try:
        os.setgroups(groups)
        call = "setresgid"
        os.setresgid(gid, gid, gid)
        call = "setresuid"
        os.setresuid(uid, uid, uid)
    except OSError as e:
        raise KernelError(e.errno or errno.EPERM, call) from None


def keep_capabilities(keep: bool) -> None:
    """Whether permitted capabilities outlive a change from uid 0 to another (capabilities(7))."""
    prctl(PR_SET_KEEPCAPS, int(keep), "prctl(PR_SET_KEEPCAPS)")


def get_resource_limit(number: int) -> tuple[int, int]:
    """The soft and the hard limit of this process (prlimit(2)); RLIM_INFINITY is 2**64 - 1."""
    old = buffer(16)
    raw(_SYS_PRLIMIT64, "prlimit", "", 0, number, None, old)
    return int.from_bytes(old.raw[:8], "little"), int.from_bytes(old.raw[8:], "little")


def set_resource_limit(number: int, soft: int, hard: int) -> None:
    """Set both limits of this process (prlimit(2)). Raises `KernelError` (EPERM: raised without CAP_SYS_RESOURCE)."""
    new = soft.to_bytes(8, "little") + hard.to_bytes(8, "little")
    raw(_SYS_PRLIMIT64, "prlimit", "", 0, number, new, None)


def new_session_keyring() -> None:
    """Leave the caller's session keyring for a new, empty one (keyctl(2)); a kernel without keyrings is fine."""
    try:
        raw(_SYS_KEYCTL, "keyctl(KEYCTL_JOIN_SESSION_KEYRING)", "", _KEYCTL_JOIN_SESSION_KEYRING, None)
    except KernelError as e:
        if e.errno != errno.ENOSYS:
            raise


def reap(pid: int) -> int:
    """The exit code of a child that has ended, as a shell counts it: 128 and the signal's number if one killed it."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from `first` to `last` (close_range(2), Linux 5.9)."""
    raw(SYS_CLOSE_RANGE, "close_range", "", first, last, 0)


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor that is not in `kept`."""
    first = 0
    for fd in sorted(set(kept)):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec; before Linux 5.11, which cannot mark a range, one by one."""
    try:
        raw(SYS_CLOSE_RANGE, "close_range", "", first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)
    except KernelError as e:
        if e.errno != errno.EINVAL:
            raise
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= first:
                _mark_close_on_exec(int(name))


def _mark_close_on_exec(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError as e:
        if e.errno != errno.EBADF:  # the listing's own descriptor, closed by now
            raise


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. Raises `KernelError` (EAGAIN) at the limit of processes, of which Python makes a RuntimeError (pthread_create(3))."""
    try:
        thread.start()
    except RuntimeError:
        raise KernelError(errno.EAGAIN, "clone3 of a thread") from None


def copy_program(path: str, dir_fd: int, name: str) -> None:
    """Copy a program into a directory, executable for everybody. Raises OSError."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755, dir_fd=dir_fd)
        try:
            os.fchmod(target, 0o755)
            while os.sendfile(target, source, None, 1 << 24):
                pass
        finally:
            os.close(target)
    finally:
        os.close(source)


def default_signals() -> None:
    """Every signal to its default and none blocked, as a new program expects it.

    Python ignores SIGPIPE and SIGXFSZ, a caller may have ignored others (nohup), and what is ignored or
    blocked outlives execve (signal(7)).
    """
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) == _signal.SIG_DFL:
            continue  # as nearly all are: Python has asked for each when it came up, and knows what changed since
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # SIGKILL, SIGSTOP and the two below
    for number in _LIBRARY_SIGNALS:
        # Past the C library, which keeps these two for itself; a caller may have had another library.
        action = bytes(32)  # struct sigaction of the kernel: SIG_DFL, no flags, empty mask
        raw(_SYS_RT_SIGACTION, "rt_sigaction", "", number, action, None, 8)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def execve_at(dir_fd: int, name: bytes, argv: list[bytes], env: list[bytes]) -> NoReturn:
    """Execute the program `name` of a directory (execveat(2)), whose last component becomes the process' name.

    Raises `KernelError`.
    """
    raw(_SYS_EXECVEAT, "execveat", name, dir_fd, name, pointers(argv), pointers(env), 0)
    raise AssertionError("execveat returned without an error")


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); with the pid it names one process.

    Raises `ProcessLookupError` when there is none.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    try:
        stat = os.read(fd, 4096)
    finally:
        os.close(fd)
    # The name, field 2, is in parentheses and may hold anything: count from its last one.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def lives(pid: int, started: int) -> bool:
    """Whether the process that began at `started` still runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            stat = f.read()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def open_process(pid: int, started: int) -> int:
    """A pidfd of the process that had `pid` and the start time `started`.

    The pid is opened first and the time compared then: a process that has taken over the number since is told
    apart. Raises `ProcessLookupError` when it is gone.
    """
    fd = os.pidfd_open(pid)
    try:
        if start_time(pid) != started:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    except BaseException:
        os.close(fd)
        raise
    return fd


def signal_process(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2)."""
    _signal.pidfd_send_signal(pidfd, number, None, 0)


def kill_process(pid: int, started: int, patience: float) -> None:
    """SIGKILL the process that began then, and wait for its end; nothing if it is gone (pidfd_open(2)).

    Raises `TimeoutError` if it is there after `patience` seconds (uninterruptible sleep).
    """
    import select  # whoever starts a container has no use for it

    try:
        fd = open_process(pid, started)
    except ProcessLookupError:
        return
    try:
        signal_process(fd, _signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(patience * 1000):
            raise TimeoutError(errno.ETIMEDOUT, f"process {pid} does not end")
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)
