"""An OCI configuration -> a `LaunchPlan`: the straight lists of kernel steps, each with its reason for being where it is.

This is the heart of a start, and it is data: nothing here touches the kernel. The child side runs the lists in order
and decides nothing (see shim.stages).
"""

from __future__ import annotations

import os

from sampan.kernel import cgroup, namespaces
from sampan.kernel.libc import has_file
from sampan.oci import runtime as oci
from sampan.runtime import defaults, plancgroups
from sampan.shim.protocol import NO_CLONE, VERSION, WAITING, LaunchPlan, LogPlan, Stages
from sampan.steps import changeroot, joining, mounts, process, sources, terminal
from sampan.steps import namespaces as setup
from sampan.steps.base import Step
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver

CLONED = ("mount", "pid", "network", "ipc", "uts", "time")
"""Namespaces that init is born in. The cgroup namespace comes later, when init is in its cgroup: see `JoinCgroups`."""

USER = "user"
"""The descriptor of a user namespace of the container's own: made by stage1, or beforehand with its network namespace."""


class RootFilesystem(Struct):
    """What the root is made of, as a snapshotter says: an overlay's layers, or one directory to bind.

    kind: "overlay" or "bind". lower: topmost first. place: any directory of ours, for the root to be attached to. recursive: with what is mounted below.
    mapped: its owners on disk are the image's, and are shown as the container's user namespace maps them. propagation: of a bind, to
    the mount that it is a copy of. volatile: of an overlay, see `kernel.mount.overlay`.
    """

    kind: str
    lower: tuple[str, ...]
    upper: str
    work: str
    source: str
    place: str
    recursive: bool = False
    mapped: bool = False
    propagation: str = "rprivate"
    volatile: bool = False


class Mode(Struct):
    """What differs between a container of the engine, whose monitor stays, and one of an OCI runtime, which is left to its caller.

    monitored: it ends with its monitor. strict: what the configuration asks for and cannot be had fails the start. preserved: descriptors from 3
    on that the program gets. console: its terminal's master goes out over the descriptor "console.socket". hold: it waits for
    `start` at the descriptor "start.socket"; else, in OCI mode, for its parent. keyring: a session keyring of its own. state: as hooks are told it.
    """

    monitored: bool = True
    strict: bool = False
    preserved: int = 0
    console: bool = False
    hold: bool = False
    keyring: bool = True
    state: str = ""
    listener: str = ""
    """What is sent with the filter's listener over the descriptor "listener.socket"; "" for a filter without."""


class Launching(Struct):
    """The facts of one start that are in no OCI configuration.

    joined: kinds of namespaces that come as descriptors "ns.KIND", and "ns.mount" of the container whose /dev/shm is
    shared. init: the host's program for pid 1, "" for none. group: the cgroup. waiting: how many clients come along that were
    there before. keepers: as in `LaunchPlan`. filter: made of `linux.seccomp`. The rest is as in `LaunchPlan`.
    """

    container: str
    directory: str
    start: str
    run_directory: str
    root: RootFilesystem
    group: str
    joined: tuple[str, ...] = ()
    log: LogPlan = LogPlan()
    open_stdin: bool = False
    stdin_once: bool = False
    init: str = ""
    no_pivot: bool = False
    attached: bool = False
    waiting: int = 0
    reaper: tuple[str, ...] = ()
    settles: bool = False
    temporary: bool = False
    watched: bool = False
    health: str = ""
    journal: tuple[str, int] = ("", 0)
    events: tuple[str, ...] = ()
    filter: process.LoadFilter | None = None
    mode: Mode = Mode()
    keepers: tuple[tuple[str, ...], ...] = ()
    alone: bool = True
    """Whether the parent can clone init itself, where the configuration allows that."""


