"""What is drawn of a build, line by line: widths, narrow terminals, what must not reach a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.cli.buildterminal import Drawn, _fitting, cut, justified, plain, width_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("10%\r20%\r", "20%"),
        ("up\x1b[2Adown", "updown"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\tb\x07\x08", "a    b"),
        ("one\ntwo", "one\ntwo"),
        ("\x9b2J", "2J"),
        ("\x1bc", ""),
    ],
)
def test_nothing_that_a_terminal_acts_upon_is_left(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(max_size=40))
def test_no_text_has_control_characters_then(text: str) -> None:
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in plain(text))


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=60), st.integers(2, 100))
def test_a_line_is_never_wider_than_the_terminal(text: str, columns: int) -> None:
    assert width_of(cut(text, columns)) < columns
    assert width_of(justified(text, "12.3s", columns)) < columns


def test_times_are_at_the_edge_and_go_first_where_there_is_no_room() -> None:
    assert justified(" => RUN x", "1.0s", 30) == " => RUN x" + " " * 16 + "1.0s"
    assert justified(" => RUN something long and longer", "1.0s", 30) == " => RUN something lon... 1.0s"
    assert justified(" => RUN x", "1.0s", 12) == " => RUN x"
    assert width_of("漢字e\u0301") == 5


def test_of_more_than_fits_the_ended_steps_go_first() -> None:
    lines = [("head", ""), *((f"done {n}", "34") for n in range(5)), ("runs", ""), ("says", "")]
    assert [text for text, _ in _fitting(lines, 5)] == ["head", "done 3", "done 4", "runs", "says"]
    assert [text for text, _ in _fitting(lines, 3)] == ["head", "runs", "says"]
    assert [text for text, _ in _fitting(lines, 1)] == ["head", "says"]


def test_a_running_step_shows_its_last_lines_and_an_ended_one_its_notes() -> None:
    step = Drawn("[2/3] RUN make")
    step.hear(b"".join(b"line %d\n" % n for n in range(9)) + b"30%\r40%")
    shown = [text for text, _ in step.shown(60)]
    assert shown[1:] == [f" => => # line {n}" for n in range(4, 9)] + [" => => # 40%"]
    step.notes.append("not cached: x")
    step.end("CACHED ", "34")
    assert [text[:30] for text, _ in step.shown(60)] == [" => CACHED [2/3] RUN make     ", " => => not cached: x"]
    assert "line 8" in step.failure()
    internal = Drawn("exporting to image")
    internal.hear(b"naming to x\n")
    internal.end("", "34")
    assert [text for text, _ in internal.shown(60)][1:] == [" => => naming to x"]
