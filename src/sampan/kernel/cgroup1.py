"""cgroup v1: one hierarchy per controller; and hybrid, where a cgroup2 hierarchy is mounted beside them.

Joining is by the file `tasks` and not `cgroup.procs`. A write of "0" there moves only the calling thread, and the
kernel (since 5.5) then leaves out the lock on all thread groups, whose RCU grace period costs 6 to 15 ms; a
single-threaded process is moved whole for 10 us. The cgroup2 hierarchy of a hybrid machine has no such way (its
`cgroup.threads` stays within a domain), but clone3(CLONE_INTO_CGROUP) enters it for nothing, also beside v1.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import cgroupfs
from sampan.kernel.cgroupmodel import ANY, CONTROLLERS, DEFAULT_PARENT, DeviceRule, Hierarchy, Limits, Write
from sampan.kernel.libc import KernelError
from sampan.kernel.livegroup import GroupVerbs, LiveGroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroup2 import Version2
    from sampan.kernel.cgroupusage import Usage

    _Device = tuple[str, int, int]  # type, major, minor

_KNOBS = {
    "memory": ("memory", "memory.limit_in_bytes"),
    "swap": ("memory", "memory.memsw.limit_in_bytes"),
    "reservation": ("memory", "memory.soft_limit_in_bytes"),
    "shares": ("cpu", "cpu.shares"),
    "quota": ("cpu", "cpu.cfs_quota_us"),
    "pids": ("pids", "cgroup.procs"),  # pids.max is in every group but the root
    "devices": ("devices", "devices.deny"),
    "swappiness": ("memory", "memory.swappiness"),
    "oom kill disable": ("memory", "memory.oom_control"),
    "realtime": ("cpu", "cpu.rt_runtime_us"),
    "cpuset": ("cpuset", "cpuset.cpus"),
    "read_bps": ("blkio", "blkio.throttle.read_bps_device"),
    "write_bps": ("blkio", "blkio.throttle.write_bps_device"),
    "read_iops": ("blkio", "blkio.throttle.read_iops_device"),
    "write_iops": ("blkio", "blkio.throttle.write_iops_device"),
    # The weight is in every group but the root; what BFQ counts is there too, and CFQ (before Linux 5.0) had all of it.
    "block weight": ("blkio", "blkio.bfq.io_serviced"),
    "hugetlb": ("hugetlb", "cgroup.procs"),
}
"""The controller and the file that each feature is; kernels can be built with a controller and without a knob."""


_REALTIME_PERIOD = 1_000_000
"""Microseconds, of a new group."""


class Version1(GroupVerbs):
    """See `CgroupDriver`. `mounts`: where the hierarchies are mounted, by name ("memory", "cpu,cpuacct", "systemd")."""

    version = "v1"

    def __init__(self, mounts: dict[str, str], links: tuple[tuple[str, str], ...] = ()) -> None:
        # pids is the last everywhere: whoever joins it first may not be able to fork any more.
        self._mounts = dict(sorted(mounts.items(), key=lambda m: "pids" in m[0].split(",")))
        self._places = {c: mount for name, mount in mounts.items() for c in name.split(",") if c in CONTROLLERS}
        self._supported: dict[str, bool] = {}
        """What was looked for: a kernel gets no knobs while it runs, and each start asks."""
        self.links = links
        self.controllers = frozenset(self._places)

    def supports(self, feature: str) -> bool:
        found = self._supported.get(feature)
        if found is None:
            controller, knob = _KNOBS[feature]
            mount = self._places.get(controller)
            found = self._supported[feature] = mount is not None and os.access(f"{mount}/{knob}", os.F_OK)
        return found

    def cpuset(self) -> tuple[str, str]:
        mount = self._places["cpuset"]
        return cgroupfs.get(f"{mount}/cpuset.cpus") or "", cgroupfs.get(f"{mount}/cpuset.mems") or ""

    def hierarchies(self, group: str) -> list[Hierarchy]:
        return [Hierarchy(mount, name, _below(mount, group)) for name, mount in self._mounts.items()]

    def directories(self, group: str) -> list[str]:
        return [f"{mount}/{group}" for mount in self._mounts.values()]

    def prepare(self, group: str) -> list[Write]:
        # A new cpuset is empty, and no process can join an empty one (ENOSPC): what the group above has goes down. Each write of
        # cpuset.cpus has the kernel rebuild the scheduling domains of the machine (1 ms), so a new group gets it from the kernel
        # where that does so (cpuset.clone_children, cpuset(7)). It does not beside an exclusive group: written where it is empty.
        mount = self._places.get("cpuset")
        if mount is None:
            return []
        levels = cgroupfs.levels(mount, group)
        writes = []
        for knob in ("cpuset.cpus", "cpuset.mems"):
            for above in range(len(levels) - 2, -1, -1):
                if value := cgroupfs.get(f"{levels[above]}/{knob}"):
                    writes += [Write(f"{level}/{knob}", value, unless_set=True) for level in levels[above + 1 :]]
                    break
        return writes + [
            Write(f"{level}/cgroup.clone_children", "1", required=False)
            for level in levels[1:-1]
            if _could_hand_down(level)
        ]

    def limits(self, group: str, limits: Limits) -> list[Write]:
        return [
            *self._memory_limits(group, limits),
            *self._cpu_limits(group, limits),
            *self._realtime_limits(group, limits),
            *self._cpuset(group, limits),
            *self._block_limits(group, limits),
            *self._hugepages(group, limits),
            *self._pids_limit(group, limits),
            *self._device_rules(group, limits),
        ]

    def _memory_limits(self, group: str, limits: Limits) -> list[Write]:
        writes = []
        if limits.memory and self.supports("memory"):
            directory = self._directory("memory", group)
            # memory+swap may never be the smaller one, and a new group's is unlimited: so memory is the first.
            writes.append(Write(f"{directory}/memory.limit_in_bytes", str(limits.memory)))
            swap = limits.memory_swap or max(2 * limits.memory, -1)
            if self.supports("swap"):
                path = f"{directory}/memory.memsw.limit_in_bytes"
                writes.append(Write(path, str(swap), required=limits.memory_swap != 0))
        if limits.memory_reservation and self.supports("reservation"):
            path = f"{self._directory('memory', group)}/memory.soft_limit_in_bytes"
            writes.append(Write(path, str(limits.memory_reservation)))
        if limits.memory_swappiness >= 0 and self.supports("swappiness"):
            path = f"{self._directory('memory', group)}/memory.swappiness"
            writes.append(Write(path, str(limits.memory_swappiness)))
        if limits.oom_kill_disable and self.supports("oom kill disable"):
            writes.append(Write(f"{self._directory('memory', group)}/memory.oom_control", "1"))
        return writes

    def _cpu_limits(self, group: str, limits: Limits) -> list[Write]:
        writes = []
        if limits.cpu_shares and self.supports("shares"):
            writes.append(Write(f"{self._directory('cpu', group)}/cpu.shares", str(limits.cpu_shares)))
        if (limits.cpu_quota or limits.cpu_period) and self.supports("quota"):
            directory = self._directory("cpu", group)
            if limits.cpu_period:  # first: a quota is judged by the period that it finds
                writes.append(Write(f"{directory}/cpu.cfs_period_us", str(limits.cpu_period)))
            if limits.cpu_quota:
                writes.append(Write(f"{directory}/cpu.cfs_quota_us", str(max(limits.cpu_quota, -1))))
        return writes

    def _realtime_limits(self, group: str, limits: Limits) -> list[Write]:
        if not (limits.cpu_realtime_runtime or limits.cpu_realtime_period) or not self.supports("realtime"):
            return []
        directory = self._directory("cpu", group)
        writes = []
        if limits.cpu_realtime_period:  # first: a runtime is judged by the period that it finds
            writes.append(Write(f"{directory}/cpu.rt_period_us", str(limits.cpu_realtime_period)))
        if limits.cpu_realtime_runtime:
            # A group gives out no more than it has, and a new one has nothing: the groups above get the sum of theirs.
            own = limits.cpu_realtime_runtime / (limits.cpu_realtime_period or _REALTIME_PERIOD)
            for level in cgroupfs.levels(self._places["cpu"], group)[1:-1]:
                runtime, period = _realtime(level)
                # Shares are compared, not microseconds: each group may have a period of its own. One more for rounding.
                needed = int((own + _given_out(level, besides=directory)) * period) + 1
                if runtime < needed:
                    writes.append(Write(f"{level}/cpu.rt_runtime_us", str(needed)))
            writes.append(Write(f"{directory}/cpu.rt_runtime_us", str(limits.cpu_realtime_runtime)))
        return writes

    def _cpuset(self, group: str, limits: Limits) -> list[Write]:
        if not self.supports("cpuset"):
            return []
        # Over what `prepare` took from the group above, and before anybody joins.
        asked = (("cpuset.cpus", limits.cpuset_cpus), ("cpuset.mems", limits.cpuset_mems))
        return [Write(f"{self._directory('cpuset', group)}/{knob}", value) for knob, value in asked if value]

    def _block_limits(self, group: str, limits: Limits) -> list[Write]:
        writes = []
        if (limits.block_weight or limits.block_weights) and self.supports("block weight"):
            directory = self._directory("blkio", group)
            if limits.block_weight:
                writes.append(Write(f"{directory}/blkio.bfq.weight", str(limits.block_weight)))
            for entry in limits.block_weights:
                line = f"{entry.major}:{entry.minor} {entry.weight}"
                writes.append(Write(f"{directory}/blkio.bfq.weight_device", line))
        for limit in limits.throttles:
            if self.supports(limit.knob):
                path = f"{self._directory('blkio', group)}/blkio.throttle.{limit.knob}_device"
                writes.append(Write(path, f"{limit.major}:{limit.minor} {limit.rate}"))
        return writes

    def _hugepages(self, group: str, limits: Limits) -> list[Write]:
        if not limits.hugepages or not self.supports("hugetlb"):
            return []
        directory = self._directory("hugetlb", group)
        # Reservations too, where the kernel counts them (since 5.7): what is reserved and cannot be had would end in a SIGBUS.
        return [
            Write(f"{directory}/hugetlb.{size}.{knob}", str(limit), required=not knob.startswith("rsvd"))
            for size, limit in limits.hugepages
            for knob in ("limit_in_bytes", "rsvd.limit_in_bytes")
        ]

    def _pids_limit(self, group: str, limits: Limits) -> list[Write]:
        if not limits.pids or not self.supports("pids"):
            return []
        value = str(limits.pids) if limits.pids > 0 else "max"
        return [Write(f"{self._directory('pids', group)}/pids.max", value)]

    def _device_rules(self, group: str, limits: Limits) -> list[Write]:
        if not limits.devices or not self.supports("devices"):
            return []
        directory = self._directory("devices", group)
        return [
            Write(f"{directory}/devices.{'allow' if allow else 'deny'}", line)
            for allow, line in device_lines(limits.devices)
        ]

    def device_program(self, group: str) -> str | None:
        return None

    def join_files(self, group: str) -> list[str]:
        return [f"{_below(mount, group)}/tasks" for mount in self._mounts.values()]

    def clone_directory(self, group: str) -> str | None:
        return None

    def live(self, group: str) -> LiveGroup:
        return LiveGroup(
            version1=tuple(_below(mount, group) for mount in self._mounts.values()),
            freezer=self._directory("freezer", group) if "freezer" in self._places else "",
            memory=self._directory("memory", group) if "memory" in self._places else "",
        )

    def frozen(self, group: str) -> bool:
        # Asked for each container of a listing: of one directory, and not of all that a group has.
        return "freezer" in self._places and LiveGroup(freezer=self._directory("freezer", group)).frozen()

    def usage(self, group: str) -> Usage:
        from sampan.kernel import cgroupusage  # in here: no start needs it

        return cgroupusage.version1({controller: self._directory(controller, group) for controller in self._places})

    def _directory(self, controller: str, group: str) -> str:
        return _below(self._places[controller], group)


class Hybrid(GroupVerbs):
    """v1's hierarchies and the cgroup2 one together; each limit goes to the side that has its controller."""

    version = "hybrid"

    def __init__(self, version1: Version1, version2: Version2) -> None:
        self.version1 = version1
        self.version2 = version2
        self.links = version1.links
        self.controllers = version1.controllers | version2.controllers

    def supports(self, feature: str) -> bool:
        return self.version1.supports(feature) or self.version2.supports(feature)

    def cpuset(self) -> tuple[str, str]:
        return (self.version1 if self.version1.supports("cpuset") else self.version2).cpuset()

    def hierarchies(self, group: str) -> list[Hierarchy]:
        return self.version1.hierarchies(group) + self.version2.hierarchies(group)

    def directories(self, group: str) -> list[str]:
        return self.version1.directories(group) + self.version2.directories(group)

    def prepare(self, group: str) -> list[Write]:
        return self.version1.prepare(group) + self.version2.prepare(group)

    def limits(self, group: str, limits: Limits) -> list[Write]:
        # A controller is on one side only, and each side leaves out what it does not have.
        return self.version1.limits(group, limits) + self.version2.limits(group, limits)

    def device_program(self, group: str) -> str | None:
        return None if self.version1.supports("devices") else self.version2.device_program(group)

    def join_files(self, group: str) -> list[str]:
        return self.version1.join_files(group)

    def clone_directory(self, group: str) -> str | None:
        return self.version2.clone_directory(group)

    def live(self, group: str) -> LiveGroup:
        return self.version1.live(group).replace(unified=self.version2.live(group).unified)

    def frozen(self, group: str) -> bool:
        return (self.version1 if "freezer" in self.version1.controllers else self.version2).frozen(group)

    def usage(self, group: str) -> Usage:
        return self.version1.usage(group).or_else(self.version2.usage(group))


