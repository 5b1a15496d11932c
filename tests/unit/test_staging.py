"""Directories that are taken away by a rename first: who does it, when several want to."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sampan.kernel.files import FileLock, lock_directory
from sampan.steps.trace import Trace
from sampan.store.staging import Staging


def test_the_second_of_two_that_remove_one_waits_until_the_first_has_renamed_it(tmp_path: Path) -> None:
    """It renamed it without a lock while the first was about to, and what it deleted then looked like a killed one's."""
    place, aside = tmp_path / "it", tmp_path / ".removing-first"
    place.mkdir()
    first = lock_directory(str(place))
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(Staging(str(tmp_path), Trace()).remove, "it")
        time.sleep(0.1)
        assert place.exists()
        os.rename(place, aside)
        assert second.result(10) is False
    assert aside.exists()
    assert Staging(str(tmp_path), Trace()).leftovers() == []
    os.close(first)
    assert Staging(str(tmp_path), Trace()).leftovers() == [str(aside)]


def test_an_interrupt_right_after_the_lock_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = FileLock.acquire

    def interrupted(path: str) -> FileLock:
        acquire(path).release()
        raise KeyboardInterrupt

    monkeypatch.setattr(FileLock, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Staging(str(tmp_path), Trace()).begin()
    assert list(tmp_path.iterdir()) == []
