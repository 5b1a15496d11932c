"""Who a container's program is and what it may do: users, groups, variables, capabilities, keys, what is masked. Named after the advisory where there is one."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from sampan.errors import StartFailed
from sampan.kernel import capabilities
from sampan.kernel.libc import buffer, by_machine, raw
from sampan.runtime import defaults

from support.box import Boxes
from support.boxes import box, children, directory, image, refused
from support.child import in_child
from support.patience import eventually, patience

__all__ = ["box", "directory", "image"]

pytestmark = [pytest.mark.root]


# who it runs as


@pytest.mark.parametrize(
    "user",
    ["4294967296", "4294967295", "2147483648:0", "0:2147483648", "0x0", "-1", "99999999999", "18446744073709551616"],
)
def test_cve_2024_40635_a_user_out_of_range_is_nobody(box: Boxes, image: Path, user: str) -> None:
    with (image / "etc/passwd").open("a") as file:
        file.write("99999999999:x:0:0::/root:/bin/sh\n0x0x:x:0:0::/:\n")
    refused(box, "id", rootfs=image, config={"User": user})
    one = box("sleep", "60", rootfs=image)
    one.start().close()
    with pytest.raises(StartFailed):
        one.exec("id", user={"username": user, "additionalGroups": []})


@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("kind", ["fifo", "zero", "sparse", "directory", "notes", "growing", "socket"])
def test_cve_2026_47262_a_database_that_is_no_sound_file_is_refused_at_once(
    box: Boxes, image: Path, name: str, kind: str
) -> None:
    path = image / "etc" / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif kind == "sparse":
        with path.open("w") as file:
            file.truncate(2 << 30)
    elif kind == "directory":
        path.mkdir()
    elif kind == "notes":
        path.symlink_to("/sys/kernel/notes")  # procfs and sysfs files have sizes of their own
    elif kind == "growing":
        path.symlink_to("/proc/1/mem")  # a size of 0, and an endless read
    else:
        os.mknod(path, stat.S_IFSOCK | 0o666)
    begun = time.monotonic()
    if (kind, name) == ("notes", "group"):
        box("true", rootfs=image, config={"User": "nobody"}).run().ok()  # it has no group of that name, that is all
    else:
        refused(box, "true", rootfs=image, config={"User": "nobody"})
    assert time.monotonic() - begun < patience(5)


def test_cve_2026_47262_a_container_that_lets_its_database_grow_during_an_exec(box: Boxes) -> None:
    one = box("sh", "-c", "while :; do head -c 1000000 /dev/zero >> /etc/group; done")
    one.start().close()
    eventually(lambda: (one.upper / "etc/group").exists() and (one.upper / "etc/group").stat().st_size > 5 << 20)
    with pytest.raises(StartFailed, match="/etc/group of the image is larger than 4 MiB"):
        one.exec("true")


def test_cve_2022_36109_supplementary_groups_are_exactly_those(box: Boxes) -> None:
    one = box("id", "-G", config={"User": "user"}, host={"GroupAdd": ["7777", "shared"]})
    assert sorted(one.run().ok().split()) == [b"1000", b"2000", b"3000", b"7777"]
    assert box("id", "-G", config={"User": "user:0"}).run().ok() == b"0\n"
    assert box("sh", "-c", "grep Groups /proc/self/status").run().ok().split() == [b"Groups:", b"0"]


def test_cve_2026_57231_no_variable_of_the_host_comes_in_through_an_odd_entry(box: Boxes) -> None:
    os.environ["SAMPAN_SECRET"] = "secret"
    try:
        config = {"Env": ["SAMPAN_SECRET", "", "=x", "*", "$SAMPAN_SECRET", "OK=1", "A=${SAMPAN_SECRET}"]}
        one = box("env", config=config)
        variables = one.run().ok().splitlines()
    finally:
        del os.environ["SAMPAN_SECRET"]
    names = sorted(line.split(b"=")[0] for line in variables)
    assert names == [b"A", b"HOME", b"HOSTNAME", b"OK", b"PATH"]
    assert b"A=${SAMPAN_SECRET}" in variables


# privileges


@pytest.mark.parametrize("user", ["", "1000"])
@pytest.mark.parametrize("privileged", [False, True])
def test_cve_2022_29162_and_2016_8867_no_inheritable_or_ambient_capabilities(
    box: Boxes, user: str, privileged: bool
) -> None:
    one = box("sleep", "60", config={"User": user}, host={"Privileged": privileged})
    one.start().close()
    joined = one.exec_start("sleep", "60")
    expected = capabilities.mask(one.spec["process"]["capabilities"]["bounding"]) & capabilities.get()[1]
    for pid in children(one.monitor):
        sets = capabilities.process_sets(pid)
        assert (sets["CapInh"], sets["CapAmb"]) == (0, 0)
        assert sets["CapBnd"] == expected
        assert (sets["CapPrm"], sets["CapEff"]) == ((0, 0) if user else (expected, expected))
    joined.close()


def test_capabilities_that_were_dropped_are_gone(box: Boxes) -> None:
    one = box("sh", "-c", "chown 1:1 /tmp; mknod /x c 1 3; grep CapEff /proc/self/status", host={"CapDrop": ["ALL"]})
    output = one.run()
    assert output.ok() == b"CapEff:\t0000000000000000\n"
    assert output.err.count(b"Operation not permitted") == 2


def test_no_new_privileges_is_kept_by_exec(box: Boxes) -> None:
    one = box("sleep", "60", host={"SecurityOpt": ["no-new-privileges"]})
    one.start().close()
    assert one.exec("grep", "NoNewPrivs", "/proc/1/status").ok() == b"NoNewPrivs:\t1\n"
    assert one.exec("grep", "NoNewPrivs", "/proc/self/status").ok() == b"NoNewPrivs:\t1\n"


def test_the_session_keyring_is_the_containers_own(box: Boxes) -> None:
    """A key in the caller's keyring cannot be read inside: two sessions, two keyrings."""
    describe, join, session = 6, 1, -3

    def inside() -> tuple[bytes, list[bytes]]:
        number = by_machine(250, 219)
        raw(number, "keyctl", "", join, b"of-the-caller")
        one = box("cat", "/proc/keys", host={"MaskedPaths": []})
        described = buffer(200)
        raw(number, "keyctl", "", describe, session, described, 200)
        keys = one.run().ok()
        joined = [line for line in keys.splitlines() if b"_ses" in line]
        return described.value, joined

    own, inner = in_child(inside)
    assert own.endswith(b"of-the-caller")
    assert inner, "a keyring without a name: a session of its own"


