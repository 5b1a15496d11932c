"""What a process has got from the one that started it, and of which files it is made: whether one may stand in for another.

A process that was forked off somebody else's has that one's limits, namespaces and privileges. Two processes with the same
`surroundings` and the same `stamp` of their program differ in nothing that a container could notice.
"""

from __future__ import annotations

import os

from sampan.kernel import process

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_PRIVILEGES = (b"CapInh:", b"CapPrm:", b"CapEff:", b"CapBnd:", b"CapAmb:", b"NoNewPrivs:", b"Seccomp:", b"Groups:")
_LIMITS = range(16)
"""Of RLIMIT_CPU to RLIMIT_RTTIME (getrlimit(2))."""


def surroundings() -> str:
    """The namespaces, root directory, limits, privileges and scheduling of this process, as text. Raises OSError.

    Not what a shim leaves behind or sets itself: session, working directory, umask, signals, environment, descriptors.
    """
    root = os.stat("/")
    own = [
        *(_link(f"/proc/self/ns/{name}") for name in _NAMESPACES),
        f"{root.st_dev}:{root.st_ino}",
        *(f"{process.get_resource_limit(number)}" for number in _LIMITS),
        *(line.decode("ascii") for line in _read("/proc/self/status").split(b"\n") if line.startswith(_PRIVILEGES)),
        f"{sorted(os.sched_getaffinity(0))} {os.sched_getscheduler(0)} {os.getpriority(os.PRIO_PROCESS, 0)}",
        _read("/proc/self/personality").decode("ascii").strip(),
    ]
    return "\n".join(own)


def stamp(directories: list[str]) -> str:
    """Which Python files there are in some directories, and which version of each: inode, size and time of change. Raises OSError."""
    found = []
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    found.append(f"{entry.path} {status.st_ino} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(sorted(found))


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""  # a kernel without this kind of namespaces


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
