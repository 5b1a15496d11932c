"""A build on a terminal: what is drawn while it goes, and what is left of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.builds import Builds
from support.roots import Root

pytestmark = pytest.mark.root

_TEXT = """FROM base
RUN echo cached
RUN echo said; printf '\\033[2Jhidden\\n'; until test -e /meet/go; do sleep 0.05; done
RUN echo out of it; exit 3
"""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _screen(output: bytes) -> list[str]:
    """What is on the screen after all of it: a terminal that knows what the display uses."""
    lines, row = [""], 0
    # The terminal's own carriage returns: one in front of each line feed.
    text = re.sub(r"\r+\n", "\r\n", output.decode())
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r\n|\r|[^\x1b\r]+", text):
        if part == "\r\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1])
            assert row >= 0
        elif part.endswith("J"):
            assert part == "\x1b[J", part
            del lines[row + 1 :]
            lines[row] = ""
        elif not part.startswith("\x1b") and part != "\r":
            lines[row] = part
    return lines


def _builds(root: Root, tmp_path: Path) -> Builds:
    builds = Builds(root, tmp_path / "context")
    builds.put("go/go", "")
    builds.put("Dockerfile", _TEXT.replace("RUN echo said", "RUN --mount=type=cache,target=/meet echo said"))
    return builds


def test_a_build_is_drawn_as_it_goes_and_its_failure_is_told_at_the_end(new_root: Root, tmp_path: Path) -> None:
    builds = _builds(new_root, tmp_path)
    builds("FROM base\nRUN echo cached").ok()
    builds = _builds(new_root, tmp_path)
    args = ("build", "--network", "none", str(builds.context))
    with new_root.terminal(*args, rows=30, columns=72) as terminal:
        terminal.expect(r"\[\+\] Building \d+\.\ds \(\d/\d\)", 60)
        terminal.expect(r"\x1b\[34m => CACHED \[2/4\] RUN echo cached +\d\.\ds\x1b\[0m", 60)
        terminal.expect(r" => => # said\x1b\[K\r+\n => => # hidden\x1b\[K\r+\n", 60)
        (container,) = new_root.cli("ps", "-q").ok().out.split()
        new_root.cli("exec", container, "touch", "/meet/go").ok()
        assert terminal.wait(60) == 1
        screen = _screen(terminal.output)
    assert b"\x1b[2J" not in terminal.output
    assert re.fullmatch(r"\[\+\] Building \d+\.\ds \(4/4\) FINISHED", screen[0])
    assert [line[:24] for line in screen[1:5]] == [
        " => CACHED [1/4] FROM ba",
        " => CACHED [2/4] RUN ech",
        " => [3/4] RUN --mount=ty",
        " => ERROR [4/4] RUN echo",
    ]
    assert all(len(line) < 72 for line in screen[:5])
    assert screen[5:7] == ["------", " > [4/4] RUN echo out of it; exit 3:"]
    assert screen[7].endswith(" out of it")
    assert screen[8] == "------"
    assert screen[9].startswith("Dockerfile:4")
    assert any(line.startswith("   4 | >>> RUN echo out of it; exit 3") for line in screen)
    assert screen[-2].startswith("ERROR: failed to build: failed to solve: process")


def test_without_colours_on_a_terminal_that_becomes_narrow_and_an_interrupt_leaves_it_whole(
    new_root: Root, tmp_path: Path
) -> None:
    builds = _builds(new_root, tmp_path)
    args = ("build", "--network", "none", str(builds.context))
    with new_root.terminal(*args, env={"NO_COLOR": "1"}, rows=6, columns=60) as terminal:
        before = terminal.attributes()
        terminal.expect(r" => => # hidden", 60)
        terminal.resize(5, 24)
        terminal.expect(r" => => # hidden.*\[\+\] Building [^\r]*\r+\n(?: => [^\r]{1,23}\r+\n)+\x1b\[J\x1b\[\?25h", 60)
        drawing = terminal.output.rpartition(b"\x1b[?25l")[2]
        assert all(len(_ANSI.sub("", line).lstrip("\r")) < 24 for line in re.split(r"\r+\n", drawing.decode()))
        assert drawing.count(b"\n") <= 4
        terminal.send("\x03")
        assert terminal.wait(60) == 130
        assert terminal.attributes() == before
    assert not re.search(rb"\x1b\[3\dm", terminal.output)
    assert terminal.output.count(b"\x1b[?25l") == terminal.output.count(b"\x1b[?25h")
    assert new_root.cli("ps", "-aq").ok().out == ""


def test_what_is_no_terminal_gets_lines_and_the_environment_may_say_how(root: Root, tmp_path: Path) -> None:
    builds = Builds(root, tmp_path / "context")
    text = "FROM scratch\nCOPY Dockerfile /"
    assert "\x1b" not in builds(text).ok().err
    done = builds(text, "--progress", "tty")
    assert (done.code, done.err.splitlines()[0]) == (1, "--progress tty: standard error is no terminal")
    env = {"BUILDKIT_PROGRESS": "rawjson"}
    with root.terminal("build", str(builds.context), env=env) as terminal:
        assert terminal.wait(60) == 0
    assert b'"vertexes"' in terminal.output
    with root.terminal("build", "--progress", "plain", str(builds.context), env=env) as terminal:
        assert terminal.wait(60) == 0
    assert b"#1 [1/2] FROM scratch" in terminal.output
