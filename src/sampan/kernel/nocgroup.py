"""The driver where there are no cgroups: none is mounted, or none can be made.

Containers run all the same, without what only cgroups give: limits, a freezer, counters, and a list of processes that
no process can leave. So a container's processes are its pid namespace's, and killing its init is what kills them.
"""

from __future__ import annotations

from sampan.errors import Unavailable
from sampan.kernel.cgroupmodel import Hierarchy, Limits, Write
from sampan.kernel.cgroupusage import Usage
from sampan.kernel.livegroup import GroupVerbs, LiveGroup


class Absent(GroupVerbs):
    """`cgroupmodel.CgroupDriver` with nothing behind it. reason: why, and what to do about it."""

    version = "none"
    controllers: frozenset[str] = frozenset()
    links: tuple[tuple[str, str], ...] = ()

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def supports(self, feature: str) -> bool:
        return False

    def cpuset(self) -> tuple[str, str]:
        return "", ""

    def hierarchies(self, group: str) -> list[Hierarchy]:
        return []

    def directories(self, group: str) -> list[str]:
        return []

    def prepare(self, group: str) -> list[Write]:
        return []

    def limits(self, group: str, limits: Limits) -> list[Write]:
        return []

    def device_program(self, group: str) -> str | None:
        return None

    def join_files(self, group: str) -> list[str]:
        return []

    def clone_directory(self, group: str) -> str | None:
        return None

    def live(self, group: str) -> LiveGroup:
        return LiveGroup()

    def usage(self, group: str) -> Usage:
        return Usage()

    def freeze(self, group: str, timeout: float = 5.0) -> None:
        raise Unavailable(f"a container cannot be paused: {self.reason}")

    def thaw(self, group: str) -> None:
        """Nothing was ever frozen."""

    def thawing(self, group: str) -> tuple[str, str]:
        raise Unavailable(f"a container cannot be paused: {self.reason}")
