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
from sampan.shim import ocichild, protocol
from sampan.steps import cgroups, changeroot, joining, meeting, mounts, namespaces, privileges, sources  # noqa: F401
from sampan.steps import process as _process_steps  # noqa: F401

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DESCRIPTORS = 64
"""That one plan may bring along."""


def main() -> None:
    """Take the plan at the descriptor that the first argument names and run it. The second: how many descriptors from 3 on are kept."""
    control, kept = int(sys.argv[1]), int(sys.argv[2])
    process.set_dumpable(False)
    plan, descriptors = _receive(control)
    for name in plan["modules"]:
        __import__(name)  # its steps register themselves
    bundle.keep()
    fds = dict(zip(plan["descriptors"], descriptors, strict=True))
    ocichild.become(protocol.Stages.from_text(plan["stages"]), fds, control, kept, plan["every"])


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
