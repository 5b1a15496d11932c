"""The heart of a start as data: which steps, in which order, in the words of `--debug`. No root, no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.kernel import namespaces
from sampan.kernel.cgroupmodel import Hierarchy, Limits, Write
from sampan.kernel.livegroup import LiveGroup
from sampan.runtime.plan import Launching, RootFilesystem, make_plan
from sampan.runtime.planexec import make_exec_plan
from sampan.runtime.spec import make_spec
from sampan.shim.protocol import NO_CLONE, ExecPlan, LaunchPlan, Stages, dumps, loads
from sampan.steps import base, cgroups, changeroot, joining, mounts, process, sources, terminal  # noqa: F401
from sampan.steps import namespaces as namespace_steps
from sampan.steps.base import Step
from sampan.steps.process import BecomeUser, LoadFilter


class Unified:
    """Says what the driver of cgroup v2 says, of a machine that is not there."""

    version = "v2"
    links: tuple[tuple[str, str], ...] = ()

    def directories(self, group: str) -> list[str]:
        return [f"/cg/{group}"]

    def prepare(self, group: str) -> list[Write]:
        return [Write("/cg/cgroup.subtree_control", "+memory", required=False)]

    def limits(self, group: str, limits: Limits) -> list[Write]:
        return [Write(f"/cg/{group}/memory.max", str(limits.memory))] if limits.memory else []

    def device_program(self, group: str) -> str | None:
        return f"/cg/{group}"

    def join_files(self, group: str) -> list[str]:
        return []

    def clone_directory(self, group: str) -> str | None:
        return f"/cg/{group}"

    def hierarchies(self, group: str) -> list[Hierarchy]:
        return [Hierarchy("/cg", "", f"/cg/{group}")]

    def live(self, group: str) -> LiveGroup:
        return LiveGroup(unified=f"/cg/{group}")


class Version1(Unified):
    """The same for v1 with two hierarchies."""

    version = "v1"
    links = (("cpu", "cpu,cpuacct"),)

    def directories(self, group: str) -> list[str]:
        return [h.directory for h in self.hierarchies(group)]

    def prepare(self, group: str) -> list[Write]:
        return []

    def device_program(self, group: str) -> str | None:
        return None

    def join_files(self, group: str) -> list[str]:
        return [f"{directory}/tasks" for directory in self.directories(group)]

    def clone_directory(self, group: str) -> str | None:
        return None

    def hierarchies(self, group: str) -> list[Hierarchy]:
        return [Hierarchy(f"/cg/{name}", name, f"/cg/{name}/{group}") for name in ("cpu,cpuacct", "pids")]


OVERLAY = RootFilesystem("overlay", ("/layers/b", "/layers/a"), "/snap/upper", "/snap/work", "", "/d")


def plan_of(
    host: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    driver: Unified | None = None,
    root: RootFilesystem = OVERLAY,
    files: dict[str, str] | None = None,
    **facts: Any,
) -> LaunchPlan:
    driver = driver or Unified()
    joined = {kind: f"container:{kind}" for kind in facts.get("joined", ()) if kind != "mount"}
    record = {
        "id": "c",
        "path": "sh",
        "args": ["-c", "true"],
        "config": {"Hostname": "box", **(config or {})},
        "host_config": {"MaskedPaths": ["/proc/keys"], "ReadonlyPaths": ["/proc/sys"], **(host or {})},
    }
    spec = make_spec(record, files or {}, "sampan/c", driver.version, joined, facts.get("init", ""))
    launching = Launching("c", "/d", "/d/starts/1", "/r", root, "sampan/c", **facts)
    return make_plan(spec, launching, driver)  # type: ignore[arg-type]


def lines(plan: LaunchPlan) -> list[str]:
    """The dry run; without what depends on the machine that runs the test."""
    shown = [f"{stage}: {step.describe()}" for stage, step in plan.steps()]
    return [line for line in shown if "/dev/core" not in line]


def of_stage(plan: LaunchPlan, stage: str) -> list[str]:
    return [line.partition(": ")[2] for line in lines(plan) if line.startswith(f"{stage}: ")]


def test_a_start_on_cgroup_v2() -> None:
    plan = plan_of(files={"/etc/hosts": "/d/hosts"})
    assert plan.lists().clone == NO_CLONE
    assert plan.shared_pid is False
    assert plan.cgroup == LiveGroup(unified="/cg/sampan/c")
    assert (
        "\n".join(lines(plan))
        == """\
