"""How a build goes, on standard error, as BuildKit tells it. Steps of several stages go on at the same time: each call may come from another thread.

`buildterminal` has what is drawn on a terminal; `Plain`: "#3 [2/4] RUN make", each line of output with its time, "#3 DONE 0.2s". `Raw`: a JSON document for each change (BuildKit's SolveStatus).
"""

from __future__ import annotations

import time

from sampan.cli.output import err

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from sampan.build.rules import Finding
    from sampan.build.source import Source
    from sampan.engine.containers import Container

_KEPT_LINES = 25
"""Lines of a failed step's output that are told once more at the end."""


CANCELLED = "context canceled"
"""Why a step ends whose build is ended from outside, or by another stage that failed: nothing of its own is to be told."""


class Step:
    """One that is being done."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.begun = time.monotonic()
        self.rest = b""
        self.lines: list[str] = []

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def take(self, data: bytes) -> list[str]:
        """The lines that are whole now."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [self._line(line) for line in lines]

    def last(self) -> list[str]:
        """What is left behind the last line."""
        rest, self.rest = self.rest, b""
        return [self._line(rest)] if rest else []

    def failure(self) -> str:
        """What it said last, between two rules."""
        rule = "------"
        return "\n".join([rule, f" > {self.title}:", *self.lines, rule])

    def _line(self, line: bytes) -> str:
        text = line.decode("utf-8", "surrogateescape").rstrip("\r")
        told = f"{self.seconds():.3f} {text}"
        self.lines = [*self.lines[1 - _KEPT_LINES :], told]
        return told


class Plain:
    """Told by the engine (`engine.buildstage.Watcher`), a context manager. With `shown` False it only keeps what is told when a step fails."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._number = 0
        self._steps: dict[int, Step] = {}
        import threading

        self._lock = threading.Lock()
        self._said = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """All was told when it happened."""

    def begin(self, title: str) -> int:
        with self._lock:
            self._number += 1
            number = self._number
            self._steps[number] = Step(title.split("\n", 1)[0])
            self._say(number, self._steps[number].title)
        return number

    def runs(self, container: Container) -> None:
        """An interrupt ends a build here, and removes its container on the way."""

    def output(self, step: int, data: bytes) -> None:
        with self._lock:
            for line in self._steps[step].take(data):
                self._say(step, line)

    def note(self, step: int, text: str) -> None:
        with self._lock:
            self._say(step, text)

    def done(self, step: int, cached: bool = False) -> None:
        with self._lock:
            one = self._ended(step)
            self._say(step, "CACHED\n" if cached else f"DONE {one.seconds():.1f}s\n")

    def failed(self, step: int, message: str) -> None:
        with self._lock:
            one = self._ended(step)
            if message == CANCELLED:
                self._say(step, "CANCELED")
                return
            self._say(step, f"ERROR: {message}")
            err(one.failure())

    def _ended(self, step: int) -> Step:
        one = self._steps.pop(step)
        for line in one.last():
            self._say(step, line)
        return one

    def warn(self, findings: Sequence[Finding], source: Source) -> None:
        if self._shown:
            err(warnings(findings))

    def tell(self, text: str) -> None:
        if self._shown:
            err(text)

    def _say(self, step: int, text: str) -> None:
        if not self._shown:
            return
        if self._said not in (0, step) and self._said in self._steps:
            # As BuildKit: what belongs to another step is set off.
            err("")
        self._said = step
        err(f"#{step} {text}")


def warnings(findings: Sequence[Finding]) -> str:
    """What the checks found, as it is told beside a build."""
    count = f"{len(findings)} warning{'s' * (len(findings) != 1)} found (sampan build --check explains them):"
    return "\n".join([f" {count}", *(f" - {one.rule}: {one.text} (line {one.first})" for one in findings), ""])


class Raw:
    """--progress=rawjson, for programs."""

    def __init__(self) -> None:
        self._vertexes: dict[int, dict[str, Any]] = {}
        self._number = 0
        import threading

        self._lock = threading.Lock()

    def begin(self, title: str) -> int:
        with self._lock:
            self._number += 1
            digest = f"sha256:{self._number:064x}"
            self._vertexes[self._number] = {"digest": digest, "name": title, "started": _now()}
            self._tell(vertexes=[self._vertexes[self._number]])
            return self._number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def runs(self, container: Container) -> None: ...

    def note(self, step: int, text: str) -> None:
        self.output(step, f"{text}\n".encode("utf-8", "surrogateescape"))

    def output(self, step: int, data: bytes) -> None:
        import base64

        with self._lock:
            text = base64.b64encode(data).decode("ascii")
            log = {"vertex": self._vertexes[step]["digest"], "stream": 1, "data": text, "timestamp": _now()}
            self._tell(logs=[log])

    def done(self, step: int, cached: bool = False) -> None:
        self._end(step, {"cached": True} if cached else {})

    def failed(self, step: int, message: str) -> None:
        self._end(step, {"error": message})

    def _end(self, step: int, more: dict[str, Any]) -> None:
        with self._lock:
            self._tell(vertexes=[{**self._vertexes.pop(step), "completed": _now(), **more}])

    def warn(self, findings: Sequence[Finding], source: Source) -> None:
        told = [
            {
                "level": 1,
                "short": _encoded(f"{one.rule}: {one.text} (line {one.first})"),
                "range": [one.first, one.last],
            }
            for one in findings
        ]
        with self._lock:
            self._tell(warnings=told)

    def tell(self, text: str) -> None:
        with self._lock:
            self._tell(warnings=[{"level": 1, "short": _encoded(text)}])

    def _tell(self, **document: Any) -> None:
        import json

        err(json.dumps(document))


def _encoded(text: str) -> str:
    import base64

    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def _now() -> str:
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"
