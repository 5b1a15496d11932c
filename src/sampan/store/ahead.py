"""A stream that a thread of its own reads ahead: decompressing goes on while what came out is made into files.

Both of them release the interpreter's lock, so that two processors are at work. What is ahead is bounded, and more than a
moment's: a part of an archive with many small files takes long to be made and no time to be decompressed, one with a large
file the other way round, and neither thread is to wait for the other meanwhile.
"""

from __future__ import annotations

from sampan.kernel import clock, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from sampan.store.tarstream import Source

_PIECE = 1 << 21  # Few and large: each one is some moments in which the other thread has to wait for the interpreter.
_AHEAD = 8  # pieces: 16 MiB


class ReadAhead:
    """Reads `source` in a thread. A context manager: when it is left, the thread has ended and `source` is the caller's again.

    `interrupt` ends a `read` of what `source` stands on, and all later ones, in whatever way, from any thread: without such a
    thing nothing may be read ahead. Reading raises what the thread has met, in its place.
    """

    piece = _PIECE
    """Bytes to ask for at once: see `tarstream.Source`."""

    def __init__(self, source: Source, interrupt: Callable[[], None]) -> None:
        import threading

        self._source = source
        self._interrupt = interrupt
        self._pieces: list[bytes] = []
        self._rest = b""
        self._error: BaseException | None = None
        self._ended = False  # The thread puts nothing more there.
        self._left = False  # Nobody wants more.
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        process.start_thread(self._thread)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while data := self._source.read(_PIECE):
                with self._changed:
                    self._pieces.append(data)
                    self._changed.notify()
                    while len(self._pieces) >= _AHEAD and not self._left:
                        self._changed.wait()
                    if self._left:
                        break
        except BaseException as e:
            error = e
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        data, self._rest = self._rest or self._next(), b""
        if len(data) > size:
            data, self._rest = data[:size], data[size:]
        return data

    def _next(self) -> bytes:
        with self._changed:
            while not self._pieces and not self._ended:
                self._changed.wait(clock.TURN)
            if self._pieces:
                self._changed.notify()
                return self._pieces.pop(0)
            if self._error is not None:
                raise self._error
            return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        with self._changed:
            self._left = True
            self._changed.notify()
        if not self._ended:
            self._interrupt()
        self._thread.join()
