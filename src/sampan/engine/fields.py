"""Docker's Config and HostConfig as tables: every field with its default and kind, and which ones this version refuses.

From the Engine API 1.51 (swagger `ContainerConfig`, `HostConfig`, `Resources`). A field that we do not know is
ignored, as dockerd does; one that we know and cannot honour yet is refused, for a container that silently
lacks its volumes is worse than none.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TEXT, NUMBER, FLAG, LIST, MAP, OBJECT = "text", "number", "flag", "list of text", "map", "object"
ANY_LIST, COMMAND = "list", "command"

_TYPES: dict[str, tuple[type, ...]] = {
    TEXT: (str,),
    NUMBER: (int,),
    FLAG: (bool,),
    LIST: (list, tuple),
    ANY_LIST: (list, tuple),
    MAP: (dict,),
    OBJECT: (dict,),
    COMMAND: (list, tuple, str),
}

# name -> (kind, the value that inspect shows when nothing was asked for)
CONFIG: dict[str, tuple[str, Any]] = {
    "Hostname": (TEXT, ""),
    "Domainname": (TEXT, ""),
    "User": (TEXT, ""),
    "AttachStdin": (FLAG, False),
    "AttachStdout": (FLAG, False),
    "AttachStderr": (FLAG, False),
    "ExposedPorts": (OBJECT, None),
    "Tty": (FLAG, False),
    "OpenStdin": (FLAG, False),
    "StdinOnce": (FLAG, False),
    "Env": (LIST, None),
    "Cmd": (COMMAND, None),
    "Healthcheck": (OBJECT, None),
    "ArgsEscaped": (FLAG, False),
    "Image": (TEXT, ""),
    "Volumes": (OBJECT, None),
    "WorkingDir": (TEXT, ""),
    "Entrypoint": (COMMAND, None),
    "NetworkDisabled": (FLAG, False),
    "OnBuild": (LIST, None),
    "Labels": (MAP, None),
    "StopSignal": (TEXT, ""),
    "StopTimeout": (NUMBER, None),
    "Shell": (LIST, None),
}

CONFIG_OMITTED_WHEN_EMPTY = frozenset(
    ("ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "StopSignal", "StopTimeout", "Shell")
)

HOST_CONFIG: dict[str, tuple[str, Any]] = {
    "Binds": (LIST, None),
    "ContainerIDFile": (TEXT, ""),
    "LogConfig": (OBJECT, {"Type": "json-file", "Config": {}}),
    "NetworkMode": (TEXT, "default"),
    "PortBindings": (OBJECT, {}),
    "RestartPolicy": (OBJECT, {"Name": "no", "MaximumRetryCount": 0}),
    "AutoRemove": (FLAG, False),
    "VolumeDriver": (TEXT, ""),
    "VolumesFrom": (LIST, None),
    "ConsoleSize": (ANY_LIST, [0, 0]),
    "CapAdd": (LIST, None),
    "CapDrop": (LIST, None),
    "CgroupnsMode": (TEXT, ""),
    "Dns": (LIST, []),
    "DnsOptions": (LIST, []),
    "DnsSearch": (LIST, []),
    "ExtraHosts": (LIST, None),
    "GroupAdd": (LIST, None),
    "IpcMode": (TEXT, "private"),
    "Cgroup": (TEXT, ""),
    "Links": (LIST, None),
    "OomScoreAdj": (NUMBER, 0),
    "PidMode": (TEXT, ""),
    "Privileged": (FLAG, False),
    "PublishAllPorts": (FLAG, False),
    "ReadonlyRootfs": (FLAG, False),
    "SecurityOpt": (LIST, None),
    "UTSMode": (TEXT, ""),
    "UsernsMode": (TEXT, ""),
    "ShmSize": (NUMBER, 67108864),
    "Runtime": (TEXT, "sampan"),
    "Isolation": (TEXT, ""),
    "CpuShares": (NUMBER, 0),
    "Memory": (NUMBER, 0),
    "NanoCpus": (NUMBER, 0),
    "CgroupParent": (TEXT, ""),
    "BlkioWeight": (NUMBER, 0),
    "BlkioWeightDevice": (ANY_LIST, []),
    "BlkioDeviceReadBps": (ANY_LIST, []),
    "BlkioDeviceWriteBps": (ANY_LIST, []),
    "BlkioDeviceReadIOps": (ANY_LIST, []),
    "BlkioDeviceWriteIOps": (ANY_LIST, []),
    "CpuPeriod": (NUMBER, 0),
    "CpuQuota": (NUMBER, 0),
    "CpuRealtimePeriod": (NUMBER, 0),
    "CpuRealtimeRuntime": (NUMBER, 0),
    "CpusetCpus": (TEXT, ""),
    "CpusetMems": (TEXT, ""),
    "Devices": (ANY_LIST, []),
    "DeviceCgroupRules": (LIST, None),
    "DeviceRequests": (ANY_LIST, None),
    "KernelMemory": (NUMBER, 0),
    "MemoryReservation": (NUMBER, 0),
    "MemorySwap": (NUMBER, 0),
    "MemorySwappiness": (NUMBER, None),
    "OomKillDisable": (FLAG, None),
    "PidsLimit": (NUMBER, None),
    "Ulimits": (ANY_LIST, []),
    "CpuCount": (NUMBER, 0),
    "CpuPercent": (NUMBER, 0),
    "IOMaximumIOps": (NUMBER, 0),
    "IOMaximumBandwidth": (NUMBER, 0),
    "Mounts": (ANY_LIST, None),
    "Tmpfs": (MAP, None),
    "StorageOpt": (MAP, None),
    "Sysctls": (MAP, None),
    "Init": (FLAG, None),
    "Annotations": (MAP, None),
    "MaskedPaths": (LIST, None),
    "ReadonlyPaths": (LIST, None),
    # Ours: chroot and MS_MOVE instead of pivot_root, for roots on an initramfs (`--no-pivot`).
    "NoPivot": (FLAG, False),
}

HOST_CONFIG_OMITTED_WHEN_EMPTY = frozenset(
    ("KernelMemory", "Mounts", "Tmpfs", "StorageOpt", "Sysctls", "Init", "Annotations", "NoPivot")
)

# What the engine cannot do yet. The text is what the user asked for, in the user's words.
_LATER = {
    "DeviceRequests": "device requests (--gpus)",
    "StorageOpt": "storage options (--storage-opt)",
    "Cgroup": "joining a cgroup",
}


_LARGEST = (1 << 63) - 1


def normalise_config(given: dict[str, Any]) -> dict[str, Any]:
    """The known fields of a Config with their defaults; wrong types raise InvalidParameter."""
    return _normalise("", CONFIG, given)


def normalise_host_config(given: dict[str, Any]) -> dict[str, Any]:
    """The known fields of a HostConfig with their defaults; wrong types and what cannot be had raise InvalidParameter."""
    for name, words in _LATER.items():
        if given.get(name):
            raise InvalidParameter(f"{words} cannot be had in this version of sampan (HostConfig.{name})")
    return _normalise("HostConfig.", HOST_CONFIG, given)


def _normalise(prefix: str, table: dict[str, tuple[str, Any]], given: dict[str, Any]) -> dict[str, Any]:
    defaults, copied = _defaults(prefix, table)
    values = {**defaults}
    for name in copied:
        values[name] = _copy(values[name])
    for name in [name for name in table if name in given]:  # in the table's order, by which the first error is told
        if (value := given[name]) is not None:
            values[name] = _checked(f"{prefix}{name}", table[name][0], value)
    return values


_known: dict[str, tuple[dict[str, Any], list[str]]] = {}


def _defaults(prefix: str, table: dict[str, tuple[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """What a table's fields are if they are not given, as nearly all of them, and the names of those that need a copy."""
    found = _known.get(prefix)
    if found is None:
        values = {name: default for name, (_, default) in table.items()}
        found = _known[prefix] = values, [name for name in values if isinstance(values[name], (list, dict))]
    return found


