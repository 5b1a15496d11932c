"""Choosing a cgroup driver and what it plans, on trees of plain files; and its errors on the real kernel."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter, Unavailable
from sampan.kernel import cgroup, cgroupfs
from sampan.kernel.cgroup import CgroupError, DeviceRule, Limits, Write
from sampan.kernel.cgroup1 import Hybrid, Version1
from sampan.kernel.cgroup2 import Version2, weight

from support.groups import Group
from support.patience import patience

KNOBS = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
    "cpu": ("cpu.shares", "cpu.cfs_quota_us"),
    "devices": ("devices.deny", "devices.allow"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "freezer": (),
    "pids": (),
    "systemd": (),
}


def plant(root: Path, *hierarchies: str, unified: str | None = None) -> str:
    """A tree that looks like /sys/fs/cgroup."""
    root.mkdir(exist_ok=True)
    for name in hierarchies:
        (root / name).mkdir()
        for knob in ("cgroup.procs", *(k for c in name.split(",") for k in KNOBS.get(c, ()))):
            (root / name / knob).write_text("0-3\n" if knob.startswith("cpuset") else "")
    if unified is not None:
        (root / unified).mkdir(exist_ok=True)
        (root / unified / "cgroup.procs").write_text("")
        (root / unified / "cgroup.subtree_control").write_text("")
        (root / unified / "cgroup.controllers").write_text("cpu memory pids\n")
    return str(root)


# --- Which one


def test_version_2_alone(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, unified=""))
    assert isinstance(driver, Version2)
    assert driver.controllers == {"cpu", "memory", "pids"}
    assert [(h.name, h.directory) for h in driver.hierarchies("sampan/x")] == [("", f"{tmp_path}/sampan/x")]


def test_version_1_with_joined_controllers_and_links(tmp_path: Path) -> None:
    root = plant(tmp_path, "pids", "cpu,cpuacct", "memory", "systemd")
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "not-mounted").mkdir()
    (tmp_path / "release_agent").write_text("")
    driver = cgroup.detect(root)
    assert driver.version == "v1"
    assert driver.controllers == {"cpu", "cpuacct", "memory", "pids"}
    assert driver.links == (("cpu", "cpu,cpuacct"),)
    assert [h.name for h in driver.hierarchies("x")] == ["cpu,cpuacct", "memory", "systemd", "pids"]
    assert driver.limits("x", Limits(cpu_shares=8)) == [Write(f"{root}/cpu,cpuacct/x/cpu.shares", "8")]


def test_hybrid(tmp_path: Path) -> None:
    root = plant(tmp_path, "pids", "memory", unified="unified")
    driver = cgroup.detect(root)
    assert isinstance(driver, Hybrid)
    assert [h.name for h in driver.hierarchies("x")] == ["memory", "pids", "unified"]
    assert driver.clone_directory("x") == f"{root}/unified/x"
    assert cgroup.by_version("hybrid", root).version == "hybrid"
    assert cgroup.by_version("v1", root).clone_directory("x") is None


def test_hybrid_with_controllers_on_both_sides(tmp_path: Path) -> None:
    root = plant(tmp_path, "pids", unified="unified")
    (tmp_path / "unified/cgroup.controllers").write_text("memory\n")
    assert cgroup.detect(root).limits("x", Limits(memory=1 << 30, memory_swap=-1, pids=5)) == [
        Write(f"{root}/pids/x/pids.max", "5"),
        Write(f"{root}/unified/x/memory.max", str(1 << 30)),
        Write(f"{root}/unified/x/memory.swap.max", "max"),
    ]


def test_another_version_than_the_mounted_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cgroup v1 is not what is mounted here \(that is v2\)"):
        cgroup.by_version("v1", plant(tmp_path, unified=""))


def test_mounts_at_unusual_places_are_found_by_the_list_of_mounts(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 0:20 / /proc rw - proc proc rw\n"
        "30 1 0:30 / /cgroup\\040s/mem rw,nosuid shared:5 - cgroup cgroup rw,memory\n"
        "31 1 0:31 / /dev/cpuctl rw - cgroup none rw,cpu,cpuacct\n"
        "32 1 0:32 / /run/sd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "33 1 0:31 / /somewhere/else rw - cgroup none rw,cpu,cpuacct\n"
    )
    driver = cgroup.mounted(str(tmp_path / "nothing"), str(mountinfo))
    assert {h.name: h.mount for h in driver.hierarchies("")} == {
        "memory": "/cgroup s/mem",
        "cpu,cpuacct": "/dev/cpuctl",
        "systemd": "/run/sd",
    }
    mountinfo.write_text("30 1 0:30 / /mnt/cg rw - cgroup2 none rw\n")
    assert cgroup.mounted(str(tmp_path / "nothing"), str(mountinfo)).hierarchies("")[0].mount == "/mnt/cg"


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("22 1 0:20 / /proc rw - proc proc rw\n")
    absent = cgroup.detect(str(tmp_path / "nothing"), str(tmp_path / "mountinfo"))
    assert (absent.version, absent.live("x").processes(), absent.directories("x")) == ("none", [], [])
    assert absent.reason.startswith("no cgroup hierarchy is mounted: mount one")
    (warning,) = cgroup.check(Limits(), absent)
    assert "without limits" in warning
    with pytest.raises(Unavailable, match=r"limits \(memory, pids\) cannot be set: no cgroup hierarchy is mounted"):
        cgroup.check(Limits(memory=1 << 30, pids=5), absent)
    with pytest.raises(Unavailable, match="cannot be paused: no cgroup hierarchy"):
        absent.freeze("x")


def test_this_machine_s_own_mounts_come_to_the_same_both_ways() -> None:
    usual, searched = cgroup.detect(), cgroup.detect("/nowhere")
    assert searched.version == usual.version
    assert {h.name for h in searched.hierarchies("")} == {h.name for h in usual.hierarchies("")}


@pytest.mark.parametrize(
    ("parent", "group"),
    [
        ("", "sampan/id"),
        ("/", "id"),
        ("/x", "x/id"),
        ("x/y/", "x/y/id"),
        ("/a/./b//c", "a/b/c/id"),
        ("/../../etc", "etc/id"),
        ("a/../../b", "b/id"),
    ],
)
def test_a_parent_never_leads_out_of_the_hierarchy(parent: str, group: str) -> None:
    assert cgroup.group_name("id", parent) == group


# --- What is planned


def test_memory_before_swap_and_period_before_quota(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, "memory", "cpu"))
    plan = driver.limits("x", Limits(memory=64, memory_swap=128, cpu_quota=50, cpu_period=100))
    assert [os.path.basename(w.path) for w in plan] == [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "cpu.cfs_period_us",
        "cpu.cfs_quota_us",
    ]


def test_swap_that_was_not_asked_for_may_be_missing_and_asked_for_may_not(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, "memory"))
    assert [w.required for w in driver.limits("x", Limits(memory=64))] == [True, False]
    assert [w.required for w in driver.limits("x", Limits(memory=64, memory_swap=80))] == [True, True]


def test_an_empty_cpuset_gets_what_the_nearest_group_above_has(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, "cpuset"))
    top = f"{tmp_path}/cpuset"
    assert [(w.path, w.value) for w in driver.prepare("a/b")] == [
        *((f"{top}/{level}/{knob}", "0-3") for knob in ("cpuset.cpus", "cpuset.mems") for level in ("a", "a/b")),
        (f"{top}/a/cgroup.clone_children", "1"),
    ]
    (tmp_path / "cpuset/a").mkdir()
    (tmp_path / "cpuset/a/cgroup.clone_children").write_text("0\n")
    (tmp_path / "cpuset/a/cpuset.cpus").write_text("2\n")
    (tmp_path / "cpuset/a/cpuset.mems").write_text("\n")
    assert [(w.path, w.value) for w in driver.prepare("a/b")] == [
        (f"{top}/a/b/cpuset.cpus", "2"),
        (f"{top}/a/cpuset.mems", "0-3"),
        (f"{top}/a/b/cpuset.mems", "0-3"),
    ]


def test_groups_of_others_are_not_told_to_hand_their_cpuset_down(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, "cpuset"))
    for parent, told in (("sampan", True), ("theirs", False)):
        directory = tmp_path / "cpuset" / parent
        directory.mkdir()
        (directory / "cgroup.clone_children").write_text("0\n")
        paths = [w.path for w in driver.prepare(f"{parent}/x")]
        assert (f"{directory}/cgroup.clone_children" in paths) is told
        (directory / "cgroup.clone_children").write_text("1\n")
        assert f"{directory}/cgroup.clone_children" not in [w.path for w in driver.prepare(f"{parent}/x")]


@pytest.mark.root
def test_a_cpuset_is_filled_by_the_kernel_and_else_by_us_and_never_over_what_it_has() -> None:
    driver = cgroup.mounted()
    parent = f"sampan-test-{os.getpid()}-cpuset"
    mount = next((h.mount for h in driver.hierarchies("") if "cpuset" in h.name.split(",")), "")
    if not mount:
        assert not [w for w in driver.prepare(f"{parent}/first") if "cpuset." in w.path], "v2 hands down by itself"
        return

    def filled(name: str, by_us: str) -> str:
        writes = [w for w in driver.prepare(f"{parent}/{name}") if w.path.startswith(f"{mount}/")]
        leaf = Path(mount, parent, name)
        cgroup.make_directory(str(leaf))
        empty = not (leaf / "cpuset.cpus").read_text().strip()
        assert empty is bool(by_us), name
        if name == "narrow":
            (leaf / "cpuset.cpus").write_text("0")
        for write in writes:
            cgroup.apply(write)
        assert (leaf / "cpuset.mems").read_text() == Path(mount, "cpuset.mems").read_text()
        return (leaf / "cpuset.cpus").read_text()

    everything = Path(mount, "cpuset.cpus").read_text()
    try:
        assert filled("first", by_us="its parent is new") == everything
        assert filled("second", by_us="") == everything
        Path(mount, parent, "cgroup.clone_children").write_text("0")
        assert filled("third", by_us="somebody has changed it") == everything
        assert filled("narrow", by_us="before us") == "0\n"
    finally:
        cgroupfs.remove_tree(f"{mount}/{parent}", time.monotonic() + patience(5))


def test_controllers_are_enabled_from_the_root_down_where_they_are_not(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, unified=""))
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    plan = [(w.path.removeprefix(f"{tmp_path}/"), w.value) for w in driver.prepare("a/b/c")]
    assert plan == [
        ("cgroup.subtree_control", "+pids"),
        ("a/cgroup.subtree_control", "+cpu +memory +pids"),
        ("a/b/cgroup.subtree_control", "+cpu +memory +pids"),
    ]
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/cgroup.subtree_control").write_text("cpu memory pids\n")
    assert driver.prepare("a/b/c") == []


def test_a_group_with_processes_is_not_made_a_threaded_one(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, unified=""))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/cgroup.type").write_text("domain\n")
    (tmp_path / "a/cgroup.procs").write_text("1\n")
    assert [w.path for w in driver.prepare("a/b")] == [f"{tmp_path}/cgroup.subtree_control"]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [(1, 1), (2, 1), (1024, 39), (262144, 10000), (999999, 10000)],
)
def test_shares_become_weights_as_runc_has_it(shares: int, expected: int) -> None:
    assert weight(shares) == expected


# --- What cannot be had


ASKED = {
    "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
    "Limitation discarded.": Limits(memory=1 << 30),
    "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. "
    "Limitation discarded.": Limits(memory_reservation=1 << 30),
    "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.": Limits(
        pids=5
    ),
    "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.": Limits(cpu_shares=5),
    "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.": Limits(cpu_quota=5000),
}


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize(("warning", "limits"), ASKED.items())
def test_a_missing_controller_is_warned_of_in_docker_s_words_and_left_out(
    tmp_path: Path, kind: str, warning: str, limits: Limits
) -> None:
    root = plant(tmp_path, *(["systemd"] if kind == "v1" else []), unified="" if kind == "v2" else None)
    if kind == "v2":
        (tmp_path / "cgroup.controllers").write_text("io\n")
    driver = cgroup.detect(root)
    assert cgroup.check(limits, driver) == [warning]
    assert driver.limits("x", limits) == []
    assert cgroup.check(Limits(), driver) == []


def test_swap_that_is_not_counted(tmp_path: Path) -> None:
    root = plant(tmp_path, "memory")
    (tmp_path / "memory/memory.memsw.limit_in_bytes").unlink()
    driver = cgroup.detect(root)
    warning = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
    assert cgroup.check(Limits(memory=64), driver) == [warning]
    assert cgroup.check(Limits(memory=64, memory_swap=80), driver) == [warning]
    assert cgroup.check(Limits(memory=64, memory_swap=-1), driver) == []
    assert driver.limits("x", Limits(memory=64, memory_swap=80)) == [
        Write(f"{root}/memory/x/memory.limit_in_bytes", "64")
    ]


def test_swap_on_version_2_is_seen_in_a_group(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, unified=""))
    assert driver.supports("swap") == os.path.exists("/proc/swaps")
    (tmp_path / "sampan").mkdir()
    (tmp_path / "sampan/memory.max").write_text("max")
    assert not driver.supports("swap")
    (tmp_path / "sampan/memory.swap.max").write_text("max")
    assert driver.supports("swap")


def test_rules_on_devices_are_not_left_out(tmp_path: Path) -> None:
    driver = cgroup.detect(plant(tmp_path, "memory"))
    with pytest.raises(Unavailable, match="the devices cgroup is not mounted"):
        cgroup.check(Limits(devices=(DeviceRule(False, "a"),)), driver)
    privileged = Limits(devices=(DeviceRule(False, "a"), DeviceRule(True, "a")))
    assert cgroup.check(privileged, driver) == []
    assert driver.limits("x", privileged) == []
    hybrid = cgroup.detect(plant(tmp_path, unified="unified"))
    assert cgroup.check(Limits(devices=(DeviceRule(False, "a"),)), hybrid) == []
    assert hybrid.device_program("x") == f"{tmp_path}/unified/x"


@pytest.mark.parametrize(
    ("shares", "word"), [(1, "minimum allowed cpu-shares is 2"), (1 << 20, "maximum allowed cpu-shares is 262144")]
)
def test_shares_out_of_range(tmp_path: Path, shares: int, word: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^the {word}$"):
        cgroup.check(Limits(cpu_shares=shares), cgroup.detect(plant(tmp_path / "one", "cpu")))
    assert cgroup.check(Limits(cpu_shares=shares), cgroup.detect(plant(tmp_path / "two", unified=""))) == []


def test_only_some_errors_are_passed_over_and_only_when_not_required(tmp_path: Path) -> None:
    missing = str(tmp_path / "knob")
    assert cgroup.apply(Write(missing, "1", required=False)) == errno.ENOENT
    with pytest.raises(CgroupError) as failure:
        cgroup.apply(Write(missing, "1"))
    assert failure.value.errno == errno.ENOENT
    assert failure.value.filename == missing
    assert "write '1' to" in str(failure.value)
    with pytest.raises(CgroupError):
        cgroup.apply(Write(str(tmp_path), "1", required=False))  # EISDIR is a mistake of ours


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        ({"cgroup.procs": "17\n"}, "the controller is not enabled in {parent}/cgroup.subtree_control"),  # the root
        ({"cgroup.procs": "0\n", "cgroup.type": "domain\n"}, "{parent} holds processes of its own"),
        ({"cgroup.procs": "17\n", "cgroup.type": "domain\n"}, "{parent} holds processes of its own"),
        ({"cgroup.type": "domain threaded\n"}, "{parent} is a threaded cgroup"),
        ({"cgroup.type": "domain\n"}, "the controller is not enabled in {parent}/cgroup.subtree_control"),
    ],
)
def test_advice_on_a_knob_that_is_not_there(tmp_path: Path, files: dict[str, str], advice: str) -> None:
    for name, text in {
        "cgroup.controllers": "memory",
        "cgroup.procs": "",
        "cgroup.subtree_control": "",
        **files,
    }.items():
        (tmp_path / name).write_text(text)
    found = cgroupfs.advice(errno.ENOENT, f"{tmp_path}/group/memory.max")
    assert found.startswith(advice.format(parent=tmp_path))


# --- On the real kernel


@pytest.mark.root
@pytest.mark.core
def test_cgroups_that_are_mounted_read_only() -> None:
    # As inside a container: a bind mount of each hierarchy, read-only.
    mount = cgroup.detect().hierarchies("")[0].mount
    program = (
        "from sampan.kernel import cgroup\n"
        "print(cgroup.detect().reason)\n"
        "driver = cgroup.mounted()\n"
        "try: cgroup.make_directory(driver.directories('sampan-test-read-only')[0])\n"
        "except cgroup.CgroupError as e: print(e)\n"
    )
    shell = f'mount --bind {mount} {mount} && mount -o remount,ro,bind {mount} && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, sys.executable, program],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=True,
    )
    unavailable, failed = done.stdout.splitlines()
    assert unavailable.startswith(f"cgroups cannot be made in {mount}: ")
    assert failed.startswith("mkdir ")
    assert "Read-only file system (cgroups are mounted read-only here" in failed


def bomb() -> None:
    while True:
        try:
            os.fork()
        except OSError:
            pass


@pytest.mark.root
def test_a_fork_bomb_ends_without_a_freezer() -> None:
    mounts = {h.name: h.mount for h in cgroup.by_version("v1").hierarchies("") if h.name != "freezer"}
    group = Group(Version1(mounts), Limits(pids=32))
    try:
        group.run(bomb)
        group.wait_for(20)
        group.kill()
        assert group.processes() == []
    finally:
        group.delete()
