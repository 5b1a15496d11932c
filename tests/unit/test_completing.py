"""The few things that completion lists itself are those that the flags have."""

from __future__ import annotations

import pytest

from sampan.cli import completing, verbs
from sampan.cli.flags import KINDS, Arguments, Flag
from sampan.cli.main import GLOBAL_FLAGS

FLAGS: dict[str, list[Flag]] = {}
for verb in (*verbs.VERBS, *verbs.GROUP_VERBS):
    for flag in verbs.load(verb).flags:
        FLAGS.setdefault(flag.name, []).append(flag)
for flag in GLOBAL_FLAGS:
    FLAGS.setdefault(flag.name, []).append(flag)


def test_values_are_listed_of_flags_that_there_are() -> None:
    listed = completing._PATHS | completing._CHOICES.keys() | completing._MODES.keys()
    assert listed <= FLAGS.keys()
    assert not completing._CHOICES.keys() & completing._MODES.keys()


@pytest.mark.parametrize("name", completing._CHOICES)
def test_what_is_proposed_can_be_read(name: str) -> None:
    for flag in FLAGS[name]:
        if KINDS[flag.kind].implied:
            continue  # `start --attach` takes no value
        for value in completing._CHOICES[name]:
            Arguments([flag]).take(flag, f"{value}1" if value.endswith("=") else value)


@pytest.mark.parametrize("verb", [*verbs.VERBS, *verbs.GROUP_VERBS])
def test_what_a_verb_takes_is_understood(verb: str) -> None:
    """Each word of a usage is one that completion knows, or one of those that are nobody's names."""
    known = {
        "CONTAINER",
        "IMAGE",
        "NETWORK",
        "VOLUME",
        "NAME|ID",
        "REPOSITORY[:TAG]",
        "SOURCE_IMAGE[:TAG]",
        "TARGET_IMAGE[:TAG]",
    }
    known |= {"NAME[:TAG|@DIGEST]", "NAME[:TAG]", "SERVER"}
    others = {
        "FILE|URL|-",
        "PATH",  # in an image
        "PATH|URL|-",
        *completing._COPIED,
        "COMMAND",
        "ARG",
        "NEW_NAME",
        "PRIVATE_PORT[/PROTO]",
        "[ps",
        "OPTIONS]",
        "",
    }
    usage = verbs.load(verb).usage
    for position in range(4):
        assert completing._kind_of_word(usage, position)[0] in known | others, usage