def make_plan(spec: dict[str, Any], facts: Launching, driver: CgroupDriver) -> LaunchPlan:
    """Compose the lists. Raises what `driver` raises for limits that it cannot set."""
    lists, birth = make_stages(spec, facts, driver)
    descriptors = [_descriptor(kind, spec) for kind in facts.joined]
    descriptors += [f"keeper.{number}" for number in range(len(facts.keepers))] + (["attach"] if facts.attached else [])
    descriptors += [f"{WAITING}{number}" for number in range(facts.waiting)]
    return LaunchPlan(
        version=VERSION,
        container=facts.container,
        directory=facts.directory,
        start=facts.start,
        run_directory=facts.run_directory,
        monitor=(*_monitor(spec), *birth),
        stages=lists.to_text(),
        descriptors=tuple(descriptors),
        log=facts.log,
        terminal=bool(spec["process"].get("terminal")),
        open_stdin=facts.open_stdin,
        stdin_once=facts.stdin_once,
        cgroup=driver.live(facts.group),
        shared_pid=not _new_namespaces(spec) & namespaces.CLONE_NEWPID,
        reaper=facts.reaper,
        settles=facts.settles,
        temporary=facts.temporary,
        watched=facts.watched,
        health=facts.health,
        journal=facts.journal,
        events=facts.events,
        keepers=facts.keepers,
    )


def _descriptor(kind: str, spec: dict[str, Any]) -> str:
    """The name by which a joined namespace comes."""
    user = oci.namespace(spec, USER)
    return USER if kind == USER and user is not None and "path" not in user else f"ns.{kind}"


def make_stages(spec: dict[str, Any], facts: Launching, driver: CgroupDriver) -> tuple[Stages, tuple[Step, ...]]:
    """The lists of stage1 and stage2 with what is between them, and the steps of the parent that make the process of both.

    No such steps: two processes are needed, and stage1 clones stage2.
    """
    new = _new_namespaces(spec)
    alone = facts.alone and _can_be_alone(spec, facts)
    before, after = _stage1(spec, facts, driver, alone), tuple(_stage2(spec, facts, driver))
    if not alone or any(step.forks for step in before):
        if alone:
            before = _stage1(spec, facts, driver, False)
        if spec["linux"].get("timeOffsets"):
            new &= ~namespaces.CLONE_NEWTIME  # made by stage1, for the clocks of one that has a process cannot be set
        return Stages(tuple(before), new, after), ()
    birth: list[Step] = []
    if directory := driver.clone_directory(facts.group):
        birth.append(joining.MakeBirthplace(directory))
    birth.append(joining.CloneInit(new & _FOR_CHILDREN))
    if own := new & ~_FOR_CHILDREN:
        before.append(setup.Unshare(own))
    return Stages(tuple(before), NO_CLONE, after), tuple(birth)


_FOR_CHILDREN = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWTIME
"""Namespaces that a process cannot make for itself (unshare(2))."""


def _new_namespaces(spec: dict[str, Any]) -> int:
    own = [oci.namespace(spec, kind) for kind in CLONED]
    return sum(namespaces.FLAGS[n["type"]] for n in own if n is not None and "path" not in n)


def _can_be_alone(spec: dict[str, Any], facts: Launching) -> bool:
    """Whether init can run stage1's list as well.

    Not with a user namespace, which all others shall be made in; not where one is joined that only children are in then; not where clocks
    are set, for which no process may be in the namespace yet.
    """
    user = oci.namespace(spec, "user")
    return user is None and not {"pid", "time"} & set(facts.joined) and not spec["linux"].get("timeOffsets")


# the monitor


def _monitor(spec: dict[str, Any]) -> list[Step]:
    """The container's devpts is made by the monitor, which keeps it: terminals of later execs come from it too."""
    steps: list[Step] = []
    entry = next((m for m in spec["mounts"] if m["type"] == "devpts"), None)
    if entry is not None:
        options = oci.mount_options(entry["options"])
        steps.append(terminal.BuildFilesystem("devpts", "devpts", options.data, options.attributes))
        if spec["process"].get("terminal"):
            size = spec["process"].get("consoleSize") or {}
            steps.append(terminal.OpenTerminal("devpts", size.get("height", 0), size.get("width", 0)))
    return steps


# stage1: the host's view and privileges


