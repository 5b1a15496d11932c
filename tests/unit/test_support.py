"""The tests' own tools see what they are there to see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import host
from support.command import Command
from support.patience import eventually
from support.terminal import Terminal


@pytest.mark.thorough
def test_a_process_that_keeps_a_file_open_is_found(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    with kept.open() as stream, subprocess.Popen(["sleep", "60"], stdin=stream) as process:
        assert list(host.processes(str(tmp_path))) == [process.pid]
        process.kill()
    assert host.processes(str(tmp_path)) == {}


def test_a_command_tells_code_and_streams_apart() -> None:
    run = Command({"WHO": "x"}, "/bin/sh")
    result = run("-c", "cat; echo $WHO >&2; exit 3", input="text")
    assert (result.code, result.out, result.err) == (3, "text", "x\n")
    with pytest.raises(AssertionError, match="exit code 3"):
        result.ok()


def test_a_command_that_does_not_end_is_killed_and_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="no end after"):
        Command({}, "/bin/sleep")("60", timeout=0.1)


def test_a_terminal_is_a_terminal() -> None:
    program = (
        "import os, sys\n"
        "print(os.get_terminal_size(), os.isatty(0), os.tcgetpgrp(0) == os.getpgrp())\n"
        "print(sys.stdin.readline().strip())"
    )
    with Terminal([sys.executable, "-c", program], os.environ, rows=7, columns=31) as terminal:
        terminal.expect(r"columns=31, lines=7\) True True\r\n")
        terminal.send("caf\xe9\n")
        terminal.expect("caf\xe9\r\ncaf\xe9")
        assert terminal.wait() == 0


def test_ctrl_c_on_a_terminal_interrupts() -> None:
    # No shell: dash forgets a SIGINT that comes while it forks. No handler either: Python's own does not
    # end a sleep that it comes right before, only one that has begun.
    program = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nprint('ready')\ntime.sleep(60)"
    with Terminal([sys.executable, "-c", program], os.environ) as terminal:
        terminal.expect("ready\r\n")
        terminal.send("\x03")
        assert terminal.wait() == -signal.SIGINT


def test_eventually_gives_the_answer_or_says_what_was_awaited() -> None:
    answers = iter([0, 0, 7])
    assert eventually(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match="seven not met"):
        eventually(lambda: 0, seconds=0.05, what="seven")