def _could_hand_down(level: str) -> bool:
    """Whether the kernel is yet to be told that it gives new groups below this cpuset what it has: ours are, others' stay as they are.

    Ours: a group that has yet to be made, and all containers' parent.
    """
    state = cgroupfs.get(f"{level}/cgroup.clone_children")
    return state is None or (state == "0" and os.path.basename(level) == DEFAULT_PARENT)


_worked_out: dict[tuple[DeviceRule, ...], list[tuple[bool, str]]] = {}
"""The lines of rules, up to a bound: nearly all containers have the same."""
_MOST_WORKED_OUT = 32


def device_lines(rules: tuple[DeviceRule, ...]) -> list[tuple[bool, str]]:
    """`_device_lines`, which are worked out once. Raises `KernelError`."""
    found = _worked_out.get(rules)
    if found is None:
        found = _device_lines(rules)
        if len(_worked_out) < _MOST_WORKED_OUT:
            _worked_out[rules] = found
    return found


def _device_lines(rules: tuple[DeviceRule, ...]) -> list[tuple[bool, str]]:
    """The lines for devices.allow (True) and devices.deny (False) that come to the same as the rules in their order.

    v1 keeps a default and a list of exceptions from it, and a rule against the default takes only exceptions away
    that it names exactly (Documentation/admin-guide/cgroup-v1/devices.rst). So the list is worked out here.
    Raises `KernelError` (EINVAL) for rules that v1 has no way to express: an exception from an exception.
    """
    default = False
    exceptions: dict[_Device, str] = {}
    for rule in rules:
        if rule.matches_everything():
            default, exceptions = rule.allow, {}
            continue
        for kind in "bc" if rule.type == "a" else rule.type:
            device = (kind, rule.major, rule.minor)
            if rule.allow != default:
                exceptions[device] = _join(exceptions.get(device, ""), rule.access)
            else:
                _take_away(exceptions, device, rule.access)
    lines = [(default, "a")]
    wide = [(key, access) for key, access in exceptions.items() if ANY in key]
    for key, access in exceptions.items():
        # The kernel wants all of a request's accesses in one exception, so a narrow one takes in what wider ones give.
        for other, more in wide:
            if _covers(other, key):
                access = _join(access, more)
        lines.append((not default, _line(*key, access)))
    return lines


