"""The monitor's side of making a process: fork stage1, hear what it and stage2 report, know the outcome."""

from __future__ import annotations

import _socket
import os

from sampan.kernel import process
from sampan.shim import protocol, stages
from sampan.steps.base import Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Outcome:
    """What came of a launch. `pid` runs the program if `failed` is None; `done` has the executed steps in order."""

    def __init__(self) -> None:
        self.pid = 0
        self.failed: dict[str, Any] | None = None
        self.done: list[dict[str, Any]] = []


def launch(
    stage1: tuple[Step, ...],
    clone: int,
    stage2: tuple[Step, ...],
    ctx: Context,
    leave: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Make a process of the container: returns when execve has worked or something has failed.

    `leave` is called with every BEGIN before its step runs, if the start is watched. After a failure no child is
    left. `ctx` keeps the descriptors that the caller put there; those of the stages were opened in the children.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    child = process.fork()
    if child == 0:
        ours.close()
        ctx.fds["status"] = theirs.fileno()
        # Nothing else of the monitor's: a program that may ptrace this process finds no lock, log or client in it.
        process.close_all_but([0, 1, 2, *ctx.fds.values()])
        stages.stage1(stage1, clone, stage2, ctx, stages.Reporter(theirs.fileno(), leave is not None))
    theirs.close()
    outcome = Outcome()
    last = _hear(ours, outcome, leave)
    ours.close()
    os.waitpid(child, 0)
    _conclude(outcome, last, stage1, stage2)
    return outcome


def _hear(ours: Any, outcome: Outcome, leave: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
    """Take in everything until execve or death closes the stages' end; the last BEGIN, if watched."""
    reader = protocol.Reader()
    begun: dict[str, Any] = {}
    # Not watched: sleep until the end, instead of waking up for each of the 50 steps.
    flags = 0 if leave else _socket.MSG_WAITALL
    while data := ours.recv(1 << 16, flags):
        for kind, body in reader.feed(data):
            said = protocol.loads(body)
            if kind == protocol.BEGIN:
                begun = said
                if leave:
                    leave(said)
                    ours.send(protocol.frame(protocol.GO))
            elif kind == protocol.DONE:
                outcome.done.append(said)
            elif kind == protocol.FAILED:
                outcome.failed = said
            elif kind == protocol.INIT:
                outcome.pid = said["pid"]
    return begun


def _conclude(outcome: Outcome, begun: dict[str, Any], stage1: tuple[Step, ...], stage2: tuple[Step, ...]) -> None:
    """Find out whether the end of file was an execve or a death on the way; reap what is left of a failure."""
    reached = sum(1 for d in outcome.done if d["stage"] == "stage2")
    if outcome.failed is None and (outcome.pid == 0 or reached < len(stage2) - 1):
        outcome.failed = _died(outcome, stage1, stage2)
    if outcome.failed is not None and outcome.pid:
        try:
            os.kill(outcome.pid, 9)
            os.waitpid(outcome.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # it was reaped with its own report


def _died(outcome: Outcome, stage1: tuple[Step, ...], stage2: tuple[Step, ...]) -> dict[str, Any]:
    """A stage that was killed in the middle (by the out-of-memory killer, by hand): after which step, and how."""
    stage, steps = ("stage2", stage2) if outcome.pid else ("stage1", stage1)
    index = sum(1 for d in outcome.done if d["stage"] == stage)
    step = steps[index] if index < len(steps) else stages.CloneInit(0)
    report = stages.failure(stage, index, step, RuntimeError("the process was killed"))
    report["message"] = "the process that sets the container up was killed"
    report["advice"] = "the memory limit may be too small for a start, or the machine is out of memory"
    return report
