"""inotify(7): waiting until something is written in a directory, at no cost while nothing is."""

from __future__ import annotations

import _thread
import errno
import os
import select

from sampan.kernel import clock
from sampan.kernel.libc import by_machine, raw

_SYS_INOTIFY_INIT1, _SYS_INOTIFY_ADD_WATCH = by_machine(294, 26), by_machine(254, 27)

_IN_MODIFY, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
_BUFFER = 1 << 16
_LOOK_SECONDS = 0.1


class DirectoryWatch:
    """Wakes when a file in a directory is written to, made, or renamed into it.

    Each user may have 128 of these by default (fs.inotify.max_user_instances); where there are no more, `wait` comes
    back ten times a second.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._fd = -1
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._fd = raw(_SYS_INOTIFY_INIT1, "inotify_init1", "", os.O_CLOEXEC | os.O_NONBLOCK)
            mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
            raw(_SYS_INOTIFY_ADD_WATCH, "inotify_add_watch", path, self._fd, os.fsencode(path), mask)
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOSYS):
                self.close()
                raise
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def wait(self, seconds: float | None, *others: int) -> list[int]:
        """Until something was written since the last call, or for so long (None: without end). May come back early.

        Also when one of the descriptors `others` is readable (-1 is none): the result has those that are.
        """
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for other in others:
            if other >= 0:
                poll.register(other, select.POLLIN)
        if self._fd < 0:
            seconds = _LOOK_SECONDS if seconds is None else min(_LOOK_SECONDS, seconds)
        else:
            poll.register(self._fd, select.POLLIN)
        if _thread.get_native_id() == os.getpid():
            # The thread that Python's handlers run in.
            seconds = clock.TURN if seconds is None else min(clock.TURN, seconds)
        # poll(2) counts milliseconds in an int; whoever waits for longer looks once in between.
        ready = poll.poll(None if seconds is None else min(max(int(seconds * 1000) + 1, 0), 1 << 30))
        try:
            while self._fd >= 0 and len(os.read(self._fd, _BUFFER)) > _BUFFER // 2:
                pass  # a full buffer may have left some
        except BlockingIOError:
            pass
        return [fd for fd, _ in ready if fd in others]

    def wake(self) -> None:
        """End a `wait`, and every one to come. From any thread, and from a signal handler."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Safe to call twice; not while another thread waits."""
        for fd in (self._fd, self._wake):
            if fd >= 0:
                os.close(fd)
        self._fd = self._wake = -1


def open_watch(path: str) -> int:
    """A descriptor, for a loop of the caller's, that is readable when a name came into a directory or left it; `drain` it.

    Raises OSError: EMFILE where the user has no more of these.
    """
    fd = raw(_SYS_INOTIFY_INIT1, "inotify_init1", "", os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mask = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
        raw(_SYS_INOTIFY_ADD_WATCH, "inotify_add_watch", path, fd, os.fsencode(path), mask)
    except OSError:
        os.close(fd)
        raise
    return fd


def drain(fd: int) -> None:
    """Take what has been told so far: that something was is all that counts."""
    try:
        while os.read(fd, _BUFFER):
            pass
    except BlockingIOError:
        pass
