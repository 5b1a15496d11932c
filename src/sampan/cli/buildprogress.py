"""How a build goes, in BuildKit's plain form on standard error: "#3 [2/4] RUN make", each line of output with its time, "#3 DONE 0.2s"."""

from __future__ import annotations

import time

from sampan.cli.output import err

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.build.rules import Finding
    from sampan.build.source import Source
    from sampan.engine.container import Container

_KEPT_LINES = 25
"""Lines of a failed step's output that are told once more at the end."""


class Plain:
    """Told by the engine (`engine.buildstage.Watcher`). With `shown` False it only keeps what is told when a step fails."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._number = 0
        self._title = ""
        self._begun = 0.0
        self._rest = b""
        self._lines: list[str] = []

    def begin(self, title: str) -> int:
        self._number += 1
        self._title = title.split("\n", 1)[0]
        self._begun = time.monotonic()
        self._rest = b""
        self._lines = []
        self._say(f"#{self._number} {self._title}")
        return self._number

    def runs(self, container: Container) -> None:
        """An interrupt ends a build here, and removes its container on the way."""

    def output(self, step: int, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(step, line)

    def _line(self, step: int, line: bytes) -> None:
        text = line.decode("utf-8", "surrogateescape").rstrip("\r")
        self._lines = [*self._lines[1 - _KEPT_LINES :], f"{self._seconds():.3f} {text}"]
        self._say(f"#{step} {self._lines[-1]}")

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _flush(self, step: int) -> None:
        if self._rest:
            self._line(step, self._rest)
            self._rest = b""

    def done(self, step: int, cached: bool = False) -> None:
        self._flush(step)
        self._say(f"#{step} CACHED\n" if cached else f"#{step} DONE {self._seconds():.1f}s\n")

    def failed(self, step: int, message: str) -> None:
        self._flush(step)
        self._say(f"#{step} ERROR: {message}")
        rule = "------"
        err("\n".join([rule, f" > {self._title}:", *self._lines, rule]))

    def warn(self, findings: Sequence[Finding], source: Source) -> None:
        if not self._shown:
            return
        count = f"{len(findings)} warning{'s' * (len(findings) != 1)} found (sampan build --check explains them):"
        err("\n".join([f" {count}", *(f" - {one.rule}: {one.text} (line {one.first})" for one in findings), ""]))

    def _say(self, text: str) -> None:
        if self._shown:
            err(text)
