"""What an OCI configuration must be beyond its shape, and what of it cannot be had: checked before anything is made.

Source: runtime-spec 1.2, config.md, config-linux.md. Each refusal names the field; nothing that is asked for is passed over in silence.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci import rlimits, runtimeschema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")
PROPAGATIONS = (
    *("private", "rprivate", "slave", "rslave"),
    *("shared", "rshared", "unbindable", "runbindable"),
)
DEVICE_TYPES = ("a", "b", "c", "p", "u")


def check(config: Any) -> None:
    """Raise `InvalidParameter` for a configuration that no container can be made of."""
    if config is None:
        raise InvalidParameter("config.json is no object")
    runtimeschema.check(config, runtimeschema.CONFIG, "")
    _check_version(config["ociVersion"])
    for part in ("root", "linux"):
        if config.get(part) is None:
            raise InvalidParameter(f"{part} is missing")
    kinds = _check_namespaces(config["linux"])
    _check_mounts(config.get("mounts") or ())
    _check_linux(config["linux"], kinds)
    if config.get("hostname") and "uts" not in kinds:
        raise InvalidParameter("hostname: unable to set hostname without a private UTS namespace")
    if config.get("domainname") and "uts" not in kinds:
        raise InvalidParameter("domainname: unable to set domainname without a private UTS namespace")
    for kind, entries in (config.get("hooks") or {}).items():
        for index, entry in enumerate(entries or ()):
            _check_hook(entry, f"hooks.{kind}[{index}]")
    for key, value in (config.get("annotations") or {}).items():
        if not key or value is None:
            raise InvalidParameter(f"annotations: {'a key is empty' if not key else f'{key} is null and no string'}")
    if config.get("process") is not None:
        check_process(config["process"], "process")


def check_process(own: Any, where: str) -> None:
    """The same for a process object (of the configuration, or of `exec --process`)."""
    if own is None:
        raise InvalidParameter(f"{where} is no object")
    runtimeschema.check(own, runtimeschema.PROCESS, where)
    if not own.get("cwd", "").startswith("/"):
        raise InvalidParameter(f"{where}.cwd: Cwd must be an absolute path")
    if not own.get("args"):
        raise InvalidParameter(f"{where}.args: args must not be empty")
    _check_rlimits(own.get("rlimits") or (), where)
    _check_scheduling(own, where)
    if own.get("apparmorProfile") not in (None, "", "unconfined"):
        raise InvalidParameter(
            f"{where}.apparmorProfile: {own['apparmorProfile']!r} was asked for, and AppArmor profiles are not supported: leave it out"
        )
    if own.get("selinuxLabel"):
        raise InvalidParameter(
            f"{where}.selinuxLabel: {own['selinuxLabel']!r} was asked for, and SELinux labels are not supported: leave it out"
        )


def _check_version(text: str) -> None:
    parts = text.partition("-")[0].partition("+")[0].split(".")
    # SemVer 2.0.0: three numbers without leading zeros.
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and str(int(p)) == p for p in parts):
        raise InvalidParameter(f"ociVersion: {text!r} is no version (MAJOR.MINOR.PATCH)")
    if int(parts[0]) != 1:
        raise InvalidParameter(f"ociVersion: version {text} is not supported: 1.x is")


def _check_namespaces(linux: dict[str, Any]) -> frozenset[str]:
    kinds: set[str] = set()
    for index, entry in enumerate(linux.get("namespaces") or ()):
        where, kind = f"linux.namespaces[{index}]", entry["type"]
        if kind not in NAMESPACES:
            raise InvalidParameter(f"{where}: invalid namespace type {kind!r}")
        if kind in kinds:
            raise InvalidParameter(f"{where}: duplicated namespace type {kind!r}")
        if entry.get("path") and not entry["path"].startswith("/"):
            raise InvalidParameter(f"{where}.path: {entry['path']!r} is no absolute path")
        kinds.add(kind)
    if "mount" not in kinds:
        raise InvalidParameter(
            "linux.namespaces: a container without a mount namespace would change the host's mounts: add one"
        )
    _check_ids(linux, kinds)
    return frozenset(kinds)


def _check_ids(linux: dict[str, Any], kinds: set[str]) -> None:
    maps = [name for name in ("uidMappings", "gidMappings") if linux.get(name)]
    new = any(e["type"] == "user" and not e.get("path") for e in linux.get("namespaces") or ())
    if maps and "user" not in kinds:
        raise InvalidParameter(
            f"linux.{maps[0]}: user namespace mappings specified, but user namespace isn't enabled in the config"
        )
    if new and len(maps) < 2:
        raise InvalidParameter("linux.uidMappings, linux.gidMappings: a new user namespace needs both")
    if linux.get("timeOffsets"):
        if not any(e["type"] == "time" and not e.get("path") for e in linux.get("namespaces") or ()):
            raise InvalidParameter(
                "linux.timeOffsets: time namespace offsets specified, but a new time namespace isn't enabled in the config"
            )
        for clock in linux["timeOffsets"]:
            if clock not in ("monotonic", "boottime"):
                raise InvalidParameter(
                    f"linux.timeOffsets: unknown clock {clock!r}: monotonic and boottime have offsets"
                )


def _check_mounts(entries: Any) -> None:
    for index, entry in enumerate(entries):
        where = f"mounts[{index}]"
        if not entry["destination"]:
            raise InvalidParameter(f"{where}.destination is empty")
        if bool(entry.get("uidMappings")) != bool(entry.get("gidMappings")):
            raise InvalidParameter(f"{where}: uidMappings and gidMappings belong together")


def _check_linux(linux: dict[str, Any], kinds: frozenset[str]) -> None:
    propagation = linux.get("rootfsPropagation")
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidParameter(f"linux.rootfsPropagation: rootfsPropagation={propagation} is not valid")
    for index, entry in enumerate(linux.get("devices") or ()):
        _check_device(entry, f"linux.devices[{index}]")
    for index, rule in enumerate((linux.get("resources") or {}).get("devices") or ()):
        if rule.get("type") not in (None, "", "a", "b", "c"):
            raise InvalidParameter(f"linux.resources.devices[{index}].type: invalid device type {rule['type']!r}")
        if set(rule.get("access") or "rwm") - set("rwm"):
            raise InvalidParameter(
                f"linux.resources.devices[{index}].access: {rule['access']!r} is not made of r, w and m"
            )
    for index, entry in enumerate(((linux.get("resources") or {}).get("blockIO") or {}).get("weightDevice") or ()):
        if entry.get("weight") is None and entry.get("leafWeight") is None:
            raise InvalidParameter(f"linux.resources.blockIO.weightDevice[{index}] has neither weight nor leafWeight")
    for name in linux.get("sysctl") or ():
        _check_sysctl(name, kinds)
    for kind in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(linux.get(kind) or ()):
            if not path.startswith("/"):
                raise InvalidParameter(f"linux.{kind}[{index}]: {path!r} is no absolute path")
    persona = linux.get("personality")
    if persona:
        if persona["domain"] not in ("LINUX", "LINUX32"):
            raise InvalidParameter(f"linux.personality.domain: {persona['domain']!r} is neither LINUX nor LINUX32")
        if persona.get("flags"):
            raise InvalidParameter("linux.personality.flags: no flag is supported")
    for name, what in (
        ("intelRdt", "cache allocation (Intel RDT)"),
        ("netDevices", "moving network devices"),
        ("memoryPolicy", "a NUMA memory policy"),
        ("mountLabel", "an SELinux mount label"),
    ):
        if linux.get(name):
            raise InvalidParameter(f"linux.{name}: {what} was asked for and is not supported: leave it out")


def _check_device(entry: dict[str, Any], where: str) -> None:
    if entry["type"] not in DEVICE_TYPES or entry["type"] == "a":
        raise InvalidParameter(f"{where}.type: invalid device type {entry['type']!r}")
    if not entry["path"].startswith("/"):
        raise InvalidParameter(f"{where}.path: {entry['path']!r} is no absolute path")
    if entry["type"] != "p" and (entry.get("major") is None or entry.get("minor") is None):
        raise InvalidParameter(f"{where}: a device of type {entry['type']!r} needs major and minor")


_IPC_SYSCTLS = frozenset(
    (
        *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem"),
        *("kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"),
    )
)


def _check_sysctl(name: str, kinds: frozenset[str]) -> None:
    """Only parameters of namespaces that the container has of its own: all others would be the host's."""
    dotted = name.replace("/", ".")
    needed = ""
    if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        needed = "ipc"
    elif dotted.startswith("net."):
        needed = "network"
    elif dotted == "kernel.domainname":
        needed = "uts"
    elif dotted.startswith("user."):
        needed = "user"
    elif dotted == "kernel.hostname":
        raise InvalidParameter(
            f"linux.sysctl: sysctl {name!r} is not allowed as it conflicts with the OCI hostname field"
        )
    if not needed:
        raise InvalidParameter(f"linux.sysctl: sysctl {name!r} is not in a separate kernel namespace")
    if needed not in kinds:
        raise InvalidParameter(f"linux.sysctl: sysctl {name!r} is not allowed in the hosts {needed} namespace")


