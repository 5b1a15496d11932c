"""Starts shims. `ExecLauncher` starts a fresh interpreter for each; what it promises is the `Launcher` Protocol.

A launch is opened before its plan is known, so that the interpreter comes up (20 ms) beside the rest of the work.

What it is executed from is `runtime.sealed`'s business.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import System, Unavailable
from sampan.kernel import cgroup
from sampan.runtime.sealed import SHIM, spawn
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any, Protocol

    from sampan.runtime.handle import Attachment
    from sampan.steps.trace import Trace

    class Launch(Protocol):
        """A shim on its way up."""

        def start(self, plan: protocol.LaunchPlan, descriptors: dict[str, int]) -> Attachment | None: ...
        def abandon(self) -> None: ...

    class Launcher(Protocol):
        """Something that starts shims."""

        def open(self) -> Launch: ...

else:
    import _socket

SHIMS = f"{cgroup.DEFAULT_PARENT}/shims"
"""The cgroup that all shims live in."""


class ExecLauncher:
    """A fresh interpreter for every shim."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def prepare(self) -> None:
        """Nothing: it is begun when it is wanted."""

    def open(self) -> ExecLaunch:
        """Start a shim that waits for its plan. Raises `System` when no process can be started."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        launch = ExecLaunch(ours, 0, self._trace)
        try:
            with self._trace.step("start a shim"):
                launch.pid = spawn(SHIM, _placement(), theirs.fileno())
        except BaseException as e:
            launch.abandon()
            if not isinstance(e, OSError):
                raise
            raise System(f"cannot start a shim: {_words(e)}") from e
        finally:
            theirs.close()
        return launch


_ADVICE = {
    errno.EPERM: "mounting needs CAP_SYS_ADMIN: in a container, run the outer one with --privileged",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "raise fs.file-max",
    errno.EAGAIN: "the limit of processes is reached: pids.max of a control group that this command is in, or ulimit -u",
    errno.ENOMEM: "the machine, or the control group that this command is in, has no memory left",
}


def _words(error: OSError) -> str:
    """Which call was refused, why, and what to do about it."""
    call = f"{getattr(error, 'syscall', '')} {error.filename or ''}".strip()
    advice = _ADVICE.get(error.errno or 0)
    reason = os.strerror(error.errno or 0).lower()
    return (f"{call}: " if call else "") + reason + (f" ({advice})" if advice else "")


def start_apart(argv: list[str]) -> None:
    """Start a program that forks away from us first of all, with nothing of ours but PATH. Raises OSError."""
    null: list[Any] = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
    pid = os.posix_spawn(argv[0], argv, {"PATH": os.environ.get("PATH", "")}, file_actions=null, setsid=True)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # The program that uses the library reaps all its children by itself.


def _placement() -> list[str]:
    """The shims' cgroup as a shim's arguments: where to be born on v2 (""), what to join on v1. Made if it is missing.

    Where cgroups cannot be made (a read-only file system inside another container), shims stay in their caller's.
    """
    try:
        driver = cgroup.detect()
        directories = driver.directories(SHIMS)
        if not all(os.path.isdir(d) for d in directories):
            for directory in directories:
                cgroup.make_directory(directory)
            for write in driver.prepare(SHIMS):
                cgroup.apply(write)
        return [driver.clone_directory(SHIMS) or "", *driver.join_files(SHIMS)]
    except (OSError, Unavailable):
        return [""]


def spawn_apart(script: str, arguments: list[str], control: int) -> int:
    """Start a process of ours that lives where shims do: the number of the arguments that say where, these, then `arguments`.

    Its pid; it forks away from us (`kernel.placement`). Raises OSError.
    """
    groups = _placement()
    return spawn(script, [str(len(groups)), *groups, *arguments], control)


def spawn_zygote(arguments: list[str], line: int) -> int:
    """Start a zygote (`shim.zygote`), which forks away from us, to live where shims do; the pid to `reap`. Raises OSError."""
    return spawn(SHIM, ["zygote", *arguments, *_placement()], line)


def reap(pid: int) -> None:
    """Wait for a child of ours to end."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # The program that uses the library reaps all its children by itself.


class ExecLaunch:
    """One shim, from its interpreter's start to the answer to its plan."""

    def __init__(self, control: Any, pid: int, trace: Trace) -> None:
        self._control = control
        self.pid = pid
        self._trace = trace

    def start(self, plan: protocol.LaunchPlan, descriptors: dict[str, int]) -> Attachment | None:
        """Hand over the plan; return when the container's program runs.

        `descriptors` are those that the plan names, less "attach": if the plan names it, the caller gets the other end of
        a socket on which the container's output comes from the first byte on. Raises `StartFailed`.
        """
        from sampan.runtime import (
            conversation,
        )  # by now its import costs nothing: whoever made the plan has the most of it

        try:
            return conversation.start(self._control, plan, descriptors, self._trace)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the shim: without a plan it ends."""
        self._control.close()
        if self.pid:
            os.waitpid(self.pid, 0)  # the first of its two forks, which ended long ago
            self.pid = 0
