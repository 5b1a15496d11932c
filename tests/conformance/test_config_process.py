"""config.md: the process, with its limits, capabilities and user."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import capabilities

from support.conformance.runtime import Containers
from support.conformance.terminal import ConsoleSocket

pytestmark = [pytest.mark.root]


NUMBERS = {name: number for number, name in enumerate(capabilities.NAMES)}


# Process


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_c30_a_terminal(oci: Containers, fd: int) -> None:
    """Process. "if set to true on Linux a pseudoterminal pair is allocated for the process and the pseudoterminal pty is
    duplicated on the process's standard streams." """
    one = oci()
    with ConsoleSocket(one) as console:
        report = console.report()
    assert report["terminals"][fd]
    assert report["tty"] in ("/dev/console", "/dev/pts/0")
    assert report["sid"] == report["pid"], "it leads a session"
    assert report["foreground"] == report["pgid"], "the terminal is its controlling one"


def test_c31_no_terminal(oci: Containers) -> None:
    """Process. "`terminal` (bool, OPTIONAL) specifies whether a terminal is attached to the process, defaults to false." """
    one = oci()
    del one.process["terminal"]
    assert one.report()["terminals"] == [False, False, False]


def test_c32_a_terminal_has_a_size(oci: Containers) -> None:
    """Process. "`consoleSize` (object, OPTIONAL) specifies the console size in characters of the terminal." """
    one = oci()
    one.process["consoleSize"] = {"height": 33, "width": 111}
    with ConsoleSocket(one) as console:
        assert console.report()["size"] == [33, 111]


def test_c33_a_size_without_a_terminal(oci: Containers) -> None:
    """Process. "Runtimes MUST ignore `consoleSize` if `terminal` is `false` or unset." """
    one = oci()
    one.process["consoleSize"] = {"height": 33, "width": 111}
    assert one.report()["terminals"] == [False, False, False]


@pytest.mark.parametrize("cwd", [None, ""])
def test_c34_a_working_directory_there_must_be(oci: Containers, cwd: str | None) -> None:
    """Process. "`cwd` (string, REQUIRED) is the working directory that will be set for the executable." """
    one = oci()
    del one.process["cwd"]
    if cwd is not None:
        one.process["cwd"] = cwd
    one.refused()


@pytest.mark.parametrize("cwd", ["tmp", "./tmp", "../tmp", "."])
def test_c35_a_working_directory_is_absolute(oci: Containers, cwd: str) -> None:
    """Process. "This value MUST be an absolute path." """
    one = oci()
    one.process["cwd"] = cwd
    one.refused()


@pytest.mark.parametrize("cwd", ["/", "/tmp", "/home/../tmp", "/made/on/the/way"])
def test_c36_the_working_directory(oci: Containers, cwd: str) -> None:
    """Process. "`cwd` ... is the working directory that will be set for the executable." """
    one = oci()
    one.process["cwd"] = cwd
    assert one.report()["cwd"] == os.path.normpath(cwd)


def test_c37_the_environment(oci: Containers) -> None:
    """Process. "`env` (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's `environ`." """
    one = oci()
    one.process["env"] = ["PATH=/bin", "A=1", "EMPTY=", "WORDS=a b=c", "LINES=a\nb", "UMLAUT=ü"]
    report = one.report(env={"OF_THE_HOST": "1"})
    seen = [entry for entry in report["env"] if not entry.startswith("HOME=")]
    assert seen == [e.encode().decode("latin-1") for e in one.process["env"]], "in this order, and nothing of the host"


@pytest.mark.parametrize("args", [None, []])
def test_c38_arguments_there_must_be(oci: Containers, args: list[str] | None) -> None:
    """Process. "This specification extends the IEEE standard in that at least one entry is REQUIRED" """
    one = oci()
    del one.process["args"]
    if args is not None:
        one.process["args"] = args
    one.refused()


