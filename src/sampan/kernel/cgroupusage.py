"""What a group has used: the counters of cgroup v1 and v2 as numbers in one shape.

A kernel may lack any of them (a controller that is not mounted, pressure that is switched off): that part is None then,
never zero. Only small files are read, and none of them waits for a process of the group.

Sources: Documentation/admin-guide/cgroup-v1/{cpuacct,memory,blkio-controller,pids}.rst, cgroup-v2.rst and
Documentation/accounting/psi.rst of Linux.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel.cgroupfs import get
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

UNLIMITED = 0
"""A limit that is none."""

RESOURCES = ("cpu", "memory", "io")
"""What the kernel tells the pressure of."""

_V1_UNLIMITED = 1 << 62
"""v1 says "no limit" with the largest number that its page counter holds, some 2^63 bytes."""


class CpuUsage(Struct):
    """Processor time, in nanoseconds. per_cpu: v1 only. The rest: how often, and how long, a quota held the group up."""

    total: int
    user: int
    system: int
    per_cpu: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class MemoryUsage(Struct):
    """Bytes; stats: the kernel's memory.stat as it is. peak: None on v2. failures: how often the limit was hit."""

    usage: int
    limit: int
    stats: dict[str, int]
    peak: int | None = None
    failures: int = 0


class PidsUsage(Struct):
    current: int
    limit: int


class BlockCount(Struct):
    """What was done to one disk. op: "Read", "Write", "Sync" ... on v1, "read", "write" on v2."""

    major: int
    minor: int
    op: str
    value: int


class BlockUsage(Struct):
    """Bytes moved and operations done, by disk."""

    bytes: tuple[BlockCount, ...]
    operations: tuple[BlockCount, ...]


class Stall(Struct):
    """The share of time, in per cent, over the last 10, 60 and 300 seconds; total: microseconds since the beginning."""

    avg10: float
    avg60: float
    avg300: float
    total: int


class Pressure(Struct):
    """Time in which some, and in which all, of the tasks that could run were waiting for the resource."""

    some: Stall
    full: Stall | None = None


class Usage(Struct):
    """All of one group; None for what the kernel does not count. pressure: by resource ("cpu", "memory", "io")."""

    cpu: CpuUsage | None = None
    memory: MemoryUsage | None = None
    pids: PidsUsage | None = None
    block: BlockUsage | None = None
    pressure: Mapping[str, Pressure] = {}

    def or_else(self, other: Usage) -> Usage:
        """The parts that are missing here taken from `other`: on a hybrid machine each side has some of them."""
        return Usage(
            self.cpu or other.cpu,
            self.memory or other.memory,
            self.pids or other.pids,
            self.block or other.block,
            self.pressure or other.pressure,
        )


# cgroup v1


def version1(places: Mapping[str, str]) -> Usage:
    """The counters of v1; `places` is the group's directory by controller."""
    return Usage(
        cpu=_cpu_v1(places.get("cpuacct"), places.get("cpu")),
        memory=_memory_v1(places["memory"]) if "memory" in places else None,
        pids=_pids(places["pids"]) if "pids" in places else None,
        block=_block_v1(places["blkio"]) if "blkio" in places else None,
    )


def _cpu_v1(accounting: str | None, scheduling: str | None) -> CpuUsage | None:
    if accounting is None:
        return None
    total = get(f"{accounting}/cpuacct.usage")
    if total is None:
        return None
    ticks = _numbers(get(f"{accounting}/cpuacct.stat"))
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    bandwidth = _numbers(get(f"{scheduling}/cpu.stat")) if scheduling is not None else {}
    return CpuUsage(
        total=int(total),
        user=ticks.get("user", 0) * tick,
        system=ticks.get("system", 0) * tick,
        per_cpu=tuple(map(int, (get(f"{accounting}/cpuacct.usage_percpu") or "").split())),
        periods=bandwidth.get("nr_periods", 0),
        throttled_periods=bandwidth.get("nr_throttled", 0),
        throttled_time=bandwidth.get("throttled_time", 0),
    )


def _memory_v1(directory: str) -> MemoryUsage | None:
    usage = get(f"{directory}/memory.usage_in_bytes")
    if usage is None:
        return None
    limit = int(get(f"{directory}/memory.limit_in_bytes") or UNLIMITED)
    return MemoryUsage(
        usage=int(usage),
        limit=UNLIMITED if limit >= _V1_UNLIMITED else limit,
        stats=_numbers(get(f"{directory}/memory.stat")),
        peak=int(get(f"{directory}/memory.max_usage_in_bytes") or 0),
        failures=int(get(f"{directory}/memory.failcnt") or 0),
    )


