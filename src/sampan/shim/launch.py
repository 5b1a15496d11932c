"""The monitor's side of making a process: make stage1, hear what it and stage2 report, know the outcome."""

from __future__ import annotations

import _socket
import os
import select

from sampan.kernel import process
from sampan.kernel.libc import number_at
from sampan.shim import protocol, seal, stages
from sampan.steps.base import Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


START_SECONDS = 60.0
"""That a container's start may take, of which a slow disk may be a part, before it counts as stuck."""
_KILL_SECONDS = 2.0


class Launching:
    """A process that is being made: stage1, the socket over which it and stage2 report, the place in memory at which stage2's pid appears.

    `alone`: one process is both. Else stage1 tells that pid too, and may be stopped or killed before it does: a stage2 that nobody reaps keeps its pid namespace,
    and with it the container, from ending.
    """

    def __init__(self, child: int, status: Any, place: int, alone: bool) -> None:
        self.child = child
        self.status = status
        self.place = place
        self.alone = alone

    def fileno(self) -> int:
        """For those who poll: it hangs up when execve has worked or something has failed. `conclude` waits for nothing then."""
        return int(self.status.fileno())

    def is_over(self, seconds: float) -> bool:
        """Wait for the hang-up; False if it has not come within the time."""
        poll = select.poll()
        poll.register(self.status, 0)
        return bool(poll.poll(int(seconds * 1000)))

    def kill(self) -> None:
        """End it, however far it is. It is still to be concluded, when it hangs up."""
        os.kill(self.child, 9)
        if not self.alone and (pid := self.stage2()):
            os.kill(pid, 9)

    def is_broken(self) -> bool:
        """Whether stage2 has died and stage1, which does not go on, keeps that from being heard."""
        pid = self.stage2()
        return pid != 0 and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def stage2(self) -> int:
        """Its pid, 0 if there is none yet."""
        return self.child if self.alone else number_at(self.place)

    def done(self, init: int) -> list[dict[str, Any]]:
        """The steps that were done. init: the pid of stage2."""
        return [
            {"stage": stage, "index": index, "pid": init if stage == "stage2" else self.child, "seconds": seconds}
            for stage in ("stage1", "clone", "stage2")
            for index, seconds in enumerate(self._times(stage))
        ]

    def _times(self, stage: str) -> list[float]:
        times, most = protocol.PLACES[stage]
        count = number_at(self.place + times - 8)
        return [number_at(self.place + times + 8 * i) / 1e9 if i < most else 0.0 for i in range(count)]

    def close(self) -> None:
        self.status.close()
        process.drop_place(self.place)


class Unmade(Exception):
    """A step by which its parent was to make a process has failed. failed: which and why, see `stages.failure`."""

    def __init__(self, failed: dict[str, Any]) -> None:
        super().__init__(failed["step"])
        self.failed = failed


class Outcome:
    """What came of a launch. `pid` runs the program if `failed` is None; `done` has the executed steps in order, if it failed or they are wanted."""

    def __init__(self) -> None:
        self.pid = 0
        self.failed: dict[str, Any] | None = None
        self.done: list[dict[str, Any]] = []
        self.executing = False


def begin_by(steps: tuple[Step, ...], text: str, ctx: Context, alone: bool) -> Launching:
    """Make the first process of an exec by steps of this one, the last of which clones it; `alone`: it is the only one. Raises `Unmade`.

    What the steps have opened for it is closed here.
    """
    kept = set(ctx.fds)
    done = 0
    try:
        for step in steps[:-1]:
            step.run(ctx)
            done += 1
        return begin(text, ctx, clone=steps[-1], alone=alone)
    except Exception as e:
        raise Unmade(stages.failure("monitor", done, steps[done], e)) from None
    finally:
        for name in set(ctx.fds) - kept:
            ctx.close(name)


def begin(
    text: str,
    ctx: Context,
    starting: bool = False,
    watched: bool = False,
    clone: Step | None = None,
    alone: bool = True,
) -> Launching:
    """Make stage1, and do not wait. `finish` or `conclude` does.

    `text` is a plan's `Stages`; `starting` is the container's start, and no exec; `watched`: each step waits for
    leave. `clone` makes the process that runs both lists, if it is `alone`; without it stage1 is forked, and clones stage2. `ctx` keeps the
    descriptors that the caller put there; those of the stages are opened in the children. Raises OSError; KeyError and ValueError for a plan
    that is none.
    """
    # Read here, where nothing is left to import: a process that was just forked copies a page for nearly each object that it makes.
    lists = protocol.Stages.from_text(text) if seal.is_sealed() else None
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    place = process.make_place()
    alone = alone and clone is not None
    try:
        if clone is not None:
            clone.run(ctx)
            child = ctx.child
        else:
            child = process.fork()
    except OSError:
        process.drop_place(place)
        raise
    if child == 0:
        try:
            ctx.fds["status"] = theirs.fileno()
            # Nothing else of the monitor's: a program that may ptrace this process finds no lock, log or client in it.
            process.close_all_but([0, 1, 2, *ctx.fds.values()])
            stages.stage1(lists or text, ctx, stages.Reporter(theirs.fileno(), watched, place), starting, alone)
        finally:
            os._exit(1)
    theirs.close()
    return Launching(child, ours, place, alone)


def finish(
    launching: Launching, leave: Callable[[dict[str, Any]], None] | None = None, traced: bool = False
) -> Outcome:
    """Wait until execve has worked or something has failed, after which no child is left.

    `leave` is called with every BEGIN before its step runs, if the start is watched. One that is not has `START_SECONDS`.
    """
    late = leave is None and not launching.is_over(START_SECONDS)
    if late:
        launching.kill()
    return conclude(launching, leave, late, traced)