@pytest.mark.parametrize("form", ["name", "absolute", "relative", "second directory", "script"])
def test_c39_the_program_is_looked_for_as_execvp_does(oci: Containers, form: str) -> None:
    """Process. "that entry is used with the same semantics as `execvp`'s *file*." """
    one = oci()
    program = {"name": "probe", "absolute": "/bin/probe", "relative": "bin/probe"}.get(form, "other")
    one.process["args"] = [program, "report"]
    if form == "second directory":
        one.process["env"] = ["PATH=/nonexistent:/opt"]
        (one.rootfs / "opt").mkdir()
        os.link(one.rootfs / "bin/probe", one.rootfs / "opt/other")
    elif form == "script":
        (one.rootfs / "bin/other").write_text("#!/bin/sh\nexec probe report\n")
        os.chmod(one.rootfs / "bin/other", 0o755)
    assert one.report()["pid"] == 1


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/etc/passwd", "/tmp"])
def test_c40_a_program_that_cannot_be_run(oci: Containers, program: str) -> None:
    """Lifecycle. "The runtime MUST run the user-specified program" or "generate an error": a program that is not there, is not
    executable, is a directory."""
    one = oci(program)
    one.refused()
    assert one.runtime("state", one.id).code != 0 or one.status in ("stopped", "created")


# POSIX process: rlimits


def test_c41_a_limit_of_no_kernel(oci: Containers) -> None:
    """POSIX process. "The runtime MUST generate an error for any values which cannot be mapped to a relevant kernel
    interface." """
    for kind in ("RLIMIT_OF_NOTHING", "NOFILE", "rlimit_nofile", ""):
        one = oci()
        one.process["rlimits"] = [{"type": kind, "soft": 1, "hard": 1}]
        one.refused()


LIMITS = {
    "RLIMIT_CPU": (100, 200),
    "RLIMIT_FSIZE": (1 << 30, 1 << 31),
    "RLIMIT_DATA": (1 << 30, 1 << 31),
    "RLIMIT_STACK": (4 << 20, 8 << 20),
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_RSS": (1 << 30, 1 << 31),
    "RLIMIT_NPROC": (500, 600),
    "RLIMIT_NOFILE": (100, 200),
    "RLIMIT_MEMLOCK": (4096, 8192),
    "RLIMIT_AS": (1 << 30, 1 << 31),
    "RLIMIT_LOCKS": (10, 20),
    "RLIMIT_SIGPENDING": (50, 60),
    "RLIMIT_MSGQUEUE": (1000, 2000),
    "RLIMIT_NICE": (0, 0),
    "RLIMIT_RTPRIO": (0, 0),
    "RLIMIT_RTTIME": (1_000_000, 2_000_000),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_c42_each_limit_is_set(oci: Containers, kind: str) -> None:
    """POSIX process. "`rlim.rlim_cur` MUST match the configured value." "`rlim.rlim_max` MUST match the configured value." """
    soft, hard = LIMITS[kind]
    one = oci()
    one.process["rlimits"] = [{"type": kind, "soft": soft, "hard": hard}]
    assert one.report()["rlimits"][kind] == [soft, hard]


def test_c43_all_limits_can_be_asked_for(oci: Containers) -> None:
    """POSIX process. "For each entry in `rlimits`, a `getrlimit(3)` on `type` MUST succeed." """
    one = oci()
    one.process["rlimits"] = [{"type": kind, "soft": soft, "hard": hard} for kind, (soft, hard) in LIMITS.items()]
    assert one.report()["rlimits"] == {kind: list(pair) for kind, pair in LIMITS.items()}


def test_c44_a_limit_that_is_raised(oci: Containers) -> None:
    """POSIX process. "Only a privileged process (e.g. one with the `CAP_SYS_RESOURCE` capability) can raise a hard limit": the
    runtime does, if it is one, or says that it cannot."""
    low = resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, low))

    one = oci()
    one.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": low + 10, "hard": low + 10}]
    result = one.create(preexec=lower)
    if result.code == 0:
        result = one.start()
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    if not effective >> NUMBERS["CAP_SYS_RESOURCE"] & 1:
        result.fails()
    else:
        result.ok()
        one.wait()
        assert json.loads(one.out)["rlimits"]["RLIMIT_NOFILE"] == [low + 10, low + 10]


def test_c45_a_limit_twice(oci: Containers) -> None:
    """POSIX process. "If `rlimits` contains duplicated entries with same `type`, the runtime MUST generate an error." """
    one = oci()
    one.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": n, "hard": n} for n in (100, 200)]
    one.refused()