def _block_v1(directory: str) -> BlockUsage | None:
    # What the throttling layer counts is there with every scheduler; the sums over the groups below since Linux 5.0 or so.
    moved = _first(
        f"{directory}/blkio.throttle.io_service_bytes_recursive", f"{directory}/blkio.throttle.io_service_bytes"
    )
    done = _first(f"{directory}/blkio.throttle.io_serviced_recursive", f"{directory}/blkio.throttle.io_serviced")
    return None if moved is None else BlockUsage(_block_counts(moved), _block_counts(done or ""))


def _block_counts(text: str) -> tuple[BlockCount, ...]:
    found = []
    for line in text.splitlines():
        words = line.split(" ")
        major, colon, minor = words[0].partition(":")
        if len(words) == 3 and colon:  # the last line, "Total 123", is over all disks
            found.append(BlockCount(int(major), int(minor), words[1], int(words[2])))
    return tuple(found)


# cgroup v2


def version2(directory: str) -> Usage:
    """The counters of v2, pressure among them, which a hybrid machine has on this side only."""
    return Usage(
        cpu=_cpu_v2(directory),
        memory=_memory_v2(directory),
        pids=_pids(directory),
        block=_block_v2(directory),
        pressure=_pressures(directory),
    )


def _cpu_v2(directory: str) -> CpuUsage | None:
    counted = _numbers(get(f"{directory}/cpu.stat"))  # there without the controller too, but for the quota
    if "usage_usec" not in counted:
        return None
    return CpuUsage(
        total=counted["usage_usec"] * 1000,
        user=counted.get("user_usec", 0) * 1000,
        system=counted.get("system_usec", 0) * 1000,
        periods=counted.get("nr_periods", 0),
        throttled_periods=counted.get("nr_throttled", 0),
        throttled_time=counted.get("throttled_usec", 0) * 1000,
    )


def _memory_v2(directory: str) -> MemoryUsage | None:
    usage = get(f"{directory}/memory.current")
    if usage is None:
        return None
    return MemoryUsage(
        usage=int(usage),
        limit=_limit(get(f"{directory}/memory.max")),
        stats=_numbers(get(f"{directory}/memory.stat")),
        failures=_numbers(get(f"{directory}/memory.events")).get("oom", 0),
    )


def _block_v2(directory: str) -> BlockUsage | None:
    text = get(f"{directory}/io.stat")
    if text is None:
        return None
    moved, done = [], []
    for line in text.splitlines():
        disk, _, rest = line.partition(" ")
        major, colon, minor = disk.partition(":")
        if not colon:
            continue  # a disk that has gone
        counted = dict(pair.split("=", 1) for pair in rest.split(" ") if "=" in pair)
        for op, letter in (("read", "r"), ("write", "w")):
            moved.append(BlockCount(int(major), int(minor), op, int(counted.get(f"{letter}bytes", 0))))
            done.append(BlockCount(int(major), int(minor), op, int(counted.get(f"{letter}ios", 0))))
    return BlockUsage(tuple(moved), tuple(done))


def _pressures(directory: str) -> dict[str, Pressure]:
    found = {}
    for resource in RESOURCES:
        try:
            text = get(f"{directory}/{resource}.pressure")
        except OSError as e:
            if e.errno != errno.EOPNOTSUPP:  # the kernel was booted with psi=0
                raise
            continue
        pressure = parse_pressure(text or "")
        if pressure is not None:
            found[resource] = pressure
    return found


def parse_pressure(text: str) -> Pressure | None:
    """The content of a pressure file; None for an empty one. Kernels before 5.13 have no "full" of the processors."""
    stalls = {}
    for line in text.splitlines():
        kind, *pairs = line.split(" ")
        values = dict(pair.split("=", 1) for pair in pairs)
        stalls[kind] = Stall(
            float(values["avg10"]), float(values["avg60"]), float(values["avg300"]), int(values["total"])
        )
    return Pressure(stalls["some"], stalls.get("full")) if "some" in stalls else None


# Both


def _pids(directory: str) -> PidsUsage | None:
    current = get(f"{directory}/pids.current")
    return None if current is None else PidsUsage(int(current), _limit(get(f"{directory}/pids.max")))


def _limit(text: str | None) -> int:
    return UNLIMITED if text in (None, "", "max") else int(text)


def _numbers(text: str | None) -> dict[str, int]:
    """A file of "name number" lines."""
    found = {}
    for line in (text or "").splitlines():
        name, _, number = line.partition(" ")
        found[name] = int(number)
    return found


def _first(*paths: str) -> str | None:
    for path in paths:
        text = get(path)
        if text is not None:
            return text
    return None
