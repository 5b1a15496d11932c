"""The locks of the store: who may change a container's record, and who may hand out names.

Order, when more than one is held: record locks (never two but by id order), then the names lock. The
record lock is never held while a process is waited for. All are open file description locks: they die
with their holder, and two threads of one process exclude each other as two processes do.
"""

from __future__ import annotations

import os

from sampan.errors import Conflict, NotFound
from sampan.kernel.files import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sampan.store.layout import ContainerPaths

PATIENCE = 10.0
"""How long a command waits for another one's record lock, in seconds. A start holds it for its whole length."""


class RecordLock:
    """The lock of one container: held by whoever starts, settles, changes or removes it."""

    __slots__ = ("_lock", "paths")

    def __init__(self, paths: ContainerPaths, lock: FileLock) -> None:
        self.paths = paths
        self._lock = lock

    @classmethod
    def acquire(cls, paths: ContainerPaths, patience: float = PATIENCE, make: bool = True) -> Self:
        """Take the lock, waiting at most `patience` seconds. Its file is made if it is missing and `make` says so.

        Raises NotFound if the container is gone (also when it went while we waited), Conflict naming the
        process that holds the lock for longer.
        """
        try:
            lock = FileLock.acquire(paths.record_lock, patience, make=make)
        except BlockingIOError:
            raise Conflict(_held_by(paths)) from None
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"No such container: {paths.id}") from None
        # For the message of the others. Torn or stale text misleads nobody for long: the lock is the truth.
        try:
            os.pwrite(lock.fd, b"%-10d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk must not keep anybody from removing things
        return cls(paths, lock)

    @classmethod
    def attempt(cls, paths: ContainerPaths, make: bool = True) -> Self | None:
        """Take the lock if nobody holds it; None if somebody does, or the container (without `make`: its lock) is gone."""
        try:
            return cls.acquire(paths, 0, make)
        except (Conflict, NotFound):
            return None

    def release(self) -> None:
        """Let go; safe to call twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.release()


def _held_by(paths: ContainerPaths) -> str:
    try:
        with open(paths.record_lock, "rb") as file:
            pid = file.read(16).strip().decode("ascii", "replace")
    except OSError:
        pid = ""
    holder = f"process {pid}" if pid.isdigit() else "another command"
    return f"container {paths.id} is in use: {holder} is changing it, try again when it has ended"
