"""Who ends a build ends all that goes on in it."""

from __future__ import annotations

import pytest

from sampan.engine.buildcancel import Cancellation, Cancelled
from sampan.errors import System


def test_what_cannot_be_ended_keeps_nothing_else_from_being_ended() -> None:
    cancellation, ended = Cancellation(), []

    def stuck() -> None:
        raise System("it does not die")

    with cancellation.ending(stuck), cancellation.ending(lambda: ended.append("pull")):
        with pytest.raises(System, match="it does not die"):
            cancellation.cancel()
        assert ended == ["pull"]
        with pytest.raises(Cancelled):
            cancellation.check()


def test_what_begins_after_the_end_is_ended_at_once() -> None:
    cancellation, ended = Cancellation(), []
    cancellation.cancel()
    with cancellation.ending(lambda: ended.append("pull")):
        assert ended == ["pull"]
    cancellation.cancel()
    assert ended == ["pull"], "it is over"
