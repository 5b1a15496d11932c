"""The locks of the store: who may change a container's record, and who may hand out names.

Order, when more than one is held: record locks (never two but by id order), then the names lock. The
record lock is never held while a process is waited for. All are open file description locks: they die
with their holder, and two threads of one process exclude each other as two processes do.
"""

from __future__ import annotations

import os
import time

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

    def __init__(self, paths: ContainerPaths, lock: FileLock | None) -> None:
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
        if self._lock is not None:
            self._lock.release()

    def hand_over(self) -> RecordLock:
        """The same lock for somebody else, who has to let go of it; `release` of this one does nothing any more."""
        handed, self._lock = RecordLock(self.paths, self._lock), None
        return handed

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


_UNHURRIED = 0.25
"""How long who wants a shared lock alone waits like everybody, in seconds: mostly nobody holds it, or only for a moment."""
_SHUT = 1.0
"""How long newcomers are then kept out, in seconds, so that those who have the lock can come to an end."""
_OPEN = 0.5
"""And how long they are let in again: who holds it for minutes (a load) does not keep them out for as long."""


def acquire_in_turn(path: str, patience: float, shared: bool) -> FileLock:
    """Take a lock that many share for moments: whoever wants it alone is not kept out by others coming and going.

    fcntl(2) gives a lock to any reader while another one has it, however long a writer waits. So a writer that has waited
    in vain shuts the gate, a file beside the lock which readers only pass through. Raises BlockingIOError after
    `patience` seconds, other OSErrors of open(2).
    """
    gate = f"{path}.gate"
    if shared:
        _pass(gate)
        return FileLock.acquire(path, patience, shared=True)
    try:
        return FileLock.acquire(path, min(_UNHURRIED, patience))
    except BlockingIOError:
        pass
    deadline = time.monotonic() + patience - _UNHURRIED
    while True:
        left = max(deadline - time.monotonic(), 0)
        try:
            with FileLock.acquire(gate, left):  # those who want it alone take turns
                return FileLock.acquire(path, min(_SHUT, left))
        except BlockingIOError:
            if left <= _SHUT:
                raise
        time.sleep(min(_OPEN, left))


def _pass(gate: str) -> None:
    """Wait until nobody keeps the gate shut, but no longer than one who does may need: two in turn must not shut us out."""
    try:
        FileLock.acquire(gate, 2 * _SHUT, shared=True, make=False).release()
    except FileNotFoundError:
        pass  # nobody ever had to shut it
    except BlockingIOError:
        pass  # we have waited long enough
