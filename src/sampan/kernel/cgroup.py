"""Control groups: the face of the drivers, what is asked of them being in `cgroupmodel`; and which one serves here.

Three kinds of machine: *v1* (one hierarchy per controller), *hybrid* (v1 for the controllers and a cgroup2 mount
at `unified` beside them, which gives `cgroup.kill`), and *v2* (one hierarchy); and places without (`nocgroup`). A driver computes which directories
to make and which files to write; the steps of a start do so one by one, with `make_directory` and `apply`, so that
each can be described, timed and named in an error. Only killing and removing are whole operations here.

Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst of Linux, cgroups(7).
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter, Unavailable
from sampan.kernel import cgroupfs
from sampan.kernel.cgroup1 import Hybrid, Version1
from sampan.kernel.cgroup2 import Version2
from sampan.kernel.cgroupfs import CgroupError, make_directory
from sampan.kernel.cgroupmodel import (
    ANY,
    CONTROLLERS,
    DEFAULT_PARENT,
    MAX_SHARES,
    MIN_SHARES,
    BlockWeight,
    CgroupDriver,
    DeviceRule,
    Hierarchy,
    Limits,
    Throttle,
    Write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ANY",
    "DEFAULT_PARENT",
    "NONE",
    "ROOT",
    "BlockWeight",
    "CgroupDriver",
    "CgroupError",
    "DeviceRule",
    "Hierarchy",
    "Limits",
    "Throttle",
    "Write",
    "apply",
    "by_version",
    "check",
    "container_group",
    "detect",
    "group_name",
    "make_directory",
    "mounted",
]

ROOT = "/sys/fs/cgroup"

NONE = "none"
"""The version of the driver where there are no cgroups."""


def group_name(container_id: str, parent: str = "") -> str:
    """The group of a container below `parent` (`--cgroup-parent`), never outside the hierarchy's root."""
    parts: list[str] = []
    for part in (parent or DEFAULT_PARENT).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join((*parts, container_id))


def container_group(container_id: str, host_config: dict[str, Any]) -> str:
    """The same, from the HostConfig of a record (of a broken one, which has none, too)."""
    return group_name(container_id, str(host_config.get("CgroupParent") or ""))


def apply(write: Write) -> int:
    """Do one write. Returns 0, or the errno that was passed over; raises `CgroupError` when it was required."""
    if write.unless_set and cgroupfs.get(write.path):
        return 0
    return cgroupfs.write(write.path, write.value, write.required)


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
        "swappiness",
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
        "Memory swappiness discarded.",
    ),
    ("oom kill disable", "Your kernel does not support OomKillDisable. OomKillDisable discarded."),
    (
        "pids",
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ),
    ("shares", "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded."),
    ("quota", "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."),
    ("cpuset", "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded."),
    ("block weight", "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."),
    (
        "block weight device",
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    ),
    *(
        (
            f"{direction}_{unit}",
            f"Your kernel does not support {words.format(direction)} limit or the cgroup is not mounted. "
            f"Block I/O {unit.upper()} {direction} limit discarded.",
        )
        for unit, words in (("bps", "BPS Block I/O {}"), ("iops", "IOPS Block {}"))
        for direction in ("read", "write")
    ),
)
"""Docker's warnings (moby, verifyPlatformContainerResources), in its order."""


def check(limits: Limits, driver: CgroupDriver) -> list[str]:
    """Docker's warnings for the limits that cannot be had here, which `CgroupDriver.limits` then leaves out.

    Raises `Unavailable` for what a container must not be without: rules on devices when there are some, and where there
    are no cgroups every limit that was asked for. Raises `InvalidParameter` for CPU shares out of v1's range (v2 takes
    the nearest weight).
    """
    if driver.version == NONE:
        return _check_without(limits, driver)
    restricted = limits.devices and not (limits.devices[-1].allow and limits.devices[-1].matches_everything())
    if restricted and not driver.supports("devices"):
        raise Unavailable(
            "the devices cgroup is not mounted, so that a container cannot be kept from the host's devices: "
            "mount it, or use --privileged"
        )
    if (limits.cpu_realtime_runtime or limits.cpu_realtime_period) and not driver.supports("realtime"):
        raise InvalidParameter("kernel does not support CPU real-time scheduler")
    if driver.version != "v2" and limits.cpu_shares:
        if limits.cpu_shares < MIN_SHARES:
            raise InvalidParameter(f"the minimum allowed cpu-shares is {MIN_SHARES}")
        if limits.cpu_shares > MAX_SHARES:
            raise InvalidParameter(f"the maximum allowed cpu-shares is {MAX_SHARES}")
    asked = _asked(limits, driver.supports("memory"))
    return [
        text
        for feature, text in _DISCARDED
        if asked.get(feature) and not driver.supports(feature.removesuffix(" device"))
    ]


def _asked(limits: Limits, has_memory: bool) -> dict[str, bool]:
    """Which knobs the limits ask for. Swap counts where memory can be limited at all."""
    memory = limits.memory > 0 and has_memory
    return {
        "memory": limits.memory > 0,
        "swap": memory and limits.memory_swap != -1,
        "reservation": limits.memory_reservation > 0,
        "swappiness": limits.memory_swappiness >= 0,
        "oom kill disable": limits.oom_kill_disable,
        "pids": limits.pids > 0,
        "shares": limits.cpu_shares > 0,
        "quota": limits.cpu_quota != 0 or limits.cpu_period != 0,
        "cpuset": bool(limits.cpuset_cpus or limits.cpuset_mems),
        "block weight": limits.block_weight > 0,
        "block weight device": bool(limits.block_weights),
        **{limit.knob: True for limit in limits.throttles},
    }


def _check_without(limits: Limits, driver: CgroupDriver) -> list[str]:
    """What Docker discards with a warning is refused here: where nothing at all is bounded, a limit that is silently none is a trap."""
    realtime = bool(limits.cpu_realtime_runtime or limits.cpu_realtime_period)
    asked = [feature for feature, wanted in (_asked(limits, False) | {"realtime": realtime}).items() if wanted]
    if asked:
        raise Unavailable(f"limits ({', '.join(asked)}) cannot be set: {driver.reason}")
    return [f"{driver.reason}. The container runs without limits, cannot be paused, and its use is not counted."]


_NOT_WRITABLE = (
    "cgroups cannot be made in {}: inside a container, run the outer one with --privileged or with its /sys/fs/cgroup "
    "mounted read-write; otherwise root is needed"
)


def detect(root: str = ROOT, mountinfo: str = "/proc/self/mountinfo") -> CgroupDriver:
    """The driver for what is mounted at `root`, the usual place; elsewhere only if nothing is there.

    It costs some 0.15 ms: a directory is listed, and what holds a cgroup.procs is a hierarchy. The list of all mounts,
    which may be thousands, is only read when that finds none. Where no group can be made at all, it is `nocgroup.Absent`,
    which knows why.
    """
    try:
        driver = mounted(root, mountinfo)
    except Unavailable as e:
        return _absent(str(e))
    mount = driver.hierarchies("")[0].mount  # the others are mounted alike
    return driver if os.access(mount, os.W_OK) else _absent(_NOT_WRITABLE.format(mount))


def _absent(reason: str) -> CgroupDriver:
    from sampan.kernel.nocgroup import Absent  # few machines are without

    return Absent(reason)


def mounted(root: str = ROOT, mountinfo: str = "/proc/self/mountinfo") -> CgroupDriver:
    """The driver for what is mounted, whether or not a group can be made there. Raises `Unavailable` for nothing."""
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
    driver = mounted(root)
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
