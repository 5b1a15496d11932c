"""The start of a shim: imports all it will ever need, seals, forks away, monitors."""

from __future__ import annotations

import os
import select  # noqa: F401
import sys

# All of it now: steps register themselves, and after `seal` nothing can be imported.
from sampan.kernel import process
from sampan.shim import monitor, placement, protocol, seal
from sampan.steps import cgroups, mounts  # noqa: F401
from sampan.steps import process as _process_steps  # noqa: F401

if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
    # The assembler of device filters, where cgroup v2 is all there is; elsewhere it would only cost memory.
    from sampan.kernel import devicefilter  # noqa: F401


def main() -> None:
    """Fork away, so that the launcher has no child to wait for and the monitor no parent to lose; then monitor."""
    if not placement.fork_away(sys.argv[1], sys.argv[2:]):
        os._exit(0)
    process.close_range(protocol.CONTROL_FD + 1)
    seal.seal()
    monitor.main(protocol.CONTROL_FD)
