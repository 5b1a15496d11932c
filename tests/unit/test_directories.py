"""Directories of the engine's own, which several commands or shims make at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sampan.kernel.directories import make_private


def test_many_make_the_same_directories_at_once(tmp_path: Path) -> None:
    failures: list[OSError] = []

    def make(directory: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            make_private(str(directory))
        except OSError as e:
            failures.append(e)

    for number in range(30):
        directory = tmp_path / str(number) / "networks" / "one"
        together = threading.Barrier(4)
        threads = [threading.Thread(target=make, args=(directory, together)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert directory.is_dir()
    assert failures == []


def test_where_nothing_can_be_made_is_an_error_and_no_recursion() -> None:
    with pytest.raises(FileNotFoundError):
        make_private("/proc/no-place/networks")
