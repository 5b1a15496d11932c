"""Paths below a descriptor: what openat2 resolves, and that nothing leads out."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.kernel import paths
from sampan.kernel.libc import KernelError, by_machine, raw


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    top = tmp_path / "root"
    top.mkdir()
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    yield top, fd
    os.close(fd)


def where(fd: int) -> str:
    """The path that a descriptor leads to; closes it."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_absolute_links_and_dotdot_stay_inside(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "etc").mkdir()
    (top / "out").symlink_to("/etc")
    (top / "up").symlink_to("../../../../etc")
    for path in ("out", "/out", "up", "../../etc", b"/etc/../../../etc"):
        assert where(paths.open_in_root(fd, path, os.O_PATH)) == str(top / "etc")


def test_empty_path_is_the_root(root: tuple[Path, int]) -> None:
    top, fd = root
    assert where(paths.open_in_root(fd, "", os.O_PATH)) == str(top)


def test_magic_links_are_refused(tmp_path: Path) -> None:
    proc = os.open("/proc", os.O_PATH)
    try:
        with pytest.raises(KernelError) as caught:
            paths.open_in_root(proc, "self/root", os.O_PATH)
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(proc)


def test_nul_in_a_path_is_an_error_and_not_its_end(root: tuple[Path, int]) -> None:
    with pytest.raises(KernelError) as caught:
        paths.open_in_root(root[1], b"etc\0/../..", os.O_PATH)
    assert caught.value.errno == errno.EINVAL


def test_links_can_be_refused_and_the_last_one_opened(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "d").mkdir()
    (top / "l").symlink_to("d")
    with pytest.raises(KernelError) as caught:
        paths.open_in_root(fd, "l", os.O_RDONLY, no_symlinks=True)
    assert caught.value.errno == errno.ELOOP
    link = paths.open_in_root(fd, "l", os.O_PATH, nofollow_last=True)
    assert os.readlink(b"", dir_fd=link) == b"d"
    os.close(link)


def test_descriptors_are_close_on_exec(root: tuple[Path, int]) -> None:
    fd = paths.open_in_root(root[1], ".", os.O_PATH)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_makedirs_makes_what_is_missing_with_its_mode(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "a").mkdir(mode=0o700)
    old = os.umask(0o077)
    try:
        os.close(paths.makedirs_in_root(fd, "/a/b/c", 0o1777))
    finally:
        os.umask(old)
    assert (top / "a").stat().st_mode & 0o7777 == 0o700
    assert (top / "a/b").stat().st_mode & 0o7777 == 0o1777
    assert (top / "a/b/c").stat().st_mode & 0o7777 == 0o1777


def test_makedirs_follows_dangling_links_inside(root: tuple[Path, int], tmp_path: Path) -> None:
    top, fd = root
    (top / "var").mkdir()
    (top / "var/run").symlink_to("/run")
    (top / "out").symlink_to(f"../../..{tmp_path}/outside")
    assert where(paths.makedirs_in_root(fd, "/var/run/lock")) == str(top / "run/lock")
    assert where(paths.makedirs_in_root(fd, "out/x")) == f"{top}{tmp_path}/outside/x"
    assert os.listdir(tmp_path) == ["root"]


def test_makedirs_refuses_circles_and_files(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "x").symlink_to("y")
    (top / "y").symlink_to("x")
    (top / "file").write_text("")
    with pytest.raises(KernelError) as caught:
        paths.makedirs_in_root(fd, "x/z")
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(KernelError) as caught:
        paths.makedirs_in_root(fd, "file/z")
    assert caught.value.errno == errno.ENOTDIR


def test_makedirs_against_a_directory_that_flips_to_a_link(root: tuple[Path, int], tmp_path: Path) -> None:
    """A component that is exchanged for a link out, over and over: no directory appears outside."""
    top, fd = root
    outside = tmp_path / "outside"
    outside.mkdir()
    (top / "d").mkdir()
    (top / "l").symlink_to(f"../../../../../../../..{outside}")
    stop = threading.Event()

    def flip() -> None:
        renameat2, exchange = by_machine(316, 276), 2  # RENAME_EXCHANGE
        while not stop.is_set():
            raw(renameat2, "renameat2", "", fd, b"d", fd, b"l", exchange)

    flipper = threading.Thread(target=flip)
    flipper.start()
    errors: set[int | None] = set()
    made = 0
    try:
        for n in range(300):
            try:
                os.close(paths.makedirs_in_root(fd, f"d/a{n}/b"))
                made += 1
            except OSError as e:
                errors.add(e.errno)
    finally:
        stop.set()
        flipper.join()
    assert made
    assert errors <= {errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EAGAIN}
    assert os.listdir(outside) == []


def test_open_parent(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "a").mkdir()
    (top / "l").symlink_to("/a")
    parent, name = paths.open_parent_in_root(fd, "/l/new/")
    assert (where(parent), name) == (str(top / "a"), b"new")
    for path in ("/", "", "a/.."):
        with pytest.raises(KernelError):
            paths.open_parent_in_root(fd, path)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("/a/./b//c/", b"a/b/c"), ("../../x", b"x"), ("a/../..", b""), ("/", b""), (b"\xff/\xfe", b"\xff/\xfe")],
)
def test_clean(text: str | bytes, cleaned: bytes) -> None:
    assert paths.clean(text) == cleaned
