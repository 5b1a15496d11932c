"""Trees removed, copied and measured."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from sampan.kernel.libc import KernelError
from sampan.kernel.tree import Descent, copy_tree, disk_usage, remove_tree

from support.archives import fingerprint


def open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def deep(top: Path, levels: int) -> None:
    """A chain of directories, each with a file and a sibling."""
    fd = open_directory(top)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        os.mkdir("sibling", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def climb(descent: Descent, levels: int) -> None:
    for _ in range(levels):
        descent.leave()


def test_remove_follows_no_link_and_spares_what_is_beside(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/f").write_text("1")
    (tmp_path / "top/sub").mkdir(parents=True)
    (tmp_path / "top/link").symlink_to(tmp_path / "keep")
    (tmp_path / "top/sub/up").symlink_to("../../keep")
    before = fingerprint(tmp_path / "keep")
    fd = open_directory(tmp_path)
    remove_tree(fd, "top")
    remove_tree(fd, "top")
    (tmp_path / "link").symlink_to("keep")
    remove_tree(fd, "link")
    os.close(fd)
    assert os.listdir(tmp_path) == ["keep"]
    assert fingerprint(tmp_path / "keep") == before


def test_deep_trees_need_few_descriptors(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    deep(tmp_path / "top", 600)
    fd = open_directory(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    assert disk_usage(fd, "top") == 0
    (tmp_path / "copy").mkdir()
    source, target = open_directory(tmp_path / "top"), open_directory(tmp_path / "copy")
    copy_tree(source, target)
    os.close(source)
    os.close(target)
    remove_tree(fd, "top")
    remove_tree(fd, "copy")
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)
    assert os.listdir(tmp_path) == []


def test_two_remove_the_same_tree(tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / f"top/d{n}/e").mkdir(parents=True)
        for m in range(10):
            (tmp_path / f"top/d{n}/e/{m}").touch()
    errors: list[BaseException] = []

    def remove() -> None:
        fd = open_directory(tmp_path)
        try:
            remove_tree(fd, "top")
        except OSError as e:
            errors.append(e)
        finally:
            os.close(fd)

    threads = [threading.Thread(target=remove) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == []


def test_a_directory_that_is_moved_while_we_are_in_it(tmp_path: Path) -> None:
    """ ".." is followed only to where we came from."""
    deep(tmp_path, 50)
    (tmp_path / "elsewhere").mkdir()
    descent = Descent(open_directory(tmp_path))
    for _ in range(40):
        descent.enter("d")
    os.rename(tmp_path / "d/d/d/d", tmp_path / "elsewhere/d")
    with pytest.raises(KernelError) as caught:
        climb(descent, 40)
    assert caught.value.errno == errno.ESTALE
    descent.close()


def test_usage_is_of_files_alone(tmp_path: Path) -> None:
    (tmp_path / "t/d").mkdir(parents=True)
    (tmp_path / "t/d/a").write_bytes(bytes(1000))
    os.link(tmp_path / "t/d/a", tmp_path / "t/b")
    (tmp_path / "t/l").symlink_to("12345")
    fd = open_directory(tmp_path)
    assert disk_usage(fd, "t") == 1005
    os.close(fd)


@pytest.mark.root
def test_a_copy_is_the_same_in_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d/e").mkdir(parents=True)
    (source / "d/f").write_bytes(b"x" * 70_000)
    os.link(source / "d/f", source / "hard")
    os.setxattr(source / "d/f", "user.a", b"1")
    os.chown(source / "d/f", 5, 6)
    os.setxattr(source / "d/f", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    (source / "d/f").chmod(0o6755)
    (source / "d").chmod(0o2770)
    os.setxattr(source / "d", "user.dir", b"2")
    (source / "link").symlink_to("/nowhere")
    os.chown(source / "link", 7, 8, follow_symlinks=False)
    os.mkfifo(source / "pipe")
    os.mknod(source / "dev", 0o20640, os.makedev(1, 3))
    with (source / "holes").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(500_000)
        file.write(b"x")
    for path in (source / "d/e", source / "d/f", source / "d", source):
        os.utime(path, ns=(1, 10**18 + 7))
    (tmp_path / "copy").mkdir()
    one, two = open_directory(source), open_directory(tmp_path / "copy")
    copy_tree(one, two)
    os.close(one)
    os.close(two)
    assert fingerprint(tmp_path / "copy", inodes=False) == fingerprint(source, inodes=False)
    assert (tmp_path / "copy/hard").stat().st_nlink == 2
    assert (tmp_path / "copy/holes").stat().st_blocks == (source / "holes").stat().st_blocks
