"""A record of what was done: each durable or kernel action with its text, its time and its result.

One list serves four readers: `--debug`, error reports that name the action that failed, tests that check
an order without root, and crash tests, whose observer kills the process between two actions.
"""

from __future__ import annotations

import errno as errno_names
import os
import time

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any


NO_ERRNO = -1
"""The `errno` of an action that failed for a reason of its own and not a system call's."""


class Event(Struct):
    """One action, seen before (`seconds` is None) or after it ran.

    `stage` is the process that acts: "engine" (the caller's), "monitor", "stage1", "stage2" or "enter".
    `errno` is 0 for success, or `NO_ERRNO`. `pid` is the acting process.
    """

    stage: str
    text: str
    pid: int
    seconds: float | None = None
    errno: int = 0
    detail: str = ""

    @property
    def finished(self) -> bool:
        return self.seconds is not None

    def line(self) -> str:
        """The event as one line of `--debug`: stage, text, result, time."""
        if self.seconds is None:
            return f"{self.stage:8} {self.text} ..."
        result = "ok" if not self.errno else errno_names.errorcode.get(self.errno, "failed")
        if self.detail:
            result += f" ({self.detail})"
        return f"{self.stage:8} {self.text}: {result}, {self.seconds * 1e6:.0f} us"


class Trace:
    """Collects finished events and tells an observer of every event, begun and finished.

    The list is bounded (the newest 4096 events), because an engine object may live for weeks.
    """

    LIMIT = 4096

    def __init__(self, observer: Callable[[Event], None] | None = None) -> None:
        self._events: list[Event] = []
        self._later: list[Callable[[], list[Event]]] = []
        self.observer = observer
        self.keeps = True
        """Whether anybody may want to read it. A server's would be megabytes of plans that nobody looks at."""

    @property
    def events(self) -> list[Event]:
        """What was done, in order."""
        later, self._later = self._later, []
        for make in later:
            self._events += make()
        del self._events[: -self.LIMIT]
        return self._events

    def add_later(self, make: Callable[[], list[Event]]) -> None:
        """Take finished events that are costly to describe: they are described when somebody reads them or observes."""
        if self.observer is not None:
            for event in make():
                self.add(event)
            return
        if self.keeps:
            self._later.append(make)
            del self._later[: -self.LIMIT]

    def step(self, verb: str, target: str | bytes = "") -> _Action:
        """A context manager around one action: `with trace.step("write record", path):`."""
        if isinstance(target, bytes):
            target = target.decode("utf-8", "surrogateescape")
        return _Action(self, f"{verb} {target}" if target else verb)

    def add(self, event: Event) -> None:
        """Take an event that another process reported."""
        if event.finished and self.keeps:
            if self._later:
                self._later.append(lambda: [event])
            else:
                self._events.append(event)
                if len(self._events) > 2 * self.LIMIT:
                    del self._events[: self.LIMIT]
        if self.observer is not None:
            self.observer(event)


class _Action:
    __slots__ = ("_begun", "_text", "_trace")

    def __init__(self, trace: Trace, text: str) -> None:
        self._trace = trace
        self._text = text
        self._begun = 0.0

    def __enter__(self) -> None:
        if self._trace.observer is not None:
            self._trace.observer(Event("engine", self._text, os.getpid()))
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if not self._trace.keeps and self._trace.observer is None:
            return  # a server's: hundreds of events for each start, which nobody would read
        seconds = time.perf_counter() - self._begun
        number = (getattr(error, "errno", None) or errno_names.EIO) if error is not None else 0
        self._trace.add(
            Event("engine", self._text, os.getpid(), seconds, number, str(error) if error is not None else "")
        )


def event_from_json(data: dict[str, Any]) -> Event:
    """The event that `Event.to_json` described (events of the shim arrive so)."""
    return Event(**data)
