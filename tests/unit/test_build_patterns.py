"""Patterns: Go's for COPY, and .dockerignore's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.build.patterns import Ignore, match
from sampan.errors import InvalidParameter


# Most are the examples of Go's documentation of path/filepath.Match.
@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a???b", "a☺☻☹b", True),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("[\\]a]", "]", True),
        ("[\\-x]", "-", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("[a-ζ]*", "α", True),
        ("*[a-ζ]", "A", False),
        ("[!a]", "a", True),
        ("[!a]", "b", False),
        ("a[^a]b", "a/b", False),
        ("$.+(", "$.+(", True),
    ],
)
def test_a_component_is_matched_as_go_does(pattern: str, name: str, fits: bool) -> None:
    assert bool(match(pattern).fullmatch(name)) is fits


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]", "[-]", "[x-]", "[-x]", "a\\", "[a-b-c]", "[^", "[^bc"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match="syntax error in pattern"):
        match(pattern)


# The Dockerfile reference's own examples, and what it says of `**`, `!` and the order of lines.
@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        ("# comment\n*/temp*", ["a/temporary.txt", "a/temp", "a/temp/x"], ["temp", "a/b/temp"]),
        ("*/*/temp*", ["a/b/temporary.txt"], ["a/temp"]),
        ("temp?", ["tempa", "tempb/x"], ["temp", "tempab"]),
        ("**/*.go", ["a.go", "a/b/c.go"], ["a.goo"]),
        ("*.md\n!README.md", ["a.md"], ["README.md", "a/b.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["README-secret.md", "x.md"], ["README.md", "README-x.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["x.md"], ["README-secret.md"]),
        ("/foo/bar\n\n  baz  ", ["foo/bar", "foo/bar/x", "baz"], ["foo", "x/baz"]),
        ("*\n!src", ["x", "y/z"], ["src", "src/a/b"]),
        ("a/**", ["a/b", "a/b/c"], ["a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a", "b"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["ax"]),
        ("a/../b/./c", ["b/c"], ["a"]),
        (".", [], ["a"]),
        ("\ufeffa", ["a"], []),
        ("a\n!a/b\na/b/c", ["a", "a/x", "a/b/c"], ["a/b", "a/b/d"]),
        ("#x\n\\#y", ["#y"], ["#x"]),
    ],
)
def test_dockerignore(lines: str, ignored: list[str], kept: list[str]) -> None:
    ignore = Ignore.parse(lines)
    assert [path for path in ignored if not ignore.ignores(path)] == []
    assert [path for path in kept if ignore.ignores(path)] == []


@pytest.mark.parametrize("line", ["[", "!", "a\\"])
def test_a_line_that_is_no_pattern_is_refused(line: str) -> None:
    with pytest.raises(InvalidParameter):
        Ignore.parse(line)


def test_an_ignored_directory_is_left_out_whole_unless_something_in_it_may_be_kept() -> None:
    assert Ignore.parse("a").skips("a")
    assert not Ignore.parse("a\n!a/b").skips("a")


NAMES = st.lists(st.text("ab.", min_size=1, max_size=3).filter(lambda n: n not in (".", "..")), min_size=1, max_size=4)


@given(NAMES)
def test_a_plain_path_ignores_itself_and_what_is_below_it(parts: list[str]) -> None:
    path = "/".join(parts)
    ignore = Ignore.parse(path)
    assert ignore.ignores(path)
    assert ignore.ignores(path + "/x")
    assert not ignore.ignores(path + "x")
    assert not Ignore.parse(f"{path}\n!{path}").ignores(path)


@given(st.text("ab*?[]^-\\/!.", max_size=12), NAMES)
def test_any_line_is_read_or_refused(line: str, parts: list[str]) -> None:
    try:
        ignore = Ignore.parse(line)
    except InvalidParameter:
        return
    assert ignore.ignores("/".join(parts)) in (True, False)
