"""What only a machine with cgroup v2 alone can show: delegation of controllers, and older kernels' way to kill."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.kernel import cgroup, cgroupfs
from sampan.kernel.cgroup import CgroupDriver, CgroupError, Limits
from sampan.kernel.cgroup2 import Version2

from support.groups import Group
from support.patience import patience

pytestmark = [pytest.mark.root, pytest.mark.cgroup2]

MIB = 1024 * 1024
ROOT = Path("/sys/fs/cgroup")


@pytest.fixture
def driver() -> CgroupDriver:
    return cgroup.by_version("v2")


@pytest.fixture
def parent() -> Iterator[Path]:
    """A cgroup of somebody else's, to be used as --cgroup-parent."""
    path = ROOT / f"sampan-parent-{os.getpid()}"
    path.mkdir()
    yield path
    cgroup.by_version("v2").kill(path.name, patience(10))
    cgroupfs.remove_tree(str(path), time.monotonic() + patience(2))


def enter(driver: CgroupDriver, group: str, limits: Limits) -> None:
    for path in driver.directories(group):
        cgroup.make_directory(path)
    for write in (*driver.prepare(group), *driver.limits(group, limits)):
        cgroup.apply(write)


def sleep() -> None:
    time.sleep(1000)


def test_it_is_the_only_hierarchy(driver: CgroupDriver) -> None:
    assert driver.version == "v2"
    assert {"cpu", "memory", "pids"} <= driver.controllers
    assert all(driver.supports(f) for f in ("memory", "swap", "reservation", "shares", "quota", "pids", "devices"))
    assert driver.hierarchies("sampan/x") == [cgroup.Hierarchy(str(ROOT), "", f"{ROOT}/sampan/x")]
    assert driver.join_files("sampan/x") == []


def test_controllers_are_enabled_all_the_way_down(driver: CgroupDriver, parent: Path) -> None:
    group = f"{parent.name}/a/b/box"
    enter(driver, group, Limits(memory=64 * MIB, pids=9, cpu_quota=50_000, cpu_shares=1024))
    assert (ROOT / group / "memory.max").read_text() == f"{64 * MIB}\n"
    assert (ROOT / group / "pids.max").read_text() == "9\n"
    assert (ROOT / group / "cpu.max").read_text() == "50000 100000\n"
    assert (ROOT / group / "cpu.weight").read_text() == "39\n"
    assert set((parent / "a/b/cgroup.subtree_control").read_text().split()) == driver.controllers
    assert (
        ROOT / group / "cgroup.subtree_control"
    ).read_text().split() == []  # what is below is the container's matter
    assert driver.prepare(group) == []


def test_a_parent_with_processes_of_its_own(driver: CgroupDriver, parent: Path) -> None:
    inhabitant = subprocess.Popen(["sleep", "1000"])
    try:
        (parent / "cgroup.procs").write_text(str(inhabitant.pid))
        group = f"{parent.name}/box"
        enter(driver, group, Limits())  # nothing was asked for, so nothing is missing
        with pytest.raises(CgroupError) as failure:
            enter(driver, group, Limits(memory=64 * MIB))
        assert f"{parent} holds processes of its own" in failure.value.advice
        assert f"mkdir {parent}/init" in str(failure.value)
        assert (parent / "cgroup.type").read_text() == "domain\n"  # it was not made a threaded one
    finally:
        inhabitant.kill()
        inhabitant.wait()


def test_a_threaded_parent(driver: CgroupDriver, parent: Path) -> None:
    (parent / "threads").mkdir()
    (parent / "threads/cgroup.type").write_text("threaded")
    group = f"{parent.name}/threads/box"
    with pytest.raises(CgroupError) as failure:
        enter(driver, group, Limits(memory=64 * MIB))
    assert f"{parent}/threads is a threaded cgroup" in failure.value.advice


def test_inside_a_container_whose_root_holds_its_processes(driver: CgroupDriver, parent: Path) -> None:
    # A container with cgroups of its own: a cgroup namespace, in whose root the container's processes are.
    for write in driver.prepare(f"{parent.name}/outer"):
        cgroup.apply(write)
    program = (
        "import os, sys\n"
        "from sampan.kernel import cgroup\n"
        "os.mkdir(sys.argv[1])\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
        "os.execvp('unshare', ['unshare', '-m', '-C', 'sh', '-c', sys.argv[2], *sys.argv])\n"
    )
    inner = (
        "from sampan.kernel import cgroup\n"
        "driver = cgroup.detect()\n"
        "cgroup.make_directory('/sys/fs/cgroup/sampan/box')\n"
        "try:\n"
        "    for write in (*driver.prepare('sampan/box'), *driver.limits('sampan/box', cgroup.Limits(pids=5))):\n"
        "        cgroup.apply(write)\n"
        "except cgroup.CgroupError as e:\n"
        "    print(e.advice)\n"
    )
    shell = f'umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec {sys.executable} -c "$INNER"'
    done = subprocess.run(
        [sys.executable, "-c", program, str(parent / "outer"), shell],
        env={**os.environ, "INNER": inner},
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=True,
    )
    assert done.stdout.startswith("/sys/fs/cgroup holds processes of its own"), done
    assert "as a nested container's entrypoint has to do" in done.stdout


def test_out_of_memory_kills_are_counted_also_below(driver: CgroupDriver) -> None:
    group = Group(driver, Limits(memory=32 * MIB, memory_swap=32 * MIB))
    try:
        below = Path(group.path("memory"), "below")
        below.mkdir()

        def program() -> None:
            (below / "cgroup.procs").write_text("0")
            bytearray(100 * MIB)

        assert group.outcome(program) == -9
        assert driver.oom_kills(group.name) == 1
    finally:
        group.delete()


def bomb() -> None:
    while True:
        try:
            os.fork()
        except OSError:
            pass


@pytest.mark.parametrize("program", [bomb, sleep])
def test_kill_as_before_linux_5_14(driver: CgroupDriver, program: Callable[[], None]) -> None:
    assert isinstance(driver, Version2)
    group = Group(driver, Limits(pids=32))
    try:
        group.run(program)
        group.wait_for(20 if program is bomb else 1)
        directory = driver.clone_directory(group.name)
        assert directory
        cgroupfs.kill_until_empty(
            lambda: driver.processes(group.name), driver.live(group.name).strike_frozen_v2, patience(10), patience(10)
        )
        assert group.processes() == []
        assert (Path(directory) / "cgroup.freeze").read_text() == "0\n"
    finally:
        group.delete()


def test_kill_waits_no_longer_than_it_may(driver: CgroupDriver) -> None:
    group = Group(driver)
    try:
        pid = group.run(sleep)
        with pytest.raises(TimeoutError, match=f"processes do not die: {pid}") as failure:
            cgroupfs.kill_until_empty(group.processes, lambda: None, timeout=0.05, stuck_timeout=0.05)
        assert failure.value.errno == errno.ETIMEDOUT
    finally:
        group.delete()
