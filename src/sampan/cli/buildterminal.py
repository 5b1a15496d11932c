"""How a build goes, drawn on a terminal and drawn again, as BuildKit draws it.

[+] Building 1.2s (4/7)
 => CACHED [2/4] RUN apt-get update                                          0.0s
 => [3/4] RUN make                                                           1.1s
 => => # cc -c main.c                              the last lines of what runs

At the end every step is there once, then what the failed ones said. What commands say is shown without its control sequences: it cannot
touch what is around it. NO_COLOR (no-color.org) takes the colours away.
"""

from __future__ import annotations

import os
import time
import unicodedata

from sampan.cli.buildprogress import CANCELLED, Step, warnings
from sampan.cli.output import err

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from sampan.build.rules import Finding
    from sampan.build.source import Source
    from sampan.engine.containers import Container

_INTERVAL = 0.15  # seconds between two drawings, BuildKit's
_LINES = 6  # of what a running step says
_BLUE, _RED, _YELLOW = "34", "31", "33"
_CONTROL = (
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_a-z])"  # ECMA-48: CSI, OSC, other escapes
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Drawn(Step):
    """A step as it is drawn: while it runs, and then for good."""

    def __init__(self, title: str) -> None:
        super().__init__(plain(title))
        self.took: float | None = None
        self.mark = ""
        self.color = ""
        self.notes: list[str] = []
        self.said: list[str] = []
        # What the command says stays in the log of the failure alone; what we say ourselves ("exporting ...") is for ever.
        self.keeps_output = not title.startswith("[")

    def hear(self, data: bytes) -> None:
        for line in self.take(data):
            text = plain(line.partition(" ")[2])
            (self.notes if self.keeps_output else self.said).append(text)
        del self.said[:-_LINES]

    def end(self, mark: str, color: str) -> None:
        self.last()
        self.took, self.mark, self.color = self.seconds(), mark, color
        self.said.clear()

    def shown(self, columns: int) -> Iterator[tuple[str, str]]:
        """Its lines, each with its colour."""
        seconds = f"{self.seconds() if self.took is None else self.took:.1f}s"
        yield justified(f" => {self.mark}{self.title}", seconds, columns), self.color
        for note in self.notes:
            yield cut(f" => => {note}", columns), self.color
        if self.took is None:
            partial = plain(self.rest.decode("utf-8", "replace"))
            for line in [*self.said, *([partial] if partial else [])][-_LINES:]:
                yield cut(f" => => # {line}", columns), ""


class Terminal:
    """Told by the engine (`engine.buildstage.Watcher`), a context manager. A thread draws, so that times go on while a command is silent."""

    def __init__(self) -> None:
        import threading

        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="build progress", daemon=True)
        self._steps: list[Drawn] = []
        self._begun = time.monotonic()
        self._drawn: list[int] = []  # widths of the lines that are on the screen
        self._colored = not os.environ.get("NO_COLOR")
        self._told: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with self._lock:
            if self._steps:
                self._draw(final=True)
            for text in self._told:
                err(text)

    def begin(self, title: str) -> int:
        with self._lock:
            self._steps.append(Drawn(title.split("\n", 1)[0]))
            return len(self._steps)

    def runs(self, container: Container) -> None:
        """An interrupt ends a build here, and removes its container on the way."""

    def output(self, step: int, data: bytes) -> None:
        with self._lock:
            self._steps[step - 1].hear(data)

    def note(self, step: int, text: str) -> None:
        with self._lock:
            self._steps[step - 1].notes.append(plain(text))

    def done(self, step: int, cached: bool = False) -> None:
        with self._lock:
            self._steps[step - 1].end("CACHED " if cached else "", _BLUE)

    def failed(self, step: int, message: str) -> None:
        with self._lock:
            one = self._steps[step - 1]
            if message == CANCELLED:
                one.end("CANCELED ", _YELLOW)
                return
            one.end("ERROR ", _RED)
            self._told.append(plain(one.failure()))

    def warn(self, findings: Sequence[Finding], source: Source) -> None:
        with self._lock:
            self._told.insert(0, "\n" + warnings(findings))

    def tell(self, text: str) -> None:
        with self._lock:
            self._told.append(text)

    # Drawing

    def _tick(self) -> None:
        while not self._over.wait(_INTERVAL):
            with self._lock:
                self._draw(final=False)

    def _draw(self, final: bool) -> None:
        columns, rows = _size()
        lines = list(self._lines(columns, final))
        if not final:
            lines = _fitting(lines, rows - 1)
        # To where the last drawing began: a terminal that is narrower now has broken its lines.
        up = sum(max(1, -(-width // columns)) for width in self._drawn)
        parts = ["\x1b[?25l", f"\r\x1b[{up}A" if up else "\r"]
        for text, color in lines:
            painted = f"\x1b[{color}m{text}\x1b[0m" if color and self._colored else text
            parts.append(f"{painted}\x1b[K\r\n")
        parts.append("\x1b[J\x1b[?25h")
        self._drawn = [width_of(text) for text, _ in lines]
        _write("".join(parts))

    def _lines(self, columns: int, final: bool) -> Iterator[tuple[str, str]]:
        ended = sum(one.took is not None for one in self._steps)
        finished = " FINISHED" if final and ended == len(self._steps) else ""
        seconds = time.monotonic() - self._begun
        yield cut(f"[+] Building {seconds:.1f}s ({ended}/{len(self._steps)}){finished}", columns), ""
        for one in self._steps:
            yield from one.shown(columns)


def _fitting(lines: list[tuple[str, str]], rows: int) -> list[tuple[str, str]]:
    """What there is room for: what ended first goes first, the headline stays."""
    if len(lines) <= max(rows, 2):
        return lines
    too_many = len(lines) - max(rows, 2)
    ended = [i for i, (_, color) in enumerate(lines) if color]
    dropped = set(ended[:too_many])
    left = [line for i, line in enumerate(lines) if i not in dropped]
    return [left[0], *left[1:][-(max(rows, 2) - 1) :]]


def plain(text: str) -> str:
    """Without what a terminal would act upon; of what was written over by a carriage return the last."""
    import re

    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(re.sub(_CONTROL, "", line).replace("\t", "    ") for line in lines)


def width_of(text: str) -> int:
    """The columns that a text takes."""
    return len(text) if text.isascii() else sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """As much as fits on a line, which must not be broken."""
    room = max(columns - 1, 1)
    if width_of(text) <= room:
        return text
    kept, taken = [], 0
    dots = "..." if room > 8 else ""
    for character in text:
        taken += _width(character)
        if taken > room - len(dots):
            break
        kept.append(character)
    return "".join(kept) + dots


def justified(left: str, right: str, columns: int) -> str:
    """The second at the right edge; on a terminal that is too narrow for both the first alone."""
    room = columns - 1 - len(right) - 1
    if room < 16:
        return cut(left, columns)
    text = cut(left, room + 1)
    return f"{text}{' ' * (room - width_of(text))} {right}"


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(2)
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24


def _write(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass  # Nobody looks any more: that is no reason to stop.
