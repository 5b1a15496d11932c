"""`python -I -S .../sampan/shim`: the start of a shim. Imports all it will ever need, seals, forks away, monitors."""

from __future__ import annotations

import os
import sys

# With -I the file's directory is not put on the path: its package is two levels up.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

# All of it now: steps register themselves, and after `seal` nothing can be imported.
import select  # noqa: F401

from sampan.kernel import cgroup1, cgroup2, process  # noqa: F401
from sampan.shim import monitor, placement, protocol, seal
from sampan.steps import cgroups, mounts  # noqa: F401
from sampan.steps import process as _process_steps  # noqa: F401

if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
    # The assembler of device filters, where cgroup v2 is all there is; elsewhere it would only cost memory.
    from sampan.kernel import devicefilter  # noqa: F401


def main() -> None:
    """Forked twice, so that the launcher has no child to wait for and the monitor no parent to lose."""
    if not placement.fork_away():
        os._exit(0)
    process.close_range(protocol.CONTROL_FD + 1)
    seal.seal()
    monitor.main(protocol.CONTROL_FD)


main()
