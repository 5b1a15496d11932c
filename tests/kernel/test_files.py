"""Whole files, locks, copies and overlay marks, on the real kernel."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sampan.kernel import files
from sampan.kernel.files import FileLock, lock_is_held
from sampan.kernel.libc import KernelError


def test_write_atomic_replaces_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    old = os.umask(0o077)
    try:
        files.write_atomic(str(path), b"one", 0o644)
        files.write_atomic(str(path), b"two" * 100_000, 0o640)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"two" * 100_000
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["record.json"]


def test_write_atomic_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomic(str(tmp_path / "there"), b"x")
    assert os.listdir(tmp_path) == ["there"]


def test_read_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    fd = os.open(path, os.O_RDONLY)
    try:
        assert files.read_bounded(fd, 5) == b"12345"
        os.lseek(fd, 0, os.SEEK_SET)
        with pytest.raises(KernelError) as caught:
            files.read_bounded(fd, 4)
        assert caught.value.errno == errno.EFBIG
    finally:
        os.close(fd)


def test_read_bounded_of_an_endless_file() -> None:
    fd = os.open("/dev/zero", os.O_RDONLY)
    try:
        with pytest.raises(KernelError):
            files.read_bounded(fd, 1 << 20)
    finally:
        os.close(fd)


def test_copies_keep_holes(tmp_path: Path) -> None:
    source = os.open(tmp_path / "s", os.O_RDWR | os.O_CREAT)
    target = os.open(tmp_path / "t", os.O_RDWR | os.O_CREAT)
    os.pwrite(source, b"begin", 0)
    os.pwrite(source, b"middle", 5 << 20)
    os.ftruncate(source, 9 << 20)
    files.copy_file(source, target, 9 << 20)
    assert (tmp_path / "t").read_bytes() == (tmp_path / "s").read_bytes()
    assert os.fstat(target).st_blocks <= os.fstat(source).st_blocks
    os.close(source)
    os.close(target)


def test_writing_begins_where_it_can(tmp_path: Path) -> None:
    """Also where there is nothing to begin, and in a file system without a disk."""
    for directory in (tmp_path, Path("/dev/shm")):
        fd = os.open(directory, os.O_RDWR | os.O_TMPFILE)
        files.begin_writing(fd)
        os.write(fd, b"x" * (1 << 20))
        files.begin_writing(fd)
        assert os.pread(fd, 1 << 21, 0) == b"x" * (1 << 20)
        os.close(fd)
    with pytest.raises(OSError, match="sync_file_range"):
        files.begin_writing(-1)


def test_copy_range_across_file_systems(tmp_path: Path) -> None:
    source = os.open(tmp_path / "s", os.O_RDWR | os.O_CREAT)
    target = os.memfd_create("t")
    os.write(source, b"0123456789")
    assert files.copy_range(source, target, 2, 100) == 8
    assert os.pread(target, 20, 0) == b"\0\x0023456789"
    os.close(source)
    os.close(target)


@pytest.mark.root
def test_overlay_marks(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        files.make_whiteout(fd, b"gone\xff")
        assert files.is_whiteout(os.stat(b"gone\xff", dir_fd=fd))
        assert not files.is_whiteout(os.stat("/dev/null"))
        with pytest.raises(FileExistsError):
            files.make_whiteout(fd, b"gone\xff")
        assert not files.is_opaque(fd)
        files.set_opaque(fd)
        assert files.is_opaque(fd)
        assert files.get_xattrs(fd) == {"trusted.overlay.opaque": b"y"}
        assert files.get_xattrs(files.by_descriptor(fd, b"gone\xff"), follow_symlinks=False) == {}
    finally:
        os.close(fd)


def test_lock_excludes_and_shares(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with FileLock.acquire(path, shared=True), FileLock.acquire(path, 0, shared=True):
        with pytest.raises(BlockingIOError):
            FileLock.acquire(path, 0)
        assert lock_is_held(path)
    assert not lock_is_held(path)
    with FileLock.acquire(path), pytest.raises(BlockingIOError):
        FileLock.acquire(path, 0.02, shared=True)


def test_lock_waits(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    first = FileLock.acquire(path)
    threading.Timer(0.1, first.release).start()
    began = time.monotonic()
    FileLock.acquire(path, 5).release()
    assert 0.05 < time.monotonic() - began < 4


@pytest.mark.parametrize("wait", [None, 5.0])
def test_lock_follows_the_name(tmp_path: Path, wait: float | None) -> None:
    """Whoever waits for a file that its holder removes gets the file that has the name then."""
    path = str(tmp_path / "lock")
    first = FileLock.acquire(path)
    got: list[FileLock] = []
    waiter = threading.Thread(target=lambda: got.append(FileLock.acquire(path, wait)))
    waiter.start()
    time.sleep(0.05)
    os.unlink(path)
    first.release()
    waiter.join()
    assert os.path.samestat(os.stat(path), os.fstat(got[0].fd))
    got[0].release()


def test_lock_in_a_directory_that_goes_away(tmp_path: Path) -> None:
    home = tmp_path / "box"
    home.mkdir()
    first = FileLock.acquire(str(home / "record.lock"))
    errors: list[type[BaseException]] = []

    def wait() -> None:
        try:
            FileLock.acquire(str(home / "record.lock"), 5)
        except OSError as e:
            errors.append(type(e))

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.05)
    home.rename(tmp_path / "removing")
    first.release()
    waiter.join()
    assert errors == [FileNotFoundError]


def test_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = f"from sampan.kernel.files import FileLock as L; import time; l = L.acquire({path!r}); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert lock_is_held(path)
        holder.kill()
        holder.wait()
    assert not lock_is_held(path)


def test_posix_lock_of_another_process_is_seen(tmp_path: Path) -> None:
    """monitor.lock is a POSIX record lock; the query for it must see that kind too."""
    path = str(tmp_path / "monitor.lock")
    code = f"import fcntl, time; f = open({path!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert lock_is_held(path)
        holder.kill()
    assert not lock_is_held(path)
    assert not lock_is_held(str(tmp_path / "absent"))
