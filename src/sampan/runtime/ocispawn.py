"""Stage1 of an OCI command: opened as the command's very first act, given its plan when there is one.

Two ways. If this process was itself executed from read-only mounts (`sealed`), stage1 is forked from it when the plan is there. Else
it is an interpreter of its own, which comes up (10 ms) beside all that the command does: then nothing is imported here that its start does not need.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter, StartFailed, System
from sampan.kernel import linepair
from sampan.runtime import sealed
from sampan.steps.base import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from sampan.shim.protocol import Stages
    from sampan.steps.base import Step


class Stage:
    """A process that waits for its plan, our child. `control`: the socket to it. With `with`, it goes when the making fails."""

    def __init__(self, preserved: int) -> None:
        """preserved: how many descriptors from 3 on it inherits. Raises `System`."""
        self.preserved = preserved
        self.pid = 0
        self.control, self._theirs = linepair.make()

    clones = False
    """Whether it can be made by `CloneInit`, where the configuration allows that one process runs both lists."""

    def begin(self, lists: Stages, birth: tuple[Step, ...], descriptors: dict[str, int], every: bool) -> int:
        """Have it run the lists. birth: the steps that make a process for both lists. descriptors: by the lists' names. every: it tells each step.

        The pid of the container's process, our child, if `birth` has made it; else 0, and it will be told. Raises `StartFailed`.
        """
        raise NotImplementedError

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.close()
        if kind is not None:
            self.kill()

    def kill(self) -> None:
        """End it, however far it is."""
        if self.pid:
            os.kill(self.pid, 9)
            self.reap()

    def reap(self) -> None:
        """Wait for its end."""
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0


class Forked(Stage):
    """Becomes a process when its lists are there, and mostly the container's own: whatever they need is imported by then."""

    clones = True

    def begin(self, lists: Stages, birth: tuple[Step, ...], descriptors: dict[str, int], every: bool) -> int:
        from sampan.kernel import process
        from sampan.shim import ocichild

        ctx = Context()
        if birth:
            _run(birth, ctx)
            pid = ctx.child
        else:
            try:
                pid = self.pid = process.fork()
            except OSError as e:
                raise StartFailed(f"cannot fork stage1: {os.strerror(e.errno or 0).lower()}") from None
        if pid == 0:
            # What the command does with signals is not for this process.
            process.default_signals()
            ocichild.become(lists, {**descriptors, **ctx.fds}, self._theirs.fileno(), self.preserved, every)
        self._theirs.close()
        ctx.close("cgroup")
        return ctx.child


def _run(birth: tuple[Step, ...], ctx: Context) -> None:
    """Run the steps that make the process, in it and here. Raises `StartFailed`."""
    for step in birth:
        try:
            step.run(ctx)
        except OSError as e:
            reason = os.strerror(e.errno or 0).lower()
            advice = step.advice(e.errno or 0)
            raise StartFailed(
                f"unable to start container process: {step.describe()}: {reason}" + (f" ({advice})" if advice else "")
            ) from None


class Spawned(Stage):
    """An interpreter from a read-only mount, started at once."""

    def __init__(self, preserved: int) -> None:
        super().__init__(preserved)
        try:
            self.pid = sealed.spawn_stage(self._theirs.fileno(), preserved)
        except OSError as e:
            self.control.close()
            raise System(f"cannot start stage1: {e} (mounting needs CAP_SYS_ADMIN)") from e
        finally:
            self._theirs.close()

    def begin(self, lists: Stages, birth: tuple[Step, ...], descriptors: dict[str, int], every: bool) -> int:
        import _socket
        import _struct

        from sampan.shim import protocol

        plan = {
            "stages": lists.to_text(),
            "modules": sorted({type(step).__module__ for step in (*lists.stage1, *lists.stage2)}),
            "descriptors": list(descriptors),
            "every": every,
        }
        data = protocol.frame(protocol.PLAN, protocol.dumps(plan))
        fds = _struct.pack(f"{len(descriptors)}i", *descriptors.values())
        control = _socket.socket(fileno=os.dup(self.control.fileno()))
        try:
            sent = control.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)] if fds else [])
            self.control.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            raise StartFailed("stage1 ended before it had taken its plan (was it killed?)") from None
        finally:
            control.close()
        return 0


def open_stage(count: int) -> Stage:
    """A stage1. count: of `--preserve-fds`. Raises `InvalidParameter`, `System`."""
    number = preserved(count)
    return Forked(number) if sealed.is_sealed() else Spawned(number)


def preserved(count: int) -> int:
    """The descriptors from 3 on that a program is to have: `--preserve-fds` and those of $LISTEN_FDS. Raises `InvalidParameter`."""
    if count < 0:
        raise InvalidParameter("--preserve-fds: a number of descriptors is not negative")
    listen = os.environ.get("LISTEN_FDS", "")
    total = count + (int(listen) if listen.isdigit() else 0)
    for fd in range(3, 3 + total):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidParameter(f"the file descriptor {fd} that --preserve-fds counts is not open") from None
        os.set_inheritable(fd, True)
    return total
