"""Namespaces: flags, unshare(2), setns(2), and what is set inside them."""

from __future__ import annotations

import _thread
import os

from sampan.kernel import mount
from sampan.kernel.libc import by_machine, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

_SYS_SETHOSTNAME, _SYS_SETDOMAINNAME = by_machine(170, 161), by_machine(171, 162)
_SYS_SETNS = by_machine(308, 268)
_SYS_UNSHARE = by_machine(272, 97)

_NS_GET_NSTYPE = 0xB703

CLONE_FS = 0x200
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

FLAGS = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
"""The OCI runtime specification's names (config-linux.md, "Namespaces") to the kernel's flags."""

FILES = {
    "user": "user",
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time",
}
"""The same names to the files in /proc/PID/ns (namespaces(7)); a new child's pid and time are in `*_for_children`."""


def unshare(flags: int) -> None:
    """unshare(2)."""
    raw(_SYS_UNSHARE, "unshare", "", flags)


def setns(fd: int, flags: int) -> None:
    """setns(2): `fd` is a namespace file, or a pidfd with several flags (Linux 5.8)."""
    raw(_SYS_SETNS, "setns", "", fd, flags)


def kind_of(fd: int) -> int:
    """The CLONE_NEW* flag of the namespace that a descriptor is (ioctl_ns(2)), 0 if it is none."""
    import fcntl

    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        return 0


_supported: dict[str, bool] = {}


def supported(name: str) -> bool:
    """Whether this kernel has the namespace kind `name`."""
    if name not in _supported:
        _supported[name] = os.path.exists(f"/proc/self/ns/{FILES[name]}")
    return _supported[name]


def set_hostname(name: str) -> None:
    """sethostname(2), of the UTS namespace that this process is in; at most 64 bytes."""
    data = os.fsencode(name)
    raw(_SYS_SETHOSTNAME, "sethostname", name, data, len(data))


def set_domainname(name: str) -> None:
    """setdomainname(2): the NIS domain name."""
    data = os.fsencode(name)
    raw(_SYS_SETDOMAINNAME, "setdomainname", name, data, len(data))


def private_mounts() -> None:
    """Leave for a mount namespace of our own from which nothing gets back to the host's."""
    unshare(CLONE_NEWNS)
    mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)


def apart(function: Callable[[], T]) -> T:
    """Run `function` in a mount namespace that ends with it, and come back. Only for a process without threads.

    A detached mount that it returns stays. The working directory is / afterwards (setns(2)).
    """
    # The thread's and not the process': in a thread of `in_thread` they may be two.
    own = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        private_mounts()
        try:
            return function()
        finally:
            setns(own, CLONE_NEWNS)
    finally:
        os.close(own)


def in_network(fd: int, function: Callable[[], T]) -> T:
    """Run `function` in another network namespace, and come back; sockets that it makes stay there. Raises `KernelError`.

    For a process without threads, which it would leave in two namespaces; others call it by `in_thread`.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
        try:
            return function()
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


_WAY_BACK = ("network", "pid", "mount")


def born_inside(pidfd: int, clone: Callable[[], int]) -> int:
    """Call `clone` from within the mount, pid and network namespaces of a process, so that its child is born there, and come back.

    What `clone` gives: the child's pid, 0 in the child, which stays. Only for a process without threads, whose working directory is / (setns(2)). Raises
    what `clone` raises, and `KernelError` if it cannot go there or would not come back. One that cannot come back all the same ends at once: what it did
    next would be done in another's files.
    """
    us = os.getpid(), os.getppid()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    own: list[tuple[int, int]] = []
    try:
        for kind in _WAY_BACK:
            own.append((os.open(f"/proc/self/ns/{FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC), FLAGS[kind]))
        # Before anything else, from here to here: who may go there may be nobody who may come back.
        _enter(own, root)
        setns(pidfd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET)
        try:
            pid = clone()
        except BaseException:
            if (os.getpid(), os.getppid()) != us:
                os._exit(1)  # the child, in which Python has failed: it stays what it is, and there is no second parent
            _come_back(own, root)
            raise
        if pid:
            _come_back(own, root)
        return pid
    finally:
        for fd in (root, *(fd for fd, _ in own)):
            os.close(fd)


def _come_back(own: list[tuple[int, int]], root: int) -> None:
    try:
        _enter(own, root)
    except BaseException:
        os._exit(1)


def _enter(spaces: list[tuple[int, int]], root: int) -> None:
    for fd, flag in spaces:
        setns(fd, flag)
    # A mount namespace is entered at its root, which need not be the one that this process had (chroot(2)): it is in the wrong place now.
    try:
        os.fchdir(root)
        os.chroot(".")
    except BaseException:
        os._exit(1)


def new_network() -> int:
    """A descriptor of a new network namespace, in which nobody lives. It and what is in it end with the last descriptor.

    The calling thread is in it for a moment. Raises `KernelError`.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