def test_c46_no_limits(oci: Containers) -> None:
    """POSIX process. "`rlimits` (array of objects, OPTIONAL) allows setting resource limits for the process": those that are not
    named are the caller's."""

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (777, 888))

    assert oci().report(preexec=lower)["rlimits"]["RLIMIT_NOFILE"] == [777, 888]


# Linux process


SETS = {
    "effective": ("CapEff", ["CAP_KILL", "CAP_CHOWN"]),
    "bounding": ("CapBnd", ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]),
    "inheritable": ("CapInh", ["CAP_KILL", "CAP_NET_RAW"]),
    "permitted": ("CapPrm", ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"]),
    "ambient": ("CapAmb", ["CAP_KILL"]),
}


def mask(names: list[str]) -> int:
    return sum(1 << NUMBERS[name] for name in names)


@pytest.mark.parametrize("kind", SETS)
def test_c47_the_sets_of_capabilities(oci: Containers, kind: str) -> None:
    """Linux process. "`capabilities` (object, OPTIONAL) is an object containing arrays that specifies the sets of capabilities
    for the process." """
    one = oci()
    one.process["capabilities"] = {each: names for each, (_, names) in SETS.items()}
    # A program that root executes gets all of the bounding set, whatever it had: what was set is seen as somebody else.
    one.process["user"] = {"uid": 1000, "gid": 1000}
    field, names = SETS[kind]
    wanted = {"CapEff": mask(["CAP_KILL"]), "CapPrm": mask(["CAP_KILL"])}.get(field, mask(names))
    assert int(one.report()["status"][field], 16) == wanted


