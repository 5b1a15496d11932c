"""Threads that serve connections: made when there is no idle one, gone when there is nothing to do, never more than a bound."""

from __future__ import annotations

import queue
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1024
IDLE_SECONDS = 1.0
STACK = 1 << 20
"""Bytes of address space for each; the C library's 8 MiB would count against `ulimit -v`."""


class Workers:
    """Runs jobs, each in a thread of its own as long as it takes."""

    def __init__(self, most: int = MOST) -> None:
        threading.stack_size(STACK)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._most = most
        self._idle = 0
        self.count = 0

    def run(self, job: Callable[[], None]) -> bool:
        """Have it done. False if all threads there may be are at work."""
        with self._lock:
            if self._idle:
                self._idle -= 1  # it is promised to this job
                self._jobs.put(job)
                return True
            if self.count >= self._most:
                return False
            self.count += 1
        try:
            threading.Thread(target=self._work, args=(job,), daemon=True).start()
        except RuntimeError:  # the user's, the control group's or the machine's limit of processes
            with self._lock:
                self.count -= 1
            return False
        return True

    def _work(self, job: Callable[[], None]) -> None:
        while True:
            job()
            del job  # what it holds is not kept until the next one comes
            with self._lock:
                self._idle += 1
            while True:
                try:
                    job = self._jobs.get(timeout=IDLE_SECONDS)
                    break
                except queue.Empty:
                    with self._lock:
                        if self._idle and self._jobs.empty():
                            self._idle -= 1
                            self.count -= 1
                            return
                    # Else a job was promised in this moment, to us or to another one that is idle.
