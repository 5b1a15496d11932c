"""Starts interpreters of ours whose files nobody can write to.

The interpreter is not executed from its own file but from a detached read-only mount of its directory, and so is its
shared library: /proc/PID/exe of a shim, or of a child on its way to execve, then leads to no file that could be written
to, whatever a container manages to open (class CVE-2019-5736). The mount costs 0.1 ms and ends with the process.

Nothing is imported that is not needed for that: an OCI command comes here before all else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from sampan.kernel import mount
from sampan.kernel.libc import kernel_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHIM_ROOM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim")
SHIM = os.path.join(_SHIM_ROOM, "__main__.py")
"""The file and not its directory: `python DIR` goes through runpy, 5 ms and half a MiB in every shim."""
STAGE = os.path.join(_SHIM_ROOM, "ocistage.py")
"""What an OCI command starts instead, for one start only."""

_LIBRARY = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"

FLAGS = ("-I", "-S", "-X", "utf8", "-X", "no_debug_ranges")
"""Isolated, without site-packages, UTF-8 whatever the locale, without column numbers (a tenth of the code's memory)."""


_FROM_DESCRIPTOR = "/proc/self/fd/"
_library_is_read_only = False


def settle() -> None:
    """Let go of the mount that the loader has taken libpython from: the first act of a process that was so executed itself."""
    global _library_is_read_only
    path = os.environ.get("LD_LIBRARY_PATH", "")
    number = path.removeprefix(_FROM_DESCRIPTOR).rstrip("/")
    if number == path or not number.isdigit() or not os.path.exists(f"{path}/{_LIBRARY}"):
        return
    _library_is_read_only = _is_read_only(path)
    os.close(int(number))
    del os.environ["LD_LIBRARY_PATH"]


def is_sealed() -> bool:
    """Whether this process was itself executed from read-only mounts: found out, and not taken from who says so."""
    return _is_read_only("/proc/self/exe") and (_library_is_read_only or not library_directory())


def _is_read_only(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def spawn(script: str, arguments: list[str], control: int, streams: tuple[int, int, int] | None = None) -> int:
    """Start a process of ours on the host's interpreter, which none of it can change; its pid.

    control: a descriptor that it gets as `protocol.CONTROL_FD`. streams: its standard streams, /dev/null without any. Raises OSError.
    """
    from sampan.shim.protocol import CONTROL_FD  # whoever starts a shim has it; an OCI command has not yet

    actions: list[Any] = [
        (os.POSIX_SPAWN_DUP2, streams[number], number)
        if streams
        else (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0)
        for number in range(3)
    ]
    return _spawn_sealed(script, arguments, control, CONTROL_FD, actions)


def interpreter() -> list[str]:
    """The command line of an interpreter that runs our scripts, without the script."""
    return [os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable), *FLAGS]


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
        library = library_directory()
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


def library_directory() -> str:
    """Where libpython is, if the interpreter is a stub around a shared library; "" if it has everything in it."""
    directory = f"{sys.base_prefix}/lib"
    return directory if os.path.exists(f"{directory}/{_LIBRARY}") else ""
