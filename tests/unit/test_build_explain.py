"""Why a step is not in the cache, told from what steps were made of."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.engine.buildexplain import Ingredients, explain

_A, _B = "a" * 64, "b" * 64


def _run(title: str = "RUN make", before: str = "files", **more: Any) -> Ingredients:
    request = {"Cmd": ["/bin/sh", "-c", title.removeprefix("RUN ")], "User": "", "HostConfig": {"Memory": 1}}
    depends = {"run": {**request, **more.pop("request", {})}, "environment": more.pop("environment", ["A=1"]), **more}
    return Ingredients(title, "sha256:" + _A, 1, "linux/amd64", before, depends)


def _copy(content: dict[str, str], **more: Any) -> Ingredients:
    copied = {
        "verb": "copy",
        "content": [["src", True, content]],
        "paths": [],
        "to": ["/to", False],
        "how": ["", "", False, [], None],
        **more,
    }
    return Ingredients("COPY src /to", "", 1, "linux/amd64", "files", {"copy": copied})


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (_run(environment=["A=2"]), 'variable A was "1", and is "2"'),
        (_run(environment=["A=1", "B=2"]), 'variable B was not set, and is "2"'),
        (_run(environment=[]), 'variable A was "1", and is not set'),
        (_run(environment=["B=2", "A=1"]), 'variable B was not set, and is "2"'),
        (_run("RUN make all"), 'command was "/bin/sh -c make", and is "/bin/sh -c make all"'),
        (_run(request={"User": "me"}), 'User was "", and is "me"'),
        (_run(request={"HostConfig": {"Memory": 2}}), "Memory was 1, and is 2"),
        (_run(script="echo"), 'script was "", and is "echo"'),
        (_run(mounts=[[{"target": "/m"}, None]]), "mount of /m: added"),
    ],
)
def test_what_a_command_had_that_is_not_the_same(now: Ingredients, told: str) -> None:
    assert explain(now, [_run().kept()], "") == [told]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0644 0:0 " + _A, "0644 0:0 " + _B, "its content was changed"),
        ("0644 0:0 " + _A, "0755 0:0 " + _A, "its mode was 644, and is 755"),
        ("0644 0:0 " + _A, "0644 1:2 " + _A, "its owner was 0:0, and is 1:2"),
        ("0644 0:0 " + _A, "5755 0:0 " + _B, "it is of another kind, its content was changed"),
    ],
)
def test_what_of_a_file_is_not_the_same(old: str, new: str, told: str) -> None:
    assert explain(_copy({"src/f": new}), [_copy({"src/f": old}).kept()], "") == [f"src/f: {told}"]


def test_files_that_came_and_went_and_many_of_them() -> None:
    was = _copy({"src/f": "0644 0:0 " + _A}).kept()
    assert explain(_copy({"src/g": "0644 0:0 " + _A}), [was], "") == ["src/f: gone", "src/g: added"]
    many = {f"src/{n:02}": "0644 0:0 " + _A for n in range(30)}
    told = explain(_copy({"src/f": "0644 0:0 " + _A, **many}), [was], "")
    assert (len(told), told[-1]) == (11, "and 20 more")


def test_the_nearest_is_compared_and_what_came_before_is_named() -> None:
    near, far = _run(before="x", environment=["A=2"]), _run(before="y", environment=["A=3"], request={"User": "u"})
    now = _run(before="z", environment=["A=4"])
    # The latest is not the nearest.
    assert explain(now, [far.kept(), near.kept()], "[2/3] COPY . .") == [
        "it begins with other files: [2/3] COPY . . was done again",
        'variable A was "2", and is "4"',
    ]
    assert explain(now.replace(base="sha256:" + _B), [near.kept()], "")[0] == (
        f"the base is another image: {_A[:12]} before, {_B[:12]} now"
    )
    assert explain(now.replace(date=5), [near.kept()], "")[0] == "SOURCE_DATE_EPOCH was 1, and is 5"


def test_what_was_never_there_and_what_is_there_no_more() -> None:
    assert "not done before" in explain(_run(), [_copy({}).kept()], "")[0]
    assert explain(_run(), [_run().kept()], "") == ["its result is not in the cache any more"]
