"""Volumes shared with a container that moves mount targets about: no mount and no file ever gets outside.

CVE-2021-30465 (a directory on the way to a target becomes a link while it is mounted), CVE-2024-45310 (the same while
a missing target is made), GHSA-vp62-88p7-qqf5 (the target itself flips).

All three were seen to fail where the engine was weakened, in a copy of it: `mount_point` (steps/mounts.py) resolves the path in the root
to one without links, waits 10 ms, and then makes and opens what has that name below the root's own path.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import host
from support.archives import fingerprint
from support.roots import BASE, Root

pytestmark = [pytest.mark.root, pytest.mark.patience(900)]

# A directory and a link to the canary change places as fast as a process can.
EXCHANGE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
first, second = (os.fsencode(f"{sys.argv[1]}/{name}") for name in ("dir", "link"))
while True:
    libc.renameat2(-100, first, -100, second, 2)  # RENAME_EXCHANGE
"""


@pytest.fixture
def canary() -> Iterator[Path]:
    """A directory of the host that must stay as it is."""
    path = BASE / f"canary-{os.getpid()}"
    (path / "inner").mkdir(parents=True)
    (path / "bound").mkdir()
    (path / "bound/mark").write_text("mark")
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def volume(root: Root, canary: Path) -> Iterator[Path]:
    """A volume in which something exchanges `dir` and a link to the canary all the time."""
    root.cli("volume", "create", "vol").ok()
    data = root.root / "volumes/vol/_data"
    (data / "dir/inner").mkdir(parents=True)
    os.symlink("/" + "../" * 20 + str(canary)[1:], data / "link")
    flipper = subprocess.Popen(["python3", "-c", EXCHANGE, data])
    yield data
    flipper.kill()
    flipper.wait()
    root.remove_containers()
    root.cli("volume", "rm", "vol").ok()


def ours(root: Root, canary: Path) -> list[str]:
    """The host's mounts that have to do with the test."""
    return sorted(host.mounts(canary, root.directory))


@pytest.mark.parametrize(
    ("kind", "target", "starts"),
    [
        ("directory", "/v/dir/inner", 10),  # it is there
        ("file", "/v/dir/new/deep", 10),  # it has to be made
        ("directory", "/v/dir", 10),  # it is the one that is exchanged
        pytest.param("directory", "/v/dir/inner", 400, marks=pytest.mark.long),
        pytest.param("file", "/v/dir/new/deep", 400, marks=pytest.mark.long),
    ],
)
def test_a_target_that_is_exchanged(
    root: Root, canary: Path, volume: Path, kind: str, target: str, starts: int
) -> None:
    source = canary / "bound" / ("mark" if kind == "file" else "")
    inner = fingerprint(canary)
    mounts = ours(root, canary)
    started = 0
    with root.engine() as engine:
        # A mount that is not in the container is on the host, however little is to be seen of it there.
        look = ["sh", "-c", f"grep -q '{source.relative_to(BASE)} ' /proc/self/mountinfo || exit 77"]
        container = engine.containers.create(
            "base", look, volumes=["vol:/v", f"{source}:{target}"], name="box", network="none"
        )
        for _ in range(starts):
            result = root.cli("start", "-a", "box")
            started += result.code == 0
            assert result.code != 77, "the mount is somewhere else"
            assert fingerprint(canary) == inner
        container.remove(force=True)
    assert ours(root, canary) == mounts
    assert started, "no start came through: nothing was raced"