def _stage1(spec: dict[str, Any], facts: Launching, driver: CgroupDriver, alone: bool) -> list[Step]:
    steps: list[Step] = []
    # Cgroups first: the container's own view of them, below, binds directories that have to exist.
    steps += plancgroups.make(facts.group, driver)
    if not alone:
        steps += plancgroups.limit(spec, facts, driver, alone)
    # /proc/self is this process', and what is set here goes over to init; there, /proc is the container's.
    steps += oom_score(spec["process"], facts.mode)
    if facts.init:
        steps.append(setup.PrivateProgram("init", facts.init))
    user = oci.namespace(spec, "user")
    if user is not None and "path" not in user and USER not in facts.joined:
        # With the host's privileges, which its maps take; before the mounts, which may be shown through it.
        steps.append(planmore().make_user_namespace(spec["linux"]))
    # Every mount that has a source on the host, detached: once this list is done, no path of the host is needed.
    steps += root_steps(facts.root)
    if any(entry.get("matchUser") for entry in spec["mounts"]):
        # Whose ids the mounts are given: the image's own files say it, and its root is there now.
        own = spec["process"]["user"]
        steps.append(process.FindUser(own["username"], tuple(own["additionalGroups"])))
    if driver.version == "v2" and plancgroups.has_own_groups(spec):
        steps += planmore().delegate(spec, driver.directories(facts.group)[0])
    for index, entry in enumerate(spec["mounts"]):
        steps += _detached(entry, index, facts, driver)
    if user is not None:
        # A device node cannot be made inside a user namespace: made here, they are attached there.
        steps += planmore().build_devices(_all_devices(spec), spec["linux"])
    if alone:
        # On v2 this process is in the group from its birth: it is limited when the host's work is done, and not while it opens the host's devices.
        steps += plancgroups.limit(spec, facts, driver, alone)
    # Namespaces of others last, for each one takes away a part of the host's view; the user namespace takes the privileges for the others.
    for kind in facts.joined:
        if kind not in ("mount", "user"):
            steps.append(setup.JoinNamespace(kind, f"ns.{kind}"))
    if facts.mode.strict and "mount" in facts.joined:
        steps.append(setup.JoinNamespace("mount", "ns.mount"))
    if user is not None:
        steps.append(planmore().enter_user_namespace("path" in user))
    if spec["linux"].get("timeOffsets"):
        steps.append(planmore().offset_clocks(spec["linux"]["timeOffsets"]))
    return steps


_made: dict[tuple[object, ...], Step] = {}
"""Steps that were made already, up to a bound: of the hundred of a start half are the same in each."""
_MOST_MADE = 256


def _same(kind: type[Step], *fields: object) -> Step:
    """A step with fields in which nothing is the container's own, and which can be keys."""
    key = (kind, *fields)
    step = _made.get(key)
    if step is None:
        step = kind(*fields)
        if len(_made) < _MOST_MADE:
            _made[key] = step
    return step


def planmore() -> Any:
    """The steps that no container of a plain `run` has, imported for the first that has one."""
    from sampan.runtime import planmore

    return planmore


def oom_score(own: dict[str, Any], mode: Mode) -> list[Step]:
    if own.get("oomScoreAdj") is None:
        return []
    return [process.WriteFile("/proc/self/oom_score_adj", str(own["oomScoreAdj"]), required=mode.strict)]


def root_steps(root: RootFilesystem) -> list[Step]:
    """What makes a container's root file system, detached and named "root"."""
    if root.kind == "overlay":
        ids = "user" if root.mapped else ""
        return [sources.BuildOverlay("root", root.lower, root.upper, root.work, ids, root.volatile)]
    whole = sources.CloneTree("root", root.source, root.recursive, propagation=root.propagation)
    return [whole, planmore().map_root(root.source)] if root.mapped else [whole]


