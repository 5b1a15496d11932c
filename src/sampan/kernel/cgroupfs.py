"""Files and trees of a mounted cgroup file system: what both versions have in common.

Two rules of kernfs make the walks here cheap and safe. A directory's link count is 2 plus its sub-directories, so a
group without groups below it costs one stat. And `..` can be opened, so that a tree of any depth (a privileged
container may have made it) is walked with one descriptor, without recursion and without paths longer than PATH_MAX.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.kernel.libc import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGKILL = 9  # the `signal` module imports enum

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class CgroupError(KernelError):
    """The kernel refused something in a cgroup; `advice` says what to do about it ("" when nothing is known)."""

    def __init__(self, errno: int, syscall: str, path: str, advice: str = "") -> None:
        super().__init__(errno, syscall, path)
        self.advice = advice

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.advice})" if self.advice else super().__str__()


def make_directory(path: str) -> None:
    """Make a group's directory, and those above it that are missing; one that exists is fine. Raises `CgroupError`."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        make_directory(path)
    except OSError as e:
        raise CgroupError(e.errno or errno.EIO, "mkdir", path, advice(e.errno, path)) from None


def advice(number: int | None, path: str) -> str:
    """What a user can do about the errno that an access to `path`, in a cgroup, gave; "" when nothing is known."""
    if number == errno.EROFS:
        return (
            "cgroups are mounted read-only here, as inside most containers: "
            "run the outer container with --privileged or mount its /sys/fs/cgroup read-write"
        )
    if number == errno.EPERM and path.endswith("/devices.allow"):
        return "the group above may not use the device itself, as inside a container that is not privileged"
    if number in (errno.EACCES, errno.EINVAL, errno.ERANGE) and path.endswith(("cpuset.cpus", "cpuset.mems")):
        return "the group above does not have all of these"
    if number in (errno.EACCES, errno.EPERM):
        return "the cgroups here belong to somebody else: root is needed, or a delegated cgroup"
    if number == errno.EBUSY and path.endswith("memory.limit_in_bytes"):
        return "more memory than that is in use"
    if number == errno.ENOSPC:
        return "the cpuset has no cpus or memory nodes, or the kernel's number of cgroups is reached"
    if number == errno.EAGAIN:
        return "the cgroup's pids limit is reached, or cgroup.max.depth or cgroup.max.descendants above it"
    if number == errno.ENODEV and path.endswith(("io.max", "_device", "io.weight", "io.bfq.weight")):
        return "limits on block I/O are set on a whole disk, not on a partition or a character device"
    if number == errno.EOPNOTSUPP and path.endswith(("weight_device", "io.bfq.weight", "io.weight")):
        return "the disk has another scheduler than bfq, which alone knows weights (/sys/block/DISK/queue/scheduler)"
    if number == errno.EINVAL and path.endswith("cpu.rt_runtime_us"):
        return "a group gives out no more real time than it has: the containers' sum is limited by the groups above"
    if number in (errno.ENOENT, errno.EOPNOTSUPP, errno.EBUSY):
        return _advice_on_delegation(os.path.dirname(path))
    return ""


def _advice_on_delegation(group: str) -> str:
    """Why a v2 group has no knobs or takes no process: mostly because of what a group above it is or holds."""
    parent = above = os.path.dirname(group)
    while get(f"{above}/cgroup.controllers") is not None:
        kind = get(f"{above}/cgroup.type") or ""
        if "threaded" in kind:
            return f"{above} is a threaded cgroup, which cannot hold containers: choose another --cgroup-parent"
        if kind == "domain" and get(f"{above}/cgroup.procs"):
            return _MOVE_AWAY.format(above)
        above = os.path.dirname(above)
    if above == parent:
        return ""  # not a v2 hierarchy
    return f"the controller is not enabled in {parent}/cgroup.subtree_control"


_MOVE_AWAY = (
    "{0} holds processes of its own, and a cgroup with processes passes no controllers on: move them into a cgroup "
    "below it (mkdir {0}/init; write their ids to {0}/init/cgroup.procs), as a nested container's entrypoint has to do"
)


def passes_controllers(group: str) -> bool:
    """Whether a v2 group can pass controllers on to groups below it: it has no processes, or is the root of all.

    The root of a cgroup namespace is no root in this sense. The text is looked at and not the ids: 0 stands for
    each process of another pid namespace.
    """
    kind = get(f"{group}/cgroup.type")
    return kind is None or (kind == "domain" and not get(f"{group}/cgroup.procs"))


def get(path: str, dir_fd: int | None = None) -> str | None:
    """The text of a cgroup file without the last line's end; None when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _read_all(fd).decode("ascii", "replace").rstrip("\n")
    except OSError as e:
        if e.errno == errno.ENODEV:  # the group was removed after the open
            return None
        raise
    finally:
        os.close(fd)


def put(path: str, value: str, dir_fd: int | None = None) -> None:
    """Write a cgroup file in one write(2), as the kernel wants it. Raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


TOLERATED = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EOPNOTSUPP, errno.EINVAL}
)
"""What `write` passes over for a write that is not required."""


def write(path: str, value: str, required: bool) -> int:
    """Write a knob. Returns 0, or the errno that was passed over; raises `CgroupError` when it was required."""
    try:
        put(path, value)
    except OSError as e:
        if not required and e.errno in TOLERATED:
            return e.errno
        raise CgroupError(e.errno or errno.EIO, f"write {value!r} to", path, advice(e.errno, path)) from None
    return 0


