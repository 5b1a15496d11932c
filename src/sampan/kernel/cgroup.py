"""Control groups: the data that every driver speaks, and the choice of a driver by what is mounted.

Three kinds of machine: *v1* (one hierarchy per controller), *hybrid* (v1 for the controllers and a cgroup2 mount
at `unified` beside them, which gives `cgroup.kill`), and *v2* (one hierarchy). A driver computes which directories
to make and which files to write; the steps of a start do so one by one, with `make_directory` and `apply`, so that
each can be described, timed and named in an error. Only killing and removing are whole operations here.

A *group* is a path below the root of every hierarchy, without a leading slash: "sampan/<container id>".

Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst of Linux, cgroups(7).
"""

from __future__ import annotations

from sampan.kernel.libc import KernelError
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

ROOT = "/sys/fs/cgroup"
DEFAULT_PARENT = "sampan"

ANY = -1
"""A device rule's major or minor number that stands for all."""


class DeviceRule(Struct):
    """One rule on devices; of the rules that match, the last one decides.

    type: "a" (both kinds), "b" or "c"; major, minor: `ANY` for all; access: some of "rwm".
    """

    allow: bool
    type: str
    major: int = ANY
    minor: int = ANY
    access: str = "rwm"


class Limits(Struct):
    """What a container may use; 0 means "not asked for".

    memory, memory_reservation: bytes. memory_swap: bytes of memory and swap together, -1 for no limit; 0 with
    memory set means twice the memory, as Docker has it. cpu_shares: v1's scale (2 to 262144). cpu_quota,
    cpu_period: microseconds. pids: tasks, -1 for no limit. devices: an empty tuple leaves devices alone.
    """

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    pids: int = 0
    devices: tuple[DeviceRule, ...] = ()


class Write(Struct):
    """One write into a file of a cgroup.

    required: False where the kernel may lack the knob or forbid it, and the container is no worse a container
    without: `apply` then passes over the errors of `TOLERATED`.
    """

    path: str
    value: str
    required: bool = True


class Hierarchy(Struct):
    """One mounted hierarchy and a group's place in it.

    mount: the mount point on the host. name: the directory's name below a container's /sys/fs/cgroup, such as
    "memory" or "cpu,cpuacct"; "" for v2, whose hierarchy is /sys/fs/cgroup itself. directory: the group's own
    directory on the host, which is what a container sees there.
    """

    mount: str
    name: str
    directory: str


class CgroupDriver(Protocol):
    """What a start, a kill and a removal need of cgroups. Every `group` is relative ("sampan/<id>")."""

    version: str
    """"v1", "hybrid" or "v2"."""
    controllers: frozenset[str]
    """The controllers that can be had here."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links beside the hierarchies, (name, target): ("cpu", "cpu,cpuacct")."""

    def hierarchies(self, group: str) -> list[Hierarchy]:
        """Every hierarchy with the group's directory in it, for the container's own view."""

    def directories(self, group: str) -> list[str]:
        """The directories to make, parents first; the ones that exist are fine (`make_directory`)."""

    def prepare(self, group: str) -> list[Write]:
        """What must be written, after the directories are made, before limits or processes."""

    def limits(self, group: str, limits: Limits) -> list[Write]:
        """The writes that set the limits, in an order that the kernel takes; nothing for what `check` discards."""

    def device_program(self, group: str) -> str | None:
        """v2: the directory to attach the device program to (`devicefilter.attach`); v1: None, `limits` has it."""

    def join_files(self, group: str) -> list[str]:
        """The files that a single-threaded process writes "0" to, to move itself in; pids is the last.

        What `clone_directory` covers is not among them.
        """

    def clone_directory(self, group: str) -> str | None:
        """The directory whose descriptor clone3(CLONE_INTO_CGROUP) takes, where there is a cgroup2 hierarchy."""

    def processes(self, group: str) -> list[int]:
        """The ids of all processes in the group and below it, in no order; [] when there is no such group."""

    def kill(self, group: str, timeout: float = 10.0) -> None:
        """SIGKILL every process of the group and below it, and wait until none is left.

        Raises `TimeoutError` when some are left after `timeout` seconds (uninterruptible sleep).
        """

    def remove(self, group: str, timeout: float = 2.0) -> None:
        """Remove the group with all groups below it; what is gone already is fine.

        Raises `OSError` (EBUSY) when processes are in it after `timeout` seconds.
        """

    def oom_kills(self, group: str) -> int:
        """How many processes the out-of-memory killer took in the group; 0 when nothing counts them."""


def group_name(container_id: str, parent: str = "") -> str:
    """The group of a container below `parent` (`--cgroup-parent`), never outside the hierarchy's root."""
    parts: list[str] = []
    for part in (parent or DEFAULT_PARENT).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join((*parts, container_id))


class CgroupError(KernelError):
    """The kernel refused something in a cgroup; `advice` says what to do about it ("" when nothing is known)."""

    def __init__(self, errno: int, syscall: str, path: str, advice: str = "") -> None:
        super().__init__(errno, syscall, path)
        self.advice = advice

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.advice})" if self.advice else super().__str__()


def detect(root: str = ROOT) -> CgroupDriver:
    """The driver for what is mounted at `root`. Raises `Unavailable` when no hierarchy is."""
    raise NotImplementedError


def by_version(version: str, root: str = ROOT) -> CgroupDriver:
    """The driver of a known version ("v1", "hybrid", "v2"); raises `Unavailable` when it is not what is mounted."""
    raise NotImplementedError
