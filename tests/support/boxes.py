"""Fixtures of tests that need containers and no engine: `box` makes them on a small root file system, `image` is one to do bad things to.

A test module takes them by importing them, and names them in its `__all__`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import StartFailed

from support.box import Boxes, boxes_below, directory_for_tests
from support.patience import eventually
from support.rootfs import make_rootfs, variant


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Of one module; the root file system of its containers is `rootfs` in it."""
    path = directory_for_tests()
    make_rootfs(path / "rootfs")
    yield path
    shutil.rmtree(path)


BOTH_LAUNCHERS = ["exec", pytest.param("zygote", marks=[pytest.mark.long, pytest.mark.zygote])]
"""The name under which a module says that its tests with boxes are to be run with both launchers (`conftest`): `LAUNCHERS = BOTH_LAUNCHERS`."""


@pytest.fixture
def box(directory: Path, request: pytest.FixtureRequest) -> Iterator[Boxes]:
    with boxes_below(directory, directory / "rootfs", getattr(request, "param", "exec")) as boxes:
        yield boxes


@pytest.fixture
def image(directory: Path) -> Iterator[Path]:
    """A root file system to do bad things to."""
    path = variant(directory / "rootfs", directory / "image")
    yield path
    shutil.rmtree(path)


def refused(box: Boxes, *command: str, **options: Any) -> str:
    """The message of a start that fails; nothing of it is left."""
    one = box(*command, **options)
    with pytest.raises(StartFailed) as caught:
        one.start()
    eventually(lambda: not one.handle.alive())
    assert not one.groups_left()
    return str(caught.value)


def children(pid: int) -> list[int]:
    """The process ids of a process' children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident(pid: int) -> int:
    """Bytes of a process' memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
