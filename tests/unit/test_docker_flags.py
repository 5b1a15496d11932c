"""Every verb and flag of the docker command line against ours: what differs is in a list, with its reason.

tests/golden/docker-flags.txt is what docker 28.2.2's own help tells (support/dockerhelp.py), docker-differences.txt the list:
`-` is Docker's and not here, `+` is ours, each with the reason behind a colon.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from sampan.cli import verbs
from sampan.cli.flags import KINDS, Flag

from support import dockerhelp

GOLDEN = Path(__file__).parents[1] / "golden"


def docker() -> set[str]:
    """Docker's lines; of a verb that is not here only the verb."""
    # Docker has its build twice, with the same flags; here as there the one in the group is the other one.
    lines = (GOLDEN / "docker-flags.txt").read_text().replace("image build --", "build --").splitlines()
    return {line for line in lines if " --" not in line or line.partition(" --")[0] in ours()}


def differences() -> dict[str, str]:
    """The list: its line, "- run --ip string", with its reason."""
    found = {}
    for line in (GOLDEN / "docker-differences.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            what, _, reason = line.partition(": ")
            assert what not in found, f"listed twice: {what}"
            found[what] = reason
    return found


@functools.cache
def ours() -> set[str]:
    found = set(verbs.VERBS) | set(verbs.GROUPS)
    found |= {f"{group} {word}" for group, (_, words) in verbs.GROUPS.items() for word in words}
    for verb in (*verbs.VERBS, *verbs.GROUP_VERBS):
        found |= {shown(verb, flag) for flag in verbs.load(verb).flags if not flag.hidden}
    return found


def shown(verb: str, flag: Flag) -> str:
    words = [verb, f"--{flag.name}", *([f"-{flag.short}"] if flag.short else ()), KINDS[flag.kind].name]
    return " ".join(word for word in words if word)


def test_what_differs_from_docker_is_listed_with_its_reason() -> None:
    listed = differences()
    found = {f"- {line}" for line in docker() - ours()} | {f"+ {line}" for line in ours() - docker()}
    assert sorted(found - listed.keys()) == [], "give the reason in docker-differences.txt, or mend it"
    assert sorted(listed.keys() - found) == [], "these do not differ any more"
    assert [line for line, reason in listed.items() if len(reason) < 10] == []


def test_a_flag_that_docker_lists_and_we_hide_does_nothing_or_is_refused() -> None:
    """Hidden flags are read: the list has to say what comes of each that Docker shows."""
    listed = differences()
    for verb in (*verbs.VERBS, *verbs.GROUP_VERBS):
        for flag in verbs.load(verb).flags:
            line = f"- {shown(verb, flag)}"
            if flag.hidden and line in listed:
                assert listed[line].startswith(("refused", "no effect")), line


def test_no_flag_is_read_and_forgotten() -> None:
    """Each that the help lists is asked for by name somewhere besides the table that defines it."""
    sources = "".join(path.read_text() for path in Path(verbs.__file__).parent.glob("*.py"))
    named = set(re.findall(r'(?<!Flag\()(?<!alias_of=)"([a-z][a-z0-9-]+)"', sources))
    flags = [(verb, flag) for verb in (*verbs.VERBS, *verbs.GROUP_VERBS) for flag in verbs.load(verb).flags]
    forgotten = {f"{verb} --{flag.name}" for verb, flag in flags if not flag.hidden and flag.name not in named}
    assert forgotten == set()


@pytest.mark.docker28
def test_the_golden_list_is_what_docker_says() -> None:
    assert dockerhelp.lines() == (GOLDEN / "docker-flags.txt").read_text().splitlines()