def _detached(entry: dict[str, Any], index: int, facts: Launching, driver: CgroupDriver) -> list[Step]:
    """The steps that make a mount's source while the host is in view; none for what init makes itself."""
    options = oci.mount_options(entry.get("options") or ())
    if entry.get("source") == "joined:/dev/shm":
        return [sources.BorrowTree(f"mount.{index}", "ns.mount", "/dev/shm")]
    if entry["type"] == "bind":
        return bind_steps(entry, f"mount.{index}", options)
    if entry["type"] == "image":
        ids = "user" if facts.root.mapped else ""
        return [sources.BuildImage(f"mount.{index}", tuple(entry["directories"]), entry["subpath"], ids)]
    if options.remount:
        return []
    if entry.get("disk"):
        return [planmore().build_disk(entry, f"mount.{index}", options)]
    if entry["type"] == "cgroup" and driver.version != "v2":
        return [
            sources.CloneTree(f"cgroup.mount.{h.name}", h.directory, False, options.attributes)
            for h in driver.hierarchies(facts.group)
        ]
    return []


def bind_steps(entry: dict[str, Any], name: str, options: oci.MountOptions) -> list[Step]:
    """The steps that make the detached mount `name` of an entry of type bind."""
    steps: list[Step] = [
        sources.CloneTree(
            name,
            entry["source"],
            options.recursive,
            options.attributes,
            options.deep,
            options.propagation or "rprivate",
            entry.get("subpath", ""),
            options.clear,
            options.deep_clear,
        )
    ]
    if entry.get("uidMappings") or entry.get("gidMappings") or options.idmap:
        steps += planmore().map_mount(entry, name, options)
    if entry.get("matchUser"):
        uid, gid = entry["matchUser"]
        steps.append(sources.MatchUser(name, entry["source"], uid, gid))
    return steps


# stage2: init, in its own namespaces


def _stage2(spec: dict[str, Any], facts: Launching, driver: CgroupDriver) -> list[Step]:
    linux, own, mode = spec["linux"], spec["process"], facts.mode
    steps: list[Step] = []
    # In its cgroups before anything else: what follows is charged to the container, and a cgroup namespace is
    # rooted where its maker is.
    cgroup_namespace = oci.namespace(spec, "cgroup")
    new_cgroup_namespace = cgroup_namespace is not None and (not mode.strict or "path" not in cgroup_namespace)
    joined = len(driver.join_files(facts.group)) + plancgroups.joined_by_file(spec, driver)
    steps.append(joining.JoinCgroups(joined, new_cgroup_namespace))
    # Before the first mount: nothing done from here on gets back to the host's mount namespace.
    steps.append(changeroot.SeparateMounts("slave"))
    user = oci.namespace(spec, "user")
    # In the namespaces that they are of, while /proc is still the host's own: a container cannot have mounted
    # anything over that one, or be changing it at this moment (CVE-2025-52881).
    parameters = tuple((oci.parameter_path(name), value) for name, value in (linux.get("sysctl") or {}).items())
    if parameters and user is None:
        steps.append(setup.SetKernelParameters(parameters))
    # The root at once: every other target is resolved below it, in it.
    steps.append(changeroot.AttachRoot(facts.root.place))
    if user is not None:
        # After the cgroups and the way to the root, which are the host's root's; before all that shall belong to the container.
        steps.append(planmore().become_root())
        if parameters:
            steps.append(setup.SetKernelParameters(parameters))
    steps += _mounts(spec, facts, driver)
    if own.get("terminal"):
        if mode.console:
            steps.append(planmore().open_console(own))
        steps.append(mounts.AttachConsole())
    # The working directory after all mounts (it may lie on one), before the root becomes read-only.
    steps.append(setup.MakeWorkingDirectory(own["cwd"]))
    if mode.strict:
        # While the root can still be written to and the host's file system is in view, as hooks expect it.
        steps += planmore().hooks_of_making(spec, mode)
    # Masks and read-only paths over what was mounted; through descriptors, so before or after pivot_root is the same.
    steps += [_same(mounts.BindOntoItself, path) for path in linux.get("readonlyPaths") or ()]
    steps += [_same(mounts.MaskPath, path) for path in linux.get("maskedPaths") or ()]
    if spec["root"].get("readonly"):
        steps.append(changeroot.ReadOnlyRoot())
    if driver.version == cgroup.NONE and "CAP_MKNOD" not in ((own.get("capabilities") or {}).get("bounding") or ()):
        # No cgroup judges who opens a device: those that the image brings are dead.
        steps.append(changeroot.DeadDevices())
    # From here on the host's file system is out of reach.
    steps.append(changeroot.MoveRoot() if facts.no_pivot else changeroot.PivotRoot())
    if mode.strict and linux.get("rootfsPropagation"):
        # Not earlier: pivot_root takes no root that is shared.
        steps.append(changeroot.PropagateRoot(linux["rootfsPropagation"]))
    network = oci.namespace(spec, "network")
    if network is not None and "path" not in network:
        steps.append(setup.LoopbackUp())
    if oci.namespace(spec, "uts") is not None:
        if spec.get("hostname"):
            steps.append(setup.SetHostname(spec["hostname"]))
        if spec.get("domainname"):
            steps.append(setup.SetDomainname(spec["domainname"]))
    if linux.get("personality"):
        steps.append(planmore().personality(linux["personality"]))
    return steps + become(spec, own, mode, facts.filter, "init" if facts.init else "")


