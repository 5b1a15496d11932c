"""Layers come to the disk while they are unpacked, and have no name before all of them is there."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.kernel.files import sync_filesystem
from sampan.store import writeback
from sampan.store.writeback import WriteBack

from support.archives import END, member
from support.failing import failing, on_loop
from support.patience import eventually
from support.snapshots import Store

pytestmark = pytest.mark.root

__all__ = ["failing"]


_FAILED = ".*(Input/output error|No space left on device)"
"""Which of the two a full device below a loop comes to is the kernel's choice."""


class _Stream:
    """An archive of two parts, and what is done in between."""

    def __init__(self, first: bytes, between: Callable[[], None], second: bytes) -> None:
        self._parts: Iterator[io.BytesIO] = iter((io.BytesIO(first), io.BytesIO(second)))
        self._part = next(self._parts)
        self._between: Callable[[], None] | None = between

    def read(self, size: int, /) -> bytes:
        data = self._part.read(size)
        if not data and self._between is not None:
            between, self._between = self._between, None
            between()
            self._part = next(self._parts)
            return self._part.read(size)
        return data


def test_a_write_that_failed_for_a_moment_in_which_somebody_else_was_told_is_told_to_us_as_well(failing: Path) -> None:
    store = Store(failing, "overlay")
    told: list[str] = []

    def sync() -> None:
        """Of another process, which has nothing to do with us."""
        fd = os.open(failing, os.O_RDONLY)
        try:
            sync_filesystem(fd)
        except OSError as e:
            told.append(str(e))
        finally:
            os.close(fd)
        # It was but for a moment: what was lost is lost, and from here on no write fails.
        subprocess.run(["mount", "-o", "remount,size=128m", failing.parent / "pool"], check=True)

    archive = member(b"file", os.urandom(8 << 20))
    with pytest.raises(OSError, match=_FAILED):
        store.snapshotter.unpack((), _Stream(archive, sync, member(b"more", b"text") + END))
    assert len(told) == 1
    assert re.fullmatch(_FAILED, told[0])
    assert store.snapshotter.layers() == []
    assert store.leftovers() == []


def test_small_files_are_on_the_disk_before_the_layer_is_complete(tmp_path: Path) -> None:
    archive = b"".join(member(b"file%d" % number, os.urandom(1 << 16)) for number in range(64))
    with on_loop(tmp_path, "64m") as place:
        store = Store(place, "overlay")
        sync_all(place)
        image = tmp_path / "pool/image"
        before = taken(image)

        def wait() -> None:
            # The kernel itself begins after 30 seconds (vm.dirty_expire_centisecs).
            eventually(lambda: taken(image) >= before + (4 << 20), 20, "4 MiB are on the disk")

        info = store.snapshotter.unpack((), _Stream(archive, wait, member(b"more", b"text") + END))
        assert store.snapshotter.layers() == [info.chain_id]


def taken(image: Path) -> int:
    """Bytes that were written to a disk in memory."""
    return os.stat(image).st_blocks * 512


def sync_all(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY)
    try:
        sync_filesystem(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("synced", [True, False])
def test_nothing_of_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: bool) -> None:
    monkeypatch.setattr(writeback, "_PAUSE", 0.001)
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    with WriteBack(str(tmp_path)) as disk:
        (tmp_path / "file").write_bytes(bytes(1 << 16))
        if synced:
            disk.sync()
            assert threading.active_count() == before[0]
    eventually(lambda: (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before, 60, "it has ended")


def test_who_gives_up_leaves_nothing_open_on_the_disk(tmp_path: Path) -> None:
    """A disk that is to be unmounted right after a pull that failed is not in use."""
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for _ in range(50):
        with pytest.raises(ValueError, match="given up"), WriteBack(str(tmp_path)):
            raise ValueError("given up")
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


_WITHOUT_THREADS = """
import os, resource, sys, threading
from sampan.store.writeback import WriteBack

mapped = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
resource.setrlimit(resource.RLIMIT_AS, (mapped + (4 << 20), -1))  # less than the stack of a thread
try:
    threading.Thread(target=print).start()
    sys.exit("a thread could be started")
except RuntimeError:
    pass
before = os.listdir("/proc/self/fd")
with WriteBack(sys.argv[1]) as disk:
    disk.sync()
assert os.listdir("/proc/self/fd") == before
"""


def test_where_no_thread_can_be_started_it_works_as_well(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_THREADS, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
