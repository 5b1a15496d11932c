"""Substitution with every modifier; where a shell has the same, a real one says what is right."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.oci import words

VALUES = {"a": "foo/bar/baz.tar.gz", "empty": "", "star": "a*b", "n": "x"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$n${n}", "xx"),
        ("${gone}", ""),
        ("${gone:-y}${gone-y}${empty:-y}${empty-y}", "yyy"),
        ("${n:+y}${empty:+y}${empty+y}${gone+y}", "yy"),
        ("${n:?no}", "x"),
        ("${gone:-${n:-z}}", "x"),
        ("${a#*/}", "bar/baz.tar.gz"),
        ("${a##*/}", "baz.tar.gz"),
        ("${a%.*}", "foo/bar/baz.tar"),
        ("${a%%.*}", "foo/bar/baz"),
        ("${a%%.}", "foo/bar/baz.tar.gz"),
        ("${a#f?o/}", "bar/baz.tar.gz"),
        ("${a/ba/-}", "foo/-r/baz.tar.gz"),
        ("${a//ba/-}", "foo/-r/-z.tar.gz"),
        ("${a//ba}", None),
        ("${a//\\//-}", "foo-bar-baz.tar.gz"),
        ("${a/b*z/$n}", "foo/x"),
        ("${star#a\\*}", "b"),
        ("${star#a*}", "*b"),
        ("${gone#x}${gone//x/y}", ""),
        ("${a#${n}}", "foo/bar/baz.tar.gz"),
        ("'${n}'\"${n}\"\\$n", "${n}x$n"),
    ],
)
def test_modifiers(word: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(InvalidParameter, match="missing"):
            words.expand(word, VALUES)
    else:
        assert words.expand(word, VALUES) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${n", "missing '}'"),
        ("${n^^}", r"unsupported modifier \(\^\)"),
        ("${gone:?say so}", "gone: say so"),
        ("${a#x\\\\", "missing '}'"),
        ("${}", "bad substitution"),
    ],
)
def test_wrong_ones_are_refused_with_the_word(word: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message) as told:
        words.expand(word, VALUES)
    assert str(told.value).startswith("failed to process ")


def test_the_escape_is_what_the_file_says() -> None:
    assert words.expand("`$n\\$n", VALUES, "`") == "$n\\x"
    assert words.split("a` b \\ c", "`") == ["a` b", "\\", "c"]


def test_a_heredoc_keeps_its_quotes() -> None:
    assert words.expand_text("'$n' \"${n}\" \\$n \\a \\\\", VALUES) == "'x' \"x\" $n \\a \\"


TEXTS = st.text("ab/.*?", max_size=8)
PATTERNS = st.text("ab/.*?", max_size=5)


@pytest.mark.thorough
@settings(max_examples=15)
@given(st.lists(st.tuples(TEXTS, PATTERNS, st.sampled_from(["#", "##", "%", "%%"])), min_size=1, max_size=30))
def test_cutting_is_what_a_shell_does(cases: list[tuple[str, str, str]]) -> None:
    script = "".join(f"v='{text}'; printf '%s\\n' \"${{v{cut}{pattern}}}\"\n" for text, pattern, cut in cases)
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    ours = [words.expand(f"${{v{cut}{pattern}}}", {"v": text}) for text, pattern, cut in cases]
    assert ours == shell.stdout.split("\n")[:-1]


@pytest.mark.thorough
@settings(max_examples=15)
@given(st.lists(st.tuples(TEXTS, st.text("ab.*?", min_size=1, max_size=4), st.sampled_from(["/", "//"])), min_size=1, max_size=30))  # fmt: skip
def test_replacing_is_what_bash_does(cases: list[tuple[str, str, str]]) -> None:
    # A pattern that fits nothing at all is where bash and regular expressions count differently.
    cases = [case for case in cases if case[1].strip("*")]
    script = "".join(f"v='{text}'; printf '%s\\n' \"${{v{how}{pattern}/-}}\"\n" for text, pattern, how in cases)
    shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    ours = [words.expand(f"${{v{how}{pattern}/-}}", {"v": text}) for text, pattern, how in cases]
    assert ours == shell.stdout.split("\n")[:-1]


@given(st.text(max_size=60))
def test_any_word_is_expanded_or_refused(word: str) -> None:
    try:
        words.expand(word, VALUES)
    except InvalidParameter:
        return
