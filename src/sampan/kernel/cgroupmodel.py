"""What is said to a cgroup driver and what it answers: plain data, and the Protocol of the drivers.

A *group* is a path below the root of every hierarchy, without a leading slash: "sampan/<container id>".
"""

from __future__ import annotations

from sampan.kernel.livegroup import LiveGroup
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sampan.kernel.cgroupusage import Usage
else:
    Protocol = object

DEFAULT_PARENT = "sampan"

ANY = -1
"""A device rule's major or minor number that stands for all."""


MIN_SHARES, MAX_SHARES = 2, 262144
"""The bounds of v1's cpu.shares."""

CONTROLLERS = frozenset(
    [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "misc",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
    ]
)
"""The controllers of v1; what else names a directory is a hierarchy without controllers, as systemd's."""


class DeviceRule(Struct):
    """One rule on devices: for every access, the last rule that matches decides; without one it is denied.

    type: "a" (both kinds), "b" or "c"; major, minor: `ANY` for all; access: some of "rwm".
    """

    allow: bool
    type: str
    major: int = ANY
    minor: int = ANY
    access: str = "rwm"

    def matches_everything(self) -> bool:
        return self.type == "a" and self.major == self.minor == ANY and set(self.access) == set("rwm")


class Throttle(Struct):
    """A limit on one disk. knob: "read_bps", "write_bps" (bytes a second), "read_iops", "write_iops" (operations)."""

    knob: str
    major: int
    minor: int
    rate: int


class BlockWeight(Struct):
    """A share of one disk's time, 10 to 1000."""

    major: int
    minor: int
    weight: int


class Limits(Struct):
    """What a container may use; 0 and "" mean "not asked for".

    memory, memory_reservation: bytes. memory_swap: bytes of memory and swap together, -1 for no limit; 0 with
    memory set means twice the memory, as Docker has it. cpu_shares: v1's scale (2 to 262144). cpu_quota,
    cpu_period, cpu_realtime_runtime, cpu_realtime_period: microseconds. pids: tasks, -1 for no limit. devices: an empty
    tuple leaves devices alone. memory_swappiness: 0 to 100, -1 is "not asked for". cpuset_cpus, cpuset_mems: lists as
    cpuset(7) has them ("0-2,7"). block_weight: 10 to 1000. hugepages: (page size as the files have it, "2MB"; bytes).
    """

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    pids: int = 0
    devices: tuple[DeviceRule, ...] = ()
    memory_swappiness: int = -1
    oom_kill_disable: bool = False
    cpu_realtime_runtime: int = 0
    cpu_realtime_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    block_weight: int = 0
    block_weights: tuple[BlockWeight, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    hugepages: tuple[tuple[str, int], ...] = ()


class Write(Struct):
    """One write into a file of a cgroup.

    required: False where the kernel may lack the knob or forbid it, and the container is no worse a container
    without: `apply` then passes over the errors of `cgroupfs.TOLERATED`. unless_set: only where the file says nothing yet.
    """

    path: str
    value: str
    required: bool = True
    unless_set: bool = False


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
    """"v1", "hybrid", "v2", or "none" where no group can be made (`nocgroup`)."""
    reason: str
    """Why no group can be made, and what to do about it; "" where groups can be made."""
    controllers: frozenset[str]
    """The controllers that can be had here."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links beside the hierarchies, (name, target): ("cpu", "cpu,cpuacct")."""

    def supports(self, feature: str) -> bool:
        """Whether the kernel has the knob.

        "memory", "swap", "reservation", "swappiness", "oom kill disable", "shares", "quota", "realtime", "cpuset", "pids",
        "block weight", "read_bps", "write_bps", "read_iops", "write_iops", "hugetlb", "devices".
        """

    def cpuset(self) -> tuple[str, str]:
        """The machine's processors and memory nodes, as lists, where there is "cpuset"."""

    def hierarchies(self, group: str) -> list[Hierarchy]:
        """Every hierarchy with the group's directory in it, for the container's own view."""

    def directories(self, group: str) -> list[str]:
        """The group's directories; `make_directory` makes them, with the parents that are missing."""

    def prepare(self, group: str) -> list[Write]:
        """What must be written when the directories are there, before limits and processes.

        Computed from what the groups above hold, so that it can be asked before the directories are made.
        """

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

    def live(self, group: str) -> LiveGroup:
        """The group's directories, for whoever watches over it without a driver; the verbs below are its own."""

    def processes(self, group: str) -> list[int]:
        """The ids of all processes in the group and below it, in no order; [] when there is no such group."""

    def kill(self, group: str, timeout: float = 10.0, stuck_timeout: float = 10.0) -> None:
        """SIGKILL every process of the group and below it, and wait until none is left.

        Raises `TimeoutError` when some are left after `timeout` seconds, or after `stuck_timeout` seconds none but such
        as are in uninterruptible sleep.
        """

    def remove(self, group: str, timeout: float = 2.0) -> None:
        """Remove the group with all groups below it; what is gone already is fine.

        Raises `OSError` (EBUSY) when processes are in it after `timeout` seconds.
        """

    def remove_empty(self, group: str) -> bool:
        """Remove the group if nothing is in it, or it is gone already; False if something is."""

    def oom_kills(self, group: str) -> int:
        """How many processes the out-of-memory killer took in the group; 0 when nothing counts them."""

    def usage(self, group: str) -> Usage:
        """What the group has used so far; the parts that this kernel does not count, or all of a group that is gone, are None."""

    def freeze(self, group: str, timeout: float = 5.0) -> None:
        """Stop every process of the group and below it, and wait until none runs any more.

        Raises `TimeoutError` after `timeout` seconds, the group goes on then; `OSError` without such a group, or a freezer.
        """

    def thaw(self, group: str) -> None:
        """Let the processes of the group go on; one that is not frozen, or is gone, is left as it is."""

    def thawing(self, group: str) -> tuple[str, str]:
        """What `thaw` does, for somebody else to do it: a file, and what to write to it. Raises `OSError` as `freeze`."""

    def frozen(self, group: str) -> bool:
        """Whether this group itself was told to stand still."""
