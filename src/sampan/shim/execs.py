"""The processes that are started in a running container beside its own: from EXEC to the exit code."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from sampan.kernel import process
from sampan.shim import launch, protocol
from sampan.shim.documents import attempt, write_whole
from sampan.shim.streams import Session
from sampan.steps.base import Context, StepError
from sampan.steps.joining import CloneInside, ForkForExec
from sampan.steps.terminal import OpenTerminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.shim.streams import Client, Loop

DRAIN_SECONDS = 2.0
"""That a process' streams may take to come to their end after its own, if somebody listens."""

STUCK_MILLISECONDS = 2000

_LOOK_AGAIN = 1.0
_NEWBORN_SECONDS = 0.5

MAKING_SECONDS = 20.0
"""That a process may take to come to its program, before it counts as stuck."""


class Making:
    """A process that is on its way to its program, and who waits for it."""

    def __init__(self, client: Client, plan: protocol.ExecPlan, session: Session, ctx: Context) -> None:
        self.client = client
        self.plan = plan
        self.session = session
        self.ctx = ctx
        self.until = time.monotonic() + MAKING_SECONDS
        self.launching: launch.Launching
        self.told = False
        """It took too long, and was killed: its end interests nobody."""


class Execs:
    """Starts and ends them. Each has a file in the run directory, by which others know it: see `protocol.EXEC_FILE`."""

    def __init__(self, loop: Loop, ended: list[Session], event: Callable[..., None]) -> None:
        """`ended` is where the loop's owner finds those whose process has ended, to call `end`; `event` tells an event."""
        self._loop = loop
        self._ended = ended
        self._event = event
        self._running: list[Session] = []
        self._making: list[Making] = []
        self._guarded = False
        """There is or was a process in the container that may take over others: what is made there from now on has to be made elsewhere first."""
        self.directory = ""
        """The run directory."""

    def start(self, client: Client, plan: protocol.ExecPlan, init: int, devpts: int) -> None:
        """Start a process in the container of `init` (a pidfd), and tell the client; what fails harms nobody else.

        Nothing waits for it: that it runs is an event of the loop, so that one that is stuck on its way holds up nobody.
        devpts: the container's /dev/pts, -1 if it has none of its own.
        """
        session = Session(self._loop, plan.identifier, plan.open_stdin, True, plan.terminal, None)
        making = Making(client, plan, session, Context())
        if not plan.detach:
            client.join(session, {protocol.STDOUT, protocol.STDERR}, plan.open_stdin)
        if plan.powerful and not self._guarded:
            self._guarded = True
            self._end_newborn()
        try:
            making.launching = self._begin(making, init, devpts)
        except launch.Unmade as e:
            self._give_up(making, e.failed, init)
            return
        except Exception as e:
            # Out of descriptors or processes, or a plan that is none: the container goes on, and keeps nothing of it.
            self._fail(making, _failure(f"cannot start a process in the container: {e}"))
            return
        self._making.append(making)
        # No event but the hang-up: the reports of its steps wait in the socket until then.
        self._loop.watch(making.launching.fileno(), 0, lambda _: self._made(making, init))

    def _begin(self, making: Making, init: int, devpts: int) -> launch.Launching:
        plan, ctx = making.plan, making.ctx
        if plan.terminal:
            if devpts < 0:
                raise StepError("it has no /dev/pts of its own for a terminal")
            ctx.fds["devpts"] = devpts
            OpenTerminal("devpts", plan.size[0], plan.size[1]).run(ctx)
            del ctx.fds["devpts"]
        making.session.prepare(ctx)
        ctx.fds["init"] = init
        privacy = self._privacy() if plan.alone and not self._guarded else -1
        try:
            make = ForkForExec(plan.score) if privacy < 0 else CloneInside(plan.score)
            return launch.begin_by((*plan.monitor, make), plan.stages, ctx, privacy >= 0)
        finally:
            if privacy >= 0:
                os.close(privacy)

    def _end_newborn(self) -> None:
        """Before there is somebody who could take over one that was born in the container and has not got rid of what it has of ours.

        It takes milliseconds, unless root of the container has stopped it.
        """
        for making in self._making:
            if making.launching.alone and not making.launching.is_over(_NEWBORN_SECONDS):
                making.launching.kill()
                making.launching.is_over(STUCK_MILLISECONDS / 1000)

    def _privacy(self) -> int:
        """A descriptor that keeps other containers out of this one's pid namespace, -1 if one may be there already (`protocol.SHARED_FILE`).

        A child inherits it, and closes it with all that it has of ours.
        """
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return -1
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            shared = os.path.exists(f"{self.directory}/{protocol.SHARED_FILE}")
        except OSError:
            shared = True  # somebody is about to join, or no locks can be had there
        if shared:
            os.close(fd)
            return -1
        return fd

    def turn(self) -> float | None:
        """Give up what is on its way for too long. The seconds until this is to be called again, None if nothing is on its way."""
        now = time.monotonic()
        for making in self._making:
            if now < making.until and making.launching.is_broken():
                making.launching.kill()
            if not making.told and now >= making.until:
                making.told = True
                making.launching.kill()
                words = f"the process that is to run it has not come to its program within {MAKING_SECONDS:.0f} s and was killed"
                self._fail(making, _failure(f"{words}: it was stopped, or a disk or a file system does not answer"))
        return _LOOK_AGAIN if self._making else None

    def _made(self, making: Making, init: int) -> None:
        self._making.remove(making)
        self._loop.forget(making.launching.fileno())
        outcome = launch.conclude(making.launching)
        if making.told:
            if outcome.failed is None:
                process.reap(outcome.pid)  # it was killed as it came to its program
            return
        client, plan, session = making.client, making.plan, making.session
        if outcome.failed is not None:
            self._give_up(making, outcome.failed, init)
            return
        self._running.append(session)
        attempt(lambda: write_whole(self._file(session), _document(plan, outcome.pid), sync=False))
        session.began(outcome.pid, making.ctx, self._ended.append)
        client.send(protocol.message(protocol.REPLY, pid=outcome.pid))
        if plan.detach:
            client.finish()

    def _give_up(self, making: Making, failed: dict[str, Any], init: int) -> None:
        """Tell the client in which step it has failed, or that the container has ended meanwhile."""
        # Its end kills what was about to join, or leaves it nothing to join: a process on its way out has no
        # namespaces any more (ESRCH), and its pid namespace takes no more processes (ENOMEM), a moment before the
        # end is known. A program that cannot be executed has nothing to do with it, and waits for nothing.
        patience = 0 if failed["exit_code"] in (126, 127) else 100
        if failed["errno"] == errno.ESRCH or _has_ended(init, patience):
            failed.update(message="the container has ended", errno=0, advice="")
        self._fail(making, failed)

    def _fail(self, making: Making, failed: dict[str, Any]) -> None:
        making.session.close_program_ends(making.ctx)
        making.session.close()
        # A start that fails leaves 128, an exec 126, as with Docker.
        if failed["exit_code"] == 128:
            failed["exit_code"] = 126
        making.client.send(protocol.message(protocol.FAILED, **failed, error=launch.explain(failed)))
        making.client.finish()

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
        for making in list(self._making):
            making.launching.kill()
            if not making.told:
                making.told = True
                self._fail(making, _failure("the container has ended"))
            if making.launching.is_over(STUCK_MILLISECONDS / 1000):
                self._made(making, -1)
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


def _failure(message: str) -> dict[str, Any]:
    return {"message": message, "errno": 0, "exit_code": 126, "advice": ""}


def _document(plan: protocol.ExecPlan, pid: int) -> bytes:
    """What the client says about it, which nobody reads here, and its pid."""
    return b"%d %s" % (pid, plan.about.encode("ascii"))


def _has_ended(pidfd: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
