"""The file of `-o`: checked before anything is read, and there only when it is whole.

The rules and the words are those of Docker (moby/sys, atomicwriter): a file that is there keeps its content until the
new one takes its place, and what is no file is never replaced. That a link is refused saves /dev/stdout, which is one.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.cli.output import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_KINDS = {
    stat.S_IFDIR: "to a directory",
    stat.S_IFLNK: "to a symbolic link directly",
    stat.S_IFIFO: "to a named pipe (FIFO)",
    stat.S_IFSOCK: "to a socket",
    stat.S_IFCHR: "to a character device file",
    stat.S_IFBLK: "to a block device file",
}


def _check(path: str, what: str) -> None:
    """Raises `Failure`, which begins with `what`, if `path` cannot be made or replaced."""
    directory = os.path.dirname(path) or "."
    try:
        if not stat.S_ISDIR(os.stat(directory).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as e:
        raise Failure(f"{what}: invalid output path: stat {directory}: {_told(e)}") from None
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as e:
        raise Failure(f"{what}: failed to stat output path: lstat {path}: {_told(e)}") from None
    if stat.S_IFMT(mode) in _KINDS:
        raise Failure(f"{what}: cannot write {_KINDS[stat.S_IFMT(mode)]}")


class NewFile:
    """A new file beside `path`, which takes its place at the end; an error leaves what was there.

    A context manager that gives a descriptor. Only the file's owner can read it, as with Docker. Raises `Failure`, which begins
    with `what`: at once if `path` cannot be made or replaced, later for what the disk says.
    """

    def __init__(self, path: str, what: str) -> None:
        _check(path, what)
        directory, name = os.path.split(path)
        self._path, self._what = path, what
        self._temporary = os.path.join(directory, f".tmp-{name[:64]}{os.urandom(6).hex()}")
        self._fd = -1

    def __enter__(self) -> int:
        try:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise self._failure(e) from None
        return self._fd

    def __exit__(self, _kind: type[BaseException] | None, e: BaseException | None, _tb: TracebackType | None) -> None:
        try:
            os.close(self._fd)
            if e is None:
                os.rename(self._temporary, self._path)
                return
        except OSError as late:
            e = e or late
        os.unlink(self._temporary)
        if isinstance(e, OSError):
            raise self._failure(e) from None

    def _failure(self, error: OSError) -> Failure:
        return Failure(f"{self._what}: {self._path}: {_told(error)}")


def write_all(fd: int, data: bytes) -> None:
    """Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _told(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
