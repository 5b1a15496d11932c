"""A log that any number of processes append to at once, and that stays bounded: two files, and no process that has to run.

    PATH        what is appended to; grows to its limit, then is renamed
    PATH.1      what was PATH before; replaced by the next rename

A record is one write(2) to a descriptor opened with O_APPEND: the kernel holds the file's lock over finding the end and
writing there, so that no two records mix. It begins with RS and ends with a line feed (RFC 7464, JSON text sequences): if
a process is killed, or the disk is full, in the middle of a record, that one is lost, and the next one begins with its own
RS wherever it stands.

Who appends holds an flock(2) shared on the file that has the name; who renames holds it exclusively. So nothing is
appended to PATH.1 once it is called so, and a reader who has seen the rename and then read to the end has read everything.
Nobody waits long: a process that was stopped with the lock in its hand costs the others a moment and, at worst,
that reader one record. Nothing is synced: what is logged has happened, whether or not the log survives a power cut.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

RS = b"\x1e"
BETWEEN = b"\n" + RS
"""Joins records that are appended by one write(2): all of them are there, in their order and with nothing in between, or none."""

OLDER = ".1"
"""Ends the name of the file before this one."""

_ATTEMPTS = 100
_PAUSE = 0.001


def append(path: str, record: bytes, limit: int) -> None:
    """Add a record, which has no RS in it, or several joined by BETWEEN. The file is renamed first if it would grow beyond `limit` bytes.

    Raises OSError: ENOSPC also for a record that did not fit as a whole.
    """
    data = RS + record + b"\n"
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and size + len(data) > limit:
                _set_aside(path, fd, size > 2 * limit)
            _share(fd)
            if is_named(path, fd):
                if os.write(fd, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
                return
        finally:
            os.close(fd)


def is_named(path: str, fd: int) -> bool:
    """Whether `path` is still the file that `fd` is."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _set_aside(path: str, fd: int, anyway: bool) -> None:
    """Rename the file, unless another process has done it, or is appending just now: then the next one does it.

    `anyway`: it has grown twice as long as it may. Somebody was stopped in the middle of his append.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not anyway:
            return
    if is_named(path, fd):
        os.rename(path, path + OLDER)


def _share(fd: int) -> None:
    """Keep others from renaming the file; who renames does so in no time. Goes on without if he was stopped meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_PAUSE)