monitor: fsopen and fsmount devpts (ptmxmode=0666,mode=0620,gid=5,nosuid,noexec)
monitor: mkdir /cg/sampan/c, open it to clone into
monitor: clone3 with namespace flags 0x20000080
stage1: mkdir /cg/sampan/c
stage1: write '+memory' to /cg/cgroup.subtree_control
stage1: write '0' to /proc/self/oom_score_adj
stage1: fsopen overlay of 2 lower layers, upper /snap/upper
stage1: open_tree clone of /d/hosts with submounts
stage1: bpf: attach a device filter of 12 rules to /cg/sampan/c
stage1: unshare with namespace flags 0x4c020000
stage2: stay in the cgroup of its birth, unshare cgroup
stage2: mount / recursively slave
stage2: write to /proc/sys: net/ipv4/ip_unprivileged_port_start = '0', net/ipv4/ping_group_range = '0 2147483647'
stage2: move_mount of the root file system to /d
stage2: mount proc on /proc (nosuid,nodev,noexec)
stage2: mount tmpfs on /dev (mode=755,size=65536k,nosuid,strictatime)
stage2: mknod /dev/null c 1:3 mode 666
stage2: mknod /dev/zero c 1:5 mode 666
stage2: mknod /dev/full c 1:7 mode 666
stage2: mknod /dev/random c 1:8 mode 666
stage2: mknod /dev/urandom c 1:9 mode 666
stage2: mknod /dev/tty c 5:0 mode 666
stage2: symlink /dev/fd -> /proc/self/fd
stage2: symlink /dev/stdin -> /proc/self/fd/0
stage2: symlink /dev/stdout -> /proc/self/fd/1
stage2: symlink /dev/stderr -> /proc/self/fd/2
stage2: symlink /dev/ptmx -> pts/ptmx
stage2: move_mount of devpts to /dev/pts
stage2: mount sysfs on /sys (ro,nosuid,nodev,noexec)
stage2: mount cgroup2 on /sys/fs/cgroup (ro,nosuid,nodev,noexec)
stage2: mount mqueue on /dev/mqueue (nosuid,nodev,noexec)
stage2: mount tmpfs on /dev/shm (mode=1777,size=67108864,nosuid,nodev,noexec)
stage2: move_mount of mount.7 to /etc/hosts
stage2: make the working directory / if it is missing
stage2: bind /proc/sys onto itself, read-only
stage2: mask /proc/keys
stage2: pivot_root, umount2 the old root (MNT_DETACH)
stage2: netlink: set lo up
stage2: sethostname box
stage2: look up user 'root' in /etc/passwd and /etc/group of the image
stage2: setsid, dup2 the pipes to 0, 1, 2, chown them to the user
stage2: keyctl: join a new session keyring
stage2: chdir /
stage2: drop all but 14 capabilities, setgroups, setresgid, setresuid
stage2: chdir / as the user, unless root could
stage2: prctl PR_SET_PDEATHSIG SIGKILL
stage2: umask 022, signals to their defaults, descriptors from 3 on close-on-exec
stage2: execve sh -c true"""
    )


def test_a_group_that_the_container_may_write_to_belongs_to_its_user() -> None:
    delegated = "chown /cg/sampan/c and its files for delegation to the user of the process"
    options = {"SecurityOpt": ["writable-cgroups=true"]}
    steps = of_stage(plan_of(host=options), "stage1")
    assert steps.index(delegated) == steps.index("look up user 'root' in /etc/passwd and /etc/group of the image") + 1
    assert delegated not in of_stage(plan_of(), "stage1")
    # The host's groups are in sight, or version 1, which has no delegation.
    assert delegated not in of_stage(plan_of(host={**options, "CgroupnsMode": "host"}), "stage1")
    assert delegated not in of_stage(plan_of(host=options, driver=Version1()), "stage1")


def test_a_start_on_cgroup_v1_with_a_bit_of_everything() -> None:
    host = {
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "size=1m"},
        "Memory": 64 << 20,
        "CgroupnsMode": "private",
        "SecurityOpt": ["no-new-privileges"],
        "GroupAdd": ["audio"],
        "CapDrop": ["ALL"],
    }
    config = {"Tty": True, "User": "web", "WorkingDir": "/srv", "Domainname": "example.test"}
    plan = plan_of(host, config, Version1(), files={"/etc/hosts": "/d/hosts"}, init="/usr/bin/tini", attached=True)
    assert plan.descriptors == ("attach",)
    assert of_stage(plan, "monitor")[1:] == [
        "open ptmx of the container's devpts, TIOCGPTPEER",
        "clone3 with namespace flags 0x20000080",
    ]
    assert (
        "\n".join(of_stage(plan, "stage1"))
        == """\
