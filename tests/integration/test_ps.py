"""`ps`: filters, --size and --format over real containers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.command import SAMPAN
from support.roots import Root

pytestmark = pytest.mark.root


def test_ps_shows_what_filters_and_templates_ask_for(root: Root) -> None:
    first = (
        root.cli("run", "-d", "--network", "none", "--name", "one", "--label", "a.b=c", "base", "sleep", "1000")
        .ok()
        .out.strip()
    )
    failed = root.cli("run", "--network", "none", "--name", "two", "base", "sh", "-c", "echo 12345 > /file; exit 3")
    assert failed.code == 3

    def names(*args: str) -> list[str]:
        return root.cli("ps", "--format", "{{.Names}}", *args).ok().out.split()

    assert names() == ["one"]
    assert names("-a") == ["two", "one"]
    wanted = {
        "name=^o": ["one"],
        "name=/two": ["two"],
        f"id={first[:12]}": ["one"],
        "label=a.b": ["one"],
        "label=a.b=d": [],
        "exited=3": ["two"],
        "exited=0": [],
        "ancestor=base": ["two", "one"],
        "ancestor=none-such": [],
        "before=two": ["one"],
        "since=one": ["two"],
        "network=none": ["two", "one"],
        "volume=/none": [],
        "health=none": ["two", "one"],
        "publish=80": [],
        "is-task=true": [],
    }
    assert {text: names("-a", "-f", text) for text in wanted} == wanted
    assert names("-f", "status=exited") == ["two"]
    assert names("-n", "1", "-f", "name=one") == ["one"]
    assert names("-l") == ["two"]
    assert names("-l", "-n", "2") == names("-n", "2", "-l") == ["two", "one"]
    assert names("-a", "-f", "name=one", "-f", "name=two", "-f", "label=a.b") == ["one"]
    for text, message in (
        ("foo=bar", "Error: invalid filter 'foo'"),
        ("status=x", "Error: invalid filter 'status=x'"),
        ("publish=80-70", "Error: error while looking up for publish 80-70: invalid range specified for port: 80-70"),
        (
            "expose=x/udp",
            'Error: error while looking up for expose x/udp: strconv.ParseUint: parsing "x": invalid syntax',
        ),
        ("exited=x", 'Error: strconv.Atoi: parsing "x": invalid syntax'),
        ("before=none-such", "Error: No such container: none-such"),
    ):
        refused = root.cli("ps", "-f", text)
        assert (refused.code, refused.err.strip()) == (1, message)

    row = json.loads(root.cli("ps", "-as", "--format", "json", "-f", "name=two").ok().out)
    assert row["State"] == "exited"
    assert row["Status"].startswith("Exited (3)")
    assert row["Size"].startswith("6B (virtual ")
    assert list(row) == sorted(row)
    assert root.cli("ps", "--format", 'table {{.Names}}\\t{{.Label "a.b"}}').ok().out == "NAMES     b\none       c\n"
    unknown = root.cli("ps", "--format", "{{.Foo}}")
    assert unknown.code == 1
    assert unknown.err.endswith("can't evaluate field Foo in type *formatter.ContainerContext\n")


def test_a_root_is_made_by_the_first_command_that_opens_it(tmp_path: Path) -> None:
    """Also by one that only reads, as dockerd makes its data root when it starts."""
    argv = [SAMPAN, "--root", f"{tmp_path}/store/root", "--run-root", f"{tmp_path}/store/run"]
    subprocess.run([*argv, "version"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "store").exists(), "what needs no store makes none"
    subprocess.run([*argv, "ps", "--no-such-flag"], cwd=tmp_path, check=False, capture_output=True)
    assert not (tmp_path / "store").exists(), "nor does a wrong command line"
    subprocess.run([*argv, "ps"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "store/root/containers").is_dir()


def test_a_relative_root_is_refused_and_not_made(tmp_path: Path) -> None:
    for flag in ("root", "run-root"):
        done = subprocess.run(
            [SAMPAN, f"--{flag}", "rel", "ps"], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        words = flag.replace("-", " ")
        assert (done.returncode, done.stderr) == (1, f"Error: the {words} must be an absolute path, not 'rel'\n")
    assert list(tmp_path.iterdir()) == []