def put_if_there(path: str, value: str, dir_fd: int | None = None) -> bool:
    """Write a cgroup file; False when the file or its group is not there (any more)."""
    try:
        put(path, value, dir_fd)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENODEV):
            return False
        raise
    return True


def counter(text: str | None, name: str) -> int:
    """The number of the line `name` in a file of "name number" lines; 0 when there is none."""
    for line in (text or "").splitlines():
        key, _, number = line.partition(" ")
        if key == name:
            return int(number)
    return 0


def pids(path: str, dir_fd: int | None = None) -> list[int]:
    """The process ids in a cgroup.procs file; [] when there is none.

    Zombies are not listed. A process of another pid namespace, which cannot be named here, is shown as 0 and left out.
    """
    try:
        text = get(path, dir_fd)
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:  # a threaded cgroup: its processes are listed at its domain's root
            return []
        raise
    return [pid for pid in map(int, (text or "").split()) if pid]


def levels(mount: str, group: str) -> list[str]:
    """The directories from the hierarchy's root down to the group, both included."""
    found = [mount]
    for part in group.split("/"):
        found.append(f"{found[-1]}/{part}")
    return found


def walk(path: str) -> Iterator[tuple[int, list[str]]]:
    """Every group at and below `path`, children before parents: (descriptor, the names of its children).

    The descriptor is only good until the next item. A group that vanishes meanwhile is left out.
    """
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        children = _children(fd)
        levels = [(children, children.copy())]  # on each level down to fd: the children, those still to be entered
        while True:
            children, left = levels[-1]
            if left:
                try:
                    below = os.open(left.pop(), _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    continue
                os.close(fd)
                fd = below
                children = _children(fd)
                levels.append((children, children.copy()))
                continue
            yield fd, children
            levels.pop()
            if not levels:
                return
            above = os.open("..", _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = above
    finally:
        os.close(fd)


def processes_below(path: str) -> set[int]:
    """The ids of the processes in the group at `path` and in the groups below it."""
    try:
        if os.stat(path).st_nlink == 2:
            return set(pids(f"{path}/cgroup.procs"))
    except FileNotFoundError:
        return set()
    found: set[int] = set()
    for fd, _ in walk(path):
        found.update(pids("cgroup.procs", fd))
    return found


def remove_tree(path: str, deadline: float) -> None:
    """Remove the group at `path` and all below it. Raises `CgroupError` when it is in use until `deadline`.

    A group stays busy for a moment after its last process is gone: exit is seen before the kernel lets go of it.
    """
    delay = 0.0005
    while True:
        try:
            os.rmdir(path)  # mostly there is nothing below, and no walk is needed
            return
        except FileNotFoundError:
            return
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise CgroupError(e.errno or errno.EIO, "rmdir", path, advice(e.errno, path)) from None
        _remove_children(path)
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > deadline:
                inside = " ".join(map(str, sorted(processes_below(path))[:8]))
                raise CgroupError(
                    e.errno or errno.EIO, "rmdir", path, f"processes are in it: {inside}" if inside else ""
                ) from None
        time.sleep(delay)
        delay = min(delay * 2, 0.02)


def _remove_children(path: str) -> None:
    for fd, children in walk(path):
        for name in children:
            try:
                os.rmdir(name, dir_fd=fd)
            except FileNotFoundError:
                pass
            except OSError as e:
                if e.errno != errno.EBUSY:
                    raise
                return  # the caller tries again, and tells what is in the way


def kill_until_empty(
    processes: Callable[[], list[int]], strike: Callable[[], None], timeout: float, stuck_timeout: float
) -> None:
    """Strike again and again until no process is left. Raises `TimeoutError` after `timeout` seconds.

    After `stuck_timeout` seconds already if all that are left are in uninterruptible sleep: SIGKILL waits for its end.

    One blow is not enough where a process joins from outside at the same time (`exec`), and death takes a moment.
    """
    begun = time.monotonic()
    delay = 0.0002
    while left := processes():
        spent = time.monotonic() - begun
        if spent > timeout or (spent > stuck_timeout and all(map(_is_stuck, left))):
            raise TimeoutError(errno.ETIMEDOUT, f"processes do not die: {' '.join(map(str, sorted(left)[:8]))}")
        strike()
        time.sleep(delay)
        delay = min(delay * 2, 0.02)


def kill_each(ids: set[int]) -> None:
    """SIGKILL to each; the ones that are gone are fine.

    Between reading an id and the kill, the id may come to belong to another process, unless the group is frozen:
    callers freeze it first where they can.
    """
    for pid in ids:
        try:
            os.kill(pid, SIGKILL)
        except ProcessLookupError:
            pass


def _is_stuck(pid: int) -> bool:
    """Whether it is in uninterruptible sleep (proc_pid_stat(5)), or has gone."""
    stat = get(f"/proc/{pid}/stat")
    return stat is None or stat.rpartition(")")[2].startswith(" D")


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask until the condition holds, for at most `seconds`; what it was at last."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def _children(fd: int) -> list[str]:
    if os.fstat(fd).st_nlink == 2:
        return []
    with os.scandir(fd) as entries:
        return [e.name for e in entries if e.is_dir(follow_symlinks=False)]


def _read_all(fd: int) -> bytes:
    # To the end, whatever the length: the kernel cuts a long list at a record's end and not at the buffer's.
    parts = []
    while text := os.read(fd, 65536):
        parts.append(text)
    return b"".join(parts)
