"""Doing the same with many at once, and telling it in the order in which they were named.

Threads, for what is waited for is processes that end, not computation. They are daemons: an interrupted command ends at once.
"""

from __future__ import annotations

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
        self._ended.wait()


def at_once(words: Sequence[str], action: Callable[[str], str | None]) -> Iterator[Outcome]:
    """Call `action` for every word, `AT_ONCE` of them at the same time; the outcomes in the words' order, each as soon as it is there."""
    import threading

    outcomes = [Outcome(threading.Event()) for _ in words]
    left = iter(list(zip(words, outcomes, strict=True)))
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                following = next(left, None)
            if following is None:
                return
            following[1].take(action, following[0])

    for _ in range(min(AT_ONCE, len(words))):
        threading.Thread(target=work, daemon=True).start()
    for outcome in outcomes:
        outcome.wait()
        yield outcome
