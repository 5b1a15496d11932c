"""Detach keys, raw mode and sizes, on real pseudo-terminals."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator

import pytest

from sampan.cli import terminal
from sampan.errors import InvalidParameter


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    pair = os.openpty()
    yield pair
    for fd in pair:
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-x,a", b"\x18a"),
        ("ctrl-@", b"\x00"),
        ("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1b\x1c\x1d\x1e\x1f"),
        ("DEL", b"\x7f"),
        ("a,b,c", b"abc"),
    ],
)
def test_detach_keys_are_read(text: str, keys: bytes) -> None:
    assert terminal.parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-foo", "a,,b", "ctrl-", "ctrl-P", "é", "ab", "ctrl-a,"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"invalid detach keys \("):
        terminal.parse_detach_keys(text)


def feed(keys: bytes, *pieces: bytes) -> tuple[bytes, bool]:
    detach = terminal.DetachKeys(keys)
    passed = b""
    for piece in pieces:
        passed += detach.feed(piece)
        if detach.seen:
            return passed, True
    return passed + detach.end(), False


@pytest.mark.parametrize(
    ("keys", "pieces", "expected"),
    [
        (b"\x10\x11", [b"abc"], (b"abc", False)),
        (b"\x10\x11", [b"a\x10\x11b"], (b"a", True)),
        (b"\x10\x11", [b"a\x10", b"\x11"], (b"a", True)),
        (b"\x10\x11", [b"a\x10", b"b"], (b"a\x10b", False)),
        (b"\x10\x11", [b"\x10\x10\x11"], (b"\x10", True)),
        (b"\x10\x11", [b"\x11\x10"], (b"\x11\x10", False)),
        (b"aab", [b"aaab"], (b"a", True)),
        (b"abac", [b"ababac"], (b"ab", True)),
        (b"a", [b"xyza"], (b"xyz", True)),
    ],
)
def test_the_sequence_is_found_and_everything_else_passes(
    keys: bytes, pieces: list[bytes], expected: tuple[bytes, bool]
) -> None:
    assert feed(keys, *pieces) == expected
    assert feed(keys, *(bytes([b]) for b in b"".join(pieces))) == expected


def test_raw_mode_passes_every_byte_and_is_taken_back(pty: tuple[int, int]) -> None:
    master, slave = pty
    before = termios.tcgetattr(slave)
    with terminal.RawMode(slave):
        os.write(master, b"\x03\r\x11\x1a")
        assert os.read(slave, 100) == b"\x03\r\x11\x1a"
        os.write(slave, b"a\n")
        assert os.read(master, 100) == b"a\n"
    assert termios.tcgetattr(slave) == before


def test_raw_mode_is_taken_back_after_an_exception(pty: tuple[int, int]) -> None:
    before = termios.tcgetattr(pty[1])
    with pytest.raises(KeyboardInterrupt), terminal.RawMode(pty[1]):
        raise KeyboardInterrupt
    assert termios.tcgetattr(pty[1]) == before


def test_raw_mode_keeps_what_was_typed_ahead(pty: tuple[int, int]) -> None:
    master, slave = pty
    os.write(master, b"ls\n")
    with terminal.RawMode(slave):
        assert os.read(slave, 100) == b"ls\n"


def test_raw_mode_of_a_terminal_that_was_hung_up_ends_quietly() -> None:
    master, slave = os.openpty()
    with terminal.RawMode(slave):
        os.close(master)
    os.close(slave)


def test_the_size_of_a_terminal(pty: tuple[int, int]) -> None:
    termios.tcsetwinsize(pty[0], (33, 99))
    assert terminal.size(pty[1]) == (33, 99)


def test_what_is_no_terminal_has_no_size(tmp_path: object) -> None:
    reading, writing = os.pipe()
    assert terminal.size(reading) is None
    os.close(reading)
    os.close(writing)
    assert terminal.size(reading) is None
