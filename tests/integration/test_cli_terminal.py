"""Terminals of `run -it`, `exec -it`, `attach` and `start -ai`, with a real pseudo-terminal and somebody who types."""

from __future__ import annotations

import signal

import pytest

from support.command import Command
from support.patience import eventually
from support.roots import Root
from support.terminal import Terminal

pytestmark = pytest.mark.root

DETACH = b"\x10\x11"


@pytest.fixture
def box(root: Root) -> str:
    root.cli("run", "-dit", "--name", "box", "--network", "none", "base", "sh").ok()
    return "box"


def run(root: Root, *command: str, flags: tuple[str, ...] = (), rows: int = 24, columns: int = 80) -> Terminal:
    return root.terminal(
        "run", "--rm", "-it", "--network", "none", *flags, "base", *command, rows=rows, columns=columns
    )


@pytest.mark.core
def test_a_shell(root: Root) -> None:
    with run(root, "sh") as terminal:
        before = terminal.attributes()
        terminal.expect("# ")
        terminal.send("echo one-$((1 + 1)); tty; exit 42\n")
        terminal.expect("one-2\r\n/dev/pts/0")
        assert terminal.wait() == 42
        assert terminal.attributes() == before


def test_the_size_is_there_from_the_first_moment(root: Root) -> None:
    with run(root, "stty", "size", rows=33, columns=99) as terminal:
        terminal.expect("33 99")
        assert terminal.wait() == 0


def test_a_resized_terminal(root: Root) -> None:
    with run(root, "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done") as terminal:
        terminal.expect("ready")
        terminal.resize(50, 120)
        terminal.expect("50 120")
        terminal.send(DETACH)
        terminal.wait()


def test_ctrl_c_goes_to_the_program(root: Root) -> None:
    with run(root, "sh", "-c", "trap 'echo got INT; exit 7' INT; echo ready; while :; do sleep 0.1; done") as terminal:
        terminal.expect("ready")
        terminal.send("\x03")
        terminal.expect("got INT")
        assert terminal.wait() == 7


def test_every_key_passes(root: Root) -> None:
    with run(root, "sh", "-c", "stty raw -echo; echo ready; head -c 8 | od -An -tx1") as terminal:
        terminal.expect("ready")
        terminal.send(b"\x03\x1a\x1c\x11\x13\r\n\x04")
        terminal.expect("03 1a 1c 11 13 0d 0a 04")


def test_detach_and_attach_again(root: Root) -> None:
    with root.terminal("run", "-it", "--name", "box", "--network", "none", "base", "sh") as terminal:
        before = terminal.attributes()
        terminal.expect("# ")
        terminal.send(DETACH)
        terminal.expect("read escape sequence")
        assert terminal.wait() == 0
        assert terminal.attributes() == before
    assert root.cli("ps", "-q").out
    with root.terminal("attach", "box") as terminal:
        terminal.send("\n")
        terminal.expect("# ")
        terminal.send("echo again-$((2 + 2))\n")
        terminal.expect("again-4")
        terminal.send(DETACH)
        terminal.expect("read escape sequence")
        assert terminal.wait() == 1
    with root.terminal("attach", "box") as terminal:
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


def test_detach_keys_of_ones_own(root: Root, box: str) -> None:
    with root.terminal("attach", "--detach-keys", "ctrl-a,d", box) as terminal:
        terminal.send("\n")
        terminal.expect("# ")
        terminal.send(b"\x10\x11")
        terminal.send("echo still-$((3 + 3))\n")
        terminal.expect("still-6")
        terminal.send(b"\x01d")
        terminal.expect("read escape sequence")
        assert terminal.wait() == 1


def test_exec_with_a_terminal(root: Root, box: str) -> None:
    with root.terminal("exec", "-it", box, "sh", rows=40, columns=100) as terminal:
        before = terminal.attributes()
        terminal.expect("# ")
        terminal.send("stty size; echo $TERM; exit 3\n")
        terminal.expect("40 100\r\nxterm")
        assert terminal.wait() == 3
        assert terminal.attributes() == before
    with root.terminal("exec", "-it", box, "sh") as terminal:
        terminal.expect("# ")
        terminal.send(DETACH)
        terminal.expect("read escape sequence")
        assert terminal.wait() == 1


def test_start_with_a_terminal(root: Root) -> None:
    root.cli("create", "-it", "--name", "box", "--network", "none", "base", "sh").ok()
    with root.terminal("start", "-ai", "box") as terminal:
        terminal.expect("# ")
        terminal.send("exit 5\n")
        assert terminal.wait() == 5
    with root.terminal("start", "-ai", "box") as terminal:
        terminal.expect("# ")
        terminal.send(DETACH)
        terminal.expect("read escape sequence")
        assert terminal.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(root: Root, box: str, number: signal.Signals) -> None:
    with root.terminal("attach", box) as terminal:
        before = terminal.attributes()
        terminal.send("\n")
        terminal.expect("# ")
        assert terminal.attributes() != before
        terminal.signal(number)
        assert terminal.wait() == 128 + number
        assert terminal.attributes() == before
    assert root.cli("ps", "-q").out


def test_a_terminal_that_goes_away_leaves_the_container(root: Root) -> None:
    terminal = root.terminal("run", "-it", "--name", "box", "--network", "none", "base", "sh")
    terminal.expect("# ")
    terminal.close()
    assert root.cli("ps", "-q").out


def test_a_start_that_fails_leaves_the_terminal_alone(root: Root) -> None:
    with run(root, "no-such-program") as terminal:
        before = terminal.attributes()
        assert terminal.wait() == 127
        assert terminal.attributes() == before


def test_a_container_killed_from_elsewhere_ends_the_session(cli: Command, root: Root) -> None:
    with root.terminal("run", "-it", "--name", "box", "--network", "none", "base", "sh") as terminal:
        before = terminal.attributes()
        terminal.expect("# ")
        eventually(lambda: cli("kill", "box").code == 0)
        assert terminal.wait() == 137
        assert terminal.attributes() == before
