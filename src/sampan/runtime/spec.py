"""A container's record -> its OCI runtime configuration: Docker's words turned into the kernel's nouns.

Pure but for what the machine is asked (devices for --privileged, namespaces that the kernel has). Values were checked when
the container was created; here they are only translated.
"""

from __future__ import annotations

import os

from sampan.kernel import capabilities, namespaces
from sampan.kernel.libc import has_file, kernel_version
from sampan.oci import runtime as oci
from sampan.runtime import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

DEFAULT_SHM_SIZE = 64 << 20

OWN_NETWORK = "own:network"
"""Instead of a path: a network namespace that is the container's own, but was made for it beforehand."""


def make_spec(
    record: dict[str, Any],
    files: dict[str, str],
    cgroups_path: str,
    cgroup_version: str,
    joined: dict[str, str] | None = None,
    init: str = "",
    images: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The OCI configuration of a container.

    record: as in record.json. files: what is bound over the image's ("/etc/hosts" -> a path of ours). joined: namespace
    kinds of other containers, kind -> a path for the record's reader. init: the host's program for `--init`, "" for none. images: the directories of images that
    are mounted, topmost first, by destination.
    """
    host = record["host_config"]
    privileged = bool(host.get("Privileged"))
    devices, rules = _devices(host, privileged)
    resources = {**_resources(host), "devices": rules}
    spec = {
        "ociVersion": oci.VERSION,
        "process": _process(record, host, privileged, init),
        "annotations": dict(host.get("Annotations") or {}),
        "root": {"path": "rootfs", "readonly": bool(host.get("ReadonlyRootfs"))},
        "hostname": "" if host.get("UTSMode") == "host" else record["config"].get("Hostname") or "",
        "domainname": "" if host.get("UTSMode") == "host" else record["config"].get("Domainname") or "",
        "mounts": _mounts(host, privileged, files, asked_mounts(record.get("mounts") or (), images or {})),
        "linux": {
            "namespaces": _namespaces(host, cgroup_version, joined or {}),
            "resources": resources,
            "cgroupsPath": cgroups_path,
            "devices": devices,
            "sysctl": _sysctls(host),
            "rootfsPropagation": "rslave",
            "maskedPaths": [] if privileged else list(_override(host.get("MaskedPaths"), defaults.masked_paths())),
            "readonlyPaths": [] if privileged else list(_override(host.get("ReadonlyPaths"), defaults.READONLY_PATHS)),
        },
    }
    if record.get("uids"):
        from sampan.runtime import ownids  # few containers have any

        places, asked = _own_places(record, files), host.get("Sysctls") or ()
        ownids.apply(spec, record["uids"], record["gids"], places, asked, OWN_NETWORK)
    return spec


def _override(given: Any, default: Any) -> Any:
    """A list of the request, also an empty one, instead of the default; None keeps the default."""
    return default if given is None else given


def _process(record: dict[str, Any], host: dict[str, Any], privileged: bool, init: str) -> dict[str, Any]:
    config = record["config"]
    args = [record["path"], *record["args"]]
    if init:
        args = ["/sbin/docker-init", "--", *args]
    capability_set = granted_capabilities(host.get("CapAdd") or [], host.get("CapDrop") or [], privileged)
    return {
        "terminal": bool(config.get("Tty")),
        "consoleSize": _console_size(host),
        # A name, or numbers as text: they are looked up in the image's own passwd and group once its root is there.
        "user": {"username": config.get("User") or "", "additionalGroups": list(host.get("GroupAdd") or [])},
        "args": args,
        "env": environment(config),
        "cwd": config.get("WorkingDir") or "/",
        "capabilities": {"bounding": capability_set, "effective": capability_set, "permitted": capability_set},
        "noNewPrivileges": no_new_privileges(host),
        "oomScoreAdj": int(host.get("OomScoreAdj") or 0),
        "rlimits": resource_limits(host),
    }


def resource_limits(host: dict[str, Any]) -> list[dict[str, Any]]:
    """process.rlimits, of the container's own process and of every exec."""
    if not host.get("Ulimits"):
        return []
    from sampan.oci import rlimits  # few containers have any

    return rlimits.to_oci(host["Ulimits"])


def _console_size(host: dict[str, Any]) -> dict[str, int]:
    rows, columns = (host.get("ConsoleSize") or [0, 0])[:2]
    return {"height": int(rows), "width": int(columns)}


def environment(config: dict[str, Any]) -> list[str]:
    """PATH, HOSTNAME and TERM as Docker sets them, the container's own entries over them, in Docker's order."""
    base = [f"PATH={defaults.PATH}", f"HOSTNAME={config.get('Hostname') or ''}"]
    if config.get("Tty"):
        base.append("TERM=xterm")
    return merge_environment(base, config.get("Env") or [])


def merge_environment(base: list[str], over: list[str]) -> list[str]:
    """`over` replaces entries of `base` by name; an entry without "=" takes the variable away."""
    merged = {e.partition("=")[0]: e for e in base}
    for entry in over:
        name, separator, _ = entry.partition("=")
        if separator:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return [e for name, e in merged.items() if name]


def granted_capabilities(add: list[str], drop: list[str], privileged: bool) -> list[str]:
    """The capability names that `--cap-add` and `--cap-drop` come to (moby daemon/pkg/oci/caps).

    ALL added beats ALL dropped; a name that is dropped beats ALL, but not its own addition to the default set.
    """
    if privileged or "ALL" in add:
        everything = capabilities.NAMES[: capabilities.last() + 1]
        return [c for c in everything if privileged or c not in drop]
    kept = [] if "ALL" in drop else [c for c in defaults.CAPABILITIES if c not in drop]
    return kept + [c for c in dict.fromkeys(add) if c not in kept]


def no_new_privileges(host: dict[str, Any]) -> bool:
    """Whether --security-opt no-new-privileges is on; the last one counts."""
    answer = False
    for option in host.get("SecurityOpt") or []:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "no-new-privileges":
            answer = value in ("", "true")
    return answer


def writable_cgroups(host: dict[str, Any], privileged: bool) -> bool:
    """Whether the container may write to its own cgroup: --security-opt writable-cgroups, the last one; else of a privileged one."""
    answer = privileged
    for option in host.get("SecurityOpt") or []:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "writable-cgroups":
            answer = value == "true"
    return answer


def _mounts(
    host: dict[str, Any], privileged: bool, files: dict[str, str], asked: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    own = defaults.mounts(int(host.get("ShmSize") or DEFAULT_SHM_SIZE))
    ipc = host.get("IpcMode") or "private"
    if ipc == "none":
        own = [m for m in own if m["destination"] != "/dev/shm"]
    elif ipc == "host":
        _replace(
            own,
            {
                "destination": "/dev/shm",
                "type": "bind",
                "source": "/dev/shm",
                "options": ["rbind", "nosuid", "noexec", "nodev"],
            },
        )
    elif ipc.startswith("container:"):
        _replace(own, {"destination": "/dev/shm", "type": "bind", "source": "joined:/dev/shm", "options": ["bind"]})
    for entry in own:
        if (entry["destination"] == "/sys" and privileged) or (
            entry["destination"] == "/sys/fs/cgroup" and writable_cgroups(host, privileged)
        ):
            entry["options"].remove("ro")
    if host.get("NetworkMode") == "host" and namespaces.in_user_namespace():
        # sysfs shows the devices of a network namespace, and only its owner may mount it.
        sealed = ["rbind", "nosuid", "noexec", "nodev", *([] if privileged else [_read_only_below()])]
        _replace(own, {"destination": "/sys", "type": "bind", "source": "/sys", "options": sealed})
    asked += _own_files(host, files, asked)
    asked += [
        {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": oci.tmpfs_options(text or "")}
        for destination, text in (host.get("Tmpfs") or {}).items()
    ]
    return _override_by_destination(own, asked)


def _own_files(host: dict[str, Any], files: dict[str, str], asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Docker's three files, placed like what was asked for: on an /etc that is mounted, below a mount of theirs not at all."""
    options = ["rbind", "rprivate", "ro"] if host.get("ReadonlyRootfs") else ["rbind", "rprivate"]
    taken = {entry["destination"] for entry in asked} | {os.path.normpath(path) for path in host.get("Tmpfs") or ()}
    return [
        {"destination": d, "type": "bind", "source": s, "options": list(options)}
        for d, s in files.items()
        if d not in taken
    ]


def bound_mounts(
    record: dict[str, Any], files: dict[str, str], images: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """What keeps its content while the container does not run: binds, volumes, images and Docker's three files, parents first.

    Arguments as of `make_spec`.
    """
    asked = asked_mounts(record.get("mounts") or (), images)
    asked += _own_files(record["host_config"], files, asked)
    if record.get("uids"):
        from sampan.runtime import ownids  # few containers have any

        ownids.map_binds(asked, _own_places(record, files))
    return _override_by_destination([], [entry for entry in asked if entry["type"] != "tmpfs"])


def _own_places(record: dict[str, Any], files: dict[str, str]) -> set[str]:
    """Where files are mounted that are sampan's and not the host's: volumes, and Docker's three."""
    volumes = {point["destination"] for point in record.get("mounts") or () if point["type"] == "volume"}
    return {*files, *volumes}


def asked_mounts(points: Sequence[Mapping[str, Any]], images: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A record's mount points as entries; what the runtime specification has no word for is beside its fields.

    subpath: below the source. matchUser: [uid, gid] that the container's user takes the place of. directories: an image's.
    """
    return [_asked(point, images) for point in points]


def _asked(point: Mapping[str, Any], images: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    entry = {"destination": point["destination"], "type": point["type"], "source": point["source"]}
    if point["type"] == "tmpfs":
        return {**entry, "source": "tmpfs", "options": list(point["options"])}
    if point["type"] == "image":
        directories = list(images[point["destination"]])
        return {**entry, "options": ["ro"], "directories": directories, "subpath": point["subpath"]}
    options = ["rbind" if point["recursive"] else "bind"]
    if point["propagation"]:
        options.append(point["propagation"])
    if not point["rw"]:
        # Docker since 25: read-only all the way down, where the kernel can.
        options.append(_read_only_below() if point["read_only"] != "no" else "ro")
    extra = {"subpath": point["subpath"], "matchUser": list(point["match_user"])}
    return {**entry, "type": "bind", "options": options, **{k: v for k, v in extra.items() if v}}


def _read_only_below() -> str:
    """The option that makes a mount read-only with those on it, where the kernel can."""
    return "rro" if kernel_version() >= (5, 12) else "ro"


def _replace(entries: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    index = next(i for i, e in enumerate(entries) if e["destination"] == entry["destination"])
    entries[index] = entry


def _override_by_destination(own: list[dict[str, Any]], asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked for replaces what every container has, a /dev all below it too; parents come before children."""
    taken = {os.path.normpath(e["destination"]) for e in asked}
    kept = [
        e
        for e in own
        if e["destination"] not in taken and not ("/dev" in taken and e["destination"].startswith("/dev/"))
    ]
    return kept + sorted(asked, key=lambda e: os.path.normpath(e["destination"]).count("/"))


def _namespaces(host: dict[str, Any], cgroup_version: str, joined: dict[str, str]) -> list[dict[str, str]]:
    """New ones but for those that a mode shares with the host, or with another container."""
    modes = {
        "network": host.get("NetworkMode"),
        "pid": host.get("PidMode"),
        "ipc": host.get("IpcMode"),
        "uts": host.get("UTSMode"),
        # Docker's rule: a cgroup namespace of its own only where there is nothing but v2.
        "cgroup": host.get("CgroupnsMode") or ("private" if cgroup_version == "v2" else "host"),
    }
    entries: list[dict[str, str]] = [{"type": "mount"}]
    for kind in ("network", "uts", "pid", "ipc", "cgroup", "time"):
        if kind in joined:
            entries.append({"type": kind, "path": joined[kind]})
        elif modes.get(kind) != "host" and (kind != "time" or namespaces.supported("time")):
            entries.append({"type": kind})
    return entries


def _devices(host: dict[str, Any], privileged: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """linux.devices beside the default ones, and linux.resources.devices."""
    nodes = defaults.host_devices() if privileged else []
    rules = defaults.device_entries(privileged)
    if host.get("Devices") or host.get("DeviceCgroupRules"):
        from sampan.runtime import hostdevices  # few containers have any

        asked, more = hostdevices.devices(host.get("Devices") or [], privileged)
        nodes += asked
        if not privileged:
            more += hostdevices.extra_rules(host.get("DeviceCgroupRules") or [])
            rules += [rule.to_json() for rule in more]
    return nodes, rules


def _sysctls(host: dict[str, Any]) -> dict[str, str]:
    """linux.sysctl: Docker's two for a network namespace of the container's own, and what was asked for."""
    found: dict[str, str] = {}
    mode = host.get("NetworkMode") or ""
    if mode != "host" and not mode.startswith("container:"):
        # Ping and low ports for everybody: nobody else is in that namespace.
        for name, value in defaults.NETWORK_SYSCTLS:
            if name == "net.ipv4.ping_group_range" and namespaces.in_user_namespace():
                continue  # the range has groups that are none in there
            if has_file(f"/proc/sys/{oci.parameter_path(name)}"):
                found[name] = value
    return {**found, **(host.get("Sysctls") or {})}


def _resources(host: dict[str, Any]) -> dict[str, Any]:
    """linux.resources but its devices; numbers of 0 stand for "not asked for", and so does what is not there."""
    quota, period = int(host.get("CpuQuota") or 0), int(host.get("CpuPeriod") or 0)
    if host.get("NanoCpus"):
        period = 100_000
        quota = int(host["NanoCpus"]) * period // 1_000_000_000
    memory: dict[str, Any] = {
        "limit": int(host.get("Memory") or 0),
        "swap": int(host.get("MemorySwap") or 0),
        "reservation": int(host.get("MemoryReservation") or 0),
    }
    if host.get("MemorySwappiness") is not None:
        memory["swappiness"] = int(host["MemorySwappiness"])
    if host.get("OomKillDisable"):
        memory["disableOOMKiller"] = True
    cpu: dict[str, Any] = {"shares": int(host.get("CpuShares") or 0), "quota": quota, "period": period}
    cpu |= {name: host[field] for field, name in _CPU_FIELDS if host.get(field)}
    found = {"memory": memory, "cpu": cpu, "pids": {"limit": int(host.get("PidsLimit") or 0)}}
    if any(host.get(field) for field in _BLOCK_FIELDS):
        from sampan.runtime import hostdevices

        found["blockIO"] = hostdevices.block_limits(host)
    return found


_CPU_FIELDS = (
    ("CpuRealtimeRuntime", "realtimeRuntime"),
    ("CpuRealtimePeriod", "realtimePeriod"),
    ("CpusetCpus", "cpus"),
    ("CpusetMems", "mems"),
)
_BLOCK_FIELDS = (
    "BlkioWeight",
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
)
