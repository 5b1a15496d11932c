"""The start of a shim: imports what it will need for as long as it lives, forks away, monitors."""

from __future__ import annotations

import os
import select  # noqa: F401
import sys

from sampan.shim import seal

seal.forget_start_up()  # before the imports that fill what it gives back

# All of it now: steps register themselves, and after the start nothing can be imported (see `seal`).
# ruff: noqa: E402
from sampan.kernel import placement, process

seal.forget_documentation()
from sampan.steps import joining  # noqa: F401

seal.forget_documentation()
from sampan.steps import process as _process_steps  # noqa: F401

seal.forget_documentation()
from sampan.shim import protocol, streams  # noqa: F401

seal.forget_documentation()
from sampan.shim import monitor


def main() -> None:
    """Fork away, so that the launcher has no child to wait for and the monitor no parent to lose; then monitor."""
    if not placement.fork_away(sys.argv[1], sys.argv[2:]):
        os._exit(0)
    process.close_range(protocol.CONTROL_FD + 1)
    for stream in ("stdin", "stdout", "stderr"):
        # They lead to /dev/null; their buffers go back, for a shim's memory is its container's price.
        setattr(sys, stream, None)
        setattr(sys, f"__{stream}__", None)
    seal.forget_documentation()
    monitor.main(protocol.CONTROL_FD)
