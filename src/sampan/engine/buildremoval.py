"""The containers of steps that are done, taken away while the next step is at work.

Whoever waits for a command that runs in a container has a processor to spare, and a removal is a few milliseconds of it. All are gone
before the build lets go of its hold: until then nobody else touches them (`Record.build`), and from then on nobody finds one.
"""

from __future__ import annotations

from sampan.errors import NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Thread
    from typing import Protocol

    class Removable(Protocol):
        def remove(self, force: bool = ...) -> None: ...


_MOST = 8
"""Removals at the same time; whoever comes with one more waits for the oldest."""


def remove(container: Removable) -> None:
    """Remove a container, which somebody else may have done. Raises `Conflict`, `System`."""
    try:
        container.remove(force=True)
    except NotFound:
        return  # Somebody else was quicker.


class Removals:
    """Of one build, for all of its threads."""

    def __init__(self) -> None:
        import threading

        self._lock = threading.Lock()
        self._threads: list[Thread] = []
        self._failed: list[SampanError] = []

    def begin(self, container: Removable) -> None:
        """Have it removed soon. What goes wrong is raised by `finish`."""
        import threading

        thread = threading.Thread(target=self._work, args=(container,), name="removal")
        with self._lock:
            oldest = self._threads.pop(0) if len(self._threads) >= _MOST else None
        if oldest is not None:
            oldest.join()
        try:
            thread.start()
        except RuntimeError:  # the limit of processes
            self._work(container)
            return
        with self._lock:
            self._threads.append(thread)

    def _work(self, container: Removable) -> None:
        try:
            remove(container)
        except SampanError as e:
            with self._lock:
                self._failed.append(e)

    def finish(self) -> None:
        """Wait until all are gone. Raises the first failure."""
        while True:
            with self._lock:
                if not self._threads:
                    break
                thread = self._threads.pop()
            thread.join()
        if self._failed:
            raise self._failed[0]
