"""Stage1 in OCI mode, from the moment that it has its plan: no monitor is between it and the command, and none stays."""

from __future__ import annotations

import os

from sampan.kernel import process
from sampan.shim import protocol, seal, stages
from sampan.steps.base import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Quiet(stages.Reporter):
    """Tells the command only what it waits for; with `--debug`, every step as it is done."""

    def __init__(self, fd: int, every: bool) -> None:
        super().__init__(fd, watched=False)
        self._every = every

    def done(self, stage: str, index: int, seconds: float) -> None:
        if self._every:
            report = protocol.message(protocol.DONE, stage=stage, index=index, pid=os.getpid(), seconds=seconds)
            os.write(self.fd, report)


class Meeting(Context):
    """A context whose steps can wait for the command."""

    def __init__(self, report: stages.Reporter) -> None:
        super().__init__()
        self._report = report

    def meet(self, word: str) -> None:
        os.write(self._report.fd, protocol.message(protocol.MEET, word=word))
        reader = protocol.Reader()
        while data := os.read(self._report.fd, 4096):
            for _, body in reader.feed(data):
                self.host_pid = protocol.loads(body)["pid"]
                return
        os._exit(125)  # the command was killed: without it this container is not to be


def become(lists: protocol.Stages, fds: dict[str, int], control: int, kept: int, every: bool) -> NoReturn:
    """Be stage1 from here on. All that the lists need is imported.

    fds: by the plan's names. control: the socket to the command. kept: how many descriptors from 3 on the program gets. every: tell each step.
    """
    # Before anything is joined: nobody in the container may look into this process or have it opened.
    process.set_dumpable(False)
    # Nodes and directories get the modes that they are given.
    os.umask(0)
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        from sampan.kernel import devicefilter  # noqa: F401  # the assembler of cgroup v2's device filters
    seal.seal()
    report = Quiet(control, every)
    ctx = Meeting(report)
    ctx.fds = {"stdin": 0, "stdout": 1, "stderr": 2, "status": control, **fds}
    process.close_all_but([*range(3 + kept), *ctx.fds.values()])
    stages.host_side(lists, ctx, report)
