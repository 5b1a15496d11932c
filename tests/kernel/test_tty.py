"""Pseudo-terminals of a devpts of their own: never one of the host's."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.kernel import mount, tty

from support.child import in_child
from support.patience import eventually

pytestmark = [pytest.mark.root, pytest.mark.core]


@pytest.fixture
def devpts() -> Iterator[int]:
    fd = mount.new_filesystem("devpts", [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")])
    yield fd
    os.close(fd)


def test_a_pair_belongs_to_the_devpts_that_it_was_opened_from(devpts: int) -> None:
    hosts = set(os.listdir("/dev/pts"))
    master, peer = tty.open_pair(devpts)
    try:
        assert sorted(os.listdir(f"/proc/self/fd/{devpts}")) == ["0", "ptmx"]
        assert os.fstat(peer).st_dev == os.fstat(devpts).st_dev
        assert mount.filesystem_magic(peer) == mount.DEVPTS_SUPER_MAGIC
        assert stat.S_ISCHR(os.fstat(peer).st_mode)
        assert os.major(os.fstat(peer).st_rdev) == 136
        assert stat.S_IMODE(os.fstat(peer).st_mode) == 0o620
        assert os.fstat(peer).st_gid == 5
        assert set(os.listdir("/dev/pts")) == hosts
        assert not os.get_inheritable(master)
        assert not os.get_inheritable(peer)
    finally:
        os.close(master)
        os.close(peer)
    assert os.listdir(f"/proc/self/fd/{devpts}") == ["ptmx"]


def test_what_is_written_at_one_end_comes_out_at_the_other(devpts: int) -> None:
    master, peer = tty.open_pair(devpts)
    os.write(peer, b"out\n")
    assert os.read(master, 100) == b"out\r\n"
    os.write(master, b"in\n")
    assert os.read(peer, 100) == b"in\n"
    os.close(peer)
    os.read(master, 100)  # the echo
    with pytest.raises(OSError) as caught:
        os.read(master, 100)
    assert caught.value.errno == errno.EIO
    os.close(master)


def test_many_pairs_of_one_devpts(devpts: int) -> None:
    pairs = [tty.open_pair(devpts) for _ in range(5)]
    assert sorted(os.listdir(f"/proc/self/fd/{devpts}")) == ["0", "1", "2", "3", "4", "ptmx"]
    for number, (master, peer) in enumerate(pairs):
        os.write(peer, b"%d" % number)
        assert os.read(master, 10) == b"%d" % number
        os.close(master)
        os.close(peer)


def test_a_devpts_without_a_ptmx_is_an_error_and_leaks_nothing(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        tty.open_pair(fd)
    (tmp_path / "ptmx").write_text("no terminal")
    with pytest.raises(OSError):
        tty.open_pair(fd)
    assert set(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_the_size_is_set_and_read_at_both_ends(devpts: int) -> None:
    master, peer = tty.open_pair(devpts)
    tty.set_size(master, 33, 111)
    assert tty.get_size(peer) == (33, 111)
    tty.set_size(peer, 65535, 1)
    assert tty.get_size(master) == (65535, 1)
    for fd in (master, peer):
        os.close(fd)


def test_the_controlling_terminal_sends_interrupts_new_sizes_and_hang_ups(devpts: int) -> None:
    def inside() -> tuple[tuple[int, int], set[str]]:
        master, peer = tty.open_pair(devpts)
        os.setsid()
        tty.make_controlling(peer)
        heard: set[str] = set()
        for number in (signal.SIGINT, signal.SIGWINCH, signal.SIGHUP):
            signal.signal(number, lambda n, _: heard.add(signal.Signals(n).name))
        os.write(master, b"\x03")
        tty.set_size(master, 10, 20)
        own = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        size = tty.get_size(own)
        os.close(own)
        # The line discipline reads what was typed in its own time: a master that is closed before takes it along.
        eventually(lambda: len(heard) == 2)
        os.close(master)
        eventually(lambda: len(heard) == 3)
        return size, heard

    assert in_child(inside) == ((10, 20), {"SIGINT", "SIGWINCH", "SIGHUP"})


def test_only_a_sessions_leader_gets_one(devpts: int) -> None:
    master, peer = tty.open_pair(devpts)

    def inside() -> int:
        if os.fork():
            os.wait()
            return 0
        with pytest.raises(OSError) as caught:
            tty.make_controlling(peer)
        assert caught.value.errno == errno.EPERM
        os._exit(0)

    assert in_child(inside) == 0
    os.close(master)
    os.close(peer)
