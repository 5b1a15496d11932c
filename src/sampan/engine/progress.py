"""How far long work is. Who wants to know gives a function, `Progress`: what is done, bytes of it, bytes in all (0: nobody knows)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    Progress = Callable[[str, int, int], None]

    class Source(Protocol):
        def read(self, size: int, /) -> bytes: ...

    class Sink(Protocol):
        def write(self, data: bytes, /) -> object: ...


class WatchedSource:
    """A stream that tells how much of it was read; everything else is the stream's own."""

    def __init__(self, source: Source, progress: Progress, what: str, total: int = 0) -> None:
        self._source = source
        self._progress = progress
        self._what = what
        self._total = total
        self._done = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._done += len(data)
        self._progress(self._what, self._done, self._total)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class WatchedSink:
    """A stream that tells how much was written to it; everything else is the stream's own."""

    def __init__(self, sink: Sink, progress: Progress, what: str) -> None:
        self._sink = sink
        self._progress = progress
        self._what = what
        self._done = 0

    def write(self, data: bytes, /) -> object:
        written = self._sink.write(data)
        self._done += len(data)
        self._progress(self._what, self._done, 0)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)
