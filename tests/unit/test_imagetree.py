"""What layers did, by their archives alone. That the tree is the one that a container sees, the contract of the snapshotters shows."""

from __future__ import annotations

import io

import pytest

from sampan.errors import InvalidParameter
from sampan.store.imagetree import ImageTree
from sampan.store.layers import DigestStream

from support.archives import directory, hardlink, header, member, opaque, symlink, whiteout


def tree(*archives: bytes, entries: int = 1000) -> ImageTree:
    found = ImageTree()
    for archive in archives:
        found.add(DigestStream(io.BytesIO(archive)), entries)
    return found


def counts(*archives: bytes) -> list[tuple[int, int, int, int, int]]:
    return [(one.size, one.added, one.changed, one.removed, one.wasted) for one in tree(*archives).layers]


BASE = directory(b"d") + member(b"d/a", b"aaaa") + member(b"d/b", b"bb") + symlink(b"d/l", b"a")


@pytest.mark.parametrize(
    ("above", "base", "top"),
    [
        (b"", (7, 3, 0, 0, 0), (0, 0, 0, 0, 0)),
        (member(b"d/c", b"c"), (7, 3, 0, 0, 0), (1, 1, 0, 0, 0)),
        (member(b"d/a", b"new"), (7, 3, 0, 0, 4), (3, 0, 1, 0, 0)),
        (directory(b"d", mode=0o700), (7, 3, 0, 0, 0), (0, 0, 0, 0, 0)),
        (whiteout(b"d/a"), (7, 3, 0, 0, 4), (0, 0, 0, 1, 0)),
        (whiteout(b"d"), (7, 3, 0, 0, 6), (0, 0, 0, 3, 0)),
        (whiteout(b"d/nothing"), (7, 3, 0, 0, 0), (0, 0, 0, 0, 0)),
        (opaque(b"d"), (7, 3, 0, 0, 6), (0, 0, 0, 3, 0)),
        (member(b"d/n", b"n") + opaque(b"d"), (7, 3, 0, 0, 6), (1, 1, 0, 3, 0)),
        (member(b"d", b"a file"), (7, 3, 0, 0, 6), (6, 0, 1, 3, 0)),
        (member(b"x", b"12345") + member(b"x", b"1"), (7, 3, 0, 0, 0), (6, 1, 0, 0, 5)),
        (header(b"d/a", b"3"), (7, 3, 0, 0, 4), (0, 0, 0, 1, 0)),  # A device 0:0 is a whiteout.
    ],
)
def test_what_a_layer_did(above: bytes, base: tuple[int, ...], top: tuple[int, ...]) -> None:
    assert counts(BASE, above) == [base, top]


def test_a_lower_file_gives_way_to_a_directory_on_the_way() -> None:
    found = tree(BASE, member(b"d/a/below", b"12"))
    below, on_the_way = found.find(b"d/a/below"), found.find(b"d/a")
    assert below is not None
    assert on_the_way is not None
    assert (below.layer, on_the_way.layer, on_the_way.hidden, found.layers[0].wasted) == (1, 1, (0,), 4)
    with pytest.raises(InvalidParameter, match="not a directory"):
        tree(BASE, member(b"d/a", b"of this layer") + member(b"d/a/below", b"12"))


def test_a_file_of_two_names_is_wasted_with_the_second_one() -> None:
    low = member(b"a", b"1234") + hardlink(b"b", b"a")
    assert counts(low, whiteout(b"a"))[0][4] == 0
    assert counts(low, whiteout(b"a"), whiteout(b"b"))[0][4] == 4


def test_where_a_path_comes_from_and_who_took_it_away() -> None:
    found = tree(BASE, member(b"d/a", b"2"), member(b"d/a", b"3") + whiteout(b"d/b"))
    node = found.find(b"d/a")
    assert node is not None
    assert (node.layer, node.hidden) == (2, (0, 1))
    assert found.find(b"d/b") is None
    assert found.removed_by(b"d/b") == 2
    assert found.removed_by(b"d/never") is None


def test_a_link_of_a_lower_layer_is_followed() -> None:
    found = tree(directory(b"usr/lib") + symlink(b"lib", b"usr/lib"), member(b"lib/x", b"x"))
    node = found.find(b"usr/lib/x")
    assert node is not None
    assert node is found.find(b"lib/x")
    link = found.find(b"lib")
    assert link is not None
    assert not link.is_directory


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (member(b"../x"), "outside of the layer"),
        (hardlink(b"x", b"nothing"), "is not there"),
        (hardlink(b"x", b"d") + b"", "is not there"),
        (symlink(b"a", b"b") + symlink(b"b", b"a") + member(b"a/x"), "too many levels"),
        (member(b"f") + member(b"f/x"), "not a directory"),
        (member(b".wh..."), "invalid whiteout name"),
    ],
)
def test_what_no_layer_may_hold(archive: bytes, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        tree(archive)


def test_entries_are_bounded() -> None:
    assert tree(BASE, entries=4)
    with pytest.raises(InvalidParameter, match="more than 3 entries"):
        tree(BASE, entries=3)
