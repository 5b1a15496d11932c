"""Every limit of a container, read back from inside or from the kernel's files; and what happens to a wrong one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan import jsontext
from sampan.engine.containers import Container
from sampan.errors import InvalidParameter, StartFailed
from sampan.kernel import cgroup

from support import host
from support.command import Command

pytestmark = pytest.mark.root


def knob(box: Container, version1: tuple[str, str], version2: str) -> str:
    """A file of the container's cgroup, by its place on each version."""
    group = cgroup.container_group(box.id, box.inspect()["HostConfig"])
    driver = cgroup.detect()
    for hierarchy in driver.hierarchies(group):
        if driver.version == "v2":
            return (Path(hierarchy.directory) / version2).read_text().strip()
        if version1[0] in hierarchy.name.split(","):
            return (Path(hierarchy.directory) / version1[1]).read_text().strip()
    raise LookupError(version1[0])


def started(engine: sampan.Engine, **options: Any) -> Container:
    box = engine.containers.create("base", ["sleep", "1000"], **options)
    box.start()
    return box


def said(engine: sampan.Engine, command: str, **options: Any) -> str:
    return engine.containers.run("base", ["sh", "-c", command], check=True, **options).stdout


# --- Control groups


@pytest.mark.core
def test_memory_and_processors(engine: sampan.Engine) -> None:
    box = started(
        engine,
        memory="64m",
        memory_reservation="32m",
        memory_swap="96m",
        cpu_shares=512,
        cpu_period=50_000,
        cpu_quota=20_000,
        cpuset_cpus="0",
        cpuset_mems="0",
        pids_limit=77,
    )
    assert knob(box, ("memory", "memory.limit_in_bytes"), "memory.max") == str(64 << 20)
    assert knob(box, ("memory", "memory.soft_limit_in_bytes"), "memory.low") == str(32 << 20)
    swap = knob(box, ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max")
    assert swap == str((96 if cgroup.detect().version != "v2" else 32) << 20)
    assert knob(box, ("cpu", "cpu.shares"), "cpu.weight") in ("512", "20")
    assert knob(box, ("cpu", "cpu.cfs_quota_us"), "cpu.max") in ("20000", "20000 50000")
    assert knob(box, ("cpuset", "cpuset.cpus"), "cpuset.cpus") == "0"
    assert knob(box, ("cpuset", "cpuset.mems"), "cpuset.mems") == "0"
    assert knob(box, ("pids", "pids.max"), "pids.max") == "77"
    assert box.exec(["nproc"]).stdout == "1\n"


def test_a_share_of_the_processors(engine: sampan.Engine) -> None:
    box = started(engine, cpus="0.25")
    assert knob(box, ("cpu", "cpu.cfs_quota_us"), "cpu.max") in ("25000", "25000 100000")
    if cgroup.detect().version != "v2":
        assert knob(box, ("cpu", "cpu.cfs_period_us"), "") == "100000"


def test_real_time(engine: sampan.Engine) -> None:
    if not cgroup.detect().supports("realtime"):  # no kernel has it on version 2
        with pytest.raises(InvalidParameter, match="kernel does not support CPU real-time scheduler"):
            engine.containers.create("base", cpu_rt_runtime=1000)
        return
    box = started(engine, cpu_rt_runtime=2000, cpu_rt_period=500_000)
    assert knob(box, ("cpu", "cpu.rt_runtime_us"), "") == "2000"
    assert knob(box, ("cpu", "cpu.rt_period_us"), "") == "500000"


def test_the_weight_of_the_disks(cli: Command, engine: sampan.Engine) -> None:
    name = cli("run", "-d", "--network", "none", "--blkio-weight", "300", "base", "sleep", "1000")
    if cgroup.detect().supports("block weight"):
        box = engine.containers.get(name.ok().out.strip())
        assert knob(box, ("blkio", "blkio.bfq.weight"), "io.bfq.weight").removeprefix("default ") == "300"
        assert name.err == ""
    else:
        assert (
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded." in name.err
        )


def test_what_only_cgroup_version_1_has(cli: Command) -> None:
    done = cli("run", "--rm", "--network", "none", "--memory-swappiness", "7", "--oom-kill-disable", "-m", "64m", "base",
               "sh", "-c", "cat /sys/fs/cgroup/memory/memory.swappiness /sys/fs/cgroup/memory/memory.oom_control")  # fmt: skip
    if cgroup.detect().version == "v2":
        assert "Memory swappiness discarded." in done.err
        assert "OomKillDisable discarded." in done.err
    else:
        assert done.ok().out.splitlines()[:2] == ["7", "oom_kill_disable 1"]
        assert done.err == ""


def test_the_warning_about_a_container_without_oom_killer_and_limit(cli: Command) -> None:
    if cgroup.detect().version == "v2":
        return  # there it is discarded, which the test above sees
    done = cli("create", "--network", "none", "--oom-kill-disable", "base")
    assert done.err.startswith("WARNING: OOM killer is disabled for the container, but no memory limit is set")


def test_kernel_memory_is_ignored_with_a_warning(cli: Command) -> None:
    done = cli("create", "--network", "none", "--kernel-memory", "10m", "base").ok()
    expected = "Specifying a kernel memory limit is deprecated and will be removed in a future release."
    assert done.err == f"WARNING: {expected}\n"
    assert "KernelMemory" not in cli("inspect", done.out.strip()).ok().out


@pytest.mark.core
def test_limits_of_a_disk(engine: sampan.Engine, tmp_path: Path) -> None:
    numbers = host.whole_disk()
    disk = f"{numbers[0]}:{numbers[1]}"
    node = tmp_path / "disk"
    os.mknod(node, 0o600 | 0o060000, os.makedev(*numbers))
    limit = {"Path": str(node), "Rate": 5 << 20}
    box = started(
        engine,
        device_read_bps=[limit],
        device_write_bps=[{"Path": str(node), "Rate": 6 << 20}],
        device_read_iops=[{"Path": str(node), "Rate": 50}],
        device_write_iops=[{"Path": str(node), "Rate": 60}],
    )
    assert knob(box, ("blkio", "blkio.throttle.read_bps_device"), "io.max").startswith(f"{disk} ")
    assert "5242880" in knob(box, ("blkio", "blkio.throttle.read_bps_device"), "io.max")
    assert "6291456" in knob(box, ("blkio", "blkio.throttle.write_bps_device"), "io.max")
    assert "50" in knob(box, ("blkio", "blkio.throttle.read_iops_device"), "io.max")
    assert "60" in knob(box, ("blkio", "blkio.throttle.write_iops_device"), "io.max")
    assert box.inspect()["HostConfig"]["BlkioDeviceReadBps"] == [limit]


def test_a_disk_that_is_not_there(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", device_read_bps=[{"Path": "/dev/nope", "Rate": 1}])
    with pytest.raises(InvalidParameter) as caught:
        box.start()
    assert str(caught.value) == "stat /dev/nope: no such file or directory"


def test_what_is_no_disk(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", device_write_bps=[{"Path": "/dev/null", "Rate": 1000}])
    with pytest.raises(StartFailed, match=r"no such device .*on a whole disk"):
        box.start()


@pytest.mark.core
def test_groups_of_groups(engine: sampan.Engine, root: Any) -> None:
    parent = f"/{root.cgroup_parent}/team/project"
    box = started(engine, cgroup_parent=parent, memory="64m", pids_limit=50, cpuset_cpus="0")
    assert knob(box, ("memory", "memory.limit_in_bytes"), "memory.max") == str(64 << 20)
    assert knob(box, ("pids", "pids.max"), "pids.max") == "50"
    assert knob(box, ("cpuset", "cpuset.cpus"), "cpuset.cpus") == "0"
    box.remove(force=True)
    for group in sorted(host.cgroups(root.cgroup_parent), key=len, reverse=True):
        if "/team" in str(group):
            os.rmdir(group)


# --- Devices


@pytest.mark.core
def test_a_device(engine: sampan.Engine, tmp_path: Path) -> None:
    node = tmp_path / "log"
    # The kernel's log: every kernel has it, everybody may open it for writing, and no container may by itself.
    os.mknod(node, 0o020640, os.makedev(1, 11))
    os.chown(node, 12, 34)
    os.chmod(node, 0o640)
    device = f"{node}:/opt/devices/log:w"
    shown = said(engine, "stat -c '%F %t:%T %a %u:%g' /opt/devices/log", devices=[device])
    assert shown == "character special file 1:b 640 12:34\n"
    assert said(engine, ": >> /opt/devices/log && echo written", devices=[device]) == "written\n"
    read = engine.containers.run("base", ["sh", "-c", ": < /opt/devices/log"], devices=[device])
    assert read.exit_code != 0
    assert "Operation not permitted" in read.stderr


def test_a_directory_of_devices_and_a_link_to_one(engine: sampan.Engine, tmp_path: Path) -> None:
    (tmp_path / "many/deep").mkdir(parents=True)
    os.mknod(tmp_path / "many/one", 0o020666, os.makedev(1, 3))
    os.mknod(tmp_path / "many/deep/two", 0o020666, os.makedev(1, 5))
    (tmp_path / "many/no-device").write_text("")
    (tmp_path / "link").symlink_to("many")
    for source in (tmp_path / "many", tmp_path / "link"):
        assert said(engine, "cd /dev/x && find . -type c | sort", devices=[f"{source}:/dev/x"]) == "./deep/two\n./one\n"
        assert said(engine, "ls /dev/x", devices=[f"{source}:/dev/x"]) == "deep\none\n"


@pytest.mark.parametrize(
    ("source", "reason"), [("/dev/sampan-none", "no such file or directory"), ("/etc", "not a device node")]
)
def test_what_is_no_device(cli: Command, source: str, reason: str) -> None:
    done = cli("run", "--rm", "--network", "none", "--device", source, "base", "true")
    assert done.code == 125
    expected = f'error gathering device information while adding custom device "{source}": {reason}'
    assert expected in done.err


@pytest.mark.core
def test_a_device_rule(engine: sampan.Engine) -> None:
    make = "mknod /m c 1 11 && : >> /m && echo may"
    assert engine.containers.run("base", ["sh", "-c", make]).exit_code != 0
    assert said(engine, make, device_cgroup_rules=["c 1:11 w"]) == "may\n"


# --- Processes


@pytest.mark.core
def test_ulimits_of_the_container_and_of_an_exec(engine: sampan.Engine) -> None:
    box = started(engine, ulimits=["nofile=60:80", "core=0", "nofile=50:70"])
    shown = box.exec(["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/1/limits"]).stdout
    assert shown.splitlines()[:3] == ["50", "70", "0"]
    line = next(line for line in shown.splitlines() if line.startswith("Max open files"))
    assert line.split()[3:5] == ["50", "70"]
    assert box.inspect()["HostConfig"]["Ulimits"] == [
        {"Name": "core", "Hard": 0, "Soft": 0},
        {"Name": "nofile", "Hard": 70, "Soft": 50},
    ]


def test_a_ulimit_holds_for_a_user_too(engine: sampan.Engine) -> None:
    assert said(engine, "ulimit -n", ulimits=["nofile=9"], user="1000") == "9\n"


def test_a_ulimit_that_cannot_be_raised_fails_the_start(cli: Command) -> None:
    done = cli("run", "--rm", "--network", "none", "--ulimit", f"nofile={1 << 40}", "base", "true")
    assert done.code == 125
    # With CAP_SYS_RESOURCE fs.nr_open is the limit, without it the hard limit of whoever starts the container.
    assert f"error setting ulimit nofile={1 << 40}:{1 << 40}: operation not permitted: " in done.err


@pytest.mark.core
def test_kernel_parameters(engine: sampan.Engine) -> None:
    values = {
        "net.ipv4.ip_forward": "1",
        "kernel.shmmax": "54321",
        "fs.mqueue.msg_max": "7",
        "net.ipv4.conf.lo.forwarding": "1",
    }
    shown = said(
        engine,
        "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmax fs/mqueue/msg_max net/ipv4/conf/lo/forwarding",
        sysctls=values,
    )
    assert shown.split() == ["1", "54321", "7", "1"]
    assert Path("/proc/sys/kernel/shmmax").read_text() != "54321\n"


def test_ping_and_low_ports_are_for_everybody_in_a_network_of_its_own(engine: sampan.Engine) -> None:
    show = "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range"
    assert said(engine, show).split() == ["0", "0", "2147483647"]
    own = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    assert said(engine, show, network="host").split()[0] == own.strip()
    assert said(engine, show, sysctls={"net.ipv4.ip_unprivileged_port_start": "500"}).split()[0] == "500"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sysctls": {"kernel.pid_max": "1"}}, 'sysctl "kernel.pid_max" is not in a separate kernel namespace'),
        ({"sysctls": {"net.../kernel/x": "1"}}, 'sysctl "net.../kernel/x" is not in a separate kernel namespace'),
        (
            {"sysctls": {"net.ipv4.ip_forward": "1"}, "network": "host"},
            'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
        ),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"mem_swappiness": 200}, "Invalid value: 200, valid memory swappiness range is 0-100"),
        ({"oom_score_adj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        (
            {"cpuset_cpus": "0-99999999"},
            "Invalid value 0-99999999 for cpuset cpus: value of out range, maximum is 8192",
        ),
        ({"cpuset_mems": "x"}, "Invalid value x for cpuset mems: invalid format: x"),
        ({"ulimits": ["nofile=10:5"]}, "ulimit soft limit must be less than or equal to hard limit: 10 > 5"),
        ({"device_cgroup_rules": ["c 1:3 x"]}, "invalid device cgroup format 'c 1:3 x'"),
        ({"devices": ["/dev/null:/dev/x:y"]}, "bad mode specified: y"),
        ({"memory": 1 << 64}, f"invalid value for HostConfig.Memory: {1 << 64} is not a number of 64 bits"),
        ({"cpu_quota": 5}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"cpu_rt_period": 5, "cpu_rt_runtime": 6}, "cpu real-time runtime cannot be higher than cpu real-time period"),
    ],
)
def test_what_no_container_can_have(engine: sampan.Engine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        engine.containers.create("base", **options)
    assert str(caught.value) == message


def test_a_processor_that_is_not_there(engine: sampan.Engine) -> None:
    with pytest.raises(InvalidParameter) as caught:
        engine.containers.create("base", cpuset_cpus="4000")
    available = cgroup.detect().cpuset()[0]
    assert str(caught.value) == f"Requested CPUs are not available - requested 4000, available: {available}"


def test_the_oom_score(engine: sampan.Engine) -> None:
    # Lowering it needs a capability that the machine may lack; raising it works everywhere.
    assert said(engine, "cat /proc/self/oom_score_adj", oom_score_adj=321) == "321\n"


def test_the_command_line_hands_everything_on(cli: Command) -> None:
    flags = [
        *(
            "--blkio-weight",
            "300",
            "--cpu-period",
            "20000",
            "--cpu-quota",
            "10000",
            "--cpuset-cpus",
            "0",
            "--cpuset-mems",
            "0",
        ),
        *("--device", "/dev/null:/dev/x:r", "--device-cgroup-rule", "c 1:1 r", "--ulimit", "nofile=5:6"),
        *(
            "--device-read-bps",
            "/dev/zero:1mb",
            "--device-write-bps",
            "/dev/zero:2mb",
            "--device-read-iops",
            "/dev/zero:3",
        ),
        *("--device-write-iops", "/dev/zero:4", "--blkio-weight-device", "/dev/zero:50", "--oom-score-adj", "9"),
        *("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.sem=1 2 3 4"),
    ]
    name = cli("create", "--network", "none", *flags, "base").ok().out.strip()

    shown = jsontext.loads(cli("inspect", name).ok().out)[0]["HostConfig"]
    expected = {
        "BlkioWeight": 300,
        "BlkioWeightDevice": [{"Path": "/dev/zero", "Weight": 50}],
        "BlkioDeviceReadBps": [{"Path": "/dev/zero", "Rate": 1 << 20}],
        "BlkioDeviceWriteBps": [{"Path": "/dev/zero", "Rate": 2 << 20}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/zero", "Rate": 3}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/zero", "Rate": 4}],
        "CpuPeriod": 20000,
        "CpuQuota": 10000,
        "CpusetCpus": "0",
        "CpusetMems": "0",
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
        "DeviceCgroupRules": ["c 1:1 r"],
        "Ulimits": [{"Name": "nofile", "Hard": 6, "Soft": 5}],
        "OomScoreAdj": 9,
        "Sysctls": {"net.ipv4.ip_forward": "1", "kernel.sem": "1 2 3 4"},
    }
    assert {field: shown[field] for field in expected} == expected


def test_memory_swappiness_in_the_words_of_the_command_line(cli: Command) -> None:
    done = cli("run", "--memory-swappiness", "101", "base")
    assert (done.code, "invalid value: 101. Valid memory swappiness range is 0-100" in done.err) == (125, True)
