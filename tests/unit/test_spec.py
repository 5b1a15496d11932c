"""A record -> its OCI configuration: Docker's words turned into the kernel's nouns. No root."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sampan.kernel import capabilities
from sampan.runtime import defaults, spec
from sampan.runtime.spec import environment, granted_capabilities, make_spec, merge_environment, no_new_privileges

ALL = list(capabilities.NAMES[: capabilities.last() + 1])
DEFAULT = list(defaults.CAPABILITIES)


def made(
    config: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
    files: dict[str, str] | None = None,
    version: str = "v2",
    joined: dict[str, str] | None = None,
    init: str = "",
) -> dict[str, Any]:
    record = {"id": "c", "path": "sh", "args": ["-c", "true"], "config": config or {}, "host_config": host or {}}
    return make_spec(record, files or {}, "sampan/c", version, joined, init)


def mount_at(result: dict[str, Any], destination: str) -> dict[str, Any]:
    found = [m for m in result["mounts"] if m["destination"] == destination]
    assert len(found) == 1, found
    return found[0]


# capabilities


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        ([], [], False, DEFAULT),
        (["CAP_SYS_ADMIN"], [], False, [*DEFAULT, "CAP_SYS_ADMIN"]),
        (["CAP_CHOWN"], [], False, DEFAULT),
        (["CAP_SYS_TIME", "CAP_SYS_TIME"], [], False, [*DEFAULT, "CAP_SYS_TIME"]),
        ([], ["CAP_CHOWN"], False, [c for c in DEFAULT if c != "CAP_CHOWN"]),
        ([], ["CAP_SYS_ADMIN"], False, DEFAULT),
        ([], ["ALL"], False, []),
        (["CAP_KILL"], ["ALL"], False, ["CAP_KILL"]),
        (["CAP_KILL"], ["CAP_KILL"], False, [c for c in DEFAULT if c != "CAP_KILL"] + ["CAP_KILL"]),
        (["ALL"], [], False, ALL),
        (["ALL"], ["CAP_SYS_ADMIN"], False, [c for c in ALL if c != "CAP_SYS_ADMIN"]),
        (["ALL", "CAP_SYS_ADMIN"], ["CAP_SYS_ADMIN"], False, [c for c in ALL if c != "CAP_SYS_ADMIN"]),
        (["ALL"], ["ALL"], False, ALL),
        ([], ["ALL"], True, ALL),
        (["CAP_KILL"], ["CAP_KILL"], True, ALL),
    ],
)
def test_capabilities_as_moby_grants_them(
    add: list[str], drop: list[str], privileged: bool, expected: list[str]
) -> None:
    assert granted_capabilities(add, drop, privileged) == expected


def test_the_default_set_is_dockers() -> None:
    assert set(DEFAULT) == {
        *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
        *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
        "CAP_AUDIT_WRITE",
    }


def test_the_sets_of_a_process_and_never_an_inheritable_one() -> None:
    sets = made(host={"CapDrop": ["ALL"], "CapAdd": ["CAP_KILL"]})["process"]["capabilities"]
    assert sets == {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, False),
        ([], False),
        (["no-new-privileges"], True),
        (["no-new-privileges=true"], True),
        (["no-new-privileges:true"], True),
        (["no-new-privileges=false"], False),
        (["no-new-privileges", "no-new-privileges=false"], False),
        (["seccomp=unconfined"], False),
    ],
)
def test_no_new_privileges(options: list[str] | None, expected: bool) -> None:
    assert no_new_privileges({"SecurityOpt": options}) is expected
    assert made(host={"SecurityOpt": options})["process"]["noNewPrivileges"] is expected


# the process


def test_a_process_with_nothing_said() -> None:
    assert made()["process"] == {
        "terminal": False,
        "consoleSize": {"height": 0, "width": 0},
        "user": {"username": "", "additionalGroups": []},
        "args": ["sh", "-c", "true"],
        "env": [f"PATH={defaults.PATH}", "HOSTNAME="],
        "cwd": "/",
        "capabilities": {"bounding": DEFAULT, "effective": DEFAULT, "permitted": DEFAULT},
        "noNewPrivileges": False,
        "oomScoreAdj": 0,
        "rlimits": [],
    }


def test_a_process_with_everything_said() -> None:
    config = {"Tty": True, "User": "web:www", "WorkingDir": "/srv", "Hostname": "box", "Env": ["A=1"]}
    host = {"ConsoleSize": [24, 80], "GroupAdd": ["audio"], "OomScoreAdj": 300}
    process = made(config, host, init="/sbin/tini")["process"]
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert process["user"] == {"username": "web:www", "additionalGroups": ["audio"]}
    assert process["args"] == ["/sbin/docker-init", "--", "sh", "-c", "true"]
    assert process["env"] == [f"PATH={defaults.PATH}", "HOSTNAME=box", "TERM=xterm", "A=1"]
    assert process["cwd"] == "/srv"
    assert process["oomScoreAdj"] == 300


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["A=1", "B=2"], ["PATH=p", "A=1", "B=2"]),
        (["PATH=mine"], ["PATH=mine"]),
        (["A=1", "A=2"], ["PATH=p", "A=2"]),
        (["A=", "B=x=y"], ["PATH=p", "A=", "B=x=y"]),
        # Without "=" a variable is taken away; nothing is ever looked up in our own environment (CVE-2026-57231).
        (["PATH"], []),
        (["HOME"], ["PATH=p"]),
        (["", "=x", "*", "$HOME", "A=$HOME"], ["PATH=p", "A=$HOME"]),
        (["A=1", "A"], ["PATH=p"]),
        (["A=\udcff"], ["PATH=p", "A=\udcff"]),
    ],
)
def test_the_environment_is_merged_by_name(entries: list[str], expected: list[str]) -> None:
    assert "HOME" in os.environ
    assert merge_environment(["PATH=p"], entries) == expected


def test_term_is_for_terminals_and_can_be_said_otherwise() -> None:
    assert "TERM=xterm" in environment({"Tty": True})
    assert "TERM=vt100" in environment({"Tty": True, "Env": ["TERM=vt100"]})
    assert not [e for e in environment({}) if e.startswith("TERM")]


# mounts


def test_every_containers_own_mounts_in_their_order() -> None:
    assert [(m["destination"], m["type"]) for m in made()["mounts"]] == [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
    ]
    result = made(host={"ShmSize": 1 << 20})
    assert "size=1048576" in mount_at(result, "/dev/shm")["options"]
    assert "size=67108864" in mount_at(made(), "/dev/shm")["options"]
    for destination in ("/proc", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"):
        assert {"nosuid", "noexec", "nodev"} <= set(mount_at(result, destination)["options"]), destination
    assert "ro" in mount_at(result, "/sys")["options"]
    assert "ro" in mount_at(result, "/sys/fs/cgroup")["options"]


@pytest.mark.parametrize(
    ("mode", "kind", "source"),
    [
        ("", "tmpfs", "shm"),
        ("private", "tmpfs", "shm"),
        ("shareable", "tmpfs", "shm"),
        ("none", None, None),
        ("host", "bind", "/dev/shm"),
        ("container:abc", "bind", "joined:/dev/shm"),
    ],
)
def test_shared_memory_goes_with_the_ipc_namespace(mode: str, kind: str | None, source: str | None) -> None:
    found = [m for m in made(host={"IpcMode": mode})["mounts"] if m["destination"] == "/dev/shm"]
    assert [(m["type"], m["source"]) for m in found] == ([(kind, source)] if kind else [])


@pytest.mark.parametrize(("read_only", "option"), [(False, False), (True, True)])
def test_files_of_ours_are_bound_read_only_with_the_root(read_only: bool, option: bool) -> None:
    result = made(host={"ReadonlyRootfs": read_only}, files={"/etc/hosts": "/c/hosts"})
    entry = mount_at(result, "/etc/hosts")
    assert (entry["type"], entry["source"]) == ("bind", "/c/hosts")
    assert ("ro" in entry["options"]) is option
    assert result["root"]["readonly"] is read_only


def test_a_tmpfs_takes_the_place_of_what_is_there_and_parents_come_first() -> None:
    result = made(
        host={"Tmpfs": {"/run/a/b": "", "/run": "size=1m", "/dev/shm": "mode=700", "/etc/hosts": ""}},
        files={"/etc/hosts": "/c/hosts"},
    )
    assert mount_at(result, "/dev/shm")["options"] == ["noexec", "nosuid", "nodev", "mode=700"]
    assert mount_at(result, "/etc/hosts")["type"] == "tmpfs"
    order = [m["destination"] for m in result["mounts"]]
    assert order.index("/run") < order.index("/run/a/b")
    assert not [
        d for d in (m["destination"] for m in made(host={"Tmpfs": {"/dev": ""}})["mounts"]) if d.startswith("/dev/")
    ]


# privileges of the whole


def test_masks_and_read_only_paths_are_mobys() -> None:
    linux = made()["linux"]
    assert linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    assert {
        *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
        *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
        *("/sys/devices/virtual/powercap", "/sys/firmware"),
    } <= set(linux["maskedPaths"])
    assert made(host={"MaskedPaths": [], "ReadonlyPaths": ["/x"]})["linux"]["maskedPaths"] == []
    assert made(host={"MaskedPaths": [], "ReadonlyPaths": ["/x"]})["linux"]["readonlyPaths"] == ["/x"]
    assert made(host={"MaskedPaths": None})["linux"]["maskedPaths"] == linux["maskedPaths"]


def test_privileged_is_without_masks_with_every_device_and_capability() -> None:
    result = made(host={"Privileged": True})
    linux = result["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])
    assert result["process"]["capabilities"]["bounding"] == ALL
    assert "ro" not in mount_at(result, "/sys")["options"]
    assert "ro" not in mount_at(result, "/sys/fs/cgroup")["options"]
    assert [r["type"] for r in linux["resources"]["devices"]] == ["a"]
    assert "/dev/null" in [d["path"] for d in linux["devices"]]
    assert not [d for d in linux["devices"] if d["path"].startswith(("/dev/pts/", "/dev/shm/", "/dev/console"))]


def test_devices_of_an_ordinary_container() -> None:
    linux = made()["linux"]
    assert linux["devices"] == []
    rules = linux["resources"]["devices"]
    assert rules[0] == {"allow": False, "type": "a", "major": -1, "minor": -1, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"} in rules
    assert not [r for r in rules if r["type"] == "b" and r["access"] != "m"], "no block device can be opened"


# namespaces


def kinds(result: dict[str, Any]) -> list[str]:
    return [n["type"] for n in result["linux"]["namespaces"]]


def test_every_namespace_is_new_but_the_cgroup_one_by_dockers_rule() -> None:
    assert set(kinds(made(version="v2"))) == {"mount", "network", "uts", "pid", "ipc", "cgroup", "time"}
    assert "cgroup" not in kinds(made(version="v1"))
    assert "cgroup" not in kinds(made(version="hybrid"))
    assert "cgroup" in kinds(made(version="v1", host={"CgroupnsMode": "private"}))
    assert "cgroup" not in kinds(made(version="v2", host={"CgroupnsMode": "host"}))


@pytest.mark.parametrize(
    ("field", "kind"), [("NetworkMode", "network"), ("PidMode", "pid"), ("IpcMode", "ipc"), ("UTSMode", "uts")]
)
def test_host_is_no_namespace_at_all(field: str, kind: str) -> None:
    assert kind not in kinds(made(host={field: "host"}))


def test_joined_namespaces_have_a_path() -> None:
    result = made(joined={"network": "container:network"}, host={"NetworkMode": "container:abc"})
    assert {"type": "network", "path": "container:network"} in result["linux"]["namespaces"]


def test_names_are_the_hosts_with_its_uts_namespace() -> None:
    config = {"Hostname": "box", "Domainname": "example.test"}
    assert (made(config)["hostname"], made(config)["domainname"]) == ("box", "example.test")
    shared = made(config, {"UTSMode": "host"})
    assert (shared["hostname"], shared["domainname"]) == ("", "")
    assert "HOSTNAME=box" in shared["process"]["env"]


# resources


def test_nothing_asked_for_is_nothing_set() -> None:
    resources = made()["linux"]["resources"]
    assert resources["memory"] == {"limit": 0, "swap": 0, "reservation": 0}
    assert resources["cpu"] == {"shares": 0, "quota": 0, "period": 0}
    assert resources["pids"] == {"limit": 0}


def test_limits_are_carried_over() -> None:
    host = {
        "Memory": 256 << 20,
        "MemorySwap": -1,
        "MemoryReservation": 64 << 20,
        "CpuShares": 512,
        "CpuQuota": 50_000,
        "CpuPeriod": 200_000,
        "PidsLimit": 64,
    }
    resources = made(host=host)["linux"]["resources"]
    assert resources["memory"] == {"limit": 256 << 20, "swap": -1, "reservation": 64 << 20}
    assert resources["cpu"] == {"shares": 512, "quota": 50_000, "period": 200_000}
    assert resources["pids"] == {"limit": 64}


@pytest.mark.parametrize(("nano", "quota"), [(500_000_000, 50_000), (1_500_000_000, 150_000), (10_000_000, 1000)])
def test_cpus_are_a_quota_of_a_tenth_of_a_second(nano: int, quota: int) -> None:
    assert made(host={"NanoCpus": nano})["linux"]["resources"]["cpu"] == {
        "shares": 0,
        "quota": quota,
        "period": 100_000,
    }


def test_the_record_itself_is_left_as_it_was() -> None:
    host: dict[str, Any] = {"CapAdd": ["CAP_KILL"], "GroupAdd": ["a"]}
    result = made(host=host)
    result["process"]["user"]["additionalGroups"].append("b")
    result["linux"]["maskedPaths"].append("/x")
    assert host["GroupAdd"] == ["a"]
    assert "/x" not in made()["linux"]["maskedPaths"]
    assert spec.DEFAULT_SHM_SIZE == 64 << 20
