"""A bundle's config.json -> the configuration that `plan` takes: read, checked, its paths made absolute, defaults put in."""

from __future__ import annotations

import os
import stat

from sampan import jsontext
from sampan.errors import InvalidParameter, NotFound
from sampan.kernel import capabilities, cgroup
from sampan.kernel.cgroupmodel import ANY, DEFAULT_PARENT
from sampan.oci import runtimecheck
from sampan.oci.runtime import VERSION
from sampan.runtime import defaults
from sampan.steps.process import LoadFilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.runtime.ocilog import Log


def read(bundle: str) -> dict[str, Any]:
    """The configuration of a bundle, checked. Raises `InvalidParameter` and `NotFound`, naming the file."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as f:
            text = f.read()
    except FileNotFoundError:
        raise NotFound(f"JSON specification file {path} not found") from None
    except OSError as e:
        raise InvalidParameter(f"open {path}: {os.strerror(e.errno or 0).lower()}") from None
    config = parse(text, path)
    try:
        runtimecheck.check(config)
        if config.get("process") is None:
            raise InvalidParameter("process property must not be empty")
    except InvalidParameter as e:
        raise InvalidParameter(f"{path}: {e}") from None
    found: dict[str, Any] = config
    return found


def parse(text: bytes, name: str) -> Any:
    """A JSON document of a caller's. Raises `InvalidParameter`, naming it."""
    try:
        return jsontext.loads(text)
    except ValueError as e:
        raise InvalidParameter(f"{name} is no JSON document: {e}") from None


def read_process(path: str) -> dict[str, Any]:
    """The process object of `exec --process`."""
    try:
        with open(path, "rb") as f:
            own = parse(f.read(), path)
    except OSError as e:
        raise InvalidParameter(f"open {path}: {os.strerror(e.errno or 0).lower()}") from None
    runtimecheck.check_process(own, "process")
    found: dict[str, Any] = own
    return found


def grant(own: dict[str, Any], log: Log) -> None:
    """Leave out of the process's sets the capabilities that cannot be had: each is a warning (config.md, "Linux process")."""
    sets = own.get("capabilities") or {}
    had = capabilities.names(capabilities.get()[1])
    lacking = sorted({name for names in sets.values() for name in names or () if name not in had})
    for name in lacking:
        log.warning(
            f"capability {name} {'is not known' if name not in capabilities.NAMES else 'cannot be granted here'}"
        )
    for kind, names in sets.items():
        sets[kind] = [name for name in names or () if name not in lacking]


def complete(config: dict[str, Any], bundle: str, driver: CgroupDriver) -> dict[str, Any]:
    """The configuration as `plan` wants it. The one that was read stays as it is."""
    root = dict(config["root"])
    root["path"] = os.path.join(bundle, root["path"])
    if not os.path.isdir(root["path"]):
        raise InvalidParameter(f"root.path: {root['path']} is no directory")
    root["path"] = os.path.realpath(root["path"])
    linux = dict(config["linux"])
    linux["namespaces"] = [_namespace(entry) for entry in linux.get("namespaces") or ()]
    resources = dict(linux.get("resources") or {})
    resources["devices"] = [*map(_rule, resources.get("devices") or ()), *_DEFAULT_RULES]
    linux["resources"] = resources
    mounts = [_mount(entry, bundle, driver) for entry in config.get("mounts") or ()]
    own = config["process"]
    return {**config, "root": root, "linux": linux, "mounts": mounts, "process": {**own, "user": user(own)}}


def user(own: dict[str, Any]) -> dict[str, Any]:
    """process.user with its numbers, root's where there are none; the caller's umask where none is given (config.md, "User")."""
    given = own.get("user") or {}
    umask = given.get("umask")
    return {
        **given,
        "uid": given.get("uid") or 0,
        "gid": given.get("gid") or 0,
        "umask": _umask() if umask is None else umask,
    }


def _umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


def _namespace(entry: dict[str, Any]) -> dict[str, Any]:
    """An empty path is none."""
    return {"type": entry["type"], **({"path": entry["path"]} if entry.get("path") else {})}