def _mounts(spec: dict[str, Any], facts: Launching, driver: CgroupDriver) -> list[Step]:
    """Every mount into its place, in the order of the configuration; the devices as soon as there is a /dev."""
    steps: list[Step] = []
    # A /dev that is bound is somebody else's; without any mount the image's own directory is taken.
    places = {os.path.normpath(entry["destination"]): entry["type"] for entry in spec["mounts"]}
    if "/dev" not in places and facts.mode.strict:
        steps += _devices(spec, "")
    own = ""  # the name of the /dev that these steps make
    for index, entry in enumerate(spec["mounts"]):
        steps += _attached(entry, index, facts, driver, own)
        if os.path.normpath(entry["destination"]) == "/dev" and entry["type"] == "tmpfs":
            # As soon as /dev is there, for masks need its null, and mounts below it their places.
            own = getattr(steps[-1], "keep", "")
            steps += _devices(spec, own)
    # Devices elsewhere than in /dev after all mounts, for their place may be on one.
    return steps + [
        _device(e, spec, "") for e in spec["linux"].get("devices") or () if not e["path"].startswith("/dev/")
    ]


def become(
    spec: dict[str, Any], own: dict[str, Any], mode: Mode, load_filter: process.LoadFilter | None, init: str = ""
) -> list[Step]:
    """The end of init and of an exec alike: from a root process of ours to the user's program."""
    numbers = "uid" in own["user"]
    steps: list[Step] = [
        # Who it is, before anything is handed over to that user.
        planmore().take_user(own["user"])
        if numbers
        else process.FindUser(own["user"]["username"], tuple(own["user"]["additionalGroups"])),
        # The session before the terminal, which becomes the controlling one of the session's leader.
        process.Standard(bool(own.get("terminal"))),
    ]
    if mode.keyring:
        steps.append(process.NewKeyring())
    # As root if root can, else below, as the user.
    steps.append(process.ChangeDirectory(own["cwd"]))
    if mode.strict:
        steps += planmore().scheduling_steps(own)
    if own.get("noNewPrivileges"):
        steps.append(process.NoNewPrivileges())
    # As root, who may raise them, and as late as that: a step of ours may need what the program is not to have.
    if own.get("rlimits"):
        steps += _resource_limits(own["rlimits"])
    # What is loaded last must still be allowed then.
    loads = ("CAP_SYS_ADMIN",) if load_filter and not own.get("noNewPrivileges") else ()
    steps.append(
        planmore().set_privileges(own, loads)
        if numbers
        else process.BecomeUser(tuple(own["capabilities"]["bounding"]), loads)
    )
    steps.append(process.ChangeDirectory(own["cwd"], again=True))
    if mode.monitored:
        # After the last change of credentials, which would have cleared it.
        steps.append(process.DieWithMonitor())
    if mode.strict:
        steps += planmore().wait_and_hooks(spec, own, mode)
    steps.append(process.ResetProcess(own["user"].get("umask", 0o022), mode.preserved))
    # Behind all else: the filter is the program's, and is not to have to allow what only we do.
    if load_filter:
        steps.append(load_filter)
    if mode.listener:
        steps.append(planmore().send_listener(mode.listener))
    return [*steps, process.Execute(tuple(own["args"]), tuple(own.get("env") or ()), init)]