def _checked(name: str, kind: str, value: Any) -> Any:
    fits = isinstance(value, _TYPES[kind]) and not (kind == NUMBER and isinstance(value, bool))
    if fits and kind in (LIST, COMMAND) and not isinstance(value, str):
        fits = all(isinstance(item, str) for item in value)
        value = list(value)
    elif fits and kind == MAP:
        fits = all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
    if not fits:
        raise InvalidParameter(f"invalid value for {name}: {value!r} is not a {kind}")
    if kind == NUMBER and not -_LARGEST - 1 <= value <= _LARGEST:
        raise InvalidParameter(f"invalid value for {name}: {value} is not a number of 64 bits")
    _check_no_nul(name, value)
    return _copy(value)


def _check_no_nul(name: str, value: Any) -> None:
    """No text with a NUL: no system call could take it, and most would cut it there."""
    texts: list[Any] = []
    if isinstance(value, str):
        texts = [value]
    elif isinstance(value, list):
        texts = value
    elif isinstance(value, dict):
        texts = [*value, *value.values()]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise InvalidParameter(f"invalid value for {name}: it contains a NUL byte")


def _copy(value: Any) -> Any:
    """A deep copy of plain data: a record must not change with the caller's own dictionary."""
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(v) for v in value]
    return value


def shown_config(values: dict[str, Any]) -> dict[str, Any]:
    """A Config as inspect shows it: some fields are left out when they are empty, as Go's `omitempty` has it."""
    return _shown(CONFIG, CONFIG_OMITTED_WHEN_EMPTY, values)


def shown_host_config(values: dict[str, Any]) -> dict[str, Any]:
    """A HostConfig as inspect shows it."""
    return _shown(HOST_CONFIG, HOST_CONFIG_OMITTED_WHEN_EMPTY, values)


def _shown(table: dict[str, tuple[str, Any]], omitted: frozenset[str], values: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name, (kind, default) in table.items():
        value = values.get(name, default)
        # In Go these are pointers: "not said" differs from 0 and false.
        pointer = default is None and kind in (NUMBER, FLAG)
        if name in omitted and (value is None if pointer else not value):
            continue
        result[name] = value
    return result
