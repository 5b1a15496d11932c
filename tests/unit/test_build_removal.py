"""Containers of steps that are removed beside what comes next."""

from __future__ import annotations

import threading

import pytest

from sampan.engine.buildremoval import Removals
from sampan.errors import NotFound, System


class _Container:
    """Removed when it is told to, with what that raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = threading.Event()
        self.removed = False
        self._error = error

    def remove(self, force: bool = False) -> None:
        assert force
        assert self.go.wait(60)
        self.removed = True
        if self._error is not None:
            raise self._error


def test_nobody_waits_for_a_removal_until_the_end() -> None:
    removals = Removals()
    slow, quick = _Container(), _Container(NotFound("somebody else was quicker"))
    quick.go.set()
    removals.begin(slow)
    removals.begin(quick)
    assert not slow.removed
    slow.go.set()
    removals.finish()
    assert slow.removed
    assert quick.removed


def test_the_end_tells_the_first_that_failed_when_all_are_done() -> None:
    removals = Removals()
    failing, other = _Container(System("its processes do not die")), _Container()
    for one in (failing, other):
        one.go.set()
        removals.begin(one)
    with pytest.raises(System, match="do not die"):
        removals.finish()
    assert other.removed


def test_the_ninth_waits_for_the_first() -> None:
    removals = Removals()
    waiting = [_Container() for _ in range(8)]
    for one in waiting:
        removals.begin(one)
    one_more = _Container()
    one_more.go.set()
    thread = threading.Thread(target=removals.begin, args=(one_more,))
    thread.start()
    assert not one_more.removed
    for one in waiting:
        one.go.set()
    thread.join(60)
    assert not thread.is_alive()
    removals.finish()
    assert all(one.removed for one in (*waiting, one_more))