def _resource_limits(entries: list[dict[str, Any]]) -> list[Step]:
    from sampan.oci import rlimits  # few containers have any

    steps: list[Step] = []
    for entry in entries:
        name = rlimits.short_name(entry["type"])
        steps.append(process.LimitResource(name, rlimits.NUMBERS[name], entry["soft"], entry["hard"]))
    return steps


def _attached(entry: dict[str, Any], index: int, facts: Launching, driver: CgroupDriver, dev: str) -> list[Step]:
    """The steps that put one mount into its place. dev: the name by which a /dev is known that was made before it, "" for none."""
    target, options = entry["destination"], oci.mount_options(entry.get("options") or ())
    if options.remount or options.copy_up or (facts.mode.strict and entry["type"] != "cgroup"):
        return list(planmore().attach(entry, index, options))
    if entry["type"] in ("bind", "image"):
        return [_same(mounts.AttachMount, f"mount.{index}", target)]
    if entry["type"] == "devpts":
        return [_same(mounts.AttachMount, "devpts", target, _within(target, dev))]
    if entry["type"] == "cgroup":
        return _cgroup_view(target, options, facts, driver)
    named = "dev" if target == "/dev" and entry["type"] == "tmpfs" else ""
    fields = (entry["type"], target, options.data, options.attributes, entry["source"], named, _within(target, dev))
    return [_same(mounts.MountFilesystem, *fields)]


def _within(path: str, dev: str) -> str:
    """`dev` for what is in /dev itself."""
    return dev if path.startswith("/dev/") and "/" not in path[5:] and path[5:] not in ("", ".", "..") else ""


def _cgroup_view(target: str, options: oci.MountOptions, facts: Launching, driver: CgroupDriver) -> list[Step]:
    """/sys/fs/cgroup: v2 as one mount in the container's own namespace; v1 a directory a hierarchy, bound to its own group."""
    if driver.version == "v2":
        return [mounts.MountFilesystem("cgroup2", target, (), options.attributes, "cgroup")]
    top, attributes = "cgroups", options.attributes & ~oci.RDONLY
    steps: list[Step] = [mounts.MountFilesystem("tmpfs", target, (("mode", "755"),), attributes, keep=top)]
    for hierarchy in driver.hierarchies(facts.group):
        steps.append(_same(mounts.AttachMount, f"cgroup.mount.{hierarchy.name}", f"{target}/{hierarchy.name}", top))
    steps += [_same(mounts.MakeLink, f"{target}/{name}", points_to) for name, points_to in driver.links]
    if options.attributes & oci.RDONLY:
        # Last, for the directories and links had to be made in it.
        steps.append(mounts.SealMount(target))
    return steps


def _all_devices(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The devices that every container has, and its own instead of those at the same place."""
    asked = list(spec["linux"].get("devices") or ())
    taken = {entry["path"] for entry in asked}
    default = [
        {"path": path, "type": "c", "major": major, "minor": minor}
        for path, major, minor in defaults.DEVICES
        if path not in taken
    ]
    return default + asked


def _devices(spec: dict[str, Any], dev: str) -> list[Step]:
    """Those in /dev. dev: as of `_attached`."""
    steps = [_device(entry, spec, dev) for entry in _all_devices(spec) if entry["path"].startswith("/dev/")]
    steps += [_same(mounts.MakeLink, path, points_to, _within(path, dev)) for path, points_to in defaults.LINKS]
    if has_file(defaults.KCORE_LINK[1]):
        steps.append(_same(mounts.MakeLink, *defaults.KCORE_LINK, dev))
    return steps


def _device(entry: dict[str, Any], spec: dict[str, Any], dev: str) -> Step:
    if oci.namespace(spec, "user") is not None:
        attach: Step = planmore().attach_device(entry)
        return attach
    return _same(
        mounts.MakeDevice,
        entry["path"],
        entry["type"],
        entry.get("major") or 0,
        entry.get("minor") or 0,
        entry.get("fileMode", 0o666),
        entry.get("uid") or 0,
        entry.get("gid") or 0,
        _within(entry["path"], dev),
    )
