"""What is seen of long work on a terminal: one line that is drawn again and again, as Docker draws it.

On standard error, so that what a command prints can be piped on. Where that is no terminal there is nothing, and no colour
anywhere: a line is drawn over by a carriage return and an erase sequence.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_INTERVAL = 0.1  # seconds between two drawings
_WIDE = 110  # columns that a terminal has at least when it gets a bar, Docker's number
_ERASE = "\r\x1b[K"


class Bar:
    """A `Progress` (see `engine.progress`) and a context manager. `shown` is whether there is anybody to show it to.

    The line of something that has a name ("0123456789ab: Loading layer") stays, as with Docker; others are gone at the end.
    """

    def __init__(self) -> None:
        self.shown = os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"
        self._what = ""
        self._line = ""
        self._drawn = 0.0
        self._began = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self.shown:
            return
        now = time.monotonic()
        if what != self._what:
            self._end_line()
            self._what, self._began, self._drawn = what, now, 0.0
        self._line = line(what, done, total, _columns(), now - self._began)
        if now - self._drawn >= _INTERVAL:
            self._drawn = now
            _write(f"{_ERASE}{self._line}")

    def _end_line(self) -> None:
        if self._what:
            # What was left out since the last drawing is its end.
            _write(f"{_ERASE}{self._line}\r\n" if ": " in self._what else _ERASE)
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_line()


def line(what: str, done: int, total: int, columns: int, seconds: float) -> str:
    """ "what [=====>     ]  1.2MB/3.4MB 2s": the bar only where there is room, the time only when it can be told."""
    from sampan.cli.prune import human_size

    text = what
    if total > 0 and columns > _WIDE:
        half = min(50, done * 50 // total)
        text += f" [{'=' * half}{'>' * (half < 50)}{' ' * (49 - half)}]"
    text += f" {human_size(done):>8}"
    if total > 0 and done <= total:
        text += f"/{human_size(total)}"
        if 0 < done < total and seconds >= 1 and columns > 50:
            text += f" {(total - done) * seconds / done:.0f}s"
    return text[: max(1, columns - 1)]


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


def _write(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # Nobody looks any more: that is no reason to stop.
