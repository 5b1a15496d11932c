"""What a process that lives long does when it has answered: one job after the other, in a thread that is there as long as there are any.

Nothing depends on it: what is left of a job when the process is killed, the next command finishes.
"""

from __future__ import annotations

import _thread
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 256
"""Jobs that wait; whoever comes with one more does it himself, and so does not get ahead of the disk for ever."""

_DELAY = 0.02
"""Seconds after which it begins. Who has removed a container mostly makes the next one: at the same time each would have to wait for the interpreter and the disk."""

_PAUSE = 0.005


class Background:
    """`background(job)`: have it done soon. A job raises nothing."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._jobs: list[Callable[[], None]] = []
        self._at_work = False

    def __call__(self, job: Callable[[], None]) -> None:
        with self._lock:
            taken = len(self._jobs) < _MOST
            if taken:
                self._jobs.append(job)
                begin, self._at_work = not self._at_work, True
        if not taken:
            job()
        elif begin:
            try:
                _thread.start_new_thread(self._work, ())
            except RuntimeError:  # the limit of processes
                self._work()

    def wait(self, seconds: float) -> bool:
        """Wait for all jobs to be done, at most `seconds`. False if some are not: they end with the process."""
        deadline = time.monotonic() + seconds
        while self._at_work:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _work(self) -> None:
        time.sleep(_DELAY)
        while True:
            with self._lock:
                if not self._jobs:
                    self._at_work = False
                    return
                job = self._jobs.pop(0)
            job()
            del job  # what it holds is not kept until the next one comes
