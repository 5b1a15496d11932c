"""The start of stage1 in OCI mode, where a command starts it itself: no monitor is between them, and none stays.

It comes up beside the command, which reads the configuration meanwhile; imports what most plans need, takes the plan, imports the rest, seals.
"""

from __future__ import annotations

import _socket
import os
import struct
import sys

from sampan import bundle
from sampan.kernel import process
from sampan.shim import protocol, seal, stages
from sampan.steps import cgroups, changeroot, hooks, mounts, namespaces, privileges, sources  # noqa: F401
from sampan.steps import process as _process_steps  # noqa: F401
from sampan.steps.base import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DESCRIPTORS = 64
"""That one plan may bring along."""


class Quiet(stages.Reporter):
    """Tells the command only what it waits for; with `--debug`, every step as it is done."""

    def __init__(self, fd: int, every: bool) -> None:
        super().__init__(fd, watched=False)
        self._every = every

    def done(self, stage: str, index: int, seconds: float) -> None:
        if self._every:
            super().done(stage, index, seconds)


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


def main() -> None:
    """Take the plan at the descriptor that the first argument names and run it. The second: how many descriptors from 3 on are kept."""
    control, kept = int(sys.argv[1]), int(sys.argv[2])
    # Before anything is joined: nobody in the container may look into this process or have it opened.
    process.set_dumpable(False)
    # Nodes and directories get the modes that they are given.
    os.umask(0)
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        from sampan.kernel import devicefilter  # noqa: F401  # the assembler of cgroup v2's device filters
    plan, descriptors = _receive(control)
    for name in plan["modules"]:
        __import__(name)  # its steps register themselves
    bundle.keep()
    seal.seal()
    report = Quiet(control, plan["every"])
    ctx = Meeting(report)
    ctx.fds = {"stdin": 0, "stdout": 1, "stderr": 2, "status": control}
    ctx.fds.update(zip(plan["descriptors"], descriptors, strict=True))
    process.close_all_but([*range(3 + kept), *ctx.fds.values()])
    stages.stage1(plan["stages"], ctx, report, starting=False)


def _receive(control: int) -> tuple[dict[str, Any], list[int]]:
    socket = _socket.socket(fileno=os.dup(control))
    reader = protocol.Reader()
    descriptors: list[int] = []
    room = _socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
    while True:
        data, ancillary, _, _ = socket.recvmsg(1 << 18, room, _socket.MSG_CMSG_CLOEXEC)
        for _, _, packed in ancillary:
            descriptors += struct.unpack(f"{len(packed) // 4}i", packed)
        if not data:
            os._exit(0)  # the command found something wrong before it came to a plan
        for _, body in reader.feed(data):
            socket.close()
            return protocol.loads(body), descriptors
