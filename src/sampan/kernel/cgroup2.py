"""cgroup v2: one hierarchy; the driver also serves the cgroup2 mount of a hybrid machine."""

from __future__ import annotations

import os

from sampan.kernel import cgroupfs
from sampan.kernel.cgroupmodel import DEFAULT_PARENT, MAX_SHARES, MIN_SHARES, Hierarchy, Limits, Write
from sampan.kernel.livegroup import GroupVerbs, LiveGroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroupusage import Usage

_DEFAULT_PERIOD = 100_000  # microseconds

_CONTROLLER_OF = {
    "reservation": "memory",
    "shares": "cpu",
    "quota": "cpu",
    "read_bps": "io",
    "write_bps": "io",
    "read_iops": "io",
    "write_iops": "io",
}
"""Features that are named otherwise than the controller which has them."""

_IO_MAX = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}

_WEIGHTS = ("io.bfq.weight", "io.weight")
"""BFQ's, which Docker's scale of 10 to 1000 is of; and iocost's, 1 to 10000."""


class Version2(GroupVerbs):
    """See `CgroupDriver`. `mount` is where the hierarchy is mounted, `name` its name in a container's view of a hybrid."""

    version = "v2"
    links: tuple[tuple[str, str], ...] = ()

    def __init__(self, mount: str, name: str = "") -> None:
        self._mount = mount
        self._name = name
        self.controllers = frozenset((cgroupfs.get(f"{mount}/cgroup.controllers") or "").split())

    def supports(self, feature: str) -> bool:
        if feature == "devices":
            return True  # a program of this package, not a controller
        if feature == "swap":
            return "memory" in self.controllers and self._accounts_swap()
        if feature == "block weight":
            return "io" in self.controllers and bool(self._weight_knobs())
        # What has no controller of its name has no knob here: swappiness, oom_control and real time are v1's only.
        controller = _CONTROLLER_OF.get(feature, feature)
        return controller in self.controllers

    def cpuset(self) -> tuple[str, str]:
        knobs = f"{self._mount}/cpuset"
        return cgroupfs.get(f"{knobs}.cpus.effective") or "", cgroupfs.get(f"{knobs}.mems.effective") or ""

    def hierarchies(self, group: str) -> list[Hierarchy]:
        return [Hierarchy(self._mount, self._name, self._directory(group))]

    def directories(self, group: str) -> list[str]:
        return [self._directory(group)]

    def prepare(self, group: str) -> list[Write]:
        # Controllers pass down level by level, so every group above must enable them for those below it.
        writes: list[Write] = []
        for directory in reversed(cgroupfs.levels(self._mount, group)[:-1]):
            path = f"{directory}/cgroup.subtree_control"
            enabled = (cgroupfs.get(path) or "").split()
            missing = [f"+{c}" for c in sorted(self.controllers) if c not in enabled]
            if not missing:  # then they are enabled in all groups above, too
                break
            # A group with processes would take cpu and pids alone, and be a threaded one from then on, in which no
            # container can be. One line for all also fails as a whole. What is missing is told when a limit needs it.
            if cgroupfs.passes_controllers(directory):
                writes.insert(0, Write(path, " ".join(missing), required=False))
        return writes

    def limits(self, group: str, limits: Limits) -> list[Write]:
        directory = self._directory(group)
        writes = self._memory_limits(directory, limits)
        if limits.cpu_shares and self.supports("shares"):
            writes.append(Write(f"{directory}/cpu.weight", str(weight(limits.cpu_shares))))
        if (limits.cpu_quota or limits.cpu_period) and self.supports("quota"):
            quota = str(limits.cpu_quota) if limits.cpu_quota > 0 else "max"
            writes.append(Write(f"{directory}/cpu.max", f"{quota} {limits.cpu_period or _DEFAULT_PERIOD}"))
        writes += self._cpuset(directory, limits)
        writes += self._block_limits(directory, limits)
        if limits.hugepages and self.supports("hugetlb"):
            # Reservations too, where the kernel counts them (since 5.7): what is reserved and cannot be had would end in a SIGBUS.
            writes += [
                Write(f"{directory}/hugetlb.{size}.{knob}", str(most), required=knob == "max")
                for size, most in limits.hugepages
                for knob in ("max", "rsvd.max")
            ]
        if limits.pids and self.supports("pids"):
            writes.append(Write(f"{directory}/pids.max", str(limits.pids) if limits.pids > 0 else "max"))
        return writes

    def _memory_limits(self, directory: str, limits: Limits) -> list[Write]:
        writes = []
        if limits.memory and self.supports("memory"):
            writes.append(Write(f"{directory}/memory.max", _or_max(limits.memory)))
            # Here swap is counted by itself; Docker's number is memory and swap together.
            if limits.memory_swap == 0:
                writes.append(Write(f"{directory}/memory.swap.max", _or_max(limits.memory), required=False))
            elif self.supports("swap"):
                unlimited = limits.memory_swap < 0 or limits.memory < 0
                swap = "max" if unlimited else str(max(limits.memory_swap - limits.memory, 0))
                writes.append(Write(f"{directory}/memory.swap.max", swap))
        if limits.memory_reservation and self.supports("reservation"):
            writes.append(Write(f"{directory}/memory.low", _or_max(limits.memory_reservation)))
        return writes

    def _cpuset(self, directory: str, limits: Limits) -> list[Write]:
        if not self.supports("cpuset"):
            return []
        asked = (("cpuset.cpus", limits.cpuset_cpus), ("cpuset.mems", limits.cpuset_mems))
        return [Write(f"{directory}/{knob}", value) for knob, value in asked if value]

    def _block_limits(self, directory: str, limits: Limits) -> list[Write]:
        if "io" not in self.controllers:
            return []
        writes = []
        if limits.block_weight or limits.block_weights:
            for knob in self._weight_knobs():
                if limits.block_weight:
                    writes.append(Write(f"{directory}/{knob}", _io_weight(knob, limits.block_weight)))
                for entry in limits.block_weights:
                    line = f"{entry.major}:{entry.minor} {_io_weight(knob, entry.weight)}"
                    writes.append(Write(f"{directory}/{knob}", line))
        disks: dict[str, list[str]] = {}
        for limit in limits.throttles:
            text = f"{_IO_MAX[limit.knob]}={limit.rate or 'max'}"
            disks.setdefault(f"{limit.major}:{limit.minor}", []).append(text)
        return writes + [Write(f"{directory}/io.max", f"{disk} {' '.join(texts)}") for disk, texts in disks.items()]

    def _weight_knobs(self) -> list[str]:
        """The weights that this kernel has: no group but those below the root shows them, so one has to look into one."""
        parent = self._directory(DEFAULT_PARENT)
        found = [knob for knob in _WEIGHTS if os.access(f"{parent}/{knob}", os.F_OK)]
        # Before the first container there is none to look into; what goes with io.weight is in the root too.
        if not found and os.access(f"{self._mount}/io.cost.qos", os.F_OK):
            found = ["io.weight"]
        return found

    def device_program(self, group: str) -> str | None:
        return self._directory(group)

    def join_files(self, group: str) -> list[str]:
        return []  # clone3 puts the new process there, without the grace period that a move costs

    def clone_directory(self, group: str) -> str | None:
        return self._directory(group)

    def live(self, group: str) -> LiveGroup:
        return LiveGroup(unified=self._directory(group))

    def usage(self, group: str) -> Usage:
        from sampan.kernel import cgroupusage  # in here: no start needs it

        return cgroupusage.version2(self._directory(group))

    def _directory(self, group: str) -> str:
        return f"{self._mount}/{group}" if group else self._mount

    def _accounts_swap(self) -> bool:
        # The hierarchy's root has no memory knobs, so one has to look into a group; without any, a kernel that
        # swaps is taken to count it, as all do by default.
        parent = self._directory(DEFAULT_PARENT)
        if os.access(f"{parent}/memory.max", os.F_OK):
            return os.access(f"{parent}/memory.swap.max", os.F_OK)
        return os.access("/proc/swaps", os.F_OK)


def _or_max(limit: int) -> str:
    """v1's -1 for no limit is a word here."""
    return str(limit) if limit >= 0 else "max"


def weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for v1's cpu.shares (2 to 262144), by the linear conversion that runc uses.

    Docker sends what it is given; shares out of range become the nearest bound.
    """
    shares = min(max(shares, MIN_SHARES), MAX_SHARES)
    return 1 + (shares - MIN_SHARES) * 9999 // (MAX_SHARES - MIN_SHARES)


def _io_weight(knob: str, weight: int) -> str:
    """A weight of 10 to 1000 on the knob's own scale."""
    return str(1 + (weight - 10) * 9999 // 990 if knob == "io.weight" else weight)
