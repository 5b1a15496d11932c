"""epoll(7) with a function for each descriptor, and functions that are due at a time."""

from __future__ import annotations

import _heapq
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR


class Timer:
    """Something that is due later, unless it is cancelled."""

    __slots__ = ("cancelled", "function")

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Serves descriptors and timers, one after the other. What fails is told to `failed`, and ends no other."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._failed = failed

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler` with the events when some are there. Raises OSError when the kernel watches no more."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """No more; before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call `function` then."""
        timer = Timer(function)
        self._count += 1
        _heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def run_once(self, seconds: float | None = None) -> bool:
        """Wait for something, at most for so long, and serve all that is ready; whether a descriptor was."""
        ready = self._epoll.poll(self._patience() if seconds is None else seconds, 256)
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is None:
                continue  # one before it has closed it
            try:
                handler(events)
            except Exception as e:
                self.forget(fd)  # or it would be ready for ever
                self._failed(e)
        now = time.monotonic()
        while self._timers and (self._timers[0][2].cancelled or self._timers[0][0] <= now):
            timer = _heapq.heappop(self._timers)[2]
            try:
                if not timer.cancelled:
                    timer.function()
            except Exception as e:
                self._failed(e)
        return bool(ready)

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].cancelled:
            _heapq.heappop(self._timers)
        return max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None