def _check_hook(entry: dict[str, Any], where: str) -> None:
    if not entry["path"].startswith("/"):
        raise InvalidParameter(f"{where}.path: {entry['path']!r} is no absolute path")
    if entry.get("timeout") is not None and entry["timeout"] <= 0:
        raise InvalidParameter(f"{where}.timeout: {entry['timeout']} is not greater than zero")


def _check_rlimits(entries: Any, where: str) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        name = rlimits.short_name(entry["type"])
        if not entry["type"].startswith("RLIMIT_") or name not in rlimits.NUMBERS:
            raise InvalidParameter(f"{where}.rlimits[{index}]: rlimit type {entry['type']!r} is not known")
        if name in seen:
            raise InvalidParameter(f"{where}.rlimits[{index}]: rlimit type {entry['type']!r} is there twice")
        if entry["soft"] > entry["hard"]:
            raise InvalidParameter(f"{where}.rlimits[{index}]: the soft limit is larger than the hard one")
        seen.add(name)


_POLICIES = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
_FLAGS = (
    *("SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY"),
    *("SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"),
)


def _check_scheduling(own: dict[str, Any], where: str) -> None:
    scheduler = own.get("scheduler")
    if scheduler:
        if scheduler["policy"] not in _POLICIES:
            raise InvalidParameter(f"{where}.scheduler.policy: invalid scheduler policy: {scheduler['policy']}")
        for flag in scheduler.get("flags") or ():
            if flag not in _FLAGS:
                raise InvalidParameter(f"{where}.scheduler.flags: invalid scheduler flag: {flag}")
        nice, policy = scheduler.get("nice") or 0, scheduler["policy"]
        if not -20 <= nice <= 19:
            raise InvalidParameter(f"{where}.scheduler.nice: invalid scheduler.nice: {nice}")
        if scheduler.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
            raise InvalidParameter(f"{where}.scheduler.priority: only SCHED_FIFO and SCHED_RR have one")
        if policy != "SCHED_DEADLINE" and any(scheduler.get(n) for n in ("runtime", "deadline", "period")):
            raise InvalidParameter(f"{where}.scheduler: runtime, deadline and period are for SCHED_DEADLINE only")
    io = own.get("ioPriority")
    if io:
        if io["class"] not in ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"):
            raise InvalidParameter(f"{where}.ioPriority.class: invalid ioPriority.class: {io['class']}")
        if not 0 <= (io.get("priority") or 0) <= 7:
            raise InvalidParameter(f"{where}.ioPriority.priority: invalid ioPriority.priority: {io['priority']}")