def _mount(entry: dict[str, Any], bundle: str, driver: CgroupDriver) -> dict[str, Any]:
    """Types and sources as the steps take them."""
    made = {**entry, "options": list(entry.get("options") or ()), "source": entry.get("source") or ""}
    kind = entry.get("type") or ""
    if kind == "bind" or "bind" in made["options"] or "rbind" in made["options"]:
        kind = "bind"
        # Relative to the bundle (config.md, "Mounts"); nothing of a path that leads elsewhere by links is ours to judge.
        made["source"] = os.path.join(bundle, made["source"])
        if "bind" not in made["options"] and "rbind" not in made["options"]:
            made["options"].append("bind")
    elif kind == "cgroup2" and driver.version == "v2":
        kind = "cgroup"
    elif not kind and "remount" not in made["options"]:
        raise InvalidParameter(f"mounts: {entry['destination']} has no type")
    made["type"] = kind
    made["disk"] = kind != "bind" and _is_disk(made["source"])
    # A destination that is not absolute is taken from the root on, as runtimes before 1.1 had it.
    made["destination"] = "/" + entry["destination"].lstrip("/")
    return made


def _is_disk(source: str) -> bool:
    try:
        return source.startswith("/") and stat.S_ISBLK(os.stat(source).st_mode)
    except OSError:
        return False  # a dummy that looks like a path; whether it is one that should be there, the file system says


def _rule(entry: dict[str, Any]) -> dict[str, Any]:
    """A rule on devices; what is not there, or -1, stands for all."""

    def number(name: str) -> int:
        value = entry.get(name)
        return ANY if value is None or value < 0 else int(value)

    return {
        "allow": entry["allow"],
        "type": entry.get("type") or "a",
        "major": number("major"),
        "minor": number("minor"),
        "access": entry.get("access") or "rwm",
    }


_DEFAULT_RULES = tuple(rule.to_json() for rule in defaults.DEVICE_RULES if not rule.matches_everything())
"""What a container may always do: make nodes, and use the devices that each has (config-linux.md, "Default Devices")."""


def group_of(config: dict[str, Any], identifier: str) -> str:
    """linux.cgroupsPath as a group: absolute below the hierarchies' roots, relative below our own place, absent by the id."""
    path = config["linux"].get("cgroupsPath") or ""
    if path.startswith("/"):
        found = [part for part in os.path.normpath(path).split("/") if part]
        if not found:
            raise InvalidParameter("linux.cgroupsPath: / is every process' cgroup, and not a container's")
        return "/".join(found)
    parent, _, name = path.rpartition("/")
    return cgroup.group_name(name or identifier, f"{DEFAULT_PARENT}/{parent}" if parent else "")


FILTERS = "/run/sampan-oci-filters"
"""Filters that were made, by the profiles that they were made of; gone after a reboot."""


def filter_of(config: dict[str, Any]) -> LoadFilter | None:
    """linux.seccomp as the step that loads it. Raises `InvalidParameter`."""
    profile = config["linux"].get("seccomp")
    if not profile:
        return None
    from sampan.runtime.filters import Filters

    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise InvalidParameter("linux.seccomp: listenerMetadata needs a listenerPath")
    text = jsontext.dumps({name: value for name, value in profile.items() if not name.startswith("listener")})
    if b"SCMP_ACT_NOTIFY" in text:
        return _compile(profile)
    return Filters(FILTERS).kept(("oci", text.decode("ascii")), lambda: _compile(profile))


def _compile(profile: dict[str, Any]) -> LoadFilter:
    from sampan.kernel import filtercompiler
    from sampan.kernel.filterrules import SeccompError

    try:
        made = filtercompiler.compile_profile(profile)
    except SeccompError as e:
        raise InvalidParameter(f"linux.seccomp: {e}") from None
    if made.notify and not profile.get("listenerPath"):
        raise InvalidParameter("linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath")
    return LoadFilter(made.program.hex(), made.flags)


def listener_of(config: dict[str, Any]) -> str:
    """linux.seccomp.listenerPath, "" for none: without a SCMP_ACT_NOTIFY it is ignored (config-linux.md, "Seccomp")."""
    profile = config["linux"].get("seccomp") or {}
    actions = [profile.get("defaultAction"), *(rule.get("action") for rule in profile.get("syscalls") or ())]
    return str(profile.get("listenerPath") or "") if "SCMP_ACT_NOTIFY" in actions else ""


def process_state(config: dict[str, Any], state: dict[str, Any]) -> str:
    """What a seccomp agent is told (config-linux.md, "The container process state"), without the pids."""
    metadata = config["linux"]["seccomp"].get("listenerMetadata") or ""
    found = {"ociVersion": VERSION, "fds": ["seccompFd"], "pid": 0, "metadata": metadata, "state": state}
    return jsontext.dumps(found).decode("ascii")
