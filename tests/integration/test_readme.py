"""What the README shows works as it is shown, line by line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Command
from support.debian import debian_tar
from support.patience import eventually
from support.roots import Root

README = (Path(__file__).parents[2] / "README.md").read_text()

pytestmark = pytest.mark.root


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Each command line that the test has run; the README must have them, word by word."""
    lines: list[str] = []
    yield lines
    known = {
        part.strip() for block in re.findall(r"```\n(.*?)```", README, re.S) for part in re.split(r"[;\n|]", block)
    }
    assert [line for line in lines if line not in known] == []


def typed(line: str) -> list[str]:
    assert line.startswith("sampan ")
    return line.split()[1:]


def test_hello(cli: Command, said: list[str]) -> None:
    said.append("sampan run --rm base echo hello")
    assert cli(*typed(said[0])).ok().out == "hello\n"


@pytest.mark.core
def test_a_box_with_limits(root: Root, cli: Command, said: list[str]) -> None:
    said.append("sampan run -it --name box -m 256m --cpus 0.5 --pids-limit 64 -h box -e A=1 -w /srv base sh")
    with root.terminal(*typed(said[0])) as terminal:
        terminal.expect("# ")
        terminal.send("echo $A $(hostname) $(pwd) $$\n")
        terminal.expect("1 box /srv 1\r\n")
        terminal.send("exit 7\n")
        assert terminal.wait() == 7
    said.append("sampan inspect box")
    (box,) = json.loads(cli(*typed(said[1])).ok().out)
    assert box["Name"] == "/box"
    assert box["State"]["Status"] == "exited"
    assert box["State"]["ExitCode"] == 7
    assert (box["HostConfig"]["Memory"], box["HostConfig"]["NanoCpus"], box["HostConfig"]["PidsLimit"]) == (
        256 << 20,
        500_000_000,
        64,
    )


def test_a_server_from_run_to_rm(root: Root, cli: Command, said: list[str]) -> None:
    said += ["sampan run -d --name web -p 8080:80 base httpd -f", "sampan exec -it web sh", "sampan logs -f web"]
    said += ["sampan stop web", "sampan start web", "sampan rm -f web", "sampan ps -a", "sampan images"]
    identifier = cli(*typed(said[0])).ok().out.strip()
    assert re.fullmatch("[0-9a-f]{64}", identifier)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen("http://127.0.0.1:8080/", timeout=30)
    with root.terminal(*typed(said[1])) as terminal:
        terminal.expect("# ")
        terminal.send("wget -q -O - http://127.0.0.1/ ; echo answered $?\n")
        terminal.expect("404 Not Found.*answered 1\r\n")
        terminal.send("exit\n")
        assert terminal.wait() == 0
    with cli.start(*typed(said[2])) as follower:
        assert cli(*typed(said[3])).ok().out == "web\n"
        assert follower.wait(30) == 0
    assert cli(*typed(said[4])).ok().out == "web\n"
    line = next(line for line in cli(*typed(said[6])).ok().out.splitlines() if "web" in line)
    assert identifier[:12] in line
    assert "Up " in line
    assert cli(*typed(said[5])).ok().out == "web\n"
    assert eventually(lambda: "web" not in cli(*typed(said[6])).ok().out)
    assert re.search(r"^base +latest ", cli(*typed(said[7])).ok().out, re.MULTILINE)


def test_a_debian(new_root: Root, said: list[str]) -> None:
    said += ["mmdebstrap --variant=minbase bookworm -", "sampan import - debian:12"]
    said += ["sampan run --rm debian:12 cat /etc/os-release"]
    with debian_tar().open("rb") as tar:
        assert new_root.cli(*typed(said[1]), stdin=tar.fileno(), timeout=300).ok().out.startswith("sha256:")
    assert "VERSION_CODENAME=bookworm\n" in new_root.cli(*typed(said[2])).ok().out


def test_the_library(session_root: Root, debian_image: str, root: Root) -> None:
    program = re.search(r"```python\n(.*?)```", README, re.S)
    assert program is not None
    # As it stands, but on the tests' own store.
    text = program[1].replace(
        "sampan.Engine()",
        f"sampan.Engine(root={str(root.root)!r}, run_root={str(root.run_root)!r}, config={str(root.config)!r})",
    )
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Linux ")
    assert "uid=0(root) gid=0(root)" in result.stdout