def test_c48_root_has_what_is_permitted(oci: Containers) -> None:
    """Linux process. "`permitted` (array of strings, OPTIONAL) the `permitted` field is an array of permitted capabilities that
    are kept for the process." """
    one = oci()
    names = ["CAP_KILL", "CAP_NET_RAW"]
    one.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    status = one.report()["status"]
    assert [int(status[field], 16) for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [
        0,
        *[mask(names)] * 3,
        0,
    ]


@pytest.mark.parametrize("uid", [0, 1000])
def test_c49_no_capabilities(oci: Containers, uid: int) -> None:
    """Linux process. "`capabilities` ... specifies the sets of capabilities for the process": empty ones are empty."""
    one = oci()
    one.process["capabilities"] = {kind: [] for kind in SETS}
    one.process["user"] = {"uid": uid, "gid": uid}
    status = one.report()["status"]
    assert {int(status[field], 16) for field, _ in SETS.values()} == {0}


def test_c50_every_capability_of_the_kernel(oci: Containers) -> None:
    """Linux process. "Valid values are defined in the capabilities(7) man page": each that this machine lets one have."""
    status = Path("/proc/self/status").read_text()
    have = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    names = [name for name, number in NUMBERS.items() if have >> number & 1]
    one = oci()
    one.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    status = one.report()["status"]
    assert [int(status[field], 16) for field in ("CapPrm", "CapEff", "CapBnd")] == [have] * 3


@pytest.mark.parametrize("what", ["unknown", "not to be had"])
def test_c51_a_capability_that_cannot_be_granted(oci: Containers, what: str) -> None:
    """Linux process. "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise MUST be
    logged as a warning by the runtime." """
    one = oci()
    name = "CAP_OF_NO_KERNEL"
    if what == "not to be had":
        name = "CAP_SYS_BOOT"
        dropped = _dropping("CAP_SYS_BOOT")
    one.capabilities(name)
    log = one.bundle / "log"
    options: dict[str, Any] = {"preexec": dropped} if what == "not to be had" else {}
    one.create(globals=("--log", str(log)), **options).ok()
    one.start().ok()
    assert one.wait() == 0
    assert name in log.read_text() + one.err, "a warning"


def _dropping(name: str) -> Any:
    def drop() -> None:
        number = NUMBERS[name]
        assert ctypes.CDLL(None).prctl(24, number, 0, 0, 0) == 0  # PR_CAPBSET_DROP: gone at the next execve

    return drop


@pytest.mark.parametrize("wanted", [True, False])
def test_c52_no_new_privileges(oci: Containers, wanted: bool) -> None:
    """Linux process. "`noNewPrivileges` (bool, OPTIONAL) setting `noNewPrivileges` to true prevents the process from gaining
    additional privileges." """
    one = oci()
    one.process["noNewPrivileges"] = wanted
    assert one.report()["no_new_privs"] == int(wanted)


@pytest.mark.parametrize("value", [0, 500, 1000])
def test_c53_the_oom_score(oci: Containers, value: int) -> None:
    """Linux process. "If `oomScoreAdj` is set, the runtime MUST set `oom_score_adj` to the given value." """
    one = oci()
    one.process["oomScoreAdj"] = value
    assert int(one.report()["oom_score_adj"]) == value


def test_c54_the_oom_score_is_left_alone(oci: Containers) -> None:
    """Linux process. "If `oomScoreAdj` is not set, the runtime MUST NOT change the value of `oom_score_adj`." """

    def adjust() -> None:
        Path("/proc/self/oom_score_adj").write_text("321")

    assert int(oci().report(preexec=adjust)["oom_score_adj"]) == 321


SCHEDULERS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "other": ({"policy": "SCHED_OTHER", "nice": 5}, {"policy": 0, "nice": 5, "priority": 0}),
    "other without nice": ({"policy": "SCHED_OTHER"}, {"policy": 0, "nice": 0}),
    "batch": ({"policy": "SCHED_BATCH", "nice": 7}, {"policy": 3, "nice": 7}),
    "idle": ({"policy": "SCHED_IDLE"}, {"policy": 5}),
    "fifo": ({"policy": "SCHED_FIFO", "priority": 10}, {"policy": 1, "priority": 10}),
    "rr": ({"policy": "SCHED_RR", "priority": 20}, {"policy": 2, "priority": 20}),
    "deadline": (
        {"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 20_000_000, "period": 30_000_000},
        {"policy": 6, "runtime": 10_000_000, "deadline": 20_000_000, "period": 30_000_000},
    ),
    "reset on fork": (
        {"policy": "SCHED_BATCH", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        {"policy": 3, "nice": 1, "flags": 1},
    ),
}


@pytest.mark.parametrize("what", SCHEDULERS)
def test_c55_the_scheduler(oci: Containers, what: str) -> None:
    """Linux process. "`scheduler` (object, OPTIONAL) is an object describing the scheduler properties for the process." """
    given, wanted = SCHEDULERS[what]
    if given["policy"] in ("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE") and not _schedulable(wanted["policy"]):
        pytest.xfail(f"this machine gives no time to {given['policy']}: chrt cannot set it either")
    if what in ("fifo", "rr") and Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.xfail("with cgroup v1 a group has no real time unless its parents give it some of theirs")
    one = oci()
    one.config["ociVersion"] = "1.2.0"
    one.process["scheduler"] = given
    if what == "deadline":
        # It is admitted only for a process that may run on every processor of its domain.
        one.linux["cgroupsPath"] = one.cgroup
    seen = one.report()["scheduler"]
    assert {key: seen[key] for key in wanted} == wanted


def _schedulable(policy: int) -> bool:
    option = {
        1: ["--fifo", "1"],
        2: ["--rr", "1"],
        6: ["-d", "-T", "10000000", "-D", "20000000", "-P", "30000000", "0"],
    }
    return subprocess.run(["chrt", *option[policy], "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "given", [{"policy": "SCHED_NONE"}, {}, {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"]}, {"policy": 1}]
)
def test_c56_a_scheduler_of_no_kernel(oci: Containers, given: dict[str, Any]) -> None:
    """Linux process. "`policy` (string, REQUIRED) represents the scheduling policy. A valid list of values is: ..." """
    one = oci()
    one.config["ociVersion"] = "1.2.0"
    one.process["scheduler"] = given
    one.refused()


