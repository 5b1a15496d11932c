"""Directories that appear whole and vanish whole, whoever is killed meanwhile.

What is being made is a `.tmp-X` beside its future name and becomes it by one rename; what is removed is first
renamed to `.removing-X`. A `.lock-X` is held by whoever works on `.tmp-X`: leftovers are those whose lock can be
had, and `collect_garbage()` deletes them.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.kernel.files import FileLock, is_young, lock_directory, lock_is_held
from sampan.kernel.tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sampan.steps.trace import Trace

_HOLD_SECONDS = 2.0
_TEMPORARY, _LOCK, _REMOVING = ".tmp-", ".lock-", ".removing-"


class Staging:
    """The temporary names in one directory."""

    def __init__(self, directory: str, trace: Trace) -> None:
        self.directory = directory
        self._trace = trace

    def begin(self) -> Staged:
        """Make an empty directory (0700) to be filled and published; a context manager that discards it otherwise."""
        key = os.urandom(8).hex()
        # First the lock, then the directory: nobody finds one that seems to be abandoned.
        lock_path, path = f"{self.directory}/{_LOCK}{key}", f"{self.directory}/{_TEMPORARY}{key}"
        lock: FileLock | None = None
        try:
            lock = FileLock.acquire(lock_path)
            with self._trace.step("make directory", path):
                os.mkdir(path, 0o700)
        except BaseException:
            delete_tree(path)
            # A Ctrl-C may come when the lock's file is there, and before we are told.
            delete_tree(lock_path)
            if lock is not None:
                lock.release()
            raise
        return Staged(path, lock, self._trace)

    def remove(self, name: str, skeleton: tuple[str, ...] = ()) -> bool:
        """Remove a published directory; False if it is not there. Killed in the middle, it is gone all the same.

        skeleton: the directories that it has if nobody has put anything into it, deepest first.
        """
        path = f"{self.directory}/{name}"
        aside = f"{self.directory}/{_REMOVING}{os.urandom(8).hex()}"
        try:
            # Held until it is gone, so that what a killed remover left can be told from what is being removed.
            held = _hold(path)
        except FileNotFoundError:
            return False
        try:
            with self._trace.step("rename away", path):
                os.rename(path, aside)
            if not skeleton or not self._delete_empty(aside, skeleton):
                self._delete(aside)
        except FileNotFoundError:
            return False
        finally:
            if held >= 0:
                os.close(held)
        return True

    def leftovers(self) -> list[str]:
        """What killed processes left, by this moment: the paths that `collect_garbage` would delete."""
        found = []
        for name in os.listdir(self.directory):
            path = f"{self.directory}/{name}"
            if name.startswith(_REMOVING) and not _is_held(path):
                found.append(path)
            elif name.startswith(_TEMPORARY):
                lock = f"{self.directory}/{_LOCK}{name[len(_TEMPORARY) :]}"
                # In this order: it is published, or discarded, before the lock goes.
                if not lock_is_held(lock) and os.path.lexists(path):
                    found.append(path)
            elif name.startswith(_LOCK) and not is_young(path) and not lock_is_held(path):
                found.append(path)
        return found

    def collect_garbage(self) -> None:
        """Delete what killed processes left. Safe beside processes that are at work."""
        keys: set[str] = set()
        for name in os.listdir(self.directory):
            if name.startswith(_REMOVING):
                self._delete(f"{self.directory}/{name}")
            for prefix in (_TEMPORARY, _LOCK):
                if name.startswith(prefix):
                    keys.add(name[len(prefix) :])
        for key in keys:
            try:
                lock = FileLock.acquire(f"{self.directory}/{_LOCK}{key}", 0)
            except BlockingIOError:
                continue
            try:
                self._delete(f"{self.directory}/{_TEMPORARY}{key}")
            finally:
                _drop(lock)

    def _delete_empty(self, path: str, skeleton: tuple[str, ...]) -> bool:
        """As `_delete`, without a look at what is there; False if there was something else."""
        with self._trace.step("delete directories", path):
            for directory in (*(f"{path}/{below}" for below in skeleton), path):
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    pass
                except OSError:
                    return False
        return True

    def _delete(self, path: str) -> None:
        with self._trace.step("delete tree", path):
            delete_tree(path)


class Staged:
    """One directory that is being made."""

    def __init__(self, path: str, lock: FileLock, trace: Trace) -> None:
        self.path = path
        self._lock = lock
        self._trace = trace
        self._done = False

    def publish(self, target: str) -> bool:
        """Give the directory its name. False if somebody else was faster: then ours is to be discarded."""
        with self._trace.step("rename", f"{self.path} to {target}"):
            try:
                os.rename(self.path, target)
            except OSError as e:
                if e.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
        self._done = True
        return True

    def discard(self) -> None:
        """Remove it, unless it was published."""
        try:
            if not self._done:
                with self._trace.step("delete tree", self.path):
                    delete_tree(self.path)
        finally:
            _drop(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.discard()


def delete_tree(path: str) -> None:
    """`remove_tree` by path, whose parent is a directory of ours."""
    directory, _, name = path.rpartition("/")
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(fd, name)
    finally:
        os.close(fd)


def _hold(path: str) -> int:
    """The lock of a directory that is to be removed; -1 if somebody keeps it for longer than it takes to rename it.

    Of two that remove one, the second waits until the first has renamed it. Raises FileNotFoundError then.
    """
    deadline = time.monotonic() + _HOLD_SECONDS
    while (held := lock_directory(path)) < 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    return held


def _is_held(path: str) -> bool:
    """Whether somebody is taking a directory away, or has done so by now."""
    try:
        held = lock_directory(path)
    except FileNotFoundError:
        return True
    if held >= 0:
        os.close(held)
    return held < 0


def _drop(lock: FileLock) -> None:
    """Remove a lock's file while it is held, so that the next one with that name is another file."""
    os.unlink(lock.path)
    lock.release()