def conclude(
    launching: Launching,
    leave: Callable[[dict[str, Any]], None] | None = None,
    late: bool = False,
    traced: bool = False,
) -> Outcome:
    """Wait for the end of the making, and know what came of it.

    `late`: it was killed because it took too long. In uninterruptible sleep it may not die: it is left behind then. `traced`: of a success,
    too, the steps are wanted, which of a failure are always told.
    """
    outcome = Outcome()
    alone = launching.alone
    if alone:
        outcome.pid = launching.child
    stuck = late and not launching.is_over(_KILL_SECONDS)
    if stuck:
        launching.status.setblocking(False)
    _hear(launching.status, outcome, leave, alone)
    outcome.pid = outcome.pid or launching.stage2()
    if traced or late or outcome.failed is not None or not (outcome.pid and outcome.executing):
        outcome.done = launching.done(outcome.pid)
    launching.close()
    if not alone:
        os.waitpid(launching.child, os.WNOHANG if stuck else 0)
    if late:
        outcome.failed = _late(outcome, alone)
    _conclude(outcome, os.WNOHANG if stuck else 0, alone)
    return outcome


def _hear(ours: Any, outcome: Outcome, leave: Callable[[dict[str, Any]], None] | None, alone: bool) -> None:
    """Take in everything until execve or death closes the stages' end."""
    reader = protocol.Reader()
    held: list[dict[str, Any]] = []  # what stage2 announces before stage1 has said who it is
    while data := _receive(ours, watched=leave is not None):
        for kind, body in reader.feed(data):
            said = protocol.loads(body)
            if kind == protocol.BEGIN:
                held.append(said)
            elif kind == protocol.FAILED:
                outcome.failed = said
            elif kind == protocol.INIT:
                outcome.pid = said["pid"]
            elif kind == protocol.LAST:
                outcome.executing = True
        while leave and held and (outcome.pid or held[0]["stage"] != "stage2"):
            leave(_by_our_pid(held.pop(0), outcome.pid, alone))
            try:
                ours.send(protocol.frame(protocol.GO))
            except BrokenPipeError:
                pass  # it was killed while it waited
    if outcome.failed:
        _by_our_pid(outcome.failed, outcome.pid, alone)


def _receive(ours: Any, watched: bool) -> bytes:
    """What the stages say; b"" at the end. Not watched, sleep until that end, instead of waking up for each of 50 steps."""
    try:
        return bytes(ours.recv(1 << 16, 0 if watched else _socket.MSG_WAITALL))
    except (ConnectionResetError, BlockingIOError):
        return b""  # a stage was killed before it had read our GO; or there is no end, for it does not die


def _by_our_pid(said: dict[str, Any], init: int, alone: bool) -> dict[str, Any]:
    """Init knows itself by its number in the container: give it the one by which others know it."""
    if alone or said["stage"] == "stage2":
        said["pid"] = init
    return said


def _conclude(outcome: Outcome, options: int, alone: bool) -> None:
    """Find out whether the end of file was an execve or a death on the way; reap what is left of a failure."""
    if outcome.failed is None and not (outcome.pid and outcome.executing):
        outcome.failed = _died(outcome, alone)
    if outcome.failed is not None and outcome.pid:
        try:
            os.kill(outcome.pid, 9)
            os.waitpid(outcome.pid, options)
        except (ProcessLookupError, ChildProcessError):
            pass  # it was reaped with its own report


def _late(outcome: Outcome, alone: bool) -> dict[str, Any]:
    """A stage that was killed because it went on no more: in which step."""
    failed = _died(outcome, alone)
    where = f"{failed['step']} of {failed['stage']}"
    return {
        **failed,
        "message": f"the process that sets the container up did not get past {where} within {START_SECONDS:.0f} s and was killed",
        "advice": "it was stopped, or a disk or a file system that it needs does not answer",
    }


def _died(outcome: Outcome, alone: bool) -> dict[str, Any]:
    """A stage that was killed in the middle (by the out-of-memory killer, by hand): in which step."""
    if alone:
        # Where the list of stage1 ends only the child knows: before the first report of stage2 it may be in either.
        stage = "stage2" if any(d["stage"] == "stage2" for d in outcome.done) else "stage1"
    else:
        stage = "stage2" if outcome.pid else "stage1"
    index = sum(1 for d in outcome.done if d["stage"] == stage)
    return {
        "stage": stage,
        "index": index,
        "step": f"step {index}",
        "errno": 0,
        "syscall": "",
        "path": "",
        "exit_code": 128,
        "message": f"the process that sets the container up was killed in step {index} of {stage}",
        "advice": "the memory limit may be too small for a start, or the machine is out of memory",
    }


def explain(failed: dict[str, Any]) -> str:
    """A failed step in one line: Docker's own words where there are some, else step, system call, errno, path, advice."""
    if failed["message"] and not failed["errno"]:
        words: str = failed["message"]
        if failed["exit_code"] in (126, 127):
            return f"unable to start container process: {words}"
        return words + (f" ({failed['advice']})" if failed["advice"] else "")
    reason = os.strerror(failed["errno"]).lower() if failed["errno"] else failed["message"]
    where = f" {failed['path']}" if failed["path"] else ""
    call = f"{failed['syscall']}{where}: " if failed["syscall"] else (f"{failed['path']}: " if failed["path"] else "")
    advice = f" ({failed['advice']})" if failed["advice"] else ""
    return f"unable to start container process: {failed['stage']}: {failed['step']}: {call}{reason}{advice}"
