"""What a process that lives long does when it has answered: one job after the other, in a thread that is there as long as some come.

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

DELAY = 0.02
"""Seconds after which it begins. Who has removed a container mostly makes the next one: at the same time each would have to wait for the interpreter and the disk."""

_PAUSE = 0.005

_ROUNDS = 10
"""How often it looks in vain before the thread ends: who removes one container after the other has one thread for all of them."""


class Background:
    """`background(job)`: have it done soon. A job raises nothing."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._jobs: list[tuple[float, Callable[[], None]]] = []
        self._there = False
        self._left = 0
        self._ends = False

    def __call__(self, job: Callable[[], None], delay: float = DELAY) -> None:
        """`delay`: seconds after which it is done at the earliest, unless somebody waits for all of them."""
        due = time.monotonic() + delay
        with self._lock:
            taken = len(self._jobs) < _MOST
            if taken:
                place = len(self._jobs)
                while place and self._jobs[place - 1][0] > due:
                    place -= 1
                self._jobs.insert(place, (due, job))
                self._left += 1
                begin, self._there = not self._there, True
        if not taken:
            job()
        elif begin:
            try:
                _thread.start_new_thread(self._work, ())
            except RuntimeError:  # the limit of processes
                self._work(0)

    def wait(self, seconds: float) -> bool:
        """Wait for all jobs to be done, at most `seconds`. False if some are not: they end with the process."""
        self._ends = True
        deadline = time.monotonic() + seconds
        while self._left:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _work(self, patience: int = _ROUNDS) -> None:
        rounds = 0
        while rounds < patience or not self._end():
            due, job = self._next()
            if job is None:
                rounds += 1
                time.sleep(due)
                continue
            rounds = 0
            job()
            del job  # what it holds is not kept until the next one comes
            with self._lock:
                self._left -= 1

    def _next(self) -> tuple[float, Callable[[], None] | None]:
        """The first job, if its time has come; else how long to wait until there is something to look for.

        No longer than for what may come meanwhile.
        """
        with self._lock:
            if not self._jobs:
                return DELAY, None
            pause = 0 if self._ends else self._jobs[0][0] - time.monotonic()
            return (min(pause, DELAY), None) if pause > 0 else self._jobs.pop(0)

    def _end(self) -> bool:
        """Whether there is nothing to stay for; whoever comes after that makes another thread."""
        with self._lock:
            self._there = bool(self._jobs)
            return not self._there