def test_cve_2022_0492_release_agent_and_mounts_are_out_of_reach(box: Boxes) -> None:
    command = (
        "for f in $(find /sys/fs/cgroup -name release_agent); do echo evil > $f && echo written; done;"
        "mkdir /c; mount -t cgroup -o memory none /c && echo mounted; mount -t tmpfs none /c && echo mounted;"
        "mount -o remount,rw /sys && echo remounted; mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x && echo made"
    )
    output = box("sh", "-c", command).run()
    assert output.out == b""
    assert output.err


def test_what_is_masked_and_what_is_read_only(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    masked = [path for path in one.spec["linux"]["maskedPaths"] if os.path.exists(path)]
    assert "/sys/firmware" in masked
    for path in masked:
        inside = f"/proc/{one.init}/root{path}"
        if os.path.isdir(inside):
            assert os.listdir(inside) == [], path
            assert os.statvfs(inside).f_flag & os.ST_RDONLY, path
        else:
            assert os.stat(inside).st_rdev == os.makedev(1, 3), path
    for path in one.spec["linux"]["readonlyPaths"]:
        inside = f"/proc/{one.init}/root{path}"
        assert not os.path.exists(inside) or os.statvfs(inside).f_flag & os.ST_RDONLY, path
    assert b"Read-only" in one.exec("sh", "-c", "echo 1 > /proc/sys/kernel/panic").err


def test_the_defaults_are_dockers_newest() -> None:
    """GHSA-6fw5-f8r9-fgfm (interrupts, thermal_throttle), GHSA-jq35-85cj-fj4p (powercap), CVE-2018-10892 (acpi): moby, daemon/pkg/oci/defaults.go."""
    cpus = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    assert sorted(defaults.masked_paths()) == sorted(
        [
            *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
            *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
            *("/sys/devices/virtual/powercap", "/sys/firmware"),
            *map(str, cpus),
        ]
    )
    assert sorted(defaults.READONLY_PATHS) == [
        *("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
    ]
    names = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    )
    assert set(defaults.CAPABILITIES) == {f"CAP_{name}" for name in (*names.split(), "AUDIT_WRITE")}
    allowed = {(r.type, r.major, r.minor, r.access) for r in defaults.DEVICE_RULES if r.allow}
    any_number = -1
    assert allowed == {
        ("c", any_number, any_number, "m"),
        ("b", any_number, any_number, "m"),
        *(("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
        *(("c", 5, minor, "rwm") for minor in (0, 1, 2)),
        ("c", 136, any_number, "rwm"),
    }
    first = defaults.DEVICE_RULES[0]
    assert (first.allow, first.type) == (False, "a"), "all that is not named is refused: fuse (10:229) too"
