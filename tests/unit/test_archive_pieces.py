"""A tree becomes an archive file by file: small ones at once, large ones in pieces, and none stays open."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.store.archive import Archive, PlainTree
from sampan.store.tarstream import TarEntry

MIB = 1 << 20
SIZES = (0, 1, 511, 512, MIB - 1, MIB, MIB + 1, 3 * MIB)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[PlainTree]:
    for size in SIZES:
        (tmp_path / f"{size:08}").write_bytes(os.urandom(size))
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    tree = PlainTree(top)
    os.close(top)
    yield tree
    tree.close()


def open_files(below: Path) -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # that of the listing
    return [path for path in found if path.startswith(f"{below}/")]


def test_all_bytes_are_there_whatever_the_size(tree: PlainTree, tmp_path: Path) -> None:
    sink = io.BytesIO()
    archive = Archive(tree, sink)
    stops = sum(1 for _ in archive.write(with_root=False))
    assert stops > len(SIZES), "it stops after every file, and in large ones"
    assert (archive.entries, archive.size) == (len(SIZES), sum(SIZES))
    sink.seek(0)
    with tarfile.open(fileobj=sink) as made:
        for member in made:
            content = made.extractfile(member)
            assert content is not None
            assert content.read() == (tmp_path / member.name).read_bytes(), member.name
    assert open_files(tmp_path) == []


def test_one_that_is_given_up_in_the_middle_of_a_file_leaves_none_open(tree: PlainTree, tmp_path: Path) -> None:
    writing = Archive(tree, io.BytesIO()).write(with_root=False)
    while not open_files(tmp_path):
        next(writing)
    writing.close()  # type: ignore[attr-defined]
    assert open_files(tmp_path) == []


def test_a_file_that_shrinks_as_it_is_read_is_filled_with_zeros(tree: PlainTree, tmp_path: Path) -> None:
    sink = io.BytesIO()
    last = tmp_path / f"{SIZES[-1]:08}"
    writing = Archive(tree, sink).write(with_root=False)
    while str(last) not in open_files(tmp_path):
        next(writing)
    first = last.read_bytes()[:MIB]
    os.truncate(last, MIB)
    for _ in writing:
        pass
    sink.seek(0)
    with tarfile.open(fileobj=sink) as made:
        content = made.extractfile(last.name)
        assert content is not None
        assert content.read() == first + bytes(2 * MIB)


def test_a_small_one_that_shrinks_before_it_is_read_is_filled_with_zeros(tree: PlainTree, tmp_path: Path) -> None:
    small, sink = tmp_path / f"{SIZES[3]:08}", io.BytesIO()
    first = small.read_bytes()[:100]

    class Shrinking(Archive):
        def _begin(self, file: int, path: bytes, status: os.stat_result) -> TarEntry:
            if path == small.name.encode():
                os.truncate(small, 100)  # its size has been looked at
            return super()._begin(file, path, status)

    for _ in Shrinking(tree, sink).write(with_root=False):
        pass
    sink.seek(0)
    with tarfile.open(fileobj=sink) as made:
        content = made.extractfile(small.name)
        assert content is not None
        assert content.read() == first + bytes(412)
