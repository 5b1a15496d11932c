"""The steps of an OCI configuration that no container of a plain `run` has: user and time namespaces, hooks, numbers for names.

Apart from `plan`, which says where each of them goes and why, and imports this for the first that is asked for. What most OCI
configurations have none of is imported here in the same way.
"""

from __future__ import annotations

from sampan.kernel import capabilities
from sampan.oci import runtime as oci
from sampan.steps import meeting, mounts, privileges
from sampan.steps import process as process_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.kernel.cgroupmodel import Write
    from sampan.runtime.plan import Mode
    from sampan.steps.base import Step

# user and time namespaces


def make_user_namespace(linux: dict[str, Any]) -> Step:
    """The container's own, by its maps."""
    from sampan.steps import ids

    return ids.MakeUserNamespace("user", id_map(linux["uidMappings"]), id_map(linux["gidMappings"]))


def id_map(entries: Iterable[dict[str, int]]) -> str:
    """linux.uidMappings as the lines of a uid_map."""
    return "".join(f"{e['containerID']} {e['hostID']} {e['size']}\n" for e in entries)


def enter_user_namespace(joined: bool) -> Step:
    from sampan.steps import ids

    return ids.EnterUserNamespace("ns.user" if joined else "user")


def delegate(spec: dict[str, Any], directory: str) -> list[Step]:
    """The container's group to the user of its process, as runc does where it sees the group alone and can write to it."""
    own = spec["process"]["user"]
    steps: list[Step] = []
    if "uid" not in own:
        steps.append(process_steps.FindUser(own["username"], tuple(own["additionalGroups"])))
    uids = tuple((e["containerID"], e["hostID"], e["size"]) for e in spec["linux"].get("uidMappings") or ())
    from sampan.steps import ids

    return [*steps, ids.DelegateCgroup(directory, own.get("uid", -1), uids)]


def become_root() -> Step:
    from sampan.steps import ids

    return ids.BecomeRoot()


def offset_clocks(offsets: dict[str, dict[str, int]]) -> Step:
    """linux.timeOffsets."""
    from sampan.steps import ids

    entries = ((clock, e.get("secs") or 0, e.get("nanosecs") or 0) for clock, e in offsets.items())
    return ids.OffsetClocks(tuple(entries))


# mounts and devices


def map_mount(entry: dict[str, Any], name: str, options: oci.MountOptions) -> list[Step]:
    """An id-mapped mount: by maps of its own, or by those of the container's user namespace."""
    from sampan.steps import ids, moremounts

    recursive = options.idmap == "ridmap"
    steps: list[Step] = []
    namespace = "user"
    if entry.get("uidMappings"):
        namespace = f"{name}.ids"
        steps.append(ids.MakeUserNamespace(namespace, id_map(entry["uidMappings"]), id_map(entry["gidMappings"])))
    return [*steps, moremounts.MapMount(name, entry["source"], namespace, recursive)]


def build_disk(entry: dict[str, Any], name: str, options: oci.MountOptions) -> Step:
    from sampan.steps import moremounts

    return moremounts.BuildDisk(name, entry["type"], entry["source"], options.data, options.attributes)


def map_root(source: str) -> Step:
    """The root as the container's user namespace maps its owners."""
    from sampan.steps import moremounts

    return moremounts.MapMount("root", source, "user")


def build_devices(entries: Iterable[dict[str, Any]], linux: dict[str, Any]) -> list[Step]:
    """Device nodes as files of a detached file system of the host's, each to be attached where it belongs."""
    from sampan.steps import moremounts

    uids, gids = linux.get("uidMappings") or (), linux.get("gidMappings") or ()
    found = tuple(
        (
            e["path"],
            e["type"],
            e.get("major") or 0,
            e.get("minor") or 0,
            e.get("fileMode", 0o666),
            _outside(e.get("uid") or 0, uids),
            _outside(e.get("gid") or 0, gids),
        )
        for e in entries
    )
    return [moremounts.BuildDevices(found)]


def _outside(number: int, entries: Iterable[dict[str, int]]) -> int:
    """The host's number of a user or group of the container; itself where no map has it (a namespace that is joined)."""
    for e in entries:
        if e["containerID"] <= number < e["containerID"] + e["size"]:
            return e["hostID"] + number - e["containerID"]
    return number


def attach(entry: dict[str, Any], index: int, options: oci.MountOptions) -> list[Step]:
    """The steps that put one mount of an OCI configuration into its place."""
    target, source = entry["destination"], entry.get("source") or entry["type"]
    if not options.remount and (entry["type"] == "bind" or entry.get("disk")):
        return [mounts.AttachMount(f"mount.{index}", target)]
    by_flags = any(key == "iversion" for key, _ in options.data)
    if not (options.remount or by_flags or options.copy_up or options.propagation or options.deep):
        return [mounts.MountFilesystem(entry["type"], target, options.data, options.attributes, source)]
    from sampan.steps import moremounts  # few configurations have one of these

    if options.remount:
        return [moremounts.Remount(target, options.attributes, options.clear)]
    if by_flags:
        return [
            moremounts.MountByFlags(entry["type"], target, options.data, options.attributes, entry.get("source") or "")
        ]
    kind = moremounts.MountWithCopy if options.copy_up else mounts.MountFilesystem
    step: Step = kind(entry["type"], target, options.data, options.attributes, source)
    if not options.propagation and not options.deep:
        return [step]
    return [step, moremounts.Adjust(target, options.propagation, options.deep, options.deep_clear)]