def _take_away(exceptions: dict[_Device, str], device: _Device, access: str) -> None:
    for other, given in list(exceptions.items()):
        rest = "".join(a for a in given if a not in access)
        if rest == given or not _overlap(device, other):
            continue
        if not _covers(device, other):
            raise KernelError(errno.EINVAL, "cgroup v1 cannot except from a wider device rule", _line(*other, given))
        if rest:
            exceptions[other] = rest
        else:
            del exceptions[other]


def _line(kind: str, major: int, minor: int, access: str) -> str:
    return f"{kind} {'*' if major == ANY else major}:{'*' if minor == ANY else minor} {access}"


def _join(one: str, other: str) -> str:
    return "".join(a for a in "rwm" if a in one or a in other)


def _covers(wide: _Device, narrow: _Device) -> bool:
    return wide[0] == narrow[0] and wide[1] in (ANY, narrow[1]) and wide[2] in (ANY, narrow[2])


def _overlap(one: _Device, other: _Device) -> bool:
    return one[0] == other[0] and all(ANY in (a, b) or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _realtime(directory: str) -> tuple[int, int]:
    """The real-time runtime and period of a group, as they are or as a new one's will be."""
    runtime = cgroupfs.get(f"{directory}/cpu.rt_runtime_us")
    period = cgroupfs.get(f"{directory}/cpu.rt_period_us")
    return int(runtime or 0), int(period or _REALTIME_PERIOD)


def _given_out(level: str, besides: str) -> float:
    """The share of real time that the groups right below `level` have, but for the one that leads to `besides`."""
    total = 0.0
    try:
        with os.scandir(level) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not f"{besides}/".startswith(f"{entry.path}/"):
                    runtime, period = _realtime(entry.path)
                    total += max(0, runtime) / period
    except FileNotFoundError:
        pass  # it is made by this start
    return total


def _below(mount: str, group: str) -> str:
    return f"{mount}/{group}" if group else mount
