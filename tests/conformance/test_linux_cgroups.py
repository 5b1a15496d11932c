"""config-linux.md: control groups, every field of the resources, unified, IntelRdt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support import host
from support.conformance.runtime import Containers, cgroup2, group_directory
from support.patience import eventually

pytestmark = [pytest.mark.root]

MIB = 1 << 20


# Cgroups path


@pytest.mark.core
def test_l70_an_absolute_path(oci: Containers) -> None:
    """Cgroups path. "In the case of an absolute path (starting with `/`), the runtime MUST take the path to be relative to the
    cgroups mount point." """
    one = oci()
    one.create().ok()
    for controller in ("cpu", "memory", "pids"):
        assert str(one.pid) in (group_directory(controller, one.cgroup) / "cgroup.procs").read_text().split()


@pytest.mark.parametrize("form", ["absolute", "relative", "nested", "none"])
def test_l71_the_same_place_again(oci: Containers, form: str) -> None:
    """Cgroups path. "If the value is specified, the runtime MUST consistently attach to the same place in the cgroups hierarchy
    given the same value of `cgroupsPath`." """
    places = []
    for _ in range(2):
        one = oci()
        given = {
            "absolute": f"/{oci.cgroup}/same",
            "relative": f"{oci.cgroup}-relative/same",
            "nested": f"/{oci.cgroup}/a/b/c",
        }
        if form == "none":
            del one.linux["cgroupsPath"]
        else:
            one.linux["cgroupsPath"] = given[form]
        one.create().ok()
        lines = Path(f"/proc/{one.pid}/cgroup").read_text().splitlines()
        place = next(line for line in lines if ":pids:" in line or line.startswith("0::")).split(":")[2]
        one.delete("--force").ok()
        assert place.strip("/"), "it has a group of its own"
        places.append(place.replace(one.id, "ID"))
    assert places[0] == places[1]
    if form in ("absolute", "nested"):
        assert places[0] == given[form]
    if form == "relative":
        top = places[0].removesuffix(given[form])
        for group in host.cgroups(f"{top}{oci.cgroup}-relative".lstrip("/")):
            os.rmdir(group)


@pytest.mark.parametrize("given", ["../../up", "/../up", "a/../../up", "/"])
def test_l72_paths_that_lead_out(oci: Containers, given: str) -> None:
    """Cgroups path. "Runtimes MAY consider certain `cgroupsPath` values to be invalid, and MUST generate an error if this is the
    case": if it does not, the group is below the mount point and goes with the container."""
    one = oci()
    one.linux["cgroupsPath"] = given
    result = one.create()
    if result.code:
        result.fails()
        return
    lines = Path(f"/proc/{one.pid}/cgroup").read_text().splitlines()
    place = next(line for line in lines if ":pids:" in line or line.startswith("0::")).split(":")[2]
    one.delete("--force").ok()
    assert ".." not in place
    assert place == "/" or not group_directory("pids", place).exists()


def test_l73_groups_are_made(oci: Containers) -> None:
    """Cgroups path. "The cgroups will be created if they don't exist." """
    one = oci()
    one.linux["cgroupsPath"] = f"{one.cgroup}/deep/down"
    one.create().ok()
    assert (one.group("pids") / "deep/down").is_dir()
    one.delete("--force").ok()
    assert not (one.group("pids") / "deep/down").exists()
    for group in one.cgroups_left():
        os.rmdir(group)


def test_l74_a_frozen_group(oci: Containers) -> None:
    """Control groups. "A runtime MAY ... check if the container cgroup is fit for purpose, and MUST generate an error if such a
    check fails. For example, a frozen cgroup": it is refused and does not hang."""
    one = oci()
    group = one.group("freezer")
    group.mkdir(parents=True)
    file, frozen, thawed = ("cgroup.freeze", "1", "0") if cgroup2() else ("freezer.state", "FROZEN", "THAWED")
    (group / file).write_text(frozen)
    try:
        one.create().fails()
    finally:
        if group.exists():
            (group / file).write_text(thawed)
            eventually(lambda: not (group / "cgroup.procs").read_text(), what="the group to be empty")
            for left in one.cgroups_left():
                os.rmdir(left)


