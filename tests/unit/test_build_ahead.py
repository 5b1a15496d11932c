"""What COPYs take of a context, read once: for the key, and for the copy."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.build.instructions import Copy
from sampan.build.patterns import Ignore
from sampan.build.reading import read
from sampan.build.source import Source
from sampan.engine.buildahead import ReadAhead
from sampan.engine.buildfiles import FileTree, Found, Manner, ReadTree
from sampan.store.tarwriter import TarWriter

_ROOM = 1 << 20
_MANNER = Manner((3, 4), mtime_ns=1_000_000_000)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[FileTree]:
    place = tmp_path / "context"
    (place / "top/deep").mkdir(parents=True)
    (place / "top/deep/file").write_text("first")
    (place / "top/link").symlink_to("deep/file")
    (place / "top/empty").touch(0o600)
    (place / "alone").write_text("alone")
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield FileTree(fd, Ignore())
    os.close(fd)


def _archive(tree: FileTree | ReadTree, found: Found, shown: bytes) -> bytes:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    tree.write(found, shown, _MANNER, writer)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("source", "shown"),
    [("top", b"srv/x"), ("top", b""), (".", b""), (".", b"all"), ("alone", b"renamed"), ("top/deep/file", b"a/b")],
)
def test_what_was_read_is_what_reading_again_gives(tree: FileTree, source: str, shown: bytes) -> None:
    (found,) = tree.find(source)
    once = tree.read(found, Manner((0, 0)), _ROOM)
    assert once.entries is not None
    assert once.digests == tree.digests(found, Manner((0, 0)))
    again = ReadTree(tree, once)
    direct = _archive(tree, found, shown)
    # Twice, at two places: nothing of the first is left in the second.
    assert _archive(again, found, shown) == direct
    assert _archive(again, found, b"other") == _archive(tree, found, b"other")
    assert _archive(again, found, shown) == direct


def test_what_was_read_is_copied_and_not_what_is_there_by_now(tree: FileTree, tmp_path: Path) -> None:
    (found,) = tree.find("top")
    once = ReadTree(tree, tree.read(found, Manner((0, 0)), _ROOM))
    before = _archive(tree, found, b"x")
    (tmp_path / "context/top/deep/file").write_text("second, and longer")
    (tmp_path / "context/top/empty").unlink()
    assert _archive(once, found, b"x") == before != _archive(tree, found, b"x")


@pytest.mark.parametrize("what", ["no room", "hard link", "sparse"])
def test_what_cannot_be_kept_is_read_twice(tree: FileTree, tmp_path: Path, what: str) -> None:
    place = tmp_path / "context/top"
    if what == "hard link":
        os.link(place / "deep/file", place / "deep/other")
    elif what == "sparse":
        os.truncate(place / "empty", 300 << 20)
    (found,) = tree.find("top")
    once = tree.read(found, Manner((0, 0)), 2000 if what == "no room" else 1 << 40)
    assert once.entries is None
    assert once.digests == tree.digests(found, Manner((0, 0)))
    assert _archive(ReadTree(tree, once), found, b"x") == _archive(tree, found, b"x")


def _body(text: str) -> tuple[list[Copy], Callable[[FileTree], ReadAhead]]:
    stage = read(Source("Dockerfile", f"FROM scratch\n{text}"))[0].stages[0]
    return [one for one in stage.body if isinstance(one, Copy)], lambda tree: ReadAhead(tree, stage.body)


def test_copies_after_a_command_are_read_ahead_if_their_words_are_plain(tree: FileTree) -> None:
    copies, ahead = _body(
        "COPY top /before\n"
        "RUN x\n"
        "COPY top alone /to/\n"
        "COPY --chmod=600 top /mode\n"
        "COPY $top /variable\n"
        "COPY --from=0 top /stage\n"
        "ADD https://example.com/top /\n"
        "COPY al*e /pattern\n"
    )
    (top,), (alone,) = tree.find("top"), tree.find("alone")
    reading = ahead(tree)
    try:
        before, plain, mode, variable, stage, remote, pattern = copies
        found = reading.take(tree, top, plain)
        assert found is not None
        assert found.digests == tree.digests(top, Manner((0, 0)))
        assert reading.take(tree, alone, plain) is not None
        assert reading.take(tree, alone, plain) is None  # it was taken
        other = reading.take(tree, top, mode)
        assert other is not None
        assert other.digests != found.digests
        assert reading.take(tree, alone, pattern) is not None
        for one in (before, variable, stage, remote):
            assert reading.take(tree, top, one) is None
        # Of another tree, say that of a stage, nothing was read.
        assert reading.take(FileTree(tree.fd, Ignore()), top, plain) is None
    finally:
        reading.close()


def test_a_source_that_is_missing_is_left_to_its_step(tree: FileTree) -> None:
    copies, ahead = _body("RUN x\nCOPY nothing /\nCOPY top /\n")
    reading = ahead(tree)
    try:
        for one in copies:
            assert reading.take(tree, Found(b"top", True), one) is None
    finally:
        reading.close()


@pytest.mark.thorough
def test_it_ends_in_the_middle_when_nobody_wants_it_any_more(tree: FileTree, tmp_path: Path) -> None:
    # Holes of less than what is written sparse, each read whole: 200 GiB of zeros to be hashed.
    for number in range(1000):
        with (tmp_path / f"context/{number}").open("w") as file:
            file.truncate(200 << 20)
    _, ahead = _body("RUN x\nCOPY . /\n")
    reading = ahead(tree)
    reading.close()
    assert reading._thread is not None
    assert not reading._thread.is_alive()
