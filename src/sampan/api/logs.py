"""`GET /containers/{id}/logs`: what a container wrote, in the frames of attach or raw for a terminal."""

from __future__ import annotations

from urllib.parse import quote_plus

from sampan.api import relay
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine
    from sampan.engine.logformats import LogEntry

_STREAMS = {"stdout": 1, "stderr": 2}
_TOGETHER = 64 << 10
"""Bytes of short lines that are sent at once."""


def piece(entry: LogEntry, outputs: frozenset[int], tty: bool, before: bytes = b"") -> bytes:
    """An entry as it is sent; nothing for a stream that is not wanted."""
    stream = _STREAMS[entry.stream]
    if stream not in outputs:
        return b""
    data = before + entry.data
    return data if tty else relay.frame(stream, data)


def read(engine: Engine, exchange: Exchange, name: str) -> None:
    query = exchange.query
    outputs = frozenset(number for word, number in _STREAMS.items() if query.flag(word))
    if not outputs:
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    container = engine.containers.get(name)
    tty = bool(container.inspect()["Config"]["Tty"])
    tail = query.text("tail", "all")
    stop = exchange.leaving()
    out = _Together(exchange)
    try:
        entries = container.logs(
            follow=query.flag("follow"),
            tail=int(tail) if tail.isascii() and tail.isdigit() else None,
            since=_time(query.text("since")),
            until=_time(query.text("until")),
            stop=stop.fileno(),
            before_wait=out.flush,
        )
        exchange.start(200, {"Content-Type": relay.stream_type(exchange, tty)})
        for data in _pieces(entries, outputs, tty, query.flag("timestamps"), query.flag("details")):
            out.write(data)
        out.flush()
    finally:
        stop.close()


class _Together:
    """Short lines, sent together; at the latest when there is nothing more to be read."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Raises ClientGone."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces:
            self._exchange.write(b"".join(pieces))


def _time(text: str) -> str:
    """ "" for 0, by which clients say that they want no bound."""
    return "" if text in ("0", "0.000000000") else text


def _pieces(
    entries: Iterator[LogEntry], outputs: frozenset[int], tty: bool, stamped: bool, detailed: bool
) -> Iterator[bytes]:
    inside: set[str] = (
        set()
    )  # streams in the middle of a line: what belongs before a line is before its first piece only
    for entry in entries:
        before = b""
        if (stamped or detailed) and entry.stream not in inside:
            if stamped:
                before += f"{entry.time} ".encode()
            if detailed:
                before += f"{_details(entry)} ".encode()
        if entry.partial:
            inside.add(entry.stream)
        elif inside:
            inside.discard(entry.stream)
        data = piece(entry, outputs, tty, before)
        if data:
            yield data


def _details(entry: LogEntry) -> str:
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(entry.attributes.items()))
