"""Threads that take turns: some wait for what comes, and whoever gets something serves it himself.

Nothing is handed from one thread to another, which would cost two of them their sleep for each request, and have them fight
for the interpreter's lock. There is always one that waits: whoever takes the last one's place makes another before he serves.
"""

from __future__ import annotations

import threading
import time

from sampan.errors import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.api.connection import Connection

MOST = 1024
IDLE_SECONDS = 1.0
STACK = 4 << 20
"""Bytes of address space for each; the C library's 8 MiB would count against `ulimit -v`.

What a client sends may be nested. Python 3.13 gives up at 10000 calls of C whatever the stack is, for which its JSON scanner needs more than 1 MiB.
"""
_PAUSE = 0.001


class Workers:
    """As many threads as there is work for. most: how many may be serving at once; one more waits."""

    def __init__(self, most: int = MOST) -> None:
        threading.stack_size(STACK)
        self._lock = threading.Lock()
        self._most = most
        self._waiting = 0
        self._serving = 0
        self._ended = False

    def begin(
        self,
        take: Callable[[float | None], Connection | None],
        serve: Callable[[Connection], None],
        refuse: Callable[[Connection], None],
    ) -> None:
        """Have them begin. None of the three may raise.

        `take` waits that long for a connection that has something to do, None: without end. `refuse` is called instead of
        `serve` when all threads there may be are at work. Raises System where not even one can be had.
        """
        self._take, self._serve, self._refuse = take, serve, refuse
        self._waiting = 1
        try:
            self._start()
        except RuntimeError as e:
            raise System(f"a server needs a thread: {e}: raise the limit of processes (ulimit -u, pids.max)") from None

    def end(self, seconds: float) -> None:
        """Have none of them take anything any more, and wait until none waits. `take` has to return for that."""
        self._ended = True
        deadline = time.monotonic() + seconds
        while self._waiting and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def _start(self) -> None:
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while not self._ended:
            # The last one waits for ever: a server at rest does nothing at all.
            connection = self._take(None if self._waiting == 1 else IDLE_SECONDS)
            if connection is None:
                if self._leave():
                    return
            elif not self._begin_serving():
                self._refuse(connection)
            else:
                self._serve(connection)
                del connection  # what it holds is not kept until the next one comes
                with self._lock:
                    self._serving -= 1
                    self._waiting += 1
        with self._lock:
            self._waiting -= 1

    def _leave(self) -> bool:
        """Whether there are others that wait, so that one for which there is nothing to do may go."""
        with self._lock:
            if self._waiting == 1 or self._ended:
                return False
            self._waiting -= 1
            return True

    def _begin_serving(self) -> bool:
        """Leave the waiting to the others, of whom one is made if there is none. False if there may be, or can be, no more."""
        with self._lock:
            if self._serving >= self._most:
                return False
            self._serving += 1
            if self._waiting > 1:
                self._waiting -= 1
                return True
        try:
            self._start()  # it is counted in our place
        except RuntimeError:  # the user's, the control group's or the machine's limit of processes
            with self._lock:
                self._serving -= 1
            return False
        return True
