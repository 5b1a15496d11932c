"""Stages at the same time: each is begun when those are there that it needs.

One that is alone is built by whoever asks, so that most builds have no thread. When a stage fails the others are ended, and the build with
what failed first.
"""

from __future__ import annotations

from sampan.engine.buildcancel import Cancellation, Cancelled
from sampan.kernel import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from queue import SimpleQueue
    from threading import Thread

    from sampan.build.stages import Planned
    from sampan.engine.buildstage import Built

    Outcome = tuple[int, Built | None, BaseException | None]


def build(
    planned: Sequence[Planned],
    make: Callable[[Planned], Built],
    built: dict[int, Built],
    cancellation: Cancellation,
    at_once: int,
) -> None:
    """Build all of them into `built`, by number, `at_once` at the same time. Raises what a stage raises."""
    left = list(planned)
    while left:
        ready = [one for one in left if built.keys() >= set(one.needs)]
        if len(ready) > 1 and at_once > 1:
            _Threads(left, make, built, cancellation, at_once).run()
            return
        one = ready[0]  # There is one: a plan has no circle.
        built[one.stage.index] = make(one)
        left.remove(one)


class _Threads:
    def __init__(
        self,
        left: Sequence[Planned],
        make: Callable[[Planned], Built],
        built: dict[int, Built],
        cancellation: Cancellation,
        at_once: int,
    ) -> None:
        from queue import SimpleQueue

        self._left = list(left)
        self._make = make
        self._built = built
        self._cancellation = cancellation
        self._at_once = at_once
        self._ended: SimpleQueue[Outcome] = SimpleQueue()
        self._running: dict[int, Thread] = {}

    def run(self) -> None:
        failed: BaseException | None = None
        try:
            while self._running or (self._left and failed is None):
                if failed is None:
                    self._begin()
                number, made, error = self._next()
                self._running.pop(number).join()
                if made is not None:
                    self._built[number] = made
                elif failed is None or isinstance(failed, Cancelled):
                    failed = error
                    self._cancellation.cancel()
        except BaseException:
            # An interrupt: nothing goes on behind our back.
            self._cancellation.cancel()
            for thread in self._running.values():
                thread.join()
            raise
        if failed is not None:
            raise failed

    def _next(self) -> Outcome:
        from queue import Empty

        while True:
            try:
                return self._ended.get(timeout=clock.TURN)
            except Empty:
                continue

    def _begin(self) -> None:
        from threading import Thread

        for one in list(self._left):
            if len(self._running) < self._at_once and self._built.keys() >= set(one.needs):
                thread = Thread(target=self._work, args=(one,), name=f"stage {one.stage.index}")
                self._left.remove(one)
                self._running[one.stage.index] = thread
                thread.start()

    def _work(self, one: Planned) -> None:
        number = one.stage.index
        try:
            self._ended.put((number, self._make(one), None))
        except BaseException as e:
            self._ended.put((number, None, e))
