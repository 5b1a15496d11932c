"""The processes that are started in a running container beside its own: from EXEC to the exit code."""

from __future__ import annotations

import errno
import os
import select

from sampan.kernel import process
from sampan.shim import launch, protocol
from sampan.shim.documents import attempt, write_whole
from sampan.shim.streams import Session
from sampan.steps.base import Context, StepError
from sampan.steps.terminal import OpenTerminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.shim.streams import Client, Loop

DRAIN_SECONDS = 2.0
"""That a process' streams may take to come to their end after its own, if somebody listens."""

STUCK_MILLISECONDS = 2000


class Execs:
    """Starts and ends them. Each has a file in the run directory, by which others know it: see `protocol.EXEC_FILE`."""

    def __init__(self, loop: Loop, ended: list[Session], event: Callable[..., None]) -> None:
        """`ended` is where the loop's owner finds those whose process has ended, to call `end`; `event` tells an event."""
        self._loop = loop
        self._ended = ended
        self._event = event
        self._running: list[Session] = []
        self.directory = ""
        """The run directory."""

    def start(self, client: Client, plan: protocol.ExecPlan, init: int, devpts: int) -> None:
        """Start a process in the container of `init` (a pidfd), and tell the client; what fails harms nobody else.

        devpts: the container's /dev/pts, -1 if it has none of its own.
        """
        session = Session(self._loop, plan.identifier, plan.open_stdin, True, plan.terminal, None)
        ctx = Context()
        try:
            outcome = _launch(session, ctx, plan, init, devpts)
        except Exception as e:
            # Out of descriptors or processes, or a plan that is none: the container goes on, and keeps nothing of it.
            outcome = launch.Outcome()
            message = f"cannot start a process in the container: {e}"
            outcome.failed = {"message": message, "errno": 0, "exit_code": 126, "advice": ""}
        if outcome.failed is not None:
            # Its end kills what was about to join, or leaves it nothing to join: a process on its way out has no
            # namespaces any more (ESRCH), and its pid namespace takes no more processes (ENOMEM), a moment before the
            # end is known. A program that cannot be executed has nothing to do with it, and waits for nothing.
            patience = 0 if outcome.failed["exit_code"] in (126, 127) else 100
            if outcome.failed["errno"] == errno.ESRCH or _has_ended(init, patience):
                outcome.failed.update(message="the container has ended", errno=0, advice="")
            session.close_program_ends(ctx)
            session.close()
            client.send(protocol.message(protocol.FAILED, **outcome.failed, error=launch.explain(outcome.failed)))
            client.finish()
            return
        self._running.append(session)
        attempt(lambda: write_whole(self._file(session), _document(plan, outcome.pid), sync=False))
        session.began(outcome.pid, ctx, self._ended.append)
        client.send(protocol.message(protocol.REPLY, pid=outcome.pid, steps=outcome.done))
        if plan.detach:
            client.finish()
        else:
            client.join(session, {protocol.STDOUT, protocol.STDERR}, plan.open_stdin)

    def end(self, session: Session) -> None:
        """Reap an exec's process; once its streams are at their end as well, or were held open too long, tell its client.

        Called until it is off the list of the ended, so that nobody waits for another's streams.
        """
        if session.exit_code is None:
            self._loop.forget(session.pidfd)
            session.exit_code = process.reap(session.pid)
            session.begin_draining(DRAIN_SECONDS if session.clients else 0)
        if not session.seconds_left:
            self._ended.remove(session)
            self._running.remove(session)
            session.close()
            self._keep_exit_code(session)
            self._event("exec_die", execID=session.identifier, exitCode=str(session.exit_code))
            session.tell_exit(exit_code=session.exit_code)

    def end_all(self) -> None:
        """The container has ended: kill those that were not killed with it, and end them all."""
        for session in list(self._running):
            if session not in self._ended:
                session.signal(9)
                if not _has_ended(session.pidfd, STUCK_MILLISECONDS):
                    # As it will be: in uninterruptible sleep it holds up nobody's exit code.
                    session.exit_code = 128 + 9
                    self._loop.forget(session.pidfd)
                    session.begin_draining(0)
                self._ended.append(session)
            self.end(session)
            while session in self._ended:
                self._loop.run_once(20)
                self.end(session)

    def _file(self, session: Session) -> str:
        return f"{self.directory}/{protocol.EXEC_FILE}{session.identifier}"

    def _keep_exit_code(self, session: Session) -> None:
        """One rename: whoever looks finds the exec running, or ended with its code."""
        ended = f"{self.directory}/{protocol.ENDED_EXEC_FILE}{session.identifier}.{session.exit_code}"
        attempt(lambda: os.rename(self._file(session), ended))


def _launch(session: Session, ctx: Context, plan: protocol.ExecPlan, init: int, devpts: int) -> launch.Outcome:
    if plan.terminal:
        if devpts < 0:
            raise StepError("it has no /dev/pts of its own for a terminal")
        ctx.fds["devpts"] = devpts
        OpenTerminal("devpts", plan.size[0], plan.size[1]).run(ctx)
        del ctx.fds["devpts"]
    session.prepare(ctx)
    ctx.fds["init"] = init
    return launch.launch(plan.stages, ctx)


def _document(plan: protocol.ExecPlan, pid: int) -> bytes:
    """What the client says about it, which nobody reads here, and its pid."""
    return b"%d %s" % (pid, plan.about.encode("ascii"))


def _has_ended(pidfd: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
