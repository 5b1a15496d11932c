"""What a container's terminal shows and is told, between it and the caller's: `run` and `exec` in the foreground."""

from __future__ import annotations

import errno
import os
import select

from sampan.kernel import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Relay:
    """Between the caller's terminal and the container's."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._saved: Any = None
        if os.isatty(0):
            import termios
            from tty import setraw

            self._saved = termios.tcgetattr(0)
            setraw(0, termios.TCSANOW)
            self.resize()

    def register(self, poll: Any) -> None:
        poll.register(self._master, select.POLLIN)
        poll.register(0, select.POLLIN)

    def resize(self) -> None:
        """The container's terminal is as large as ours."""
        try:
            tty.set_size(self._master, *tty.get_size(0))
        except OSError:
            pass  # ours is no terminal

    def move(self, fd: int, poll: Any) -> None:
        """What can be read on one side goes to the other."""
        if fd == self._master:
            if not self._out():
                poll.unregister(fd)
            return
        data = os.read(0, 1 << 16)
        if data:
            _write(self._master, data)
        else:
            poll.unregister(0)
            _write(self._master, b"\x04")  # the end of our input is the end of its: as a terminal says it

    def _out(self) -> bool:
        try:
            data = os.read(self._master, 1 << 16)
        except OSError as e:
            if e.errno != errno.EIO:  # nobody has the other side open
                raise
            data = b""
        if data:
            _write(1, data)
        return bool(data)

    def drain(self) -> None:
        """What the process wrote before its end."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while poll.poll(0):
            if not self._out():
                return

    def close(self) -> None:
        os.close(self._master)
        if self._saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
