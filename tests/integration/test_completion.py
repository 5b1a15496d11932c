"""Completion in the shells themselves: bash with readline, zsh with its own line editor, fish; each asked at the end of lines."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.command import SAMPAN, Command
from support.roots import Root
from support.terminal import Terminal

pytestmark = pytest.mark.root

# What is typed -> what can be there in place of its last word. Names come from the store of `names`.
LINES = {
    "": None,
    "re": ["rename", "restart"],
    "volume ": ["create", "inspect", "ls", "prune", "rm"],
    "container st": ["start", "stats", "stop"],
    "help cr": ["create"],
    "completion ": ["bash", "fish", "zsh"],
    # Flags, and their values: behind a blank and behind "=".
    "run --net": ["--network", "--network-alias"],
    "container prune --": ["--dry-run", "--filter", "--force", "--help"],
    "rm --force -": ["--help", "--link", "--volumes", "-l", "-v"],
    "run --network ": ["bridge", "container:", "host", "none"],
    "run --network=": ["--network=bridge", "--network=container:", "--network=host", "--network=none"],
    "run --pid=container:o": ["--pid=container:one"],
    "run --pid container:o": ["container:one"],
    "run --restart un": ["unless-stopped"],
    "run --cap-add CAP_SYS_P": ["CAP_SYS_PACCT", "CAP_SYS_PTRACE"],
    "kill -s TT": ["TTIN", "TTOU"],
    "run --ulimit no": ["nofile="],
    "ps --filter status=re": ["status=removing", "status=restarting"],
    "ps -af st": ["status="],
    "run -it --rm --volumes-from ": ["one", "two"],
    # Names: those that fit.
    "start ": ["two"],
    "stop ": ["one"],
    "rm ": ["two"],
    "rm -f ": ["one", "two"],
    "rm -f one ": ["two"],
    "exec -i ": ["one"],
    "logs t": ["two"],
    "inspect o": ["one", "other:2"],
    "rmi ": ["base:latest", "other:2"],
    "rmi other:": ["other:2"],
    "run -it ": ["base:latest", "other:2"],
    "run --name new -d b": ["base:latest"],
    "volume rm ": ["vol-1", "vol-2"],
    "volume rm vol-1 ": ["vol-2"],
    "run -v vol-1": ["vol-1:"],
    # Nothing that could be: what follows an image, a new name, a verb that there is not.
    "rename one ": [],
    "run base -": [],
    "nosuch ": [],
    # Files.
    "load --input fil": ["file with blanks", "file-1"],
    "load --input=file-": ["--input=file-1"],
    "import dir": ["directory"],
    # One or the other.
    "cp on": ["one:"],
    "cp fil": ["file with blanks", "file-1"],
    "cp one:/etc/hosts di": ["directory"],
}  # fmt: skip


OF_OTHER_TESTS = {"debian:12"}
"""Images that stay in the store once a test has asked for them."""


@pytest.fixture
def names(root: Root) -> Iterator[Root]:
    """A store with two containers, two images and two volumes."""
    root.cli("run", "-d", "--network", "none", "--name", "one", "base", "sleep", "1000").ok()
    root.cli("create", "--name", "two", "base", "true").ok()
    root.cli("tag", "base", "other:2").ok()
    for volume in ("vol-1", "vol-2"):
        root.cli("volume", "create", volume).ok()
    yield root
    root.cli("rm", "-f", "one", "two").ok()
    root.cli("rmi", "other:2").ok()
    root.cli("volume", "rm", "vol-1", "vol-2").ok()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory in which the lines are typed."""
    (tmp_path / "file-1").touch()
    (tmp_path / "file with blanks").touch()
    (tmp_path / "directory").mkdir()
    return tmp_path


def environment(root: Root) -> dict[str, str]:
    path = f"{Path(SAMPAN).parent}:/usr/local/bin:/usr/bin:/bin"
    return {
        **root.cli.environment,
        "SAMPAN_CONFIG": str(root.config),
        "PATH": path,
        "TERM": "xterm",
        "HOME": str(root.directory / "home"),  # fish makes directories in it
    }


class Typed:
    """A shell on a terminal. `shell(line)`: what it inserts when it is asked for everything that may follow."""

    def __init__(self, terminal: Terminal, setup: str, key: str) -> None:
        self._terminal = terminal
        self._key = key
        terminal.send(setup + "\n")
        terminal.expect("READY>")

    def __call__(self, line: str) -> list[str]:
        terminal = self._terminal
        last = line.rpartition(" ")[2]
        # Cut off: the words before the last one. `say` shows each argument on its own.
        terminal.send(f"sampan {line}{self._key}\x01say \r")
        shown = terminal.expect(r"BEGIN\r\n(.*?)END.*?READY>")[1].decode()
        words = re.findall(r"<(.*?)>", shown)[1 + len(shlex.split(line[: len(line) - len(last)])) :]
        return [] if words in ([last], []) else words


