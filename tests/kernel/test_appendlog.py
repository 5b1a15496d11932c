"""A log that many processes append to: nothing is lost or torn by others, by a rename, by a kill, by a full disk."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.kernel import appendlog

WRITER = """
import os, sys
from sampan.kernel import appendlog
path, name, count, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.read(0, 1)
for i in range(count):
    appendlog.append(path, f"{name}-{i}-{'x' * (i % 97)}".encode(), limit)
"""


def records(path: Path) -> list[bytes]:
    """The whole records of one file, in their order."""
    pieces = path.read_bytes().split(appendlog.RS)[1:]
    return [piece[:-1] for piece in pieces if piece.endswith(b"\n")]


def older(path: Path) -> Path:
    return Path(str(path) + appendlog.OLDER)


def writers(path: Path, number: int, count: int, limit: int) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"w{n}", str(count), str(limit)], stdin=subprocess.PIPE
        )
        for n in range(number)
    ]


def test_many_processes_lose_nothing_over_a_rename(tmp_path: Path) -> None:
    path = tmp_path / "log"
    number, count = 6, 400
    expected = {f"w{n}-{i}-{'x' * (i % 97)}".encode() for n in range(number) for i in range(count)}
    # Of such a length that it is renamed once, on the way.
    limit = sum(len(one) + 2 for one in expected) * 2 // 3
    processes = writers(path, number, count, limit)
    for process in processes:
        process.communicate(b"g")
    assert [process.returncode for process in processes] == [0] * number
    found = records(older(path)) + records(path)
    assert older(path).stat().st_size <= limit
    assert len(found) == len(expected)
    assert set(found) == expected
    for n in range(number):  # and what one process wrote is in its order
        own = [one for one in found if one.startswith(b"w%d-" % n)]
        assert own == sorted(own, key=lambda one: int(one.split(b"-")[1]))


def test_it_stays_bounded_and_keeps_what_is_newest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for i in range(1000):
        appendlog.append(str(path), b"%06d" % i, 1000)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log", "log.1"]
    assert path.stat().st_size <= 1000
    assert older(path).stat().st_size <= 1000
    found = records(older(path)) + records(path)
    assert found == [b"%06d" % i for i in range(1000 - len(found), 1000)]
    assert len(found) > 1000 // 8


def test_a_record_longer_than_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for record in (b"a", b"b" * 100, b"c"):
        appendlog.append(str(path), record, 50)
    assert records(older(path)) == [b"b" * 100]
    assert records(path) == [b"c"]


def test_a_writer_that_was_killed_in_the_middle_costs_its_own_record_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    appendlog.append(str(path), b"one", 1000)
    with path.open("ab") as file:
        file.write(appendlog.RS + b"to")  # as far as it came
    appendlog.append(str(path), b"three", 1000)
    assert records(path) == [b"one", b"three"]


def test_killed_writers_hold_up_nobody_and_tear_nothing_but_their_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    processes = writers(path, 4, 1 << 30, 20_000)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"g")
        process.stdin.flush()
    while not older(path).exists():
        os.sched_yield()
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # Whoever renamed may have been killed before anyone made the next file.
    before = records(path) if path.exists() else []
    appendlog.append(str(path), b"after", 1 << 20)
    assert records(path) == [*before, b"after"]
    for record in records(older(path)) + before:
        name, number, filling = record.split(b"-")
        assert name in (b"w0", b"w1", b"w2", b"w3")
        assert filling == b"x" * (int(number) % 97)


def test_a_rename_waits_for_nobody_who_appends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    appendlog.append(str(path), b"x" * 90, 100)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        appendlog.append(str(path), b"y" * 50, 100)
        assert not older(path).exists()  # the lock's holder may be in his write: the next one renames
        assert records(path) == [b"x" * 90, b"y" * 50]
        # Unless it has become far too long: then whoever holds the lock was stopped.
        appendlog.append(str(path), b"z" * 80, 100)
        appendlog.append(str(path), b"1", 100)
    assert records(older(path)) == [b"x" * 90, b"y" * 50, b"z" * 80]
    assert records(path) == [b"1"]


def test_who_was_stopped_while_he_renamed_costs_the_others_a_moment_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    appendlog.append(str(path), b"one", 1000)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        appendlog.append(str(path), b"two", 1000)
    assert records(path) == [b"one", b"two"]


def test_a_file_that_was_renamed_meanwhile_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    appendlog.append(str(path), b"one", 1000)
    share = appendlog._share

    def renamed_first(fd: int) -> None:
        if not older(path).exists():
            path.rename(older(path))
        share(fd)

    monkeypatch.setattr(appendlog, "_share", renamed_first)
    appendlog.append(str(path), b"two", 1000)
    assert records(older(path)) == [b"one"]
    assert records(path) == [b"two"]


def test_a_record_that_finds_no_room_is_an_error_and_leaves_the_log_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    appendlog.append(str(path), b"one", 1000)
    # RLIMIT_FSIZE cuts a write short as a full disk does. In a child, whose limit it is.
    code = (
        "import resource, signal, sys\n"
        "from sampan.kernel import appendlog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
        "try:\n    appendlog.append(sys.argv[1], b'two-that-is-cut', 1000)\n"
        "except OSError as e:\n    sys.exit(e.errno)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == errno.ENOSPC
    appendlog.append(str(path), b"three", 1000)
    assert records(path) == [b"one", b"three"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        appendlog.append(str(tmp_path / "log"), b"x", 1000)
    assert not (tmp_path / "elsewhere").exists()
