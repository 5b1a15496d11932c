"""What every cgroup driver must do, on the real kernel: each version that this machine can show."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.kernel import cgroup
from sampan.kernel.cgroup import CgroupDriver, CgroupError, DeviceRule, Limits, Throttle
from sampan.kernel.cgroupusage import Usage
from sampan.oci import cpuset

from support import host
from support.groups import Group, driver, error_of, exits_with_error_of, make
from support.patience import eventually, patience

__all__ = ["driver", "make"]

pytestmark = [pytest.mark.root, pytest.mark.core]

MIB = 1024 * 1024


def sleep() -> None:
    time.sleep(1000)


# --- Being in it


def test_a_process_is_in_the_group_of_every_hierarchy(make: Callable[..., Group]) -> None:
    group = make()
    pid = group.run(sleep)
    group.wait_for(1)
    assert group.processes() == [pid]
    places = [line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    expected = {"" if h.name == "unified" else h.name for h in group.driver.hierarchies(group.name)}
    assert {name.removeprefix("name=") for name, path in places if path == f"/{group.name}"} == expected


def test_children_are_in_it_too(make: Callable[..., Group]) -> None:
    def with_child() -> None:
        os.fork()
        sleep()

    group = make()
    group.run(with_child)
    group.wait_for(2)


def test_making_and_preparing_again_is_fine(make: Callable[..., Group]) -> None:
    group = make(Limits(memory=64 * MIB, pids=10))
    group.set(Limits(memory=64 * MIB, pids=10))
    assert group.outcome(lambda: None) == 0


def test_joining_costs_no_grace_period_and_pids_is_last(driver: CgroupDriver) -> None:
    files = driver.join_files("sampan/x")
    assert all(path.endswith("/tasks") for path in files)
    if files:
        assert "pids" in files[-1]
    assert bool(driver.clone_directory("sampan/x")) == (driver.version != "v1")


def test_usage_is_counted(make: Callable[..., Group]) -> None:
    group = make(Limits(memory=64 * MIB, pids=10))
    group.run(lambda: [None for _ in iter(int, 1)])

    def used() -> int:
        cpu = group.driver.usage(group.name).cpu
        assert cpu is not None
        return cpu.total

    eventually(lambda: used() > 50_000_000, what="50 ms of processor time")
    usage = group.driver.usage(group.name)
    assert usage.memory is not None
    assert usage.memory.limit == 64 * MIB
    assert 0 < usage.memory.usage <= 64 * MIB
    assert {"inactive_file", "pgfault"} <= usage.memory.stats.keys()
    assert usage.pids is not None
    assert (usage.pids.current, usage.pids.limit) == (1, 10)
    assert usage.block is not None
    # v1 alone has no pressure, and a hybrid machine has it beside the rest.
    assert bool(usage.pressure) == (group.driver.version != "v1" and os.path.exists("/proc/pressure/cpu"))


def test_nothing_is_counted_for_a_group_that_is_gone(driver: CgroupDriver) -> None:
    assert driver.usage("sampan/none-such") == Usage()


# --- Every limit is what the kernel's files say


def value(group: Group, version1: tuple[str, str], version2: str) -> str:
    """What a knob holds, by its name on each version."""
    controller, knob = version1
    path = group.path(controller) / knob
    return (path if path.exists() else group.path("") / version2).read_text().strip()


def test_a_cpuset_is_set_before_anybody_joins(make: Callable[..., Group]) -> None:
    group = make(Limits(cpuset_cpus="0", cpuset_mems="0"))
    assert value(group, ("cpuset", "cpuset.cpus"), "cpuset.cpus") == "0"
    assert value(group, ("cpuset", "cpuset.mems"), "cpuset.mems") == "0"
    assert group.outcome(lambda: os._exit(0 if os.sched_getaffinity(0) == {0} else 1)) == 0


def test_a_cpuset_that_nobody_has_is_refused(make: Callable[..., Group]) -> None:
    group = make()
    with pytest.raises(CgroupError, match="does not have all of these"):
        group.set(Limits(cpuset_cpus="0-999"))


def test_the_machines_cpuset(driver: CgroupDriver) -> None:
    cpus, mems = driver.cpuset()
    assert cpuset.members(cpus) == os.sched_getaffinity(1)
    assert 0 in cpuset.members(mems)


def test_limits_on_a_disk(make: Callable[..., Group]) -> None:
    group = make()
    disk = host.whole_disk()
    major, minor = disk
    wanted = {"read_bps": 1 << 20, "write_bps": 2 << 20, "read_iops": 30, "write_iops": 40}
    group.set(Limits(throttles=tuple(Throttle(knob, major, minor, rate) for knob, rate in wanted.items())))
    if group.driver.version == "v2":
        assert group.read("", "io.max") == f"{major}:{minor} rbps=1048576 wbps=2097152 riops=30 wiops=40"
        return
    for knob, rate in wanted.items():
        assert group.read("blkio", f"blkio.throttle.{knob}_device") == f"{major}:{minor} {rate}"


def test_a_limit_on_what_is_no_disk_is_refused(make: Callable[..., Group]) -> None:
    group = make()
    with pytest.raises(CgroupError, match="on a whole disk") as caught:
        group.set(Limits(throttles=(Throttle("read_bps", 5, 1, 1000),)))
    assert caught.value.errno == errno.ENODEV


def test_the_weight_of_block_io(make: Callable[..., Group]) -> None:
    group = make()
    if not group.driver.supports("block weight"):
        asked = Limits(block_weight=100)
        assert "Weight discarded" in cgroup.check(asked, group.driver)[0]
        group.set(asked)  # and nothing of it is written
        return
    group.set(Limits(block_weight=400))
    if group.driver.version == "v2":
        knobs = {name: (group.path("") / name) for name in ("io.bfq.weight", "io.weight")}
        expected = {"io.bfq.weight": "default 400", "io.weight": "default 3940"}
        found = {name: path.read_text().splitlines()[0] for name, path in knobs.items() if path.exists()}
        assert found
        assert found == {name: expected[name] for name in found}
    else:
        assert "400" in group.read("blkio", "blkio.bfq.weight")


def test_huge_pages(make: Callable[..., Group]) -> None:
    group = make()
    assert group.driver.supports("hugetlb") == (group.driver.version != "v1"), "no hugetlb where it was expected"
    size = host.huge_page_size()
    group.set(Limits(hugepages=((size, 4 << 20),)))
    if group.driver.supports("hugetlb"):
        assert (
            Path(group.driver.hierarchies(group.name)[-1].directory) / f"hugetlb.{size}.max"
        ).read_text() == "4194304\n"


def test_what_only_version_1_has(make: Callable[..., Group]) -> None:
    group = make()
    asked = Limits(memory=64 * MIB, memory_swap=-1, memory_swappiness=7, oom_kill_disable=True)
    warnings = cgroup.check(asked, group.driver)
    group.set(asked)
    if group.driver.version == "v2":
        assert [w.split(" ")[-2] + " " + w.split(" ")[-1] for w in warnings] == [
            "swappiness discarded.",
            "OomKillDisable discarded.",
        ]
        return
    assert warnings == []
    assert group.read("memory", "memory.swappiness") == "7"
    assert group.read("memory", "memory.oom_control").splitlines()[0] == "oom_kill_disable 1"
    group.set(Limits(memory=128 * MIB))  # so that nothing is left waiting for memory


def test_real_time(make: Callable[..., Group]) -> None:
    group = make()
    asked = Limits(cpu_realtime_runtime=1000, cpu_realtime_period=100_000)
    if not group.driver.supports("realtime"):
        with pytest.raises(InvalidParameter, match="kernel does not support CPU real-time scheduler"):
            cgroup.check(asked, group.driver)
        return
    group.set(asked)
    assert group.read("cpu", "cpu.rt_runtime_us") == "1000"
    assert group.read("cpu", "cpu.rt_period_us") == "100000"
    second = make(asked)
    assert second.read("cpu", "cpu.rt_runtime_us") == "1000"


# --- The freezer


def counting(path: Path) -> Callable[[], None]:
    """A program that writes down, again and again, how far it has counted."""

    def count() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        for number in range(10**9):
            os.pwrite(fd, b"%12d" % number, 0)
            time.sleep(0.001)

    return count


def test_what_is_frozen_stands_still_and_goes_on_when_thawed(make: Callable[..., Group], tmp_path: Path) -> None:
    group = make()
    group.run(counting(tmp_path / "count"))
    eventually(lambda: (tmp_path / "count").exists(), what="a count")
    assert not group.driver.frozen(group.name)
    group.driver.freeze(group.name, patience(5))
    assert group.driver.frozen(group.name)
    stopped_at = (tmp_path / "count").read_text()
    time.sleep(0.05)
    assert (tmp_path / "count").read_text() == stopped_at
    group.driver.thaw(group.name)
    assert not group.driver.frozen(group.name)
    eventually(lambda: (tmp_path / "count").read_text() > stopped_at, what="going on")


def test_freezing_and_thawing_twice_is_fine(make: Callable[..., Group]) -> None:
    group = make()
    group.run(sleep)
    for _ in range(2):
        group.driver.freeze(group.name, patience(5))
    for _ in range(2):
        group.driver.thaw(group.name)
    assert not group.driver.frozen(group.name)


def test_a_frozen_group_is_killed_all_the_same(make: Callable[..., Group]) -> None:
    group = make()
    pid = group.run(sleep)
    group.driver.freeze(group.name, patience(5))
    group.kill()
    assert group.processes() == []
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_what_forks_without_end_is_frozen_too(make: Callable[..., Group]) -> None:
    def storm() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            if os.fork() == 0:
                os._exit(0)

    group = make(Limits(pids=200))
    for _ in range(4):
        group.run(storm)
    group.driver.freeze(group.name, patience(5))
    before = group.processes()
    time.sleep(0.02)
    assert group.processes() == before


def test_a_group_that_is_not_there_is_not_frozen(driver: CgroupDriver) -> None:
    with pytest.raises(FileNotFoundError):
        driver.freeze("sampan-test-no-such/group")
    driver.thaw("sampan-test-no-such/group")
    assert not driver.frozen("sampan-test-no-such/group")


# --- Killing


def test_kill_takes_all_and_waits(make: Callable[..., Group]) -> None:
    group = make()
    pids = [group.run(sleep) for _ in range(5)]
    group.wait_for(5)
    group.kill()
    assert group.processes() == []
    for pid in pids:
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_kill_takes_what_ignores_all_other_signals(make: Callable[..., Group]) -> None:
    def stubborn() -> None:
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGSTOP)
        sleep()

    group = make()
    group.run(stubborn)
    group.wait_for(1)
    group.kill()
    assert group.processes() == []


def bomb() -> None:
    while True:
        try:
            os.fork()
        except OSError:
            pass


def test_kill_ends_a_fork_bomb(make: Callable[..., Group]) -> None:
    group = make(Limits(pids=64))
    group.run(bomb)
    group.wait_for(32)
    begun = time.monotonic()
    group.kill()
    assert group.processes() == []
    assert time.monotonic() - begun < patience(5)


def test_kill_reaches_groups_that_the_container_made(make: Callable[..., Group]) -> None:
    group = make()
    pid = group.run(sleep)
    for hierarchy in group.driver.hierarchies(group.name):
        below = Path(hierarchy.directory) / "own" / "deeper"
        below.mkdir(parents=True)
        copy_cpuset(below)
        (below / "cgroup.procs").write_text(str(pid))
    assert group.processes() == [pid]
    group.kill()
    assert group.processes() == []


def copy_cpuset(below: Path) -> None:
    for knob in ("cpuset.cpus", "cpuset.mems"):
        for directory in (below.parent, below):
            if (directory / knob).exists() and (directory.parent / knob).exists():
                (directory / knob).write_text((directory.parent / knob).read_text())


def test_kill_reaches_a_process_that_left_one_hierarchy(make: Callable[..., Group]) -> None:
    group = make()
    pid = group.run(sleep)
    hierarchies = group.driver.hierarchies(group.name)
    if len(hierarchies) > 1:
        for hierarchy in hierarchies[1:]:
            (Path(hierarchy.mount) / "cgroup.procs").write_text(str(pid))
    group.wait_for(1)
    group.kill()
    assert group.processes() == []


def test_kill_reaches_a_paused_process(make: Callable[..., Group]) -> None:
    group = make()
    pid = group.run(sleep)
    group.wait_for(1)
    if group.driver.version == "v2":
        (group.path("freezer") / "cgroup.freeze").write_text("1")
    else:
        (group.path("freezer") / "freezer.state").write_text("FROZEN")
    group.kill()
    assert group.processes() == []
    assert os.waitpid(pid, 0)[0] == pid
    group._started.remove(pid)


def test_kill_of_what_is_not_there_does_nothing(driver: CgroupDriver) -> None:
    driver.kill("sampan-test-nothing/there")
    driver.remove("sampan-test-nothing/there")
    assert driver.processes("sampan-test-nothing/there") == []
    assert driver.oom_kills("sampan-test-nothing/there") == 0


# --- Removing


def test_remove_takes_groups_that_the_container_made(make: Callable[..., Group]) -> None:
    group = make()
    for hierarchy in group.driver.hierarchies(group.name):
        for name in ("one/two/three", "one/four", "five"):
            (Path(hierarchy.directory) / name).mkdir(parents=True)
    group.driver.remove(group.name)
    assert not [h for h in group.driver.hierarchies(group.name) if os.path.exists(h.directory)]
    group.driver.remove(group.name)


def test_remove_takes_a_tree_with_longer_paths_than_the_kernel_knows(make: Callable[..., Group]) -> None:
    group = make()
    fd = os.open(group.path("pids"), os.O_RDONLY)
    for _ in range(30):  # 30 * 200 bytes are more than PATH_MAX
        os.mkdir("n" * 200, dir_fd=fd)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert group.processes() == []
    group.driver.remove(group.name)
    assert not group.path("pids").exists()


def test_remove_of_a_group_in_use_fails_in_time_and_names_the_process(make: Callable[..., Group]) -> None:
    group = make()
    pid = group.run(sleep)
    group.wait_for(1)
    begun = time.monotonic()
    with pytest.raises(CgroupError) as failure:
        group.driver.remove(group.name, timeout=0.1)
    assert failure.value.errno == errno.EBUSY
    assert str(pid) in str(failure.value)
    assert time.monotonic() - begun < patience(2)


# --- Limits


def eat(amount: int) -> Callable[[], None]:
    def eat() -> None:
        block = bytearray(amount)
        for offset in range(0, amount, 4096):
            block[offset] = 1

    return eat


def test_memory_limit_kills_and_is_counted(make: Callable[..., Group]) -> None:
    group = make(Limits(memory=16 * MIB, memory_swap=16 * MIB))
    assert group.outcome(eat(8 * MIB)) == 0
    assert group.driver.oom_kills(group.name) == 0
    assert group.outcome(eat(64 * MIB)) == -signal.SIGKILL
    assert group.driver.oom_kills(group.name) == 1


def test_an_oom_kill_below_the_group_is_counted(make: Callable[..., Group]) -> None:
    group = make(Limits(memory=16 * MIB, memory_swap=16 * MIB))
    below = group.path("memory") / "own"
    below.mkdir()

    def move_and_eat() -> None:
        (below / "cgroup.procs").write_text("0")
        eat(64 * MIB)()

    assert group.outcome(move_and_eat) == -signal.SIGKILL
    assert group.driver.oom_kills(group.name) == 1


@pytest.mark.parametrize(
    ("swap", "v1", "v2"),
    [
        (0, 128 * MIB, 64 * MIB),  # twice the memory
        (64 * MIB, 64 * MIB, 0),  # no swap
        (100 * MIB, 100 * MIB, 36 * MIB),
        (-1, None, None),
    ],
)
def test_swap_limit_is_docker_s(make: Callable[..., Group], swap: int, v1: int | None, v2: int | None) -> None:
    group = make(Limits(memory=64 * MIB, memory_swap=swap))
    if group.driver.version == "v2":
        assert group.read("memory", "memory.max") == str(64 * MIB)
        assert group.read("memory", "memory.swap.max") == ("max" if v2 is None else str(v2))
    else:
        assert group.read("memory", "memory.limit_in_bytes") == str(64 * MIB)
        swap_limit = int(group.read("memory", "memory.memsw.limit_in_bytes"))
        assert swap_limit == v1 if v1 else swap_limit > 1 << 60


def test_memory_reservation(make: Callable[..., Group]) -> None:
    group = make(Limits(memory=64 * MIB, memory_reservation=32 * MIB))
    knob = "memory.low" if group.driver.version == "v2" else "memory.soft_limit_in_bytes"
    assert group.read("memory", knob) == str(32 * MIB)


def test_pids_limit(make: Callable[..., Group]) -> None:
    group = make(Limits(pids=2))

    def fork_twice() -> None:
        assert error_of(fork_sleeper) == 0
        assert error_of(fork_sleeper) == errno.EAGAIN

    assert group.outcome(fork_twice) == 0


def fork_sleeper() -> None:
    if os.fork() == 0:
        sleep()


def test_pids_limit_of_one_can_start(make: Callable[..., Group]) -> None:
    assert make(Limits(pids=1)).outcome(exits_with_error_of(fork_sleeper)) == errno.EAGAIN


def test_pids_unlimited(make: Callable[..., Group]) -> None:
    assert make(Limits(pids=-1)).read("pids", "pids.max") == "max"


def test_cpu_quota_holds(make: Callable[..., Group]) -> None:
    group = make(Limits(cpu_quota=10_000, cpu_period=100_000))

    def spin() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        # A tenth of 0.5 s; throttling is exact to a slice of 5 ms, and the start may fall into a period of its own.
        os._exit(0 if time.process_time() - begun < 0.25 else 1)

    begun = time.process_time()
    assert group.outcome(spin) == 0
    throttled = dict(line.split() for line in group.read("cpu", "cpu.stat").splitlines())
    assert int(throttled["nr_throttled"]) > 0


def test_cpu_knobs(make: Callable[..., Group]) -> None:
    group = make(Limits(cpu_quota=150_000, cpu_shares=512))
    if group.driver.version == "v2":
        assert group.read("cpu", "cpu.max") == "150000 100000"
        assert group.read("cpu", "cpu.weight") == "20"
    else:
        assert group.read("cpu", "cpu.cfs_quota_us") == "150000"
        assert group.read("cpu", "cpu.cfs_period_us") == "100000"
        assert group.read("cpu", "cpu.shares") == "512"


def test_no_limits_write_nothing(driver: CgroupDriver) -> None:
    assert driver.limits("sampan/x", Limits()) == []


def test_nothing_is_missing_on_this_machine(driver: CgroupDriver) -> None:
    everything = Limits(64 * MIB, -1, 32 * MIB, 512, 50_000, 100_000, 64, (DeviceRule(False, "a"),))
    assert cgroup.check(everything, driver) == []
