"""The line that shows how far long work is."""

from __future__ import annotations

import pytest

from sampan.cli.progress import line


@pytest.mark.parametrize(
    ("done", "total", "columns", "seconds", "expected"),
    [
        (0, 0, 200, 0, "x       0B"),
        (1500, 0, 200, 9, "x    1.5kB"),
        (1500, 3000, 80, 0, "x    1.5kB/3kB"),
        (1500, 3000, 80, 2, "x    1.5kB/3kB 2s"),
        (1500, 3000, 50, 2, "x    1.5kB/3kB"),
        (1500, 3000, 200, 0, f"x [{'=' * 25}>{' ' * 24}]    1.5kB/3kB"),
        (0, 3000, 200, 0, f"x [>{' ' * 49}]       0B/3kB"),
        (3000, 3000, 200, 5, f"x [{'=' * 50}]      3kB/3kB"),
        # More than was announced.
        (6000, 3000, 200, 5, f"x [{'=' * 50}]      6kB"),
        (1500, 3000, 8, 0, "x    1."),
    ],
)
def test_a_line(done: int, total: int, columns: int, seconds: float, expected: str) -> None:
    assert line("x", done, total, columns, seconds) == expected
