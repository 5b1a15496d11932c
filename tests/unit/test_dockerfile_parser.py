"""The parser: directives, continuations, comments, flags, heredocs, and errors that say where and what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.build.parser import Node, Parsed, parse
from sampan.build.reading import read
from sampan.build.source import DockerfileError, Source


def parsed(text: str) -> Parsed:
    return parse(Source("Dockerfile", text))


def only(text: str) -> Node:
    (node,) = parsed(text).nodes
    return node


@pytest.mark.parametrize(
    ("text", "name", "flags", "rest"),
    [
        ("FROM a", "FROM", (), "a"),
        ("  \tfrom\ta  b ", "from", (), "a  b"),
        ("RUN a \\\n  b\\\nc", "RUN", (), "a   bc"),
        ("RUN a \\\n# a comment\n\n   # another\n b", "RUN", (), "a  b"),
        ("RUN a \\  \n b", "RUN", (), "a  b"),
        ("RUN a \\\\\n", "RUN", (), "a \\\\"),
        ("RUN a # no comment", "RUN", (), "a # no comment"),
        ("RUN a \\", "RUN", (), "a"),
        ("\ufeffRUN a\r\n", "RUN", (), "a"),
        ("# escape=`\nRUN a `\n b \\", "RUN", (), "a  b \\"),
        ("COPY --from=x --chown=1:2 a b", "COPY", ("--from=x", "--chown=1:2"), "a b"),
        ('COPY --chown="a b" --link c d', "COPY", ("--chown=a b", "--link"), "c d"),
        ("RUN --mount=type=bind,source=\\ x -- --not-a-flag", "RUN", ("--mount=type=bind,source= x",), "--not-a-flag"),
        ("CMD", "CMD", (), ""),
    ],
)
def test_an_instruction_is_taken_apart(text: str, name: str, flags: tuple[str, ...], rest: str) -> None:
    node = only(text)
    assert (node.name, node.flags, node.rest) == (name, flags, rest)


def test_lines_are_those_of_the_file() -> None:
    found = parsed("# syntax=docker/dockerfile:1\n\nFROM a\nRUN x \\\n\n\\\n y\nRUN <<A\nb\nA\nCMD z")
    assert [(node.first, node.last) for node in found.nodes] == [(3, 3), (4, 7), (8, 10), (11, 11)]
    assert found.empty_continuations == (5,)


@pytest.mark.parametrize(
    ("text", "directives"),
    [
        ("# syntax=a\n# escape=`\n# check=skip=all\nFROM a", {"syntax": "a", "escape": "`", "check": "skip=all"}),
        ("#ESCAPE = \\\nFROM a", {"escape": "\\"}),
        ("# about\n# escape=`\nFROM a", {}),
        ("\n# escape=`\nFROM a", {}),
        ("FROM a\n# escape=`", {}),
        ("# unknown=x\n# escape=`\nFROM a", {}),
    ],
)
def test_directives_are_at_the_very_top_only(text: str, directives: dict[str, str]) -> None:
    assert parsed(text).directives == directives


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("RUN <<A\nx $y\n\nA", [("A", True, "x $y\n\n")]),
        ("RUN <<'A'\nx\nA", [("A", False, "x\n")]),
        ('RUN <<"A B"\nx\nA B', [("A B", False, "x\n")]),
        ("RUN <<-A\n\t\tx\n\tA", [("A", True, "x\n")]),
        ("COPY <<a <<b /c/\n1\na\n# 2\\\nb", [("a", True, "1\n"), ("b", True, "# 2\\\n")]),
        ("RUN cat 3<<A\nx\nA", [("A", True, "x\n")]),
        ("ONBUILD RUN <<A\nx\nA", [("A", True, "x\n")]),
        ("RUN echo '<<A'", []),
        ('RUN ["cat", "<<A"]', []),
        ("CMD cat <<A", []),
        ("RUN cat <<<A", []),
        ("RUN a<<A", []),
    ],
)
def test_heredocs(text: str, heredocs: list[tuple[str, bool, str]]) -> None:
    assert [(h.name, h.expand, h.content) for h in only(text).heredocs] == heredocs


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM a\nRUNN x", 2, "unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a\nfoo", 2, "unknown instruction: foo"),
        ("FROM a b", 1, "FROM requires either one or three arguments"),
        ("FROM a AS 1x", 1, 'invalid name for build stage: "1x"'),
        ("FROM", 1, "FROM requires either one or three arguments"),
        ("RUN x", 1, "no build stage in current context"),
        ("ARG A", 1, "the Dockerfile has no FROM"),
        ("FROM a\nRUN", 2, "RUN requires at least one argument"),
        ("FROM a\nRUN <<A\nx", 2, 'there is no line "A" that ends it'),
        ("FROM a\nCOPY a", 2, "COPY requires at least two arguments, but only one was provided"),
        ("FROM a\nCOPY --chwon=a b c", 2, "unknown flag: --chwon (did you mean chown?)"),
        ("FROM a\nCOPY --from b c", 2, "missing a value on flag: from"),
        ("FROM a\nCOPY --chown=a --chown=b c d", 2, "duplicate flag specified: chown"),
        ("FROM a\nCOPY --link=maybe c d", 2, "expecting boolean value for flag link, not: maybe"),
        ("FROM a\nCOPY --checksum=x c d", 2, "unknown flag: --checksum"),
        ("FROM a\nADD --from=x c d", 2, "unknown flag: --from"),
        ("FROM a\nCOPY x <<A\nA", 2, "COPY cannot accept a heredoc as a destination"),
        ("FROM a\nRUN --network=hots x", 2, 'invalid value "hots" for --network (did you mean host?)'),
        ("FROM a\nRUN --mount=type=cahce,target=/a x", 2, 'unsupported mount type "cahce" (did you mean cache?)'),
        ("FROM a\nRUN --mount=type=cache,traget=/a x", 2, '"traget" for mount type "cache" (did you mean target?)'),
        ("FROM a\nRUN --mount=type=cache,target=/a,sharing=lcoked x", 2, 'unsupported sharing value "lcoked" (did you mean locked?)'),
        ("FROM a\nRUN --mount=type=tmpfs x", 2, "target is required for mount type tmpfs"),
        ("FROM a\nRUN --mount=type=bind,target=/a,mode=7 x", 2, 'unexpected key "mode" for mount type "bind"'),
        ("FROM a\nENV a", 2, "ENV must have two arguments"),
        ("FROM a\nENV a=b c", 2, "can't find = in \"c\""),
        ("FROM a\nLABEL =x", 2, "LABEL names can not be blank"),
        ("FROM a\nARG =x", 2, "ARG names can not be blank"),
        ("FROM a\nEXPOSE http", 2, "invalid containerPort: http"),
        ("FROM a\nHEALTHCHECK FOO", 2, 'Unknown type "FOO" in HEALTHCHECK'),
        ("FROM a\nHEALTHCHECK --intervl=1s CMD x", 2, "unknown flag: --intervl (did you mean interval?)"),
        ("FROM a\nSHELL /bin/sh", 2, "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSTOPSIGNAL SIGFOO", 2, "SIGFOO"),
        ("FROM a\nONBUILD ONBUILD RUN x", 2, "Chaining ONBUILD"),
        ("FROM a\nONBUILD FROM x", 2, "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD RNU x", 2, "unknown instruction: RNU (did you mean RUN?)"),
        ("FROM a\nUSER", 2, "USER requires exactly one argument"),
        ("FROM a\nWORKDIR", 2, "WORKDIR requires exactly one argument"),
        ("FROM a\nCMD [1]", 2, "arrays must be comprised of strings only"),
        ("# escape=x\nFROM a", 1, "invalid escape token 'x'"),
        ("# escape=`\n# escape=`\nFROM a", 2, "only one escape parser directive can be used"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(DockerfileError) as told:
        read(Source("Dockerfile", text))
    assert message in str(told.value)
    assert told.value.first == line


def test_an_error_shows_the_lines_around_it() -> None:
    with pytest.raises(DockerfileError) as told:
        read(Source("sub/Dockerfile", "FROM a\n\nRUN b \\\n  c\nBAD d \\\n  e\nRUN f\nRUN g\nRUN h"))
    assert told.value.excerpt().splitlines() == [
        "sub/Dockerfile:5",
        "--------------------",
        "   3 |     RUN b \\",
        "   4 |       c",
        "   5 | >>> BAD d \\",
        "   6 | >>>   e",
        "   7 |     RUN f",
        "   8 |     RUN g",
        "--------------------",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "\ufeff"])
def test_a_file_without_instructions(text: str) -> None:
    with pytest.raises(DockerfileError, match="file with no instructions"):
        parsed(text)


LINES = st.sampled_from(
    ["FROM a", "RUN x \\", "RUN <<A", "A", "COPY a b", "# c", "", "ENV a=$b", "CMD [\"x\"", "\\", "# escape=`", "--x", "<<", "ONBUILD RUN y", "HEALTHCHECK NONE"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(LINES, max_size=12).map("\n".join)))
def test_any_text_is_read_or_refused_and_never_anything_else(text: str) -> None:
    try:
        dockerfile, found = read(Source("Dockerfile", text))
    except DockerfileError as e:
        refused = e
    else:
        refused = None
    if refused is not None:
        assert 0 <= refused.first <= refused.last <= text.count("\n") + 1
        refused.excerpt()
        return
    lines = [line for node in found.nodes for line in range(node.first, node.last + 1)]
    assert lines == sorted(set(lines)), "no line belongs to two instructions"
    assert sum(1 + len(stage.body) for stage in dockerfile.stages) + len(dockerfile.arguments) == len(found.nodes)


@given(st.lists(st.text("abc \t=-", min_size=1).filter(lambda t: bool(t.strip())), min_size=1, max_size=5))
def test_where_a_line_is_continued_does_not_matter(parts: list[str]) -> None:
    assert only("RUN x" + " \\\n".join(parts)).rest == only("RUN x" + " ".join(parts)).rest
