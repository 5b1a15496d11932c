"""The graph of stages, and the variables that FROM lines and stages see."""

from __future__ import annotations

import pytest

from sampan.build.instructions import Arg
from sampan.build.reading import read
from sampan.build.scope import Scope, unconsumed
from sampan.build.source import Source
from sampan.build.stages import Plan, plan
from sampan.errors import InvalidParameter
from sampan.oci.platform import Platform

HERE = Platform("linux", "arm64", "v8")


def planned(text: str, target: str = "", **arguments: str) -> Plan:
    source = Source("Dockerfile", text)
    return plan(read(source)[0], source, target, arguments, HERE)


def order(text: str, target: str = "") -> list[int]:
    return [found.stage.index for found in planned(text, target).stages]


MANY = """
FROM a AS one
FROM b AS unused
RUN x
FROM one AS two
COPY --from=three /x /y
FROM c AS three
FROM two AS last
RUN --mount=type=bind,from=one,target=/o x
COPY --from=image:1 /a /b
COPY --from=0 /a /b
"""


def test_only_what_the_target_needs_is_built_and_each_after_what_it_needs() -> None:
    assert order(MANY) == [0, 3, 2, 4]
    assert order(MANY, "three") == [3]
    assert order(MANY, "UNUSED") == [1]
    assert order(MANY, "2") == [0, 3, 2]


def test_a_base_is_a_stage_above_or_an_image() -> None:
    assert [found.base for found in planned(MANY).stages] == ["a", "c", 0, 2]
    # Its own name, and one below it, are those of images.
    assert planned("FROM x AS x").target.base == "x"
    assert planned("FROM y AS x\nFROM a AS y", "x").target.base == "y"
    assert planned("FROM scratch").target.base == "scratch"


def test_variables_of_from() -> None:
    text = "ARG V=1\nARG N=img:$V\nFROM --platform=$BUILDPLATFORM ${N}-$TARGETARCH AS s"
    assert planned(text).target.base == "img:1-arm64"
    assert planned(text).target.platform == "linux/arm64/v8"
    assert planned(text, V="2").target.base == "img:2-arm64"


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("FROM a AS one\nFROM b AS two", "tow", r'target stage "tow" could not be found \(did you mean two\?\)'),
        ("FROM a", "7", 'target stage "7" could not be found'),
        ("FROM a AS x\nCOPY --from=x /a /b", "", "circular dependency detected in stage: x"),
        ("FROM a AS x\nCOPY --from=y /a /b\nFROM x AS y", "", "circular dependency"),
        ("ARG V\nFROM $V", "", r"base name \(\$V\) should not be blank"),
        ("FROM ${V:?unset}", "", "V: unset"),
    ],
)
def test_what_cannot_be_planned_is_refused(text: str, target: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        planned(text, target)


@pytest.mark.thorough
def test_a_chain_of_thousands_of_stages_is_no_recursion() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(3000))
    assert len(planned(text).stages) == 3001


def declared(text: str, above: dict[str, str], environment: dict[str, str], **given: str) -> dict[str, str]:
    scope = Scope(given, above)
    for instruction in read(Source("Dockerfile", f"FROM a\n{text}"))[0].stages[0].body:
        scope.declare(instruction, environment)  # type: ignore[arg-type]
    return scope.values


def test_arguments_of_a_stage() -> None:
    assert declared("ARG A", {"A": "global"}, {}) == {"A": "global"}
    assert declared("ARG A=own", {"A": "global"}, {}) == {"A": "own"}
    assert declared("ARG A=own", {"A": "global"}, {}, A="given") == {"A": "given"}
    assert declared("ARG B", {"A": "global"}, {}) == {}
    assert declared("ARG A=1 B=$A-$E-$G", {"G": "global"}, {"E": "env"}) == {"A": "1", "B": "1-env-"}
    assert declared("ARG B=x", {}, {}, C="not declared") == {"B": "x"}


def test_the_classic_builders_warning_of_build_args() -> None:
    given = (
        "B",
        "NO",
        "A",
        "http_proxy",
        "ALL_PROXY",
        "SOURCE_DATE_EPOCH",
        "TARGETARCH",
        "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    )
    assert unconsumed(given, {"B"}) == "[Warning] One or more build-args [A NO] were not consumed"
    assert unconsumed(given, {"B", "A", "NO", "OTHER"}) == ""
    scope = Scope({"A": "1", "N": "2"}, {})
    for stage in read(Source("Dockerfile", "FROM x\nARG A B\nARG ${A:+N}=3"))[0].stages:
        for arg in stage.body:
            assert isinstance(arg, Arg)
            scope.declare(arg, {})
    assert scope.consumed == {"A", "N"}
