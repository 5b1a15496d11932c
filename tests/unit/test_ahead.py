"""`store.ahead`: what comes out is what went in, errors come in their place, and nobody is left behind."""

from __future__ import annotations

import io
import threading

import pytest

from sampan.store.ahead import ReadAhead


def nothing() -> None:
    pass


@pytest.mark.parametrize("step", [100_003, 1 << 21, 700_000])
@pytest.mark.parametrize("size", [0, 1, (1 << 21) - 1, 1 << 21, (1 << 21) + 1, 9_000_000])
def test_the_bytes_are_the_same(size: int, step: int) -> None:
    data = bytes(size // 2) + b"\1" * (size - size // 2)
    with ReadAhead(io.BytesIO(data), nothing) as ahead:
        parts = list(iter(lambda: ahead.read(step), b""))
        assert ahead.read(step) == b""
    assert b"".join(parts) == data
    assert max(map(len, parts), default=0) <= step


class Failing:
    """Two pieces, then an error."""

    def __init__(self) -> None:
        self._pieces = iter((b"one", b"two"))

    def read(self, _size: int, /) -> bytes:
        for piece in self._pieces:
            return piece
        raise OSError(5, "Input/output error")


def test_an_error_comes_after_what_was_read_before_it() -> None:
    with ReadAhead(Failing(), nothing) as ahead:
        assert (ahead.read(10), ahead.read(10)) == (b"one", b"two")
        with pytest.raises(OSError, match="Input/output error"):
            ahead.read(10)


class Waiting:
    """A stream that gives nothing until it is interrupted."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()
        self.asked = threading.Event()

    def read(self, _size: int, /) -> bytes:
        self.asked.set()
        assert self.interrupted.wait(60)
        raise ValueError("interrupted")


def test_a_stream_that_waits_is_interrupted_and_the_thread_has_ended() -> None:
    stream = Waiting()
    before = threading.active_count()
    with ReadAhead(stream, stream.interrupted.set):
        assert stream.asked.wait(60)
    assert stream.interrupted.is_set()
    assert threading.active_count() == before


class Endless:
    """Counts the pieces that were taken from it."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int, /) -> bytes:
        self.given += 1
        return bytes(size)


def test_what_is_ahead_is_bounded_and_leaving_ends_it() -> None:
    stream = Endless()
    with ReadAhead(stream, nothing) as ahead:
        for _ in range(100):
            assert ahead.read(1 << 21)
        assert stream.given <= 100 + 8 + 1
    given = stream.given
    assert ahead.read(1) in (b"", b"\0")
    assert stream.given == given
