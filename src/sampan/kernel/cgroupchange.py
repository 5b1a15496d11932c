"""Changing the limits of a group with processes in it: in an order that the kernel takes, and back again if it refuses one.

Apart from the drivers, which say what is written where: a start, whose group is new and without limits, needs nothing of this.
"""

from __future__ import annotations

import os

from sampan.kernel import cgroupfs
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.kernel.cgroupmodel import Write

_BOUNDS = frozenset(("memory.memsw.limit_in_bytes", "cpu.cfs_period_us", "cpu.rt_period_us"))
"""Knobs of v1 that another one of the same group may never exceed, by itself or as a share of what the group above has."""


class Change(Struct):
    """One write, and what the file says before it."""

    write: Write
    before: str

    def undo(self) -> None:
        """Write back what was there; what the kernel refuses now stays as it is."""
        # An empty cpuset reads as "", and a write of no bytes would change nothing.
        cgroupfs.write(self.write.path, self.before or "\n", required=False)


def ordered(writes: Iterable[Write]) -> list[Change]:
    """The writes with what they replace, so ordered that each finds what the kernel wants of the others.

    A bound (`_BOUNDS`) that grows comes before everything else, and one that shrinks comes last: in between, what it bounds
    is below the larger one of the old and the new bound. A file that is not there, whose write may fail, is left out.
    Raises `CgroupError`.
    """
    changes = []
    for write in writes:
        before = cgroupfs.get(write.path)
        if before is None and not write.required:
            continue
        changes.append(Change(write, (before or "").partition("\n")[0]))
    return sorted(changes, key=_position)


def _position(change: Change) -> int:
    if os.path.basename(change.write.path) not in _BOUNDS:
        return 1
    return 0 if _number(change.write.value) >= _number(change.before) else 2


def _number(text: str) -> float:
    """-1 is v1's word for no limit."""
    return float("inf") if text.startswith("-") or not text else int(text)
