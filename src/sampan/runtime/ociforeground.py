"""`run` and `exec` in the foreground: signals go to the process, its terminal is the caller's, its exit code is the command's."""

from __future__ import annotations

import os

from sampan.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any

    from sampan.runtime.ocirelay import Relay
else:
    import _signal  # without the enums of `signal`

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
            import _socket

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
        if master < 0:
            return self._wait(pid)
        from sampan.runtime import ocirelay

        relay = ocirelay.Relay(master)
        try:
            return self._wait_and_relay(pid, relay)
        finally:
            relay.close()

    def _wait(self, pid: int) -> int:
        os.set_blocking(self._reader, True)
        code = _reap(pid)  # it may have ended before we looked
        while code is None:
            code = self._take_signals(pid, None)
        return code

    def _wait_and_relay(self, pid: int, relay: Relay) -> int:
        import select

        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        relay.register(poll)
        code = _reap(pid)  # it may have ended before we looked
        while code is None:
            for fd, _ in poll.poll():
                if fd == self._reader:
                    code = self._take_signals(pid, relay)
                else:
                    relay.move(fd, poll)
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
        import _socket
        import _struct

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
