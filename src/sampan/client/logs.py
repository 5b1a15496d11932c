"""What a container wrote, out of the answer to `GET /containers/{id}/logs`: frames, or raw lines of a terminal."""

from __future__ import annotations

from urllib.parse import unquote_plus

from sampan.client.attachment import MULTIPLEXED, Frames
from sampan.engine.logformats import PART, LogEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from sampan.client.session import Stream

_STREAMS = {1: "stdout", 2: "stderr"}


class RemoteLog:
    """Entries, one after the other; with `follow` until the container ends. `close` ends it, from any thread."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._entries = self._read()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LogEntry:
        return next(self._entries)

    def close(self) -> None:
        self._stream.close()

    def _read(self) -> Iterator[LogEntry]:
        framed = self._stream.headers.get("content-type", "") == MULTIPLEXED
        pieces = self._framed() if framed else ((1, line) for line in self._raw())
        inside: dict[int, LogEntry] = {}
        for number, data in pieces:
            before = inside.pop(number, None)
            entry = _begun(_STREAMS.get(number, "stderr"), data) if before is None else before.replace(data=data)
            # As the writer cuts: a piece of a line that goes on is as long as pieces are.
            partial = not entry.data.endswith(b"\n") and len(entry.data) >= PART
            entry = entry.replace(partial=partial)
            if partial:
                inside[number] = entry
            yield entry

    def _framed(self) -> Iterator[tuple[int, bytes]]:
        frames = Frames()
        for piece in self._stream:
            yield from frames.feed(piece)

    def _raw(self) -> Iterator[bytes]:
        rest = b""
        for piece in self._stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest


def _begun(stream: str, data: bytes) -> LogEntry:
    """The first piece of a line: its time and its attributes stand before it."""
    time, _, rest = data.partition(b" ")
    details, _, text = rest.partition(b" ")
    pairs = (pair.partition("=") for pair in details.decode("utf-8", "replace").split(",") if pair)
    attributes = {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}
    return LogEntry(time.decode("ascii", "replace"), stream, text, attributes)
