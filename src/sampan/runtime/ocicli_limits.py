"""`sampan-oci` pause, resume and update."""

from __future__ import annotations

import os

from sampan.errors import Conflict, InvalidParameter, System
from sampan.kernel import cgroup, cgroupchange
from sampan.oci import runtimeschema
from sampan.runtime import moreresources, ocispec, ocistate
from sampan.runtime.ociflags import Flag
from sampan.runtime.resources import make_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.ocicli import Global
    from sampan.runtime.ociflags import Arguments
    from sampan.runtime.ocistate import Container

# flag -> (part of linux.resources, field)
_FIELDS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "pids-limit": ("pids", "limit"),
}

FLAGS = {
    "pause": (),
    "resume": (),
    "update": (
        Flag("resources", "string", "a file with a resources object, - for standard input", "r"),
        *(
            Flag(name, "string" if name.startswith("cpuset") else "int", f"linux.resources.{part}.{field}")
            for name, (part, field) in _FIELDS.items()
        ),
        Flag("l3-cache-schema", "string", "refused: cache allocation is not supported"),
        Flag("mem-bw-schema", "string", "refused: cache allocation is not supported"),
    ),
}


def pause(given: Global, arguments: Arguments) -> int:
    container = ocistate.find(given.root, arguments.words[0])
    with container.lock():
        status = container.status()
        if status not in (ocistate.RUNNING, ocistate.CREATED):
            raise Conflict(f"container not running or created: {status}")
        try:
            container.driver.freeze(container.group)
        except OSError as e:
            raise System(f"unable to freeze: {e}") from None
    return 0


def resume(given: Global, arguments: Arguments) -> int:
    container = ocistate.find(given.root, arguments.words[0])
    with container.lock():
        if container.status() != ocistate.PAUSED and not (
            container.alive() and container.driver.frozen(container.group)
        ):
            raise Conflict("container not paused")
        container.driver.thaw(container.group)
    return 0


def update(given: Global, arguments: Arguments) -> int:
    container = ocistate.find(given.root, arguments.words[0])
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if arguments[name]:
            raise InvalidParameter(f"--{name}: cache allocation (Intel RDT) is not supported")
    asked = _from_file(arguments["resources"]) if arguments["resources"] else _from_flags(arguments)
    with container.lock():
        container = ocistate.find(given.root, container.id)
        if container.status() == ocistate.STOPPED:
            raise Conflict("container not running")
        for warning in moreresources.ignored(asked):
            given.log.warning(warning)
        _apply(container, asked)
        before = container.config["linux"].get("resources") or {}
        linux = {**container.config["linux"], "resources": merge(before, asked)}
        container.write(config={**container.config, "linux": linux})
    return 0


def _from_file(path: str) -> dict[str, Any]:
    try:
        fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(fd, "rb", closefd=bool(fd)) as f:
            found = ocispec.parse(f.read(), "standard input" if path == "-" else path)
    except OSError as e:
        raise InvalidParameter(f"open {path}: {os.strerror(e.errno or 0).lower()}") from None
    runtimeschema.check(found, runtimeschema.RESOURCES, "resources")
    return {part: value for part, value in (found or {}).items() if value is not None}


def _from_flags(arguments: Arguments) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (part, field) in _FIELDS.items():
        if name in arguments.given:
            found.setdefault(part, {})[field] = arguments[name]
    runtimeschema.check(found, runtimeschema.RESOURCES, "resources")
    return found


def merge(before: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The resources with what was asked for laid over them; a number of 0 leaves what there is, as runc has it."""
    found = dict(before)
    for part, value in asked.items():
        if isinstance(value, dict) and part not in ("unified", "rdma"):
            kept = {k: v for k, v in value.items() if v or v is False or (k in ("burst", "idle") and v is not None)}
            found[part] = {**(before.get(part) or {}), **kept}
        elif isinstance(value, dict):
            found[part] = {**(before.get(part) or {}), **value}
        elif part != "devices":
            found[part] = value
    return found


def _apply(container: Container, asked: dict[str, Any]) -> None:
    """All of it or nothing. Raises `System` for what the kernel refuses."""
    if asked.get("devices"):
        raise InvalidParameter("resources.devices: rules on devices cannot be changed any more")
    wanted = merge({}, asked)
    memory = wanted.get("memory") or {}
    before = (container.config["linux"].get("resources") or {}).get("memory") or {}
    checked = memory.get("checkBeforeUpdate", before.get("checkBeforeUpdate"))
    if checked and (refusal := moreresources.in_use(memory, container.group, container.driver)):
        raise System(f"resources: {refusal}")
    if memory.get("limit") and not memory.get("swap"):
        # Memory and swap together may not be less than memory alone: an unlimited one stays.
        wanted["memory"] = {**memory, "swap": before.get("swap") or -1}
    limits = make_limits({**wanted, "devices": []})
    refused = cgroup.check(limits, container.driver)
    if refused:
        raise System(f"resources: {refused[0]}")
    writes = [
        *container.driver.limits(container.group, limits),
        *moreresources.writes(wanted, container.group, container.driver),
    ]
    done: list[cgroupchange.Change] = []
    try:
        for change in cgroupchange.ordered(writes):
            cgroup.apply(change.write)
            done.append(change)
    except OSError as e:
        for change in reversed(done):
            change.undo()
        raise System(f"resources: {e}") from None
