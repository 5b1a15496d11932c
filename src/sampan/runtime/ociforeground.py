"""`run` and `exec` in the foreground: signals go to the process, its terminal is the caller's, its exit code is the command's."""

from __future__ import annotations

import _struct
import errno
import os
import select

from sampan.kernel import process, tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    import socket as _socket
    from typing import Any
else:
    import _signal  # without the enums of `signal`
    import _socket

_NOT_FORWARDED = frozenset((_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGURG))
SIGWINCH = 28


class Session:
    """Made before the process is, so that no signal is lost. `console`: the socket that the terminal's master comes over."""

    def __init__(self, terminal: bool, adopt: bool) -> None:
        self.console: Any = None
        self._receiver: Any = None
        self._saved: Any = None
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._writer = writer
        if terminal:
            self.console, self._receiver = _socket.socketpair(
                _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
            )
        if adopt:
            process.adopt_orphans()
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in range(1, 32):
            if number not in (_signal.SIGKILL, _signal.SIGSTOP):
                _signal.signal(number, _noted)

    def serve(self, pid: int) -> int:
        """Until the process ends: its exit code, as a shell counts it."""
        self.console = None  # ours is a copy: the end of the process' one is to be seen
        master = self._take_master() if self._receiver is not None else -1
        relay = Relay(master) if master >= 0 else None
        try:
            return self._loop(pid, relay)
        finally:
            if relay is not None:
                relay.close()

    def _loop(self, pid: int, relay: Relay | None) -> int:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if relay is not None:
            relay.register(poll)
        code = _reap(pid)  # it may have ended before we looked
        while code is None:
            for fd, _ in poll.poll():
                if fd == self._reader:
                    code = self._take_signals(pid, relay)
                elif relay is not None:
                    relay.move(fd, poll)
        if relay is not None:
            relay.drain()
        return code

    def _take_signals(self, pid: int, relay: Relay | None) -> int | None:
        code = None
        for number in os.read(self._reader, 4096):
            if number == _signal.SIGCHLD:
                code = _reap(pid) if code is None else code
            elif number == SIGWINCH and relay is not None:
                relay.resize()
            elif number not in _NOT_FORWARDED and code is None:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # its end comes next
        return code

    def _take_master(self) -> int:
        _, ancillary, _, _ = self._receiver.recvmsg(64, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        for _, _, packed in ancillary:
            return int(_struct.unpack("i", packed[:4])[0])
        return -1

    def close(self) -> None:
        for socket in (self.console, self._receiver):
            if socket is not None:
                socket.close()


def _noted(_number: int, _frame: Any) -> None:
    """Nothing: the number is in the pipe."""


def _reap(pid: int) -> int | None:
    """Reap all that have ended; the exit code of `pid` if it is among them."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if not ended:
            return code
        if ended == pid:
            number = os.waitstatus_to_exitcode(status)
            code = number if number >= 0 else 128 - number


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
