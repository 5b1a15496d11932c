"""Progress as Docker's clients read it: JSON objects, one a line, that end with CR LF (moby, pkg/streamformatter).

The answer begins with the first object. An error before that has a status of its own; one after it is an object in the stream,
because the status 200 is sent.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

from sampan import jsontext
from sampan.api.failures import kind
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.api.exchange import Exchange

INTERVAL = 0.1  # seconds between two objects that tell how far one layer is
_BAR = 50
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class ProgressStream:
    """One answer that is a stream of objects. Any thread may write; a client that went away raises from there."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._lock = threading.Lock()
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the client has got the status 200."""
        return self._begun

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._exchange.start(200, {"Content-Type": "application/json"})

    def end(self) -> None:
        """Nothing follows; an answer without any object begins, too."""
        with self._lock:
            self._begin()
            self._exchange.end()

    def send(self, **members: Any) -> None:
        """Send an object. Raises OSError if nobody takes it any more."""
        with self._lock:
            self._begin()
            self._exchange.write(jsontext.dumps(members) + b"\r\n")

    def fail(self, error: SampanError, code: int = 0) -> None:
        """Tell an error in the stream, in the old form and the new one; `kind` is for sampan's own client."""
        message = str(error)
        detail: dict[str, Any] = {"message": message, "kind": kind(error)}
        self.send(errorDetail={"code": code, **detail} if code else detail, error=message)


@contextmanager
def answered(
    exchange: Exchange, stream: ProgressStream | None = None, told_inside: bool = False
) -> Iterator[ProgressStream]:
    """A stream that is begun with its first object and ended with the work inside. What goes wrong then is its last object.

    told_inside: also what goes wrong before the first one.
    """
    stream = stream or ProgressStream(exchange)
    try:
        yield stream
    except SampanError as e:
        if not (stream.begun or told_inside):
            raise
        stream.fail(e)
    stream.end()


class Layers:
    """The `Report` of a pull or a push (`engine.images`), as a stream of objects."""

    def __init__(self, stream: ProgressStream) -> None:
        self._stream = stream
        self._last: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def __call__(self, layer: str, status: str, done: int, total: int) -> None:
        if not self._is_due(layer, status, done, total):
            return
        if not layer:
            self._stream.send(status=status)
        elif total:
            detail = {"current": done, "total": total}
            self._stream.send(status=status, progressDetail=detail, progress=bar(done, total), id=layer)
        elif status.startswith("Pulling from"):
            self._stream.send(status=status, id=layer)
        else:
            self._stream.send(status=status, progressDetail={}, id=layer)

    def _is_due(self, layer: str, status: str, done: int, total: int) -> bool:
        with self._lock:
            before, told = self._last.get(layer, ("", 0.0))
            now = time.monotonic()
            if layer and before == status and (not total or (done < total and now - told < INTERVAL)):
                return False
            self._last[layer] = (status, now)
            return True


def bar(done: int, total: int) -> str:
    """How Docker draws it for clients that show it as it is."""
    full = min(_BAR, done * _BAR // total) if total else 0
    drawn = f"[{'=' * full}{'>' if full < _BAR else ''}{' ' * (_BAR - 1 - full)}]"
    return f"{drawn} {_size(done):>8}/{_size(total)}"


def _size(size: float) -> str:
    at = 0
    while size >= 1000 and at < len(_UNITS) - 1:
        size /= 1000
        at += 1
    return f"{size:.4g}{_UNITS[at]}"
