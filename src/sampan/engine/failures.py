"""Errors of the kernel and the disk that nobody expected, told in one line: what, where, why, what to do."""

from __future__ import annotations

import errno
import os

from sampan.errors import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

    def told(function: Callable[P, R]) -> Callable[P, R]: ...

else:

    def told(function):
        """A verb that raises System in place of the OSErrors that it has no word of its own for."""

        def call(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except OSError as e:
                raise System(explain(e)) from e

        call.__name__, call.__doc__ = function.__name__, function.__doc__
        call.__wrapped__ = function
        return call


_ADVICE = {
    errno.EAGAIN: "the limit of processes is reached: raise pids.max of a control group that this command is in, or ulimit -u",
    errno.ENOSPC: "free some space or some inodes there, or use another --root",
    errno.EDQUOT: "the disk quota is used up: free some space, or use another --root",
    errno.EROFS: "the file system is read-only: use another --root",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "the system has too many open files: raise fs.file-max",
    errno.ENOMEM: "the machine has no memory left",
}


def explain(error: OSError) -> str:
    """The error as one line: the system call if it is known, the path, the errno in words, advice."""
    parts = [str(getattr(error, "syscall", "")), _path(error)]
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0)
    where = " ".join(part for part in parts if part)
    return (f"{where}: " if where else "") + reason + (f" ({advice})" if advice else "")


def _path(error: OSError) -> str:
    name = error.filename2 or error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
