"""Steps that say how a process of an OCI configuration is scheduled, on which processors, and in which execution domain: few say so."""

from __future__ import annotations

import errno

from sampan.kernel import scheduling
from sampan.kernel.libc import KernelError
from sampan.steps.base import Context, Step


class Schedule(Step):
    """Set the scheduling policy (process.scheduler); times in nanoseconds."""

    policy: str
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0

    def describe(self) -> str:
        return f"sched_setattr {self.policy} nice {self.nice} priority {self.priority}"

    def run(self, ctx: Context) -> None:
        number = scheduling.POLICIES[self.policy]
        scheduling.set_scheduler(number, self.flags, self.nice, self.priority, self.runtime, self.deadline, self.period)

    def advice(self, errno_: int) -> str:
        if errno_ == errno.EPERM:
            return "real-time policies need CAP_SYS_NICE, and on cgroup v1 a share of the cgroup's real time"
        return super().advice(errno_)


class SetIoPriority(Step):
    """Set the class and priority of I/O (process.ioPriority)."""

    class_: str
    priority: int

    def describe(self) -> str:
        return f"ioprio_set {self.class_} {self.priority}"

    def run(self, ctx: Context) -> None:
        scheduling.set_io_priority(scheduling.IO_CLASSES[self.class_], self.priority)


class SetPersonality(Step):
    """Set the execution domain (linux.personality)."""

    domain: str

    def describe(self) -> str:
        return f"personality {self.domain}"

    def run(self, ctx: Context) -> None:
        scheduling.set_personality(scheduling.PERSONALITIES[self.domain])


class SetProcessors(Step):
    """Run on some processors (process.execCPUAffinity)."""

    processors: tuple[int, ...]

    def describe(self) -> str:
        return f"sched_setaffinity {','.join(map(str, self.processors))}"

    def run(self, ctx: Context) -> None:
        try:
            scheduling.set_processors(self.processors)
        except OSError as e:
            raise KernelError(e.errno or errno.EINVAL, "sched_setaffinity") from None
