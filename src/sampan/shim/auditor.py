"""`python -I -S .../sampan/shim/auditor.py`: join a container as `exec` does, and make the probes there instead of a program.

Standard input has the plan's `Stages`, PIDFD leads to the container's init; what the probes find goes to standard output.
A process of its own and not the container's monitor, which keeps no code that it does not need.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, __file__.rpartition("/sampan/")[0])
from sampan.kernel import process
from sampan.shim import launch, protocol, seal
from sampan.steps import audit, joining, mounts  # noqa: F401
from sampan.steps import process as _process_steps  # noqa: F401
from sampan.steps.base import Context

PIDFD = protocol.CONTROL_FD


def main() -> None:
    with open(0, "rb", closefd=False) as file:
        text = file.read().decode("ascii")
    seal.seal()
    # Whoever is in the container must not see into what joins it.
    process.set_dumpable(False)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    ctx = Context()
    ctx.fds = {"init": PIDFD, "stdin": null, "stdout": os.dup(1), "stderr": null}
    outcome = launch.finish(launch.begin(text, ctx))
    if outcome.failed is not None:
        os.write(2, launch.explain(outcome.failed).encode("utf-8", "replace"))
        os._exit(1)
    # The probes' process closed its socket at its end, or was killed.
    _, status = os.waitpid(outcome.pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0x7F)


main()