def attach_device(entry: dict[str, Any]) -> Step:
    """One of `build_devices`."""
    from sampan.steps import moremounts

    name = f"device:{entry['path']}"
    major, minor = entry.get("major") or 0, entry.get("minor") or 0
    return moremounts.AttachDevice(name, entry["path"], kind=entry["type"], major=major, minor=minor)


def open_console(own: dict[str, Any]) -> Step:
    from sampan.steps import console

    size = own.get("consoleSize") or {}
    return console.OpenConsole("console.socket", size.get("height", 0), size.get("width", 0))


# the process


def take_user(user: dict[str, Any]) -> Step:
    return privileges.TakeUser(user["uid"], user["gid"], tuple(user.get("additionalGids") or ()))


def set_privileges(own: dict[str, Any], until_execve: tuple[str, ...] = ()) -> Step:
    """process.capabilities; without them a process has none. `until_execve`: what the steps behind need, as in `BecomeUser`."""
    sets = own.get("capabilities") or {}
    bounding, effective, permitted, inheritable, ambient = (
        capabilities.mask(sets.get(name) or ())
        for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    )
    more = capabilities.mask(until_execve)
    return privileges.SetPrivileges(bounding, effective, permitted, inheritable, ambient, more)


def scheduling_steps(own: dict[str, Any]) -> list[Step]:
    """process.scheduler and process.ioPriority."""
    steps: list[Step] = []
    if scheduler := own.get("scheduler"):
        from sampan.kernel.scheduling import FLAGS
        from sampan.steps import scheduling

        flags = sum(FLAGS[name] for name in scheduler.get("flags") or ())
        numbers = (scheduler.get(n) or 0 for n in ("nice", "priority", "runtime", "deadline", "period"))
        steps.append(scheduling.Schedule(scheduler["policy"], flags, *numbers))
    if io := own.get("ioPriority"):
        from sampan.steps import scheduling

        steps.append(scheduling.SetIoPriority(io["class"], io.get("priority") or 0))
    return steps


def affinity(own: dict[str, Any], when: str) -> list[Step]:
    """process.execCPUAffinity: "initial" before the cgroup is entered, "final" after."""
    text = (own.get("execCPUAffinity") or {}).get(when) or ""
    if not text:
        return []
    from sampan.oci import cpuset
    from sampan.steps import scheduling

    return [scheduling.SetProcessors(tuple(sorted(cpuset.members(text))))]


def personality(entry: dict[str, Any]) -> Step:
    from sampan.steps import scheduling

    return scheduling.SetPersonality(entry["domain"])


# hooks, and who waits for whom


def hooks_of_making(spec: dict[str, Any], mode: Mode) -> list[Step]:
    """The environment is there, and pivot_root still to come: the runtime's own hooks, by our parent, then the container's."""
    given = spec.get("hooks") or {}
    steps: list[Step] = []
    if given.get("prestart") or given.get("createRuntime") or given.get("createContainer"):
        steps.append(meeting.Meet("environment"))
    return steps + _hooks(given, "createContainer", mode, "creating")


def wait_and_hooks(spec: dict[str, Any], own: dict[str, Any], mode: Mode) -> list[Step]:
    """What comes between a process that is all that it shall be and its program: an exec (which has no `spec`) waits for nobody."""
    steps: list[Step] = [process_steps.FindProgram(own["args"][0], tuple(own.get("env") or ()))]
    if not spec:
        return steps
    steps.append(meeting.Meet("created"))
    if mode.hold:
        from sampan.steps import hooks

        steps.append(hooks.HoldForStart("start.socket"))
    return steps + _hooks(spec.get("hooks") or {}, "startContainer", mode, "created")


def send_listener(text: str) -> Step:
    """linux.seccomp.listenerPath: behind the filter, which may therefore not refer sendmsg(2) to the listener."""
    from sampan.steps import console

    return console.SendListener("listener.socket", text)


def _hooks(given: dict[str, Any], kind: str, mode: Mode, status: str) -> list[Step]:
    entries = given.get(kind) or ()
    if not entries:
        return []
    from sampan.steps import hooks

    return [hooks.RunHooks(kind, tuple(map(hook, entries)), mode.state, status)]


def hook(entry: dict[str, Any]) -> tuple[str, tuple[str, ...], tuple[str, ...], int]:
    """One hook of the configuration, as `steps.hooks` takes it."""
    return entry["path"], tuple(entry.get("args") or ()), tuple(entry.get("env") or ()), entry.get("timeout") or 0


def ignored_limits(resources: dict[str, Any]) -> list[str]:
    """The warnings of what has no effect any more."""
    if not resources.get("memory"):
        return []
    from sampan.runtime import moreresources

    return moreresources.ignored(resources)


def more_limits(resources: dict[str, Any], group: str, driver: CgroupDriver) -> list[Write]:
    """What of linux.resources the drivers do not know."""
    if not any(resources.get(part) for part in ("memory", "cpu", "blockIO", "network", "rdma", "unified")):
        return []
    from sampan.runtime import moreresources

    return moreresources.writes(resources, group, driver)
