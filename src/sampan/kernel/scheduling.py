"""How the kernel schedules a process: policy, I/O priority, processors; and the personality it has (sched(7), ioprio_set(2))."""

from __future__ import annotations

import _struct
import os

from sampan.kernel.libc import by_machine, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SYS_SCHED_SETATTR = by_machine(314, 274)
_SYS_IOPRIO_SET = by_machine(251, 30)
_SYS_PERSONALITY = by_machine(135, 92)
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0, "LINUX32": 8}

# struct sched_attr of sched_setattr(2), as of Linux 3.14: size, policy, flags, nice, priority, runtime, deadline, period
_SCHED_ATTR = _struct.Struct("=IIQiIQQQ")


def set_scheduler(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """sched_setattr(2) for this process; times in nanoseconds. Raises `KernelError`."""
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, flags, nice, priority, runtime, deadline, period)
    raw(_SYS_SCHED_SETATTR, "sched_setattr", "", 0, attributes, 0)


def set_io_priority(class_: int, priority: int) -> None:
    """ioprio_set(2) for this process. Raises `KernelError`."""
    raw(_SYS_IOPRIO_SET, "ioprio_set", "", _IOPRIO_WHO_PROCESS, 0, class_ << _IOPRIO_CLASS_SHIFT | priority)


def set_personality(persona: int) -> None:
    """personality(2): what uname(2) and some layouts of memory say from here on. Raises `KernelError`."""
    raw(_SYS_PERSONALITY, "personality", "", persona)


def set_processors(processors: Iterable[int]) -> None:
    """Run on these processors only (sched_setaffinity(2)). Raises OSError."""
    os.sched_setaffinity(0, processors)
