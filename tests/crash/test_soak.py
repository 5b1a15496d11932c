"""The endurance run of `make soak`, for as long as there is time here: lives of all kinds while processes of the engine are killed."""

from __future__ import annotations

import pytest

from support.patience import patience
from support.soak import soak

pytestmark = [pytest.mark.root, pytest.mark.patience(900)]


@pytest.mark.parametrize(
    ("seconds", "starts"), [pytest.param(6, 5, id="short"), pytest.param(300, 400, id="long", marks=pytest.mark.long)]
)
def test_nothing_is_lost_and_nothing_is_left(seconds: float, starts: int) -> None:
    figures = soak(seed=4, seconds=patience(seconds), workers=3)
    print(figures.text())
    assert not figures.problems, figures.text()
    assert figures.starts >= starts, figures.text()
    assert figures.kills, figures.text()
