"""The shim's part in keeping its networks' keepers alive: it sees that one was killed, and starts another.

Imported for containers that have a keeper only. There is a line to each: our end tells the keeper that the container is over, its
end tells us that it was killed. The command that starts another gets the end of a new line; if somebody was quicker, it
passes the line on to the keeper that is there.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from sampan.kernel import process
from sampan.shim.documents import attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from sampan.shim.streams import Loop

_CONTROL_FD = 3
"""Where a keeper finds its end of the line."""
_STEADY_SECONDS = 5.0
"""One that lived for less has failed: the next one is told how many did, and takes its time."""


class KeeperWatch:
    """The line to the keeper of one network."""

    def __init__(self, loop: Loop, fd: int, command: tuple[str, ...]) -> None:
        self._loop = loop
        self._command = command
        self._failures = 0
        self._watch(fd)

    def _watch(self, fd: int) -> None:
        self._fd = fd
        self._since = time.monotonic()
        self._loop.watch(fd, select.POLLIN, self._gone)

    def _gone(self, _events: int) -> None:
        self.close()
        self._failures = self._failures + 1 if time.monotonic() - self._since < _STEADY_SECONDS else 0
        attempt(self._begin)  # without a process to spare, the next command that needs a keeper starts it

    def _begin(self) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        with_us = ours.detach()
        try:
            child = process.fork()
        except OSError:
            os.close(with_us)
            raise
        if not child:
            self._execute(theirs)
        theirs.close()
        process.reap(child)
        self._watch(with_us)

    def _execute(self, line: Any) -> NoReturn:
        """In the child: once more a fork, so that it is nobody's child whom this process would have to wait for."""
        try:
            if not process.fork():
                os.dup2(line.fileno(), _CONTROL_FD)
                os.set_inheritable(_CONTROL_FD, True)
                process.default_signals()
                os.execve(self._command[0], [*self._command, str(self._failures)], {"PATH": os.environ.get("PATH", "")})
        finally:
            os._exit(127)

    def close(self) -> None:
        """Safe to call twice."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
