"""Starts shims. `ExecLauncher` starts a fresh interpreter for each; what it promises is the `Launcher` Protocol.

A launch is opened before its plan is known, so that the interpreter comes up (20 ms) beside the rest of the work.

The interpreter is not executed from its own file but from a detached read-only mount of its directory, and so is its
shared library: /proc/PID/exe of a shim, or of a child on its way to execve, then leads to no file that could be written
to, whatever a container manages to open (class CVE-2019-5736). The mount costs 0.1 ms and ends with the process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from sampan.errors import System, Unavailable
from sampan.kernel import cgroup, mount
from sampan.kernel.libc import kernel_version
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

SHIM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim", "__main__.py")
"""The file and not its directory: `python DIR` goes through runpy, 5 ms and half a MiB in every shim."""
STAGE = os.path.join(os.path.dirname(SHIM), "ocistage.py")
"""What an OCI command starts instead, for one start only."""
SHIMS = f"{cgroup.DEFAULT_PARENT}/shims"
"""The cgroup that all shims live in."""

FLAGS = ("-I", "-S", "-X", "utf8", "-X", "no_debug_ranges")
"""Isolated, without site-packages, UTF-8 whatever the locale, without column numbers (a tenth of the code's memory)."""


class ExecLauncher:
    """A fresh interpreter for every shim."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

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


def spawn(script: str, arguments: list[str], control: int, streams: tuple[int, int, int] | None = None) -> int:
    """Start a process of ours on the host's interpreter, which none of it can change; its pid.

    control: a descriptor that it gets as `CONTROL_FD`. streams: its standard streams, /dev/null without any. Raises OSError.
    """
    actions: list[Any] = [
        (os.POSIX_SPAWN_DUP2, streams[number], number)
        if streams
        else (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0)
        for number in range(3)
    ]
    return _spawn_sealed(script, arguments, control, protocol.CONTROL_FD, actions)


def interpreter() -> list[str]:
    """The command line of an interpreter that runs our scripts, without the script."""
    return [os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable), *FLAGS]


def spawn_apart(script: str, arguments: list[str], control: int) -> int:
    """Start a process of ours that lives where shims do: the number of the arguments that say where, these, then `arguments`.

    Its pid; it forks away from us (`kernel.placement`). Raises OSError.
    """
    groups = _placement()
    return spawn(script, [str(len(groups)), *groups, *arguments], control)


def spawn_stage(control: int, preserved: int) -> int:
    """Start stage1 of OCI mode, which waits at `control` for its plan, with our standard streams and `preserved` descriptors from 3 on.

    Its pid; it is our child, and init will be. Raises OSError.
    """
    number = 3 + preserved
    return _spawn_sealed(STAGE, [str(number), str(preserved)], control, number, [])


def _spawn_sealed(script: str, arguments: list[str], control: int, number: int, actions: list[Any]) -> int:
    """Start an interpreter whose files cannot be written to. `control` becomes `number`, and the loader's libpython the number after it."""
    argv = [*interpreter(), script, *arguments]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    opened: list[int] = []
    try:
        opened.append(_high(_read_only(os.path.dirname(argv[0])), number))
        program = f"/proc/self/fd/{opened[0]}/{os.path.basename(argv[0])}"
        library = _library_directory()
        if library:
            # Inherited under a fixed number for as long as the loader works; the shim closes it.
            opened.append(_high(_read_only(library), number))
            actions.append((os.POSIX_SPAWN_DUP2, opened[-1], number + 1))
            environment["LD_LIBRARY_PATH"] = f"/proc/self/fd/{number + 1}"
        opened.append(_high(os.dup(control), number))
        actions.append((os.POSIX_SPAWN_DUP2, opened[-1], number))
        return os.posix_spawn(program, argv, environment, file_actions=actions)
    finally:
        for fd in opened:
            os.close(fd)


def _high(fd: int, number: int) -> int:
    """Move a descriptor above the fixed numbers up to `number` + 1, so that no dup2 onto one of these hits it."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, number + 13)
    except OSError as e:
        # EINVAL where not even the first of these numbers is allowed (fcntl(2)).
        refused = errno.EMFILE if e.errno == errno.EINVAL else e.errno or errno.EIO
        raise OSError(refused, os.strerror(refused)) from None
    finally:
        os.close(fd)


def _read_only(directory: str) -> int:
    """A detached read-only mount of a directory."""
    if kernel_version() < (5, 12):
        from sampan.kernel import namespaces

        return namespaces.in_private_mounts(lambda: mount.clone_attached(directory, mount.MOUNT_ATTR_RDONLY))
    return mount.clone_tree_with(directory, mount.MOUNT_ATTR_RDONLY)


def _library_directory() -> str:
    """Where libpython is, if the interpreter is a stub around a shared library; "" if it has everything in it."""
    directory = f"{sys.base_prefix}/lib"
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    return directory if os.path.exists(f"{directory}/{name}") else ""


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
