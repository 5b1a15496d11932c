"""Ending a build from outside: what runs of it is killed, what was to come is not begun."""

from __future__ import annotations

from sampan.errors import Conflict, NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
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
        self._running: list[Sequence[Running]] = []

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End the build: it raises `Cancelled`, in a moment. Idempotent."""
        with self._lock:
            self._cancelled = True
            running = [one for containers in self._running for one in containers]
        for one in running:
            try:
                one.kill()
            except (Conflict, NotFound):
                continue  # It does not run yet, and will not, or not any more.

    def check(self) -> None:
        """Raises `Cancelled`."""
        if self._cancelled:
            raise Cancelled

    def watching(self, containers: Sequence[Running]) -> Watching:
        """Kill what is in the list, now or later, when the build is ended: a context manager."""
        return Watching(self, containers)

    def _add(self, containers: Sequence[Running]) -> None:
        with self._lock:
            self._running.append(containers)
        if self._cancelled:
            # It was ended between the last look and this one.
            self.cancel()

    def _remove(self, containers: Sequence[Running]) -> None:
        with self._lock:
            self._running = [one for one in self._running if one is not containers]


class Watching:
    """See `Cancellation.watching`."""

    def __init__(self, cancellation: Cancellation, containers: Sequence[Running]) -> None:
        self._cancellation = cancellation
        self._containers = containers

    def __enter__(self) -> None:
        self._cancellation._add(self._containers)

    def __exit__(self, _kind: object, _error: object, _traceback: object) -> None:
        self._cancellation._remove(self._containers)
