"""Ending a build from outside: what runs of it is killed, what it waits for is hung up, what was to come is not begun."""

from __future__ import annotations

from sampan.errors import Conflict, NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    class Running(Protocol):
        def kill(self) -> None: ...


class Cancelled(SampanError):
    """The build was ended by `Cancellation.cancel`."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Cancellation:
    """Given to a build (`BuildRequest.cancellation`), and kept by whoever may want to end it. For any thread."""

    def __init__(self) -> None:
        import threading

        self._lock = threading.Lock()
        self._cancelled = False
        self._ends: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End the build: it raises `Cancelled`, in a moment. Idempotent. Raises the first failure, when all was tried."""
        with self._lock:
            self._cancelled = True
            ends = list(self._ends)
        failed: SampanError | None = None
        for end in ends:
            try:
                end()
            except SampanError as e:
                failed = failed or e
        if failed is not None:
            raise failed

    def check(self) -> None:
        """Raises `Cancelled`."""
        if self._cancelled:
            raise Cancelled

    def ending(self, end: Callable[[], None]) -> Ending:
        """Have `end` called, perhaps several times, when the build is ended while the work inside goes on, or at once if it was before: a context manager."""
        return Ending(self, end)

    def watching(self, containers: Sequence[Running]) -> Ending:
        """Kill what is in the list, now or later, when the build is ended: a context manager."""

        def kill() -> None:
            for one in list(containers):
                try:
                    one.kill()
                except (Conflict, NotFound):
                    continue  # It does not run yet, and will not, or not any more.

        return Ending(self, kill)

    def _add(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.append(end)
        if self._cancelled:
            # It was ended between the last look and this one.
            end()

    def _remove(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.remove(end)


class Ending:
    """See `Cancellation.ending`."""

    def __init__(self, cancellation: Cancellation, end: Callable[[], None]) -> None:
        self._cancellation = cancellation
        self._end = end

    def __enter__(self) -> None:
        self._cancellation._add(self._end)

    def __exit__(self, _kind: object, _error: object, _traceback: object) -> None:
        self._cancellation._remove(self._end)
