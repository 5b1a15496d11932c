"""Which lines of ps are a container's, and the table that stands in for ps."""

from __future__ import annotations

import os

import pytest

from sampan.engine.processtable import printable, table
from sampan.engine.top import select
from sampan.errors import System

LISTING = b"""UID          PID    PPID CMD
root           1       0 /sbin/init of  the host
root          12       1 sleep 1000
nobody       123      12 a\xff b
"""


def test_the_rows_are_those_of_the_containers_pids() -> None:
    titles, rows = select(LISTING, frozenset({12, 123}))
    assert titles == ["UID", "PID", "PPID", "CMD"]
    assert rows == [["root", "12", "1", "sleep 1000"], ["nobody", "123", "12", "a\udcff b"]]


def test_a_line_of_a_thread_belongs_to_the_process_above_it() -> None:
    listing = b"PID TTY\n1 ?\n- x\n12 ?\n- y\n- z\n13 ?\n- q\n"
    assert select(listing, frozenset({12}))[1] == [["12", "?"], ["-", "y"], ["-", "z"]]


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (b"COMMAND\nsleep\n", "Couldn't find PID field in ps output"),
        (b"", "Couldn't find PID field in ps output"),
        (b"PID\nx1\n", "Unexpected pid 'x1': strconv.Atoi: parsing \"x1\": invalid syntax"),
    ],
)
def test_a_listing_without_pids(listing: bytes, message: str) -> None:
    with pytest.raises(System) as caught:
        select(listing, frozenset({1}))
    assert str(caught.value) == message


def test_the_table_without_ps() -> None:
    own = os.getpid()
    titles, (row,) = table(["-o", "pid,ppid,comm", "-oargs"], [own, 2**22 + 1])
    assert titles == ["PID", "PPID", "COMMAND", "COMMAND"]
    assert row[:2] == [str(own), str(os.getppid())]
    titles, (row,) = table(["-ef"], [own])
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert len(row) == len(titles)


@pytest.mark.parametrize("options", [["aux"], ["-eLf"], ["-o", "pid,wchan"], ["--forest"], ["-o"]])
def test_options_that_only_ps_knows(options: list[str]) -> None:
    with pytest.raises(System, match='ps: exec: "ps": executable file not found'):
        table(options, [os.getpid()])


def test_a_process_cannot_write_to_the_terminal() -> None:
    assert printable("a\x1b[2J\nb é") == "a?[2J?b é"