mkdir /cg/cpu,cpuacct/sampan/c
mkdir /cg/pids/sampan/c
write '0' to /proc/self/oom_score_adj
fsopen tmpfs, copy /usr/bin/tini to docker-init, make it read-only
fsopen overlay of 2 lower layers, upper /snap/upper
open_tree clone of /cg/cpu,cpuacct/sampan/c (ro,nosuid,nodev,noexec)
open_tree clone of /cg/pids/sampan/c (ro,nosuid,nodev,noexec)
open_tree clone of /d/hosts with submounts (ro)
write '67108864' to /cg/sampan/c/memory.max
open the tasks files of 2 cgroups
unshare with namespace flags 0x4c020000"""
    )
    stage2 = of_stage(plan, "stage2")
    assert stage2[0] == "write 0 to the tasks files of 2 cgroups, unshare cgroup"
    assert (
        "\n".join(stage2[stage2.index("mount sysfs on /sys (ro,nosuid,nodev,noexec)") :])
        == """\
mount sysfs on /sys (ro,nosuid,nodev,noexec)
mount tmpfs on /sys/fs/cgroup (mode=755,nosuid,nodev,noexec)
move_mount of cgroup.mount.cpu,cpuacct to /sys/fs/cgroup/cpu,cpuacct
move_mount of cgroup.mount.pids to /sys/fs/cgroup/pids
symlink /sys/fs/cgroup/cpu -> cpu,cpuacct
remount /sys/fs/cgroup read-only
mount mqueue on /dev/mqueue (nosuid,nodev,noexec)
mount tmpfs on /dev/shm (mode=1777,size=67108864,nosuid,nodev,noexec)
mount tmpfs on /tmp (size=1m,nosuid,nodev,noexec)
move_mount of mount.8 to /etc/hosts
bind the pty to /dev/console
make the working directory /srv if it is missing
bind /proc/sys onto itself, read-only
mask /proc/keys
remount the root read-only
pivot_root, umount2 the old root (MNT_DETACH)
netlink: set lo up
sethostname box
setdomainname example.test
look up user 'web' in /etc/passwd and /etc/group of the image
setsid, dup2 the pty to 0, 1, 2, chown them to the user
keyctl: join a new session keyring
chdir /srv
prctl PR_SET_NO_NEW_PRIVS
drop all but 0 capabilities, setgroups, setresgid, setresuid
chdir /srv as the user, unless root could
prctl PR_SET_PDEATHSIG SIGKILL
umask 022, signals to their defaults, descriptors from 3 on close-on-exec
execve /sbin/docker-init -- sh -c true as docker-init from its private copy"""
    )


def test_a_start_in_the_hosts_namespaces_without_pivot_root() -> None:
    host = {"NetworkMode": "host", "PidMode": "host", "IpcMode": "host", "UTSMode": "host"}
    bind = RootFilesystem("bind", (), "", "", "/snap/rootfs", "/d")
    plan = plan_of(host, driver=Version1(), root=bind, no_pivot=True)
    assert of_stage(plan, "monitor")[-1] == f"clone3 with namespace flags {namespaces.CLONE_NEWTIME:#x}"
    assert of_stage(plan, "stage1")[-1] == f"unshare with namespace flags {namespaces.CLONE_NEWNS:#x}"
    assert plan.shared_pid is True, "init is no pid 1: its end kills nobody else"
    assert "open_tree clone of /snap/rootfs" in of_stage(plan, "stage1")
    assert "open_tree clone of /dev/shm with submounts (nosuid,nodev,noexec)" in of_stage(plan, "stage1")
    stage2 = of_stage(plan, "stage2")
    assert stage2[0] == "write 0 to the tasks files of 2 cgroups"
    assert "mount --move the root over /, chroot" in stage2
    for absent in ("pivot_root, umount2 the old root (MNT_DETACH)", "netlink: set lo up", "sethostname box"):
        assert absent not in stage2, absent


@pytest.mark.parametrize(
    ("variant", "alone"),
    [
        ({}, True),
        ({"host": {"PidMode": "host"}}, True),
        ({"host": {"NetworkMode": "container:other"}, "joined": ("network",)}, True),
        ({"host": {"PidMode": "container:other"}, "joined": ("pid",)}, False),
        ({"alone": False}, False),
    ],
)
def test_one_process_runs_both_lists_where_the_kernel_lets_it(variant: dict[str, Any], alone: bool) -> None:
    """A pid namespace that is joined is for children; so there stage1 enters it and clones stage2."""
    plan = plan_of(**variant)
    assert (plan.lists().clone == NO_CLONE) is alone
    assert any(isinstance(step, joining.CloneInit) for step in plan.monitor) is alone
    assert any(isinstance(step, namespace_steps.Unshare) for step in plan.lists().stage1) is alone
    if not alone:
        assert "open the cgroup to clone into" in of_stage(plan, "stage1")


def test_a_start_in_another_containers_namespaces() -> None:
    mode = "container:other"
    joined = ("network", "pid", "ipc", "mount")
    plan = plan_of({"NetworkMode": mode, "PidMode": mode, "IpcMode": mode}, joined=joined)
    assert plan.descriptors == ("ns.network", "ns.pid", "ns.ipc", "ns.mount")
    assert plan.lists().clone == namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWTIME
    assert plan.shared_pid is True
    # The other's shared memory while the host is in view, its namespaces last.
    assert of_stage(plan, "stage1")[-4:] == [
        "open_tree clone of /dev/shm in the mount namespace of the container that is joined",
        "setns network of ns.network",
        "setns pid of ns.pid",
        "setns ipc of ns.ipc",
    ]
    assert "netlink: set lo up" not in of_stage(plan, "stage2")


# what must hold of every start


VARIANTS: list[dict[str, Any]] = [
    {},
    {"host": {"Privileged": True}},
    {"host": {"ReadonlyRootfs": True, "Tmpfs": {"/dev": "", "/run": ""}}},
    {"host": {"NetworkMode": "host", "PidMode": "host", "IpcMode": "host", "UTSMode": "host"}},
    {"config": {"Tty": True, "User": "1000", "WorkingDir": "/a/b"}, "init": "/sbin/tini"},
    {"driver": Version1(), "no_pivot": True},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_laws_of_the_child_side(variant: dict[str, Any]) -> None:
    lists = plan_of(**variant).lists()
    stage1, stage2 = ([type(step).__name__ for step in steps] for steps in (lists.stage1, lists.stage2))
    # Everything that takes a path of the host is done in stage1, before init leaves the host's namespaces.
    assert not {"BuildOverlay", "CloneTree", "MakeCgroup", "WriteCgroup", "WriteFile", "SealedProgram"} & set(stage2)
    # The cgroup first, so that all that follows is charged to the container; propagation cut before the first mount.
    assert [name for name in stage2[:4] if name != "SetKernelParameters"][:3] == [
        "JoinCgroups",
        "SeparateMounts",
        "AttachRoot",
    ]
    # Kernel parameters while /proc is the host's, where no container can have put anything.
    assert "SetKernelParameters" not in stage2[stage2.index("AttachRoot") :]
    # The root is changed after all mounts; the user is looked up after that, in the image and in nothing else.
    pivot = stage2.index("MoveRoot" if variant.get("no_pivot") else "PivotRoot")
    assert not {"MountFilesystem", "AttachMount", "MakeWorkingDirectory", "MakeDevice"} & set(stage2[pivot:])
    # Root's last deeds before it is the user; PDEATHSIG after, for a change of credentials clears it; execve at the end.
    ending = [name for name in stage2[pivot:] if name not in ("LoopbackUp", "SetHostname", "SetDomainname")]
    assert ending[1:] == [
        "FindUser",
        "Standard",
        "NewKeyring",
        "ChangeDirectory",
        "BecomeUser",
        "ChangeDirectory",
        "DieWithMonitor",
        "ResetProcess",
        "Execute",
    ]
    # In its cgroup it may be from its birth on, and is limited only when it is about to leave the host.
    work = max(stage1.index(name) for name in ("BuildOverlay", "CloneTree") if name in stage1)
    assert not {"FilterDevices", "OpenCgroups", "JoinNamespace"} & set(stage1[:work])
    assert stage1[-1] == "Unshare"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_plan_survives_its_way_to_the_shim(variant: dict[str, Any]) -> None:
    plan = plan_of(**variant)
    back = LaunchPlan.from_json(loads(dumps(plan.to_json())))
    assert lines(back) == lines(plan)
    assert dumps(back.to_json()) == dumps(plan.to_json())
    assert len(dumps(plan.to_json())) < 64 << 10, "a plan is sent in one message"


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_a_filter_is_loaded_last_and_by_who_may(no_new_privileges: bool) -> None:
    """Behind everything that is ours; CAP_SYS_ADMIN is there until then, if it takes that, and not in the bounding set."""
    given = {**PROCESS, "noNewPrivileges": no_new_privileges}
    plan = make_exec_plan("e", given, "sampan/c", Version1(), load_filter=LoadFilter("00" * 16, 4))  # type: ignore[arg-type]
    steps = Stages.from_text(plan.stages).stage2
    assert [step.describe() for step in steps[-2:]] == ["seccomp: load a filter of 2 instructions", "execve id"]
    assert [step.final for step in steps] == [False] * (len(steps) - 2) + [True, True]
    (become,) = (step for step in steps if isinstance(step, BecomeUser))
    assert tuple(become.until_execve) == (() if no_new_privileges else ("CAP_SYS_ADMIN",))
    assert tuple(become.capabilities) == ("CAP_KILL",)


# exec


PROCESS: dict[str, Any] = {
    "terminal": True,
    "consoleSize": {"height": 24, "width": 80},
    "user": {"username": "web", "additionalGroups": []},
    "args": ["id"],
    "env": ["A=1"],
    "cwd": "/srv",
    "capabilities": {"bounding": ["CAP_KILL"]},
    "noNewPrivileges": True,
    "oomScoreAdj": 100,
}


def test_an_exec() -> None:
    plan = make_exec_plan("e", PROCESS, "sampan/c", Version1(), open_stdin=True)  # type: ignore[arg-type]
    assert (plan.terminal, plan.size, plan.open_stdin, plan.detach) == (True, (24, 80), True, False)
    lists = Stages.from_text(plan.stages)
    assert lists.clone == 0, "the pid namespace that was joined is for the child; nothing else is new"
    kinds = ("mount", "pid", "network", "ipc", "uts", "cgroup", "time")
    assert [step.describe() for step in plan.monitor] == ["open the tasks files of 2 cgroups"]
    assert (plan.score, plan.alone, plan.powerful) == ("100", False, False)
    assert [step.describe() for step in lists.stage1] == [
        f"setns {', '.join(kind for kind in kinds if namespaces.supported(kind))} of the container's init",
    ]
    assert [step.describe() for step in lists.stage2] == [
        "write 0 to the tasks files of 2 cgroups",
        "open /",
        "look up user 'web' in /etc/passwd and /etc/group of the image",
        "setsid, dup2 the pty to 0, 1, 2, chown them to the user",
        "keyctl: join a new session keyring",
        "chdir /srv",
        "prctl PR_SET_NO_NEW_PRIVS",
        "drop all but 1 capabilities, setgroups, setresgid, setresuid",
        "chdir /srv as the user, unless root could",
        "prctl PR_SET_PDEATHSIG SIGKILL",
        "umask 022, signals to their defaults, descriptors from 3 on close-on-exec",
        "execve id",
    ]
    assert dumps(ExecPlan.from_json(loads(dumps(plan.to_json()))).to_json()) == dumps(plan.to_json())


def test_limits_of_processes_are_set_by_root_just_before_it_is_the_user() -> None:
    plan = plan_of({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": -1}]}, {"User": "web"})
    stage2 = of_stage(plan, "stage2")
    at = stage2.index("prlimit nofile 10:unlimited")
    assert stage2[at + 1].startswith("drop all but")


def test_devices_outside_dev_come_after_all_mounts() -> None:
    spec_devices = [{"PathOnHost": "/dev/zero", "PathInContainer": path} for path in ("/dev/z", "/srv/z")]
    devices = [{**device, "CgroupPermissions": "r"} for device in spec_devices]
    stage2 = of_stage(plan_of({"Devices": devices, "Tmpfs": {"/srv": ""}}), "stage2")
    node = next(i for i, line in enumerate(stage2) if line.startswith("mknod /srv/z c 1:5"))
    assert node > max(i for i, line in enumerate(stage2) if line.startswith(("mount ", "move_mount")))
    assert next(i for i, line in enumerate(stage2) if line.startswith("mknod /dev/z ")) < stage2.index(
        "symlink /dev/fd -> /proc/self/fd"
    )


# steps themselves


SAMPLES: dict[str, Any] = {
    "str": "/a \udcff",
    "int": 7,
    "bool": True,
    "tuple[str, ...]": ("a", "\udcff"),
    "tuple[tuple[str, str], ...]": (("mode", "755"), ("flag", "")),
    "tuple[tuple[bool, str, int, int, str], ...]": ((True, "c", 1, 3, "rwm"),),
}


def sample(kind: type[Step]) -> Step:
    """A step with a value in every field, by the fields' annotations."""
    values = {name: SAMPLES[text] for name, text in kind.__annotations__.items() if name in kind._fields}
    if kind.__name__ == "SeparateMounts":
        values["propagation"] = "private"
    if kind.__name__ == "MakeDevice":
        values["kind"] = "c"
    return kind(**values)


@pytest.mark.parametrize("name", sorted(Step.kinds))
def test_every_step_describes_itself_in_one_line_and_survives_encoding(name: str) -> None:
    step = sample(Step.kinds[name])
    described = step.describe()
    assert described
    assert described == described.strip()
    assert "\n" not in described
    back = base.decode(loads(dumps(base.encode([step]))))[0]
    assert type(back) is type(step)
    assert back.to_json() == step.to_json()
    assert back.describe() == described
    assert isinstance(step.advice(28), str)


def test_every_step_can_also_run() -> None:
    assert len(Step.kinds) > 30
    for name, kind in Step.kinds.items():
        assert kind.run is not Step.run or name == "CloneSibling", name
