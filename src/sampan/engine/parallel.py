"""Doing the same with many at once, and telling it in the order in which they were named.

Threads, for what is waited for is other processes, not computation. They are daemons: an interrupted command ends at once.
"""

from __future__ import annotations

from sampan.kernel import clock, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

AT_ONCE = 50
"""As many as Docker's command line works on at the same time."""


class Outcome:
    """What became of one of them: `value`, or the `error` that it raised."""

    __slots__ = ("_ended", "error", "value")

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended
        self.value: str | None = None
        self.error: BaseException | None = None

    def take(self, action: Callable[[str], str | None], word: str) -> None:
        """Do it; whatever it raises is for whoever asks."""
        try:
            self.value = action(word)
        except BaseException as e:
            self.error = e
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Until it is done."""
        while not self._ended.wait(clock.TURN):
            pass


def at_once(
    words: Sequence[str], action: Callable[[str], str | None], outcomes: dict[str, Outcome] | None = None
) -> Iterator[tuple[str, Outcome]]:
    """Call `action` for every word, `AT_ONCE` of them at the same time; what became of each, in the words' order and as soon as it is there.

    They are begun in their order too: so an action may wait for one of a word before its own, which it finds in `outcomes`.
    """
    import threading

    tasks = [(word, Outcome(threading.Event())) for word in words]
    if outcomes is not None:
        outcomes.update(tasks)
    left = iter(tasks)
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                word, outcome = next(left, ("", None))
            if outcome is None:
                return
            outcome.take(action, word)

    for number in range(min(AT_ONCE, len(words))):
        try:
            process.start_thread(threading.Thread(target=work, daemon=True))
        except OSError:
            if not number:
                work()  # by nobody else, and one after the other
            break
    for word, outcome in tasks:
        outcome.wait()
        yield word, outcome
