"""`update`: limits of containers that run, stand still or have ended, read back from the kernel; all of it or nothing; the restart policy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.kernel import cgroup
from sampan.steps.trace import Event

from support.command import Command
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

MIB = 1 << 20
SLEEP = ["sleep", "1000"]
V2 = cgroup.detect().version == "v2"


def knob(box: Container, controller: str, version1: str, version2: str) -> str:
    """A file of the container's cgroup, by its place on each version."""
    driver = cgroup.detect()
    for hierarchy in driver.hierarchies(cgroup.container_group(box.id, box.inspect()["HostConfig"])):
        if driver.version == "v2" or controller in hierarchy.name.split(","):
            return (Path(hierarchy.directory) / (version2 if driver.version == "v2" else version1)).read_text().strip()
    raise LookupError(controller)


def memory(box: Container) -> tuple[int, int]:
    """The limits of memory, and of memory and swap together, as the kernel has them; 0 for none."""
    limit = _number(knob(box, "memory", "memory.limit_in_bytes", "memory.max"))
    swap = _number(knob(box, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"))
    return limit, (limit + swap if V2 and swap >= 0 else swap)


def _number(text: str) -> int:
    return -1 if text == "max" or int(text) > 1 << 60 else int(text)


def quota(box: Container) -> tuple[int, int]:
    if V2:
        text, period = knob(box, "cpu", "", "cpu.max").split()
        return (-1 if text == "max" else int(text)), int(period)
    return int(knob(box, "cpu", "cpu.cfs_quota_us", "")), int(knob(box, "cpu", "cpu.cfs_period_us", ""))


def started(engine: sampan.Engine, **options: Any) -> Container:
    box = engine.containers.create("base", SLEEP, **options)
    box.start()
    return box


def config(box: Container, *fields: str) -> list[Any]:
    host = box.inspect()["HostConfig"]
    return [host[field] for field in fields]


# Limits


@pytest.mark.core
def test_memory_and_swap_up_and_down(engine: sampan.Engine) -> None:
    """In every direction, so that no order of the two files suits all of them."""
    box = started(engine, memory="64m", memory_swap="96m")
    for limit, swap in ((128, 256), (32, 48), (200, 200), (100, -1), (50, 60)):
        both = -1 if swap == -1 else swap * MIB
        assert box.update(memory=limit * MIB, memory_swap=both) == []
        assert memory(box) == (limit * MIB, both)
        assert config(box, "Memory", "MemorySwap") == [limit * MIB, both]
    # What is not named stays: also the sum, which v2 does not know as a sum.
    box.update(memory="40m")
    assert memory(box) == (40 * MIB, 60 * MIB)
    box.update(memory_swap="70m")
    assert memory(box) == (40 * MIB, 70 * MIB)


@pytest.mark.core
def test_processors_and_processes(engine: sampan.Engine) -> None:
    box = started(engine, cpu_period=50_000, cpu_quota=20_000, pids_limit=50)
    for period, share in ((100_000, 90_000), (20_000, 10_000), (200_000, 10_000), (20_000, 15_000)):
        box.update(cpu_period=period, cpu_quota=share, cpu_shares=512, cpuset_cpus="0", cpuset_mems="0", pids_limit=77)
        assert quota(box) == (share, period)
    assert knob(box, "cpu", "cpu.shares", "cpu.weight") in ("512", "20")
    assert knob(box, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert knob(box, "cpuset", "cpuset.mems", "cpuset.mems") == "0"
    assert knob(box, "pids", "pids.max", "pids.max") == "77"
    box.update(pids_limit=-1, cpu_quota=-1)
    assert knob(box, "pids", "pids.max", "pids.max") == "max"
    assert quota(box) == (-1, 20_000)
    assert config(box, "PidsLimit", "CpuQuota", "CpuPeriod", "CpuShares") == [0, -1, 20_000, 512]
    fast = started(engine)
    fast.update(cpus=0.5)
    assert quota(fast) == (50_000, 100_000)
    assert config(fast, "NanoCpus", "CpuQuota") == [500_000_000, 0]


def test_real_time(engine: sampan.Engine) -> None:
    if not cgroup.detect().supports("realtime"):
        with pytest.raises(InvalidParameter, match="kernel does not support CPU real-time scheduler"):
            started(engine).update(cpu_rt_runtime=1000)
        return
    box = started(engine)
    for period, runtime in ((1_000_000, 2_000), (10_000, 100), (1_000_000, 20_000), (500_000, 4_000)):
        box.update(cpu_rt_period=period, cpu_rt_runtime=runtime)
        assert knob(box, "cpu", "cpu.rt_period_us", "") == str(period)
        assert knob(box, "cpu", "cpu.rt_runtime_us", "") == str(runtime)
    with pytest.raises(InvalidParameter, match="cpu real-time runtime cannot be higher than cpu real-time period"):
        box.update(cpu_rt_period=3_000)
    assert config(box, "CpuRealtimePeriod", "CpuRealtimeRuntime") == [500_000, 4_000]


@pytest.mark.core
def test_what_the_kernel_refuses_leaves_everything_as_it_was(engine: sampan.Engine) -> None:
    """The last limit is refused when the others are set already."""
    box = started(engine, memory="64m", memory_swap="96m", cpu_shares=512, pids_limit=50)
    before = box.inspect()["HostConfig"]
    kernel = (memory(box), knob(box, "cpu", "cpu.shares", "cpu.weight"), quota(box))
    refused = []

    def refuse(event: Event) -> None:
        """What a machine with other processes can do at any time: the limit cannot be set."""
        if "pids.max" in event.text and "back" not in event.text and not event.finished:
            refused.append(event.text)
            raise OSError(16, "Device or resource busy")

    engine.trace.observer = refuse
    try:
        with pytest.raises(System, match=f"Cannot update container {box.id}: "):
            box.update(memory="128m", memory_swap="256m", cpu_shares=100, cpu_quota=5000, pids_limit=9)
    finally:
        engine.trace.observer = None
    assert len(refused) == 1
    assert (memory(box), knob(box, "cpu", "cpu.shares", "cpu.weight"), quota(box)) == kernel
    assert knob(box, "pids", "pids.max", "pids.max") == "50"
    assert box.inspect()["HostConfig"] == before


def test_less_memory_than_is_used_is_refused_and_nothing_changes(engine: sampan.Engine) -> None:
    if V2:
        return  # there the kernel takes every limit, and kills
    box = engine.containers.create(
        "base", [], memory="64m", memory_swap="64m", cpu_shares=512,
        entrypoint=["sh", "-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo up; sleep 1000; echo $x"],
    )  # fmt: skip
    box.start()
    eventually(lambda: list(box.logs()), 30, "it has its memory")
    with pytest.raises(System, match=r"memory\.limit_in_bytes.*more memory than that is in use"):
        box.update(memory="8m", memory_swap="64m", cpu_shares=100)
    assert memory(box) == (64 * MIB, 64 * MIB)
    assert knob(box, "cpu", "cpu.shares", "") == "512"
    assert config(box, "Memory", "CpuShares") == [64 * MIB, 512]


def test_one_that_is_paused_and_one_that_does_not_run(engine: sampan.Engine) -> None:
    box = started(engine, memory="64m", memory_swap="96m")
    box.pause()
    box.update(memory="80m")
    assert (memory(box)[0], box.status) == (80 * MIB, "paused")
    box.unpause()
    box.stop(timeout=0)
    box.update(memory="90m", cpu_shares=300)
    fresh = engine.containers.create("base", SLEEP)
    fresh.update(memory="50m", memory_swap="60m")
    for one, limits in ((box, (90 * MIB, 96 * MIB)), (fresh, (50 * MIB, 60 * MIB))):
        one.start()
        assert memory(one) == limits
    assert knob(box, "cpu", "cpu.shares", "cpu.weight") in ("300", "12")


@pytest.mark.parametrize(
    ("made", "options", "text"),
    [
        ({}, {"memory": "1m"}, "Minimum memory limit allowed is 6MB"),
        ({}, {"memory": "100m"}, "Cannot update container {id}: Memory limit should be smaller than already set memoryswap limit, "
                                 "update the memoryswap at the same time"),
        ({"memory": "64m"}, {"memory_swap": "32m"}, "Cannot update container {id}: Minimum memoryswap limit should be larger than memory limit, see usage"),
        ({}, {"memory_reservation": "4m"}, "Minimum memory reservation allowed is 6MB"),
        ({"cpus": 0.5}, {"cpu_quota": 5000}, "Cannot update container {id}: Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"),
        ({"cpus": 0.5}, {"cpu_period": 5000}, "Cannot update container {id}: Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"),
        ({"cpu_quota": 5000}, {"cpus": 1}, "Cannot update container {id}: Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"cpu_period": 5000}, {"cpus": 1}, "Cannot update container {id}: Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"),
        ({}, {"cpus": 9999}, "range of CPUs is from 0.01 to"),
        ({}, {"cpuset_cpus": "4095"}, "Requested CPUs are not available - requested 4095, available: "),
        ({}, {"restart_policy": "often"}, "invalid restart policy: unknown policy 'often'"),
        ({"auto_remove": True}, {"restart_policy": "always"},
         "Cannot update container {id}: Restart policy cannot be updated because AutoRemove is enabled for the container"),
        ({}, {"shm_size": 5}, "option 'shm_size' cannot be changed"),
    ],
)  # fmt: skip
def test_what_is_refused(engine: sampan.Engine, made: dict[str, Any], options: dict[str, Any], text: str) -> None:
    box = engine.containers.create("base", SLEEP, **made)
    before = box.inspect()["HostConfig"]
    with pytest.raises(InvalidParameter) as caught:
        box.update(**options)
    assert str(caught.value).startswith(text.replace("{id}", box.id))
    assert box.inspect()["HostConfig"] == before


def test_one_that_cannot_be_updated(root: Root, engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP)
    (root.root / "containers" / box.id / "record.json").write_text("{")
    with pytest.raises(Conflict, match="its record cannot be read"):
        box.update(pids_limit=5)
    box.remove()
    with pytest.raises(NotFound):
        box.update(pids_limit=5)


# The restart policy


def test_a_policy_counts_from_the_next_end_on(engine: sampan.Engine) -> None:
    """The monitor that was started without a policy carries it out, and the one with a policy forgets it."""
    program = ["sh", "-c", "test -e /seen && exec sleep 1000; touch /seen; while ! test -e /go; do sleep 0.05; done"]
    box = engine.containers.create("base", program)
    box.start()
    box.update(restart_policy="on-failure:3")
    assert config(box, "RestartPolicy") == [{"Name": "on-failure", "MaximumRetryCount": 3}]
    box.update(restart_policy="always")
    box.exec(["touch", "/go"])
    eventually(lambda: box.inspect()["RestartCount"] == 1 and box.status == "running", what="it runs again")
    box.update(restart_policy="no")
    os.kill(box.inspect()["State"]["Pid"], 9)
    eventually(lambda: box.status == "exited", what="it stays ended")
    assert box.inspect()["RestartCount"] == 1


def test_while_it_rests_the_restart_that_is_due_is_made_and_the_next_is_not(engine: sampan.Engine) -> None:
    """As with Docker: the policy is asked when a program ends."""
    box = engine.containers.create("base", ["false"], restart_policy="always")
    box.start()
    eventually(lambda: box.status == "restarting" and box.inspect()["RestartCount"] >= 4, 30, "a long back-off")
    box.update(restart_policy="no", pids_limit=60)
    due = box.inspect()["RestartCount"]
    eventually(lambda: box.status == "exited", 30, "the last restart has ended")
    assert box.inspect()["RestartCount"] == due


def test_with_rm_only_no_policy_may_be_set(engine: sampan.Engine) -> None:
    box = started(engine, auto_remove=True)
    box.update(restart_policy="no")
    box.remove(force=True)


# The command line


def test_the_command(root: Root, cli: Command) -> None:
    for name in ("one", "two"):
        cli("run", "-d", "--name", name, "--network", "none", "base", *SLEEP).ok()
    done = cli("update", "-m", "64m", "--memory-swap", "-1", "--restart", "on-failure:2", "one", "nosuch", "two")
    assert (done.code, done.out, done.err) == (1, "one\ntwo\n", "Error: No such container: nosuch\n")
    for name in ("one", "two"):
        shown = cli(
            "inspect",
            "-f",
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
            name,
        )
        assert shown.ok().out == f"{64 * MIB} -1 2\n"
    events = cli(
        "events", "--since", "1m", "--until", "0s", "--filter", "event=update", "--format", "{{.Actor.Attributes.name}}"
    )
    assert events.ok().out.splitlines()[-2:] == ["one", "two"]
    assert cli("container", "update", "--cpus", "0.7", "two").ok().out == "two\n"
    warned = cli("update", "--kernel-memory", "50m", "two").ok()
    assert (
        warned.out == "two\nSpecifying a kernel memory limit is deprecated and will be removed in a future release.\n"
    )
    nothing = cli("update", "one")
    assert (nothing.code, nothing.err) == (1, "you must provide one or more flags when using this command\n")
    wrong = cli("update", "--restart", "on-failure:x", "one")
    assert (wrong.code, wrong.err.splitlines()[0]) == (
        1, "Error: invalid restart policy format: maximum retry count must be an integer",
    )  # fmt: skip
