"""Control groups: the data that every driver speaks, and the choice of a driver by what is mounted.

Three kinds of machine: *v1* (one hierarchy per controller), *hybrid* (v1 for the controllers and a cgroup2 mount
at `unified` beside them, which gives `cgroup.kill`), and *v2* (one hierarchy). A driver computes which directories
to make and which files to write; the steps of a start do so one by one, with `make_directory` and `apply`, so that
each can be described, timed and named in an error. Only killing and removing are whole operations here.

A *group* is a path below the root of every hierarchy, without a leading slash: "sampan/<container id>".

Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst of Linux, cgroups(7).
"""

from __future__ import annotations

import errno
import os

from sampan.errors import InvalidParameter, Unavailable
from sampan.kernel import cgroupfs
from sampan.kernel.cgroupfs import CgroupError as CgroupError
from sampan.kernel.cgroupfs import make_directory as make_directory
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

    def supports(self, feature: str) -> bool:
        """Whether the kernel has the knob: "memory", "swap", "reservation", "shares", "quota", "pids", "devices"."""

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


TOLERATED = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EOPNOTSUPP, errno.EINVAL}
)
"""What `apply` passes over for a write that is not required."""


def apply(write: Write) -> int:
    """Do one write. Returns 0, or the errno that was passed over; raises `CgroupError` when it was required."""
    try:
        cgroupfs.put(write.path, write.value)
    except OSError as e:
        if not write.required and e.errno in TOLERATED:
            return e.errno
        advice = cgroupfs.advice(e.errno, write.path)
        raise CgroupError(e.errno or errno.EIO, f"write {write.value!r} to", write.path, advice) from None
    return 0


MIN_SHARES, MAX_SHARES = 2, 262144

_DISCARDED = (
    (
        "memory",
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ),
    (
        "swap",
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap.",
    ),
    (
        "reservation",
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. "
        "Limitation discarded.",
    ),
    (
        "pids",
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ),
    ("shares", "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded."),
    ("quota", "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."),
)
"""Docker's warnings (moby, verifyPlatformContainerResources), in its order."""


def check(limits: Limits, driver: CgroupDriver) -> list[str]:
    """Docker's warnings for the limits that cannot be had here, which `CgroupDriver.limits` then leaves out.

    Raises `Unavailable` for what a container must not be without: a place for its own group, and rules on devices when
    there are some. Raises `InvalidParameter` for CPU shares out of v1's range (v2 takes the nearest weight).
    """
    mount = driver.hierarchies("")[0].mount  # the others are mounted alike
    if not os.access(mount, os.W_OK):
        raise Unavailable(_NOT_WRITABLE.format(mount))
    if limits.devices and not driver.supports("devices"):
        raise Unavailable(
            "the devices cgroup is not mounted, so that a container cannot be kept from the host's devices: "
            "mount it, or use --privileged"
        )
    if driver.version != "v2" and limits.cpu_shares:
        if limits.cpu_shares < MIN_SHARES:
            raise InvalidParameter(f"the minimum allowed cpu-shares is {MIN_SHARES}")
        if limits.cpu_shares > MAX_SHARES:
            raise InvalidParameter(f"the maximum allowed cpu-shares is {MAX_SHARES}")
    memory = limits.memory > 0 and driver.supports("memory")
    asked = {
        "memory": limits.memory > 0,
        "swap": memory and limits.memory_swap != -1,
        "reservation": limits.memory_reservation > 0,
        "pids": limits.pids > 0,
        "shares": limits.cpu_shares > 0,
        "quota": limits.cpu_quota != 0 or limits.cpu_period != 0,
    }
    return [text for feature, text in _DISCARDED if asked[feature] and not driver.supports(feature)]


_NOT_WRITABLE = (
    "cgroups cannot be made in {}: inside a container, run the outer one with --privileged or with its /sys/fs/cgroup "
    "mounted read-write; otherwise root is needed"
)


def detect(root: str = ROOT, mountinfo: str = "/proc/self/mountinfo") -> CgroupDriver:
    """The driver for what is mounted at `root`, the usual place; elsewhere only if nothing is there.

    It costs some 50 us: a directory is listed, and what holds a cgroup.procs is a hierarchy. The list of all mounts,
    which may be thousands, is only read when that finds none. Raises `Unavailable` when no hierarchy is mounted.
    """
    from sampan.kernel.cgroup1 import Hybrid, Version1
    from sampan.kernel.cgroup2 import Version2

    if os.access(f"{root}/cgroup.controllers", os.F_OK):
        return Version2(root)
    mounts, unified, links = _find(root)
    if not mounts and not unified:
        mounts, unified = _find_mounts(mountinfo)
    if mounts and unified:
        return Hybrid(Version1(mounts, links), Version2(unified, name="unified"))
    if mounts:
        return Version1(mounts, links)
    if unified:
        return Version2(unified)
    raise Unavailable(
        f"no cgroup hierarchy is mounted: mount one (mount -t cgroup2 cgroup2 {ROOT}), or run where {ROOT} is"
    )


def by_version(version: str, root: str = ROOT) -> CgroupDriver:
    """The driver of a known version ("v1", "hybrid", "v2"); raises `Unavailable` when that is not what is mounted.

    "v1" on a hybrid machine leaves the cgroup2 hierarchy alone.
    """
    from sampan.kernel.cgroup1 import Hybrid

    driver = detect(root)
    if isinstance(driver, Hybrid) and version == "v1":
        return driver.version1
    if driver.version != version:
        raise Unavailable(f"cgroup {version} is not what is mounted here (that is {driver.version})")
    return driver


def _find(root: str) -> tuple[dict[str, str], str, tuple[tuple[str, str], ...]]:
    """What is mounted right below `root`: v1's mount points by name, the cgroup2 mount or "", symbolic links."""
    mounts: dict[str, str] = {}
    unified = ""
    links: list[tuple[str, str]] = []
    try:
        entries = sorted(os.scandir(root), key=lambda e: e.name)
    except (FileNotFoundError, NotADirectoryError):
        entries = []
    for entry in entries:
        if entry.is_symlink():
            links.append((entry.name, os.readlink(entry.path)))
        elif not os.access(f"{entry.path}/cgroup.procs", os.F_OK):
            continue
        elif entry.name not in CONTROLLERS and os.access(f"{entry.path}/cgroup.controllers", os.F_OK):
            unified = unified or entry.path
        else:
            mounts[entry.name] = entry.path
    return mounts, unified, tuple(links)


def _find_mounts(mountinfo: str) -> tuple[dict[str, str], str]:
    """The same from the list of mounts (proc_pid_mountinfo(5)); the first mount of a hierarchy is taken."""
    mounts: dict[str, str] = {}
    unified = ""
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            if not rest.startswith("cgroup"):
                continue
            point = fields.split(" ")[4].replace("\\040", " ")
            kind, _, options = rest.rstrip("\n").split(" ", 2)
            if kind == "cgroup2":
                unified = unified or point
            elif kind == "cgroup":
                mounts.setdefault(_hierarchy_name(options.split(",")), point)
    return mounts, unified


def _hierarchy_name(options: list[str]) -> str:
    """A v1 hierarchy's customary directory name: its name, else its controllers."""
    for option in options:
        if option.startswith("name="):
            return option[5:]
    return ",".join(o for o in options if o in CONTROLLERS)


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