def check(typed: Callable[[str], list[str]], line: str) -> None:
    expected = LINES[line]
    found = [word for word in typed(line) if word not in OF_OTHER_TESTS]
    assert len(found) == len(set(found)), f"{line!r}: listed twice: {found}"
    if expected is None:
        assert {"run", "ps", "container", "completion"} <= set(found)
    else:
        assert sorted(word.rstrip("/") for word in found) == sorted(expected), line


SAY = "say() { printf 'BEGIN\\n'; printf '<%s>\\n' \"$@\"; printf 'END\\n'; }"


def test_bash(names: Root, place: Path) -> None:
    with Terminal(["bash", "--noprofile", "--norc", "-i"], environment(names), columns=2000) as terminal:
        setup = f"cd {place}; {SAY}; source <(sampan completion bash); bind 'set enable-bracketed-paste off'; PS1='READ''Y>'"
        typed = Typed(terminal, setup, key="\x1b*")  # insert-completions
        for line in LINES:
            check(lambda line: _whole(line, typed(line)), line)


def _whole(line: str, words: list[str]) -> list[str]:
    """readline inserts all but the first without what is before "=" or ":", which it does not replace."""
    last = line.rpartition(" ")[2]
    before = re.sub("[^=:]*$", "", last)
    return [*words[:1], *(before + word for word in words[1:])]


def test_zsh(names: Root, place: Path) -> None:
    with Terminal(["zsh", "-f", "-i"], environment(names), columns=2000) as terminal:
        setup = (
            f"cd {place}; {SAY}; unset zle_bracketed_paste; autoload -U compinit; compinit -u -D; source <(sampan completion zsh);"
            "zle -C everything complete-word _generic; bindkey '^X^A' everything;"
            "zstyle ':completion:everything::::' completer _all_matches _complete; zstyle ':completion:everything:*' insert true;"
            "PROMPT='READ''Y>'"
        )
        typed = Typed(terminal, setup, key="\x18\x01")
        for line in LINES:
            check(typed, line)


def test_fish(names: Root, place: Path) -> None:
    lines = " ".join(shlex.quote(f"sampan {line}") for line in LINES)
    script = f'sampan completion fish | source; for line in {lines}; echo "LINE $line"; complete -C $line; end'
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], cwd=place, env=environment(names), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers: dict[str, list[str]] = {}
    for row in done.stdout.splitlines():
        if row.startswith("LINE sampan "):
            answers[row.removeprefix("LINE sampan ")] = found = []
        else:
            found.append(row.partition("\t")[0].replace("\\ ", " "))
    for line in LINES:
        check(answers.__getitem__, line)


def test_descriptions(names: Root) -> None:
    def fish(*flags: str) -> list[str]:
        script = f"sampan completion fish {' '.join(flags)} | source; complete -C 'sampan unp'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], env=environment(names), capture_output=True, text=True
        )
        return done.stdout.splitlines()

    assert fish() == ["unpause\tLet the processes of paused containers go on"]
    assert fish("--no-descriptions") == ["unpause"]


def test_a_completion_makes_no_store(tmp_path: Path) -> None:
    cli = Command({"SAMPAN_ROOT": str(tmp_path / "root"), "SAMPAN_RUN_ROOT": str(tmp_path / "run")})
    for words in (
        ("start", ""),
        ("--root", str(tmp_path / "other"), "rmi", ""),
        ("volume", "rm", ""),
        ("--config", "/no/file", "rm", ""),
    ):
        done = cli("__complete", *words)
        assert (done.code, done.out, done.err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_typed_is_no_error(root: Root) -> None:
    for words in (
        (),
        ("",),
        ("-",),
        ("--",),
        ("--", ""),
        ("--root",),
        ("run", "-"),
        ("run", "--", "-"),
        ("run", "-itx"),
        ("run", "-m"),
        ("run", "--nosuch", ""),
        ("run", "--nosuch="),
        ("run", "--init=t"),
        ("help",),
        ("help", "x", ""),
        ("container", "x", ""),
        ("\udcff",),
        ("rm", "\udcff\n\t"),
    ):
        done = root.cli("__complete", *words)
        assert (done.code, done.err) == (0, ""), words