@pytest.mark.core
def test_l75_the_owner_of_the_group(oci: Containers) -> None:
    """Cgroup ownership. "Runtimes SHOULD NOT change the ownership of container cgroups when cgroups v1 is in use", and on v2 only
    of the files in `/sys/kernel/cgroup/delegate`, or "MUST fall back to using the following list of files"."""
    one = oci()
    one.in_user_namespace()
    one.namespace("cgroup")
    one.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev")
    one.create().ok()
    assert one.exec("true").code == 0
    group = one.group("pids")
    given = {path.name for path in group.iterdir() if path.is_file() and path.stat().st_uid != 0}
    if not cgroup2():
        assert group.stat().st_uid == 0
        assert not given
        return
    delegate = Path("/sys/kernel/cgroup/delegate")
    named = (
        delegate.read_text().split()
        if delegate.exists()
        else ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
    )
    assert group.stat().st_uid == 100_000
    assert given == {name for name in named if (group / name).exists()}


# Resources. Each: where it is in `linux.resources`, what is given; the file and its content on v1, and on v2.


def weight_of_shares(shares: int) -> str:
    """cgroup v2's weight: the range 2-262144 laid on 1-10000."""
    return str(1 + ((shares - 2) * 9999) // 262142)


FIELDS: dict[str, tuple[dict[str, Any], tuple[str, str] | None, tuple[str, str] | None]] = {
    "memory.limit": (
        {"memory": {"limit": 64 * MIB}},
        ("memory.limit_in_bytes", str(64 * MIB)),
        ("memory.max", str(64 * MIB)),
    ),
    "memory.limit -1": (
        {"memory": {"limit": -1}},
        ("memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
    ),
    "memory.reservation": (
        {"memory": {"reservation": 32 * MIB}},
        ("memory.soft_limit_in_bytes", str(32 * MIB)),
        ("memory.low", str(32 * MIB)),
    ),
    "memory.swap": (
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
        ("memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory.swap.max", str(32 * MIB)),
    ),
    "memory.swap -1": (
        {"memory": {"limit": 64 * MIB, "swap": -1}},
        ("memory.memsw.limit_in_bytes", "9223372036854771712"),
        ("memory.swap.max", "max"),
    ),
    "memory.kernelTCP": (
        {"memory": {"kernelTCP": 16 * MIB}},
        ("memory.kmem.tcp.limit_in_bytes", str(16 * MIB)),
        None,
    ),
    "memory.swappiness": ({"memory": {"swappiness": 7}}, ("memory.swappiness", "7"), None),
    "memory.disableOOMKiller": (
        {"memory": {"limit": 64 * MIB, "disableOOMKiller": True}},
        ("memory.oom_control", "oom_kill_disable 1"),
        None,
    ),
    "cpu.shares": ({"cpu": {"shares": 512}}, ("cpu.shares", "512"), ("cpu.weight", weight_of_shares(512))),
    "cpu.quota": (
        {"cpu": {"quota": 20000, "period": 50000}},
        ("cpu.cfs_quota_us", "20000"),
        ("cpu.max", "20000 50000"),
    ),
    "cpu.quota alone": ({"cpu": {"quota": 20000}}, ("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 100000")),
    "cpu.quota -1": ({"cpu": {"quota": -1}}, ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000")),
    "cpu.period": ({"cpu": {"period": 50000}}, ("cpu.cfs_period_us", "50000"), ("cpu.max", "max 50000")),
    "cpu.burst": (
        {"cpu": {"quota": 20000, "period": 50000, "burst": 10000}},
        ("cpu.cfs_burst_us", "10000"),
        ("cpu.max.burst", "10000"),
    ),
    "cpu.realtimePeriod": ({"cpu": {"realtimePeriod": 500000}}, ("cpu.rt_period_us", "500000"), None),
    "cpu.realtimeRuntime": ({"cpu": {"realtimeRuntime": 0}}, ("cpu.rt_runtime_us", "0"), None),
    "cpu.cpus": ({"cpu": {"cpus": "0"}}, ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    "cpu.mems": ({"cpu": {"mems": "0"}}, ("cpuset.mems", "0"), ("cpuset.mems", "0")),
    "cpu.idle": ({"cpu": {"idle": 1}}, ("cpu.idle", "1"), ("cpu.idle", "1")),
    "pids.limit": ({"pids": {"limit": 55}}, ("pids.max", "55"), ("pids.max", "55")),
    "pids.limit -1": ({"pids": {"limit": -1}}, ("pids.max", "max"), ("pids.max", "max")),
    "blockIO.weight": ({"blockIO": {"weight": 300}}, ("blkio.bfq.weight", "300"), ("io.bfq.weight", "default 300")),
    "blockIO.leafWeight": ({"blockIO": {"leafWeight": 300}}, ("blkio.leaf_weight", "300"), None),
    "network.classID": ({"network": {"classID": 0x100001}}, ("net_cls.classid", "1048577"), None),
    "network.priorities": (
        {"network": {"priorities": [{"name": "lo", "priority": 5}]}},
        ("net_prio.ifpriomap", "lo 5"),
        None,
    ),
}
DEVICE = {
    "weightDevice": ("blkio.bfq.weight_device", "io.bfq.weight", "weight", 250),
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps", "rate", 600_000),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps", "rate", 700_000),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops", "rate", 300),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops", "rate", 400),
}


def file_of(group: Path, name: str) -> Path:
    file = group / name
    if not file.exists():
        pytest.xfail(f"this kernel has no {name}")
    return file


def hierarchy_of(file: str) -> str:
    """The controller that a file is of: the first part of its name."""
    return file.partition(".")[0]


@pytest.mark.core
@pytest.mark.parametrize("field", FIELDS)
def test_l80_each_field_of_the_resources(oci: Containers, field: str) -> None:
    """Memory, CPU, PIDs, block IO, network. Each field of `resources` is in the file of the control group that it stands for."""
    given, v1, v2 = FIELDS[field]
    wanted = v2 if cgroup2() else v1
    if wanted is None:
        pytest.xfail("cgroup v2 has nothing of the kind")
    name, content = wanted
    if not cgroup2() and not (host.CGROUPS / hierarchy_of(name)).exists():
        pytest.xfail(f"this kernel has no {hierarchy_of(name)} controller")
    one = oci()
    one.linux["resources"].update(given)
    need_file(oci, name)
    one.create().ok()
    assert content in file_of(one.group(hierarchy_of(name)), name).read_text().splitlines()


def need_file(oci: Containers, name: str) -> None:
    """Say that the kernel has not the file, before the runtime fails for it."""
    group = group_directory(hierarchy_of(name), f"/{oci.cgroup}-probing")
    group.mkdir()
    try:
        there = (group / name).exists()
    finally:
        group.rmdir()
    if not there and not cgroup2():
        pytest.xfail(f"this kernel has no {name}")


@pytest.mark.parametrize("field", DEVICE)
def test_l81_block_io_by_device(oci: Containers, field: str) -> None:
    """Block IO. "`throttleReadBpsDevice`, `throttleWriteBpsDevice` (array of objects, OPTIONAL) - an array of per-device bandwidth
    rate limits", and so the rates of operations and the weights."""
    v1, v2, key, value = DEVICE[field]
    major, minor = host.whole_disk()
    one = oci()
    one.linux["resources"]["blockIO"] = {field: [{"major": major, "minor": minor, key: value}]}
    if cgroup2():
        one.create().ok()
        file = file_of(one.group("io"), v2 if v2.startswith("io.") else "io.max")
        wanted = f"{major}:{minor} {value}" if v2.startswith("io.") else f"{v2}={value}"
        assert wanted in file.read_text()
        return
    need_file(oci, v1)
    result = one.create()
    if field == "weightDevice" and result.code and "bfq" in result.err:
        pytest.xfail("the disk of this machine has another scheduler than bfq, which alone knows weights by device")
    result.ok()
    assert f"{major}:{minor} {value}" in (one.group("blkio") / v1).read_text().splitlines()


def test_l82_a_weight_device_has_a_weight(oci: Containers) -> None:
    """Block IO. "You MUST specify at least one of `weight` or `leafWeight` in a given entry, and MAY specify both." """
    one = oci()
    major, minor = host.whole_disk()
    one.linux["resources"]["blockIO"] = {"weightDevice": [{"major": major, "minor": minor}]}
    one.never_created()


def test_l83_kernel_memory_is_taken(oci: Containers) -> None:
    """Memory. "`kernel` (int64, OPTIONAL, NOT RECOMMENDED) - sets hard limit for kernel memory": kernels have given it up; to ask
    for it is no error of the configuration."""
    one = oci()
    one.linux["resources"]["memory"] = {"kernel": 32 * MIB}
    one.create().ok()


@pytest.mark.parametrize("field", ["useHierarchy", "checkBeforeUpdate"])
def test_l84_hierarchy_and_check(oci: Containers, field: str) -> None:
    """Memory. "`useHierarchy` (bool, OPTIONAL)", "`checkBeforeUpdate` (bool, OPTIONAL)" """
    one = oci()
    one.linux["resources"]["memory"] = {"limit": 64 * MIB, field: True}
    one.create().ok()
    if field == "useHierarchy" and not cgroup2():
        assert one.setting("memory", "memory.use_hierarchy") == "1"


def test_l85_a_limit_below_what_is_used(oci: Containers) -> None:
    """Memory. "If enabled (`true`), runtime MAY check if a new memory limit is lower than the current usage, and MUST reject the
    new limit." """
    one = oci()
    one.linux["resources"]["memory"] = {"limit": 256 * MIB, "checkBeforeUpdate": True}
    one.script("dd if=/dev/zero of=/dev/shm/x bs=1M count=48 2> /dev/null; exec probe hold")
    one.up()
    eventually(lambda: "holding" in one.out)
    update = json.dumps({"memory": {"limit": 16 * MIB, "checkBeforeUpdate": True}})
    one.runtime("update", "--resources", "-", one.id, input=update).fails()
    assert one.status == "running"


@pytest.mark.parametrize("given", [{"quota": 10000, "burst": 20000}, {"quota": 10000, "period": 10, "burst": 0}])
def test_l86_a_burst_above_the_quota(oci: Containers, given: dict[str, int]) -> None:
    """CPU. "If specified, this value MUST be no larger than any positive `quota` (runtimes MAY generate an error)": what the
    kernel does not take is an error."""
    one = oci()
    one.linux["resources"]["cpu"] = given
    one.never_created()


@pytest.mark.parametrize("given", [{"cpus": "99"}, {"cpus": "x"}, {"mems": "77"}, {"shares": -1}, {"idle": 5}])
def test_l87_values_that_no_kernel_takes(oci: Containers, given: dict[str, Any]) -> None:
    """Valid values. "Runtimes MUST generate an error when invalid or unsupported values are encountered": for the processor."""
    one = oci()
    one.linux["resources"]["cpu"] = given
    one.never_created()


def test_l88_huge_pages(oci: Containers) -> None:
    """Huge page limits. "`limit` (uint64, REQUIRED) - limit in bytes of hugepagesize HugeTLB reservations (if supported) or
    usage." """
    size = host.huge_page_size()
    unified = host.CGROUPS if cgroup2() else host.CGROUPS / "unified"
    v1 = host.CGROUPS / "hugetlb"
    if not v1.exists() and "hugetlb" not in (unified / "cgroup.controllers").read_text().split():
        pytest.xfail("this kernel has no hugetlb controller")
    one = oci()
    one.linux["resources"]["hugepageLimits"] = [{"pageSize": size, "limit": 8 * MIB}]
    one.create().ok()
    if v1.exists():
        group = v1 / one.cgroup.lstrip("/")
        names = [f"hugetlb.{size}.limit_in_bytes", f"hugetlb.{size}.rsvd.limit_in_bytes"]
    else:
        group = unified / one.cgroup.lstrip("/")
        names = [f"hugetlb.{size}.max", f"hugetlb.{size}.rsvd.max"]
    there = {name: (group / name).read_text().strip() for name in names if (group / name).exists()}
    assert there, f"{group} has no {names}"
    assert set(there.values()) == {str(8 * MIB)}


@pytest.mark.parametrize("size", ["3MB", "2mb", "2M", "", "x"])
def test_l89_a_page_size_of_no_kernel(oci: Containers, size: str) -> None:
    """Huge page limits. "The value has the format `<size><unit-prefix>B` (64KB, 2MB, 1GB), and must match the `<hugepagesize>` of
    the corresponding control file" """
    one = oci()
    one.linux["resources"]["hugepageLimits"] = [{"pageSize": size, "limit": 8 * MIB}]
    one.never_created()


def test_l90_the_limit_of_processes_holds(oci: Containers) -> None:
    """PIDs. "`limit` (int64, REQUIRED) - specifies the maximum number of tasks in the cgroup" """
    one = oci("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait")
    one.linux["resources"]["pids"] = {"limit": 5}
    one.up()
    one.wait()
    assert "fork" in one.err
    assert "Resource temporarily unavailable" in one.err


def test_l91_the_limit_of_memory_holds(oci: Containers) -> None:
    """Memory. "tasks that attempt to consume more memory than they are allowed are immediately killed by the OOM killer." """
    one = oci("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    one.linux["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    one.up()
    assert one.wait() == -9


def test_l92_a_group_of_rdma(oci: Containers) -> None:
    """RDMA. "You MUST specify at least one of the `hcaHandles` or `hcaObjects` in a given entry": a device that is not there, or
    a controller, is an error."""
    one = oci()
    one.linux["resources"]["rdma"] = {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}
    one.never_created()


# Unified


def need_unified() -> Path:
    for place in (host.CGROUPS, host.CGROUPS / "unified"):
        if (place / "cgroup.controllers").exists():
            return place
    pytest.xfail("this machine has no cgroup v2 hierarchy")


@pytest.mark.cgroup2
@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("memory.high", str(64 * MIB), str(64 * MIB)),
        ("pids.max", "66", "66"),
        ("cpu.weight", "77", "77"),
        ("cgroup.max.depth", "3", "3"),
        ("memory.oom.group", "1", "1"),
    ],
)
def test_l93_unified(oci: Containers, name: str, value: str, seen: str) -> None:
    """Unified. "The OCI runtime MUST ensure that the needed cgroup controllers are enabled for the cgroup." "Configuration unknown
    to the runtime MUST still be written to the relevant file." """
    if not cgroup2():
        pytest.xfail("on this machine all controllers but hugetlb are of cgroup v1")
    one = oci()
    one.linux["resources"]["unified"] = {name: value}
    one.create().ok()
    assert one.setting("", name) == seen


@pytest.mark.parametrize("name", ["nothing.max", "memory.no_such_file", "../cgroup.procs", "pids/max"])
def test_l94_unified_files_that_are_not_there(oci: Containers, name: str) -> None:
    """Unified. "The runtime MUST generate an error when the configuration refers to a cgroup controller that is not present or
    that cannot be enabled." """
    one = oci()
    one.linux["resources"]["unified"] = {name: "1"}
    one.never_created()


def test_l95_unified_where_the_controller_is_v1(oci: Containers) -> None:
    """Unified. "If the conversion is not possible the runtime MUST generate an error." """
    if cgroup2():
        pytest.xfail("all controllers of this machine are of cgroup v2")
    one = oci()
    one.linux["resources"]["unified"] = {"memory.high": str(64 * MIB)}
    one.never_created()


# IntelRdt


def test_l96_no_resctrl(oci: Containers) -> None:
    """IntelRdt. "If no mounted `resctrl` pseudo-filesystem is available in the runtime mount namespace, the runtime MUST generate
    an error." """
    if " resctrl " in Path("/proc/self/mounts").read_text():
        pytest.xfail("resctrl is mounted here")
    one = oci()
    one.linux["intelRdt"] = {"closID": "group", "l3CacheSchema": "L3:0=f"}
    one.never_created()


@pytest.mark.parametrize("what", ["tasks", "schemata", "combined", "closID made", "closID there", "container's id"])
def test_l97_resctrl(oci: Containers, what: str) -> None:
    """IntelRdt. "If `intelRdt` is set, the runtime MUST write the container process ID to the `tasks` file in a proper sub-directory
    in a mounted `resctrl` pseudo-filesystem", and the rules for `closID` and `schemata`."""
    if "resctrl" not in Path("/proc/filesystems").read_text():
        pytest.xfail("this processor has no resource director, and the kernel no resctrl")
    root = Path("/sys/fs/resctrl")
    assert (root / "schemata").exists(), "mount -t resctrl resctrl /sys/fs/resctrl"
    current = (root / "schemata").read_text()
    one = oci()
    rdt: dict[str, str] = {} if what == "container's id" else {"closID": "conformance"}
    if what in ("schemata", "combined"):
        rdt["l3CacheSchema"] = next(line.strip() for line in current.splitlines() if "L3" in line)
    if what == "combined":
        rdt["memBwSchema"] = next(line.strip() for line in current.splitlines() if "MB" in line)
    if what == "closID there":
        (root / "conformance").mkdir()
    one.linux["intelRdt"] = rdt
    if what == "closID made":
        one.never_created()  # without a schema it has to be there
        return
    one.create().ok()
    group = root / rdt.get("closID", one.id)
    assert str(one.pid) in (group / "tasks").read_text().split()
    for schema in (rdt.get("l3CacheSchema"), rdt.get("memBwSchema")):
        assert schema is None or schema in (group / "schemata").read_text()


def test_l98_no_intel_rdt(oci: Containers) -> None:
    """IntelRdt. "If `intelRdt` is not set, the runtime MUST NOT manipulate any `resctrl` pseudo-filesystems." """
    root = Path("/sys/fs/resctrl")
    before = sorted(os.listdir(root)) if root.exists() else None
    oci().run().ok()
    assert (sorted(os.listdir(root)) if root.exists() else None) == before
