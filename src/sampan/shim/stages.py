"""stage1 and stage2: how a container is built, by the process that becomes its init, and how an exec's process comes in.

    stage1   with the host's view and privileges: makes cgroups, builds every mount detached, joins namespaces that exist
    stage2   in the new ones: attaches the mounts, changes root, drops privileges, execve

A plain start needs one process for both:

    monitor --clone3(new pid and time namespaces, into its cgroup)--> stage1, unshare(the other namespaces), stage2

And so does an exec, whose process is born in the container (docs/adr/0018):

    monitor --setns, clone3(into the container's cgroup), setns back--> stage1, setns(the other namespaces), stage2

Where the kernel gives a namespace only to children of whoever has entered another one (a user namespace, a pid namespace that is joined, clocks
with offsets), and for an exec in a container of which somebody might take such a process over, there are two:

    monitor --fork--> stage1 --clone3(CLONE_PARENT, new namespaces)--> stage2, a child of the monitor; stage1 ends

They run the plan's steps in order, decide nothing, and report to the monitor over one socket that execve closes. They
never return to their caller, never raise, and end by `os._exit`: nothing of the monitor's may run twice.
"""

from __future__ import annotations

import gc
import os
import time

from sampan.kernel import process
from sampan.kernel.libc import KernelError, put_number
from sampan.shim import protocol, seal
from sampan.steps.base import Context, Step, StepError
from sampan.steps.joining import CloneSibling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Reporter:
    """Tells the monitor what was done; waits for leave before each step if the start is watched."""

    def __init__(self, fd: int, watched: bool, place: int = 0) -> None:
        """place: of `process.make_place`, where the kernel writes stage2's pid for the monitor, and this process what it has done, see `protocol.PLACES`."""
        self.fd = fd
        self.watched = watched
        self.place = place

    def begin(self, stage: str, index: int) -> None:
        if self.watched:
            os.write(self.fd, protocol.message(protocol.BEGIN, stage=stage, index=index, pid=os.getpid()))
            if not os.read(self.fd, protocol.HEADER_SIZE):
                os._exit(125)  # the monitor is gone

    def done(self, stage: str, index: int, seconds: float) -> None:
        times, most = protocol.PLACES[stage]
        if index < most:
            put_number(self.place + times + 8 * index, int(seconds * 1e9))
        # After the time that it counts: this process may be killed between the two.
        put_number(self.place + times - 8, index + 1)

    def failed(self, stage: str, index: int, step: Step, seconds: float, error: BaseException) -> None:
        os.write(
            self.fd,
            protocol.message(protocol.FAILED, **failure(stage, index, step, error), pid=os.getpid(), seconds=seconds),
        )

    def init(self, pid: int) -> None:
        os.write(self.fd, protocol.message(protocol.INIT, pid=pid))

    def last(self) -> None:
        os.write(self.fd, protocol.message(protocol.LAST))


def failure(stage: str, index: int, step: Step, error: BaseException) -> dict[str, Any]:
    """A failed step as the data of FAILED: which, the system call, the errno, the path, what to do."""
    number = getattr(error, "errno", None) or 0
    report: dict[str, Any] = {
        "stage": stage,
        "index": index,
        "step": step.describe(),
        "errno": number,
        "syscall": getattr(error, "syscall", ""),
        "path": os.fsdecode(getattr(error, "filename", None) or ""),
        "exit_code": 128,
        "message": "",
        "advice": getattr(error, "advice", "") or (step.advice(number) if number else ""),
    }
    if isinstance(error, StepError):
        report["message"] = str(error)
        report["exit_code"] = error.exit_code
    elif not isinstance(error, OSError):
        report["message"] = f"{type(error).__name__}: {error}"
    return report


def run_steps(stage: str, steps: tuple[Step, ...], ctx: Context, report: Reporter) -> bool:
    """Run `steps` in order until one fails, which is reported: False then."""
    for index, step in enumerate(steps):
        report.begin(stage, index)
        if not _run_step(stage, index, step, ctx, report):
            return False
    return True


def _run_step(stage: str, index: int, step: Step, ctx: Context, report: Reporter) -> bool:
    """Run one step and report it: its success, unless it is a final one."""
    begun = time.perf_counter()
    try:
        step.run(ctx)
    except BaseException as e:
        # Everything, whatever it is: a traceback would need modules that a sealed process cannot import.
        report.failed(stage, index, step, time.perf_counter() - begun, e)
        return False
    if not step.final:
        report.done(stage, index, time.perf_counter() - begun)
    return True


def load_start(text: str) -> None:
    """Import what only the children of a start need, then seal: a monitor would keep it for the life of its container.

    `text` is that of the plan, which tells whether it has steps that few have. Done by stage1 before its first step, while all that it sees is the host's.
    """
    from sampan.steps import cgroups, changeroot, mounts, namespaces, sources  # noqa: F401

    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        from sampan.kernel import devicefilter  # noqa: F401  # the assembler of cgroup v2's device filters
    if "EnterUserNamespace" in text or "DelegateCgroup" in text:
        from sampan.steps import ids, moremounts  # noqa: F401
    seal.seal()


def stage1(
    lists: protocol.Stages | str, ctx: Context, report: Reporter, starting: bool, alone: bool = False
) -> NoReturn:
    """Run the host's side; go on as stage2, or clone it, tell its pid, and end.

    `lists`: as text where they are to be read here; `starting`, and no exec; `alone`: go on in any case, for this process was born where stage2 would be.
    """
    gc.disable()  # it is gone before there is garbage, and a collection writes to pages that are the monitor's too
    try:
        if isinstance(lists, str):
            if starting:
                load_start(lists)
            lists = protocol.Stages.from_text(lists)
        host_side(lists, ctx, report, alone)
    finally:
        os._exit(1)


def host_side(lists: protocol.Stages, ctx: Context, report: Reporter, alone: bool = False) -> NoReturn:
    """The same, with lists that are there already and all imported that they need."""
    status = 1
    try:
        if run_steps("stage1", lists.stage1, ctx, report):
            if alone or lists.clone == protocol.NO_CLONE:
                stage2(lists.stage2, ctx, report)
            pid = _clone(lists.clone, ctx, report)
            if pid == 0:
                stage2(lists.stage2, ctx, report)
            if pid > 0:
                report.init(pid)
                status = 0
    finally:
        os._exit(status)


def _clone(flags: int, ctx: Context, report: Reporter) -> int:
    """The pid of stage2, 0 in it, -1 after a failure that was reported."""
    begun = time.perf_counter()
    report.begin("clone", 0)
    try:
        pid = process.clone3(flags | process.CLONE_PARENT, ctx.fds.get("cgroup", -1), report.place)
    except KernelError as e:
        report.failed("clone", 0, CloneSibling(flags), time.perf_counter() - begun, e)
        return -1
    if pid:
        report.done("clone", 0, time.perf_counter() - begun)
    return pid


def stage2(steps: tuple[Step, ...], ctx: Context, report: Reporter) -> NoReturn:
    """Become the container's program. Its last step is the execve, after which there is nobody to return.

    Everything is said before the final steps: behind the filter this process may do what the filter allows, and
    that is for the program to use. Only a failure is reported from there, if that can be.
    """
    try:
        final = next(index for index, step in enumerate(steps) if step.final)
        if run_steps("stage2", steps[:final], ctx, report):
            for index in range(final, len(steps)):
                report.begin("stage2", index)
            # Behind the wait for leave: who is killed while it waits has not executed anything.
            report.last()
            for index in range(final, len(steps)):
                if not _run_step("stage2", index, steps[index], ctx, report):
                    break
    finally:
        os._exit(127)