@pytest.mark.parametrize(
    ("name", "number", "priority"),
    [("IOPRIO_CLASS_RT", 1, 3), ("IOPRIO_CLASS_BE", 2, 0), ("IOPRIO_CLASS_BE", 2, 7), ("IOPRIO_CLASS_IDLE", 3, 0)],
)
def test_c57_the_io_priority(oci: Containers, name: str, number: int, priority: int) -> None:
    """Linux process. "`ioPriority` (object, OPTIONAL) configures the I/O priority settings for the container's processes within
    the process group." """
    one = oci()
    one.config["ociVersion"] = "1.2.0"
    one.process["ioPriority"] = {"class": name, "priority": priority}
    seen = one.report()["ioprio"]
    assert (seen >> 13, seen & 7) == (number, priority)


@pytest.mark.parametrize(
    "given",
    [{"class": "IOPRIO_CLASS_NONE_SUCH", "priority": 1}, {"priority": 1}, {"class": "IOPRIO_CLASS_BE", "priority": 8}],
)
def test_c58_an_io_priority_of_no_kernel(oci: Containers, given: dict[str, Any]) -> None:
    """Linux process. "`class` (string, REQUIRED) specifies the I/O scheduling class." "The value should be an integer ranging
    from 0 (highest) to 7 (lowest)." """
    one = oci()
    one.config["ociVersion"] = "1.2.0"
    one.process["ioPriority"] = given
    one.refused()


def test_c59_an_apparmor_profile_that_is_not_there(oci: Containers) -> None:
    """Linux process. "`apparmorProfile` (string, OPTIONAL) specifies the name of the AppArmor profile for the process": without
    AppArmor, or without the profile, that cannot be applied."""
    one = oci()
    one.process["apparmorProfile"] = "no-such-profile"
    one.refused("(?i)apparmor")


def test_c60_a_selinux_label_without_selinux(oci: Containers) -> None:
    """Linux process. "`selinuxLabel` (string, OPTIONAL) specifies the SELinux label for the process": without SELinux, that
    cannot be applied."""
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.xfail("this machine has SELinux")
    one = oci()
    one.process["selinuxLabel"] = "system_u:system_r:container_t:s0:c1,c2"
    one.refused("(?i)selinux")


# User


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (1000, 2000), (65534, 65534), (4_000_000_000, 4_000_000_001)])
def test_c61_the_user_and_group(oci: Containers, uid: int, gid: int) -> None:
    """POSIX-platform user. "`uid` (int, REQUIRED) specifies the user ID in the container namespace. `gid` (int, REQUIRED)
    specifies the group ID in the container namespace." """
    one = oci()
    one.process["user"] = {"uid": uid, "gid": gid}
    report = one.report()
    assert (report["uids"], report["gids"]) == ([uid] * 3, [gid] * 3)


@pytest.mark.parametrize("user", [{"uid": -1, "gid": 0}, {"uid": 1 << 32, "gid": 0}, {"uid": "root", "gid": 0}])
def test_c62_a_user_that_cannot_be(oci: Containers, user: dict[str, Any]) -> None:
    """POSIX-platform user. "`uid` (int, REQUIRED)": no other number, no name."""
    one = oci()
    one.process["user"] = user
    one.refused()


@pytest.mark.parametrize("value", [0, 0o022, 0o027, 0o777])
def test_c63_the_umask(oci: Containers, value: int) -> None:
    """POSIX-platform user. "`umask` (int, OPTIONAL) specifies the umask of the user." """
    one = oci()
    one.process["user"]["umask"] = value
    assert one.report()["umask"] == value


def test_c64_the_umask_is_left_alone(oci: Containers) -> None:
    """POSIX-platform user. "If unspecified, the umask should not be changed from the calling process' umask." """

    def own() -> None:
        os.umask(0o031)

    assert oci().report(preexec=own)["umask"] == 0o031


def test_c65_more_groups(oci: Containers) -> None:
    """POSIX-platform user. "`additionalGids` (array of ints, OPTIONAL) specifies additional group IDs in the container namespace
    to be added to the process." """
    one = oci()
    one.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7, 8, 70_000]}
    assert set(one.report()["groups"]) - {6} == {7, 8, 70_000}


def test_c66_no_more_groups(oci: Containers) -> None:
    """POSIX-platform user. "`additionalGids` ... to be added": the runtime's own are not."""

    def own() -> None:
        os.setgroups([11, 12])

    assert set(oci().report(preexec=own)["groups"]) <= {0}
