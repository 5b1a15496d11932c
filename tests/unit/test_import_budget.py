"""The lists of what commands import: each line is time in every start.

`run` and `ps` are the ones that people wait for, again and again; the others show that nothing is imported for a verb
that is not asked for.
"""

from __future__ import annotations

import pytest

from support.command import SAMPAN
from support.imports import imported, unapproved
from support.roots import Root

# What no command needs on its way: the lists say so too, but these are never to be written into one.
NEVER = frozenset(
    {
        *("argparse", "asyncio", "contextlib", "dataclasses", "inspect", "logging", "pathlib", "shutil", "signal"),
        *("socket", "subprocess", "tempfile", "threading", "typing"),
        *("sampan.cli.help", "sampan.shim.monitor", "sampan.shim.launch", "sampan.store.tarstream"),
    }
)


def check(name: str, found: set[str]) -> None:
    assert "sampan.cli.main" in found
    assert not found & NEVER
    # What the installation's own site does (.pth files of pip and others) is not ours.
    assert unapproved(found - imported(["-c", ""]), name) == []


@pytest.mark.parametrize(
    ("name", "args"), [("version", ["version"]), ("usage-error", ["run", "--no-such-flag"])], ids=["version", "usage"]
)
def test_a_command_without_an_engine_imports_what_is_approved(name: str, args: list[str]) -> None:
    check(name, imported([SAMPAN, *args]))


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("ps", ["ps"]),
        ("run", ["run", "--rm", "--network", "none", "base", "true"]),
        ("run", ["run", "-d", "--network", "none", "base", "true"]),
    ],
    ids=["ps", "run", "run-detached"],
)
def test_a_command_imports_what_is_approved(root: Root, name: str, args: list[str]) -> None:
    # Without the configuration file of the tests: reading one costs tomllib, for those who have one.
    if args == ["ps"]:
        # One that runs, and one that does not.
        root.cli("run", "-d", "--network", "none", "base", "sleep", "1000").ok()
        root.cli("create", "base", "true").ok()
    if args[0] == "run":
        args = [*args[:1], "--cgroup-parent", f"/{root.cgroup_parent}", *args[1:]]
    check(name, imported([SAMPAN, *args], env=root.cli.environment))
