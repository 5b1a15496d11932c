"""Steps of the OCI life cycle that most containers have none of: their own hooks, and the wait for `start`."""

from __future__ import annotations

import _socket
import errno
import os
import select
import time

from sampan import jsontext
from sampan.kernel import process
from sampan.steps.base import Context, Step, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HoldForStart(Step):
    """Wait at the start socket until `start` connects; what follows is reported to it.

    The socket ends with this process or with its execve: nobody can wait for a start that will not come.
    """

    name: str

    def describe(self) -> str:
        return "accept on the start socket"

    def run(self, ctx: Context) -> None:
        listener = _socket.socket(fileno=ctx.fds.pop(self.name))
        while True:
            # Whoever made the container is let go: from here on it lives without it.
            number, _ = listener._accept()  # type: ignore[attr-defined]  # close-on-exec
            os.dup2(number, ctx.fds["status"], inheritable=False)
            os.close(number)
            # A byte, and not the connection alone: a `start` that is killed before it has decided starts nothing.
            if os.read(ctx.fds["status"], 1):
                break
        listener.close()


class RunHooks(Step):
    """Run hooks one after the other, each with the container's state on its standard input.

    hooks: (path, arguments, environment, seconds or 0) each. state: as JSON; the pid, which nobody knew when it was written, is put in
    here: the container's own, for these hooks run in it.
    """

    kind: str
    hooks: tuple[tuple[str, tuple[str, ...], tuple[str, ...], int], ...]
    state: str
    status: str

    def describe(self) -> str:
        return f"run {len(self.hooks)} {self.kind} hooks"

    def run(self, ctx: Context) -> None:
        state = jsontext.loads(self.state)
        state["status"] = self.status
        state["pid"] = os.getpid()
        text = jsontext.dumps(state)
        for index, (path, arguments, environment, seconds) in enumerate(self.hooks):
            try:
                run_hook(path, arguments, environment, seconds, text)
            except HookFailed as e:
                raise StepError(f"error running {self.kind} hook #{index}: {e}") from None


class HookFailed(Exception):
    """A hook could not be run, ended with another code than 0, or took too long. The text says which, and what it wrote."""


def run_hook(path: str, arguments: Any, environment: Any, seconds: int, state: bytes) -> None:
    """Run one hook to its end. Raises `HookFailed`. Only for a process without threads."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    output, theirs = os.pipe2(os.O_CLOEXEC)
    pid = process.fork()
    if pid == 0:
        _become_hook(path, list(arguments) or [path], environment, reader, theirs)
    os.close(reader)
    os.close(theirs)
    pidfd = os.pidfd_open(pid)
    try:
        said, in_time = _attend(pidfd, writer, output, state, seconds)
        if not in_time:
            os.killpg(pid, 9)
    finally:
        os.close(pidfd)
    code = process.reap(pid)
    shown = said.decode("utf-8", "replace").strip()
    if not in_time:
        raise HookFailed(f"hook {path} ran past its timeout of {seconds} s")
    if code:
        raise HookFailed(f"hook {path}: exit status {code}" + (f", output: {shown}" if shown else ""))


def _become_hook(path: str, arguments: list[str], environment: Any, stdin: int, output: int) -> None:
    try:
        os.setpgid(0, 0)  # what it starts is killed with it when it takes too long
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.default_signals()
        os.umask(0o022)
        process.close_on_exec_from(3)
        table = dict(e.partition("=")[::2] for e in environment)
        os.execve(path, arguments, table)
    except BaseException as e:
        os.write(2, f"{path}: {os.strerror(getattr(e, 'errno', 0) or errno.EIO).lower()}".encode())
    finally:
        os._exit(127)


_OUTPUT_LIMIT = 4096


def _attend(pidfd: int, writer: int, output: int, state: bytes, seconds: int) -> tuple[bytes, bool]:
    """Feed it, listen to it, until it ends: what it said (the last of it), and whether it ended in time."""
    deadline = time.monotonic() + seconds if seconds else None
    os.set_blocking(writer, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    poll.register(writer, select.POLLOUT)
    said, view = b"", memoryview(state)
    try:
        while True:
            left = None if deadline is None else int(max(0.0, deadline - time.monotonic()) * 1000)
            events = dict(poll.poll(left))
            if not events:
                return said, False
            if writer in events:
                view = _feed(writer, view)
                if not view:
                    poll.unregister(writer)
                    os.close(writer)
                    writer = -1
            if output in events:
                data = os.read(output, 65536)
                said = (said + data)[-_OUTPUT_LIMIT:]
                if data:
                    continue
                poll.unregister(output)
            if pidfd in events:
                return said, True  # what it started may go on, and hold the output
    finally:
        os.close(output)
        if writer >= 0:
            os.close(writer)


def _feed(writer: int, view: memoryview) -> memoryview:
    """Write of the state what the pipe takes; what is left. A hook that does not read it is no error."""
    try:
        return view[os.write(writer, view) :]
    except BlockingIOError:
        return view
    except BrokenPipeError:
        return view[:0]
