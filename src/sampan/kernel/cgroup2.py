"""cgroup v2: one hierarchy; the driver also serves the cgroup2 mount of a hybrid machine."""

from __future__ import annotations

import os

from sampan.kernel import cgroupfs
from sampan.kernel.cgroupmodel import DEFAULT_PARENT, MAX_SHARES, MIN_SHARES, Hierarchy, Limits, Write
from sampan.kernel.livegroup import GroupVerbs, LiveGroup

_DEFAULT_PERIOD = 100_000  # microseconds


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
        controller = {"reservation": "memory", "shares": "cpu", "quota": "cpu"}.get(feature, feature)
        return controller in self.controllers

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
        if limits.pids and self.supports("pids"):
            writes.append(Write(f"{directory}/pids.max", str(limits.pids) if limits.pids > 0 else "max"))
        return writes

    def _memory_limits(self, directory: str, limits: Limits) -> list[Write]:
        writes = []
        if limits.memory and self.supports("memory"):
            writes.append(Write(f"{directory}/memory.max", str(limits.memory)))
            # Here swap is counted by itself; Docker's number is memory and swap together.
            if limits.memory_swap == 0:
                writes.append(Write(f"{directory}/memory.swap.max", str(limits.memory), required=False))
            elif limits.memory_swap > 0 and self.supports("swap"):
                writes.append(Write(f"{directory}/memory.swap.max", str(max(limits.memory_swap - limits.memory, 0))))
        if limits.memory_reservation and self.supports("reservation"):
            writes.append(Write(f"{directory}/memory.low", str(limits.memory_reservation)))
        return writes

    def device_program(self, group: str) -> str | None:
        return self._directory(group)

    def join_files(self, group: str) -> list[str]:
        return []  # clone3 puts the new process there, without the grace period that a move costs

    def clone_directory(self, group: str) -> str | None:
        return self._directory(group)

    def live(self, group: str) -> LiveGroup:
        return LiveGroup(unified=self._directory(group))

    def _directory(self, group: str) -> str:
        return f"{self._mount}/{group}" if group else self._mount

    def _accounts_swap(self) -> bool:
        # The hierarchy's root has no memory knobs, so one has to look into a group; without any, a kernel that
        # swaps is taken to count it, as all do by default.
        parent = self._directory(DEFAULT_PARENT)
        if os.access(f"{parent}/memory.max", os.F_OK):
            return os.access(f"{parent}/memory.swap.max", os.F_OK)
        return os.access("/proc/swaps", os.F_OK)


def weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for v1's cpu.shares (2 to 262144), by the linear conversion that runc uses.

    Docker sends what it is given; shares out of range become the nearest bound.
    """
    shares = min(max(shares, MIN_SHARES), MAX_SHARES)
    return 1 + (shares - MIN_SHARES) * 9999 // (MAX_SHARES - MIN_SHARES)
