"""Signals as bytes of a pipe, so that a poll loop meets them between two of its own steps and never inside one.

`_signal`, the C half of the standard library's `signal`, is imported alone: the Python half makes three enumerations, and
brings `enum` along where nobody else does (7 ms in all). The numbers are the C half's.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
    from typing import Any
else:
    import _signal

HANGUP, INTERRUPT, QUIT, TERMINATE = _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM
BROKEN_PIPE, RESIZED, CONTINUED = _signal.SIGPIPE, _signal.SIGWINCH, _signal.SIGCONT

ENDING = (HANGUP, INTERRUPT, QUIT, TERMINATE)
"""What ends a program that does nothing about it, sent by a person or by the system."""

_NOT_FORWARDED = frozenset(
    (
        # Cannot be caught.
        _signal.SIGKILL,
        _signal.SIGSTOP,
        # Our own: a child of ours ended, our reader has gone, and what the terminal tells us.
        _signal.SIGCHLD,
        _signal.SIGPIPE,
        _signal.SIGURG,
        _signal.SIGWINCH,
        # A background job that reads the terminal must stop; a handler would make it ask for ever.
        _signal.SIGTTIN,
        _signal.SIGTTOU,
        # Faults of this process.
        _signal.SIGSEGV,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGILL,
        _signal.SIGTRAP,
        _signal.SIGABRT,
        _signal.SIGSYS,
        # Ignored by Python itself.
        _signal.SIGXFSZ,
    )
)

FORWARDED = tuple(n for n in (*range(1, 32), *range(_signal.SIGRTMIN, _signal.SIGRTMAX + 1)) if n not in _NOT_FORWARDED)
"""What --sig-proxy hands to the container."""


class Signals:
    """After `hold()`, until the end of the `with` block, the given signals do nothing but to be read from `fileno()`.

    One that is ignored stays so: `nohup sampan run ...` goes on without its terminal.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._before: dict[int, Any] = {}
        self._old_wakeup = -1
        self._reading = self._writing = -1

    def __enter__(self) -> Signals:
        return self

    def hold(self) -> None:
        """From now on. What has come before did what it usually does."""
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_wakeup = _signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in self._numbers:
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                self._before[number] = _signal.signal(number, _ignore)

    def __exit__(self, *_: object) -> None:
        if self._reading < 0:
            return
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        return self._reading

    def read(self) -> bytes:
        """The numbers of the signals that have come."""
        try:
            return os.read(self._reading, 4096)
        except BlockingIOError:
            return b""


def _ignore(_number: int, _frame: object) -> None:
    """The pipe has the number already."""


def end_by(number: int) -> int:
    """End this process by a signal, as if nothing had ever been done about it; the code for when it is blocked."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