def user_namespace(uid_map: str, gid_map: str) -> int:
    """A descriptor of a new user namespace with these maps (user_namespaces(7)), in which nobody lives.

    A child makes it, which is ended when the maps are written.
    """
    return _by_child(CLONE_NEWUSER, uid_map, gid_map)[0]


def user_and_network(uid_map: str, gid_map: str) -> tuple[int, int]:
    """The same with a new network namespace that belongs to it: (the user namespace, the network namespace)."""
    user, network = _by_child(CLONE_NEWUSER | CLONE_NEWNET, uid_map, gid_map)
    return user, network


def _by_child(flags: int, uid_map: str, gid_map: str) -> list[int]:
    """Descriptors of the namespaces that `flags` name, the user namespace first."""
    from sampan.kernel import process

    here, there = os.pipe2(os.O_CLOEXEC)
    try:
        pid = process.clone3(flags)
    except OSError:  # there are as many as /proc/sys/user/max_user_namespaces allows
        os.close(here)
        os.close(there)
        raise
    if pid == 0:
        try:
            os.close(there)
            os.read(here, 1)
        finally:
            os._exit(0)
    opened: list[int] = []
    try:
        os.close(here)
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        for name in ("user", "network"):
            if flags & FLAGS[name]:
                opened.append(os.open(f"/proc/{pid}/ns/{FILES[name]}", os.O_RDONLY | os.O_CLOEXEC))
        return opened
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    finally:
        os.close(there)
        # Not left to end by itself: where other threads run, one of them may have had a lock of the C library when the child was cloned, which
        # the child then waits for, before its first line.
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def in_user_namespace() -> bool:
    """Whether this process is in another user namespace than the machine's first, whose ids are all mapped to themselves."""
    return _own_map("uid_map") != [[b"0", b"0", b"4294967295"]]


def has_group(gid: int) -> bool:
    """Whether the id means a group in this user namespace (user_namespaces(7): the map's lines are first, outside, count)."""
    return any(int(first) <= gid < int(first) + int(count) for first, _, count in _own_map("gid_map"))


_maps: dict[tuple[int, str], list[list[bytes]]] = {}
"""The maps that a process has read of itself: each start asks three times."""


def _own_map(name: str) -> list[list[bytes]]:
    """The lines of one of this process' maps, which are written once and stay (user_namespaces(7)), but for a child in a namespace of its own."""
    key = os.getpid(), name
    found = _maps.get(key)
    if found is None:
        found = _read_map(name)
        if found:  # one that has not been written yet is empty
            _maps[key] = found
    return found


def _read_map(name: str) -> list[list[bytes]]:
    """Without what `open()` asks about a file first."""
    fd = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while part := os.read(fd, 1 << 14):
            text += part
    finally:
        os.close(fd)
    return [line.split() for line in text.splitlines()]


def in_thread(function: Callable[[], T]) -> T:
    """Run `function` in a thread that has a root and a working directory of its own (unshare(2), CLONE_FS), and wait for it.

    What it does to its mount namespace, its root and its directory happens to nobody else and ends with it.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def body() -> None:
        try:
            unshare(CLONE_FS)
            outcome.append(function())
        except BaseException as e:
            failure.append(e)
        finally:
            done.release()

    _thread.start_new_thread(body, ())
    done.acquire()
    if failure:
        raise failure[0]
    return outcome[0]


def in_private_mounts(function: Callable[[], T]) -> T:
    """Run `function` in a thread that has a mount namespace of its own as well.

    For processes that may have threads: a mount made there is seen by nobody and ends with the thread.
    """

    def body() -> T:
        private_mounts()
        return function()

    return in_thread(body)
