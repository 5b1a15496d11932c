"""`python -I -S .../sampan/shim`: the start of a shim. Imports all it will ever need, seals, forks away, monitors."""

from __future__ import annotations

import os
import sys

# `python DIR` put DIR on the path; the package that it belongs to is two levels up.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# All of it now: steps register themselves, drivers are chosen later, and after `seal` nothing can be imported.
import fcntl  # noqa: E402, F401
import select  # noqa: E402, F401
import termios  # noqa: E402, F401

from sampan.kernel import cgroup1, cgroup2, devicefilter, process  # noqa: E402, F401
from sampan.shim import monitor, protocol, seal  # noqa: E402
from sampan.steps import cgroups, mounts  # noqa: E402, F401
from sampan.steps import process as _process_steps  # noqa: E402, F401


def main() -> None:
    """Forked twice, so that the launcher has no child to wait for and the monitor no parent to lose."""
    if process.fork():
        os._exit(0)
    process.close_range(protocol.CONTROL_FD + 1)
    seal.seal()
    monitor.main(protocol.CONTROL_FD)


main()
