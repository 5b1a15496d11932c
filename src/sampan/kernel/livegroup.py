"""A group with processes in it, on any kind of machine: who is there, kill them all, count what memory took, remove it.

The half of cgroups that a container's monitor needs for as long as it lives. It is data (which directories there are),
so that whoever makes a plan finds out what is mounted, and the monitor needs none of the drivers.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.kernel import cgroupfs
from sampan.structs import Struct


class LiveGroup(Struct):
    """The directories of one group.

    version1: in every v1 hierarchy, none on a v2 machine. freezer, memory: those of them with these controllers, "" for none.
    unified: in the cgroup2 hierarchy, "" for none.
    """

    version1: tuple[str, ...] = ()
    freezer: str = ""
    memory: str = ""
    unified: str = ""

    def processes(self) -> list[int]:
        """The ids of all processes in the group and below it, in no order; [] when there is no such group."""
        # All hierarchies are asked, because a privileged container can move its processes within each one.
        found: set[int] = set()
        for directory in (*self.version1, *((self.unified,) if self.unified else ())):
            found |= cgroupfs.processes_below(directory)
        return list(found)

    def kill(self, timeout: float = 10.0, stuck_timeout: float = 10.0) -> None:
        """SIGKILL every process of the group and below it, and wait until none is left.

        Raises `TimeoutError` when some are left after `timeout` seconds, or after `stuck_timeout` seconds none but such
        as are in uninterruptible sleep.
        """
        cgroupfs.kill_until_empty(self.processes, self._strike, timeout, stuck_timeout)

    def _strike(self) -> None:
        """One blow; a process that joins later survives it."""
        if not self.unified:
            self._strike_frozen_v1()
            return
        if not cgroupfs.put_if_there(f"{self.unified}/cgroup.kill", "1"):
            self.strike_frozen_v2()
        self._thaw()
        # What cgroup.kill could not see: a process that joined v1's hierarchies only, or was moved out of this one.
        if self.version1 and set(self.processes()) - cgroupfs.processes_below(self.unified):
            self._strike_frozen_v1()

    def strike_frozen_v2(self) -> None:
        """One blow by the freezer of cgroup v2."""
        # Before Linux 5.14 there is no cgroup.kill. Frozen processes cannot fork away from the list of ids.
        if not cgroupfs.put_if_there(f"{self.unified}/cgroup.freeze", "1"):
            return
        try:
            events = f"{self.unified}/cgroup.events"
            cgroupfs.wait_for(lambda: cgroupfs.counter(cgroupfs.get(events), "frozen") == 1, seconds=0.5)
            cgroupfs.kill_each(cgroupfs.processes_below(self.unified))
        finally:
            cgroupfs.put_if_there(f"{self.unified}/cgroup.freeze", "0")

    def _strike_frozen_v1(self) -> None:
        # Frozen processes cannot fork away from the list of ids. Nor can they die, so that no id changes its owner;
        # the signal acts when they are thawed.
        state = f"{self.freezer}/freezer.state" if self.freezer else ""
        if not state or not cgroupfs.put_if_there(state, "FROZEN"):
            cgroupfs.kill_each(set(self.processes()))
            return
        try:
            cgroupfs.wait_for(lambda: cgroupfs.get(state) in ("FROZEN", None), seconds=0.5)
            cgroupfs.kill_each(set(self.processes()))
        finally:
            self._thaw()

    def freeze(self, timeout: float = 5.0) -> None:
        """Stop every process of the group and below it, and wait until none runs any more.

        Raises `TimeoutError` after `timeout` seconds (a process in uninterruptible sleep cannot be stopped), and the
        group goes on then; `OSError` when there is no such group, or no freezer is mounted.
        """
        try:
            cgroupfs.put(*self._freezing(True))
            if cgroupfs.wait_for(self._all_frozen, timeout):
                return
        except BaseException:
            self.thaw()
            raise
        self.thaw()
        raise TimeoutError(errno.ETIMEDOUT, f"its processes do not stop within {timeout:g} s")

    def thaw(self) -> None:
        """Let the processes of the group go on; one that is not frozen, or is gone, is left as it is."""
        cgroupfs.put_if_there(*self._freezing(False))

    def thawing(self) -> tuple[str, str]:
        """What `thaw` does, for somebody else to do it: a file, and what to write to it. Raises `OSError` as `freeze`."""
        return self._freezing(False)

    def frozen(self) -> bool:
        """Whether this group was told to stand still; one that only stands still with a group above it was not."""
        if self.freezer:
            return cgroupfs.get(f"{self.freezer}/freezer.self_freezing") == "1"
        return bool(self.unified) and cgroupfs.get(f"{self.unified}/cgroup.freeze") == "1"

    def _freezing(self, wanted: bool) -> tuple[str, str]:
        """The file and what is written to it. v1's controller where it is mounted: only there are all processes."""
        if self.freezer:
            return f"{self.freezer}/freezer.state", "FROZEN" if wanted else "THAWED"
        if self.unified:
            return f"{self.unified}/cgroup.freeze", "1" if wanted else "0"
        raise cgroupfs.CgroupError(errno.ENODEV, "open", "freezer.state", "the freezer cgroup is not mounted")

    def _all_frozen(self) -> bool:
        if self.freezer:
            # To read it makes the kernel look again, too: what was FREEZING becomes FROZEN then.
            return self._still_there(f"{self.freezer}/freezer.state") == "FROZEN"
        return cgroupfs.counter(self._still_there(f"{self.unified}/cgroup.events"), "frozen") == 1

    def _still_there(self, path: str) -> str:
        """What a file of the group says; a group that is removed while it is waited for never stops."""
        text = cgroupfs.get(path)
        if text is None:
            raise cgroupfs.CgroupError(errno.ENOENT, "open", path, "the group was removed")
        return text

    def _thaw(self) -> None:
        """Let the group and all below it go on: SIGKILL waits for that, also in a container that was paused."""
        if self.freezer:
            for fd, _ in cgroupfs.walk(self.freezer):
                cgroupfs.put_if_there("freezer.state", "THAWED", fd)

    def remove(self, timeout: float = 2.0) -> None:
        """Remove the group with all groups below it; what is gone already is fine.

        Raises `OSError` (EBUSY) when processes are in it after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        for directory in (*self.version1, *((self.unified,) if self.unified else ())):
            cgroupfs.remove_tree(directory, deadline)

    def remove_empty(self) -> bool:
        """Remove the group if nothing is in it: a call for each directory, which mostly its monitor has removed already.

        False: there are processes or groups in it, or the kernel has not let go of them yet. What was removed then held neither.
        """
        try:
            for directory in (*self.version1, *((self.unified,) if self.unified else ())):
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    pass
        except OSError:
            return False  # why, is told by who goes about it in earnest
        return True

    def oom_kills(self) -> int:
        """How many processes the out-of-memory killer took in the group; 0 when nothing counts them."""
        total = 0
        if self.memory:
            # v1 counts for each group alone, so those that the container made below its own are added.
            for fd, _ in cgroupfs.walk(self.memory):
                total += cgroupfs.counter(cgroupfs.get("memory.oom_control", fd), "oom_kill")
        if self.unified:
            total += cgroupfs.counter(cgroupfs.get(f"{self.unified}/memory.events"), "oom_kill")
        return total


class GroupVerbs:
    """The same by a group's name, for the drivers, which know where things are mounted."""

    reason = ""

    def live(self, group: str) -> LiveGroup:
        """The group's directories."""
        raise NotImplementedError

    def processes(self, group: str) -> list[int]:
        return self.live(group).processes()

    def kill(self, group: str, timeout: float = 10.0, stuck_timeout: float = 10.0) -> None:
        self.live(group).kill(timeout, stuck_timeout)

    def remove(self, group: str, timeout: float = 2.0) -> None:
        self.live(group).remove(timeout)

    def remove_empty(self, group: str) -> bool:
        return self.live(group).remove_empty()

    def oom_kills(self, group: str) -> int:
        return self.live(group).oom_kills()

    def freeze(self, group: str, timeout: float = 5.0) -> None:
        self.live(group).freeze(timeout)

    def thaw(self, group: str) -> None:
        self.live(group).thaw()

    def thawing(self, group: str) -> tuple[str, str]:
        return self.live(group).thawing()

    def frozen(self, group: str) -> bool:
        return self.live(group).frozen()
