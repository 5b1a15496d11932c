"""Directories of an ext4 of the test's own, and in which of its groups of inodes they begin."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.kernel.spreading import spread_subdirectories

GROUP = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty ext4 of eight groups, without a journal, as it is made for machines that are thrown away."""
    image, place = tmp_path / "image", tmp_path / "disk"
    image.touch()
    place.mkdir()
    subprocess.run(
        ["mkfs.ext4", "-q", "-O", "^has_journal,^flex_bg", "-b", "1024", "-N", str(8 * GROUP), str(image), "64M"],
        check=True,
    )
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def group(path: Path) -> int:
    return (path.stat().st_ino - 1) // GROUP


def test_subdirectories_begin_in_groups_of_their_own(disk: Path) -> None:
    (disk / "layers").mkdir()
    spread_subdirectories(str(disk / "layers"))
    places = [disk / "layers" / str(number) for number in range(4)]
    for place in places:
        place.mkdir()
        (place / "below").mkdir()
        (place / "file").touch()
    assert len({group(place) for place in places}) == 4
    assert all(group(place) == group(place / "below") == group(place / "file") for place in places)


def test_without_it_they_are_beside_their_parent(disk: Path) -> None:
    """What the hint is for, and that it is not made in vain."""
    (disk / "layers").mkdir()
    for number in range(4):
        (disk / "layers" / str(number)).mkdir()
    assert {group(disk / "layers" / str(number)) for number in range(4)} == {group(disk / "layers")}


def test_it_is_said_once_and_by_chattr_s_name(disk: Path) -> None:
    for _ in range(2):
        spread_subdirectories(str(disk))
        shown = subprocess.run(["lsattr", "-d", str(disk)], check=True, capture_output=True, text=True).stdout
        assert "T" in shown.split()[0]


def test_a_file_system_that_knows_no_such_thing(tmp_path: Path) -> None:
    place = tmp_path / "memory"
    place.mkdir()
    subprocess.run(["mount", "-t", "proc", "none", str(place)], check=True)
    try:
        spread_subdirectories(str(place))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    spread_subdirectories(str(disk))
