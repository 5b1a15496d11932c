"""Starts the process that makes the audit's probes in a container (`shim/auditor.py`), and takes what they found."""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import System
from sampan.runtime.sealed import SHIM, spawn
from sampan.shim.protocol import Stages
from sampan.steps.audit import RunProbes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

AUDITOR = os.path.join(os.path.dirname(SHIM), "auditor.py")


def probe(init: int, lists: Stages) -> Sequence[tuple[str, bool, str]]:
    """Make the probes in the container whose init the pidfd `init` leads to: name, whether it held, what was seen.

    lists: how a program would be executed there; the probes take the place of its execve. Raises `System` if no process can join the container.
    """
    stages = Stages(lists.stage1, lists.clone, (*lists.stage2[:-1], RunProbes())).to_text()
    plan = os.memfd_create("plan", os.MFD_CLOEXEC)
    found, found_in = os.pipe2(os.O_CLOEXEC)
    said, said_in = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            with open(plan, "r+b", closefd=False) as file:
                file.write(stages.encode("ascii"))
            os.lseek(plan, 0, os.SEEK_SET)
            pid = spawn(AUDITOR, [], init, (plan, found_in, said_in))
        finally:
            for fd in (plan, found_in, said_in):
                os.close(fd)
        answer, complaint = _read(found), _read(said)
        _, status = os.waitpid(pid, 0)
    except OSError as e:
        raise System(f"cannot start the audit: {e}") from None
    finally:
        os.close(found)
        os.close(said)
    try:
        return [(str(name), bool(held), str(seen)) for name, held, seen in jsontext.loads(answer)]
    except ValueError:
        end = complaint.decode("utf-8", "replace").strip() or f"its process ended with status {status:#x}"
        raise System(f"the audit could not be made: {end}") from None


def _read(fd: int) -> bytes:
    """All of a pipe; the other one never fills, for what is said is less than a pipe holds."""
    with open(fd, "rb", closefd=False) as file:
        return file.read()
