"""The shape of config.json: which field has which type, as far as the specification says so for Linux. Data, and its one reader.

Source: runtime-spec 1.2, config.md, config-linux.md and the JSON schema. Unknown fields are passed over, as "Extensibility" asks.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IDS = [{"containerID": "uint32!", "hostID": "uint32!", "size": "uint32!"}]
_STRINGS = ["string"]
_CAPABILITIES = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), _STRINGS)
_HOOKS = [{"path": "string!", "args": _STRINGS, "env": _STRINGS, "timeout": "int"}]
_RATES = [{"major": "int!", "minor": "int!", "rate": "uint!"}]

PROCESS = {
    "terminal": "bool",
    "consoleSize": {"height": "uint!", "width": "uint!"},
    "cwd": "string!",
    "env": _STRINGS,
    "args": _STRINGS,
    "rlimits": [{"type": "string!", "soft": "uint!", "hard": "uint!"}],
    "apparmorProfile": "string",
    "selinuxLabel": "string",
    "capabilities": _CAPABILITIES,
    "noNewPrivileges": "bool",
    "oomScoreAdj": "int",
    "scheduler": {
        "policy": "string!",
        "nice": "int",
        "priority": "int",
        "flags": _STRINGS,
        "runtime": "uint",
        "deadline": "uint",
        "period": "uint",
    },
    "ioPriority": {"class": "string!", "priority": "int"},
    "execCPUAffinity": {"initial": "string", "final": "string"},
    "user": {"uid": "uint32", "gid": "uint32", "umask": "uint32", "additionalGids": ["uint32"]},
}

RESOURCES = {
    "devices": [{"allow": "bool!", "type": "string", "major": "int", "minor": "int", "access": "string"}],
    "memory": {
        "limit": "int",
        "reservation": "int",
        "swap": "int",
        "kernel": "int",
        "kernelTCP": "int",
        "swappiness": "uint",
        "disableOOMKiller": "bool",
        "useHierarchy": "bool",
        "checkBeforeUpdate": "bool",
    },
    "cpu": {
        "shares": "uint",
        "quota": "int",
        "burst": "uint",
        "period": "uint",
        "realtimeRuntime": "int",
        "realtimePeriod": "uint",
        "cpus": "string",
        "mems": "string",
        "idle": "int",
    },
    "pids": {"limit": "int"},
    "blockIO": {
        "weight": "uint16",
        "leafWeight": "uint16",
        "weightDevice": [{"major": "int!", "minor": "int!", "weight": "uint16", "leafWeight": "uint16"}],
        "throttleReadBpsDevice": _RATES,
        "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES,
        "throttleWriteIOPSDevice": _RATES,
    },
    "hugepageLimits": [{"pageSize": "string!", "limit": "uint!"}],
    "network": {"classID": "uint32", "priorities": [{"name": "string!", "priority": "uint32!"}]},
    "rdma": {"*": {"hcaHandles": "uint32", "hcaObjects": "uint32"}},
    "unified": {"*": "string"},
}

CONFIG = {
    "ociVersion": "string!",
    "process": PROCESS,
    "root": {"path": "string!", "readonly": "bool"},
    "hostname": "string",
    "domainname": "string",
    "mounts": [
        {
            "destination": "string!",
            "type": "string",
            "source": "string",
            "options": _STRINGS,
            "uidMappings": _IDS,
            "gidMappings": _IDS,
        }
    ],
    "hooks": dict.fromkeys(
        ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"), _HOOKS
    ),
    "annotations": {"*": "string"},
    "linux": {
        "namespaces": [{"type": "string!", "path": "string"}],
        "uidMappings": _IDS,
        "gidMappings": _IDS,
        "timeOffsets": {"*": {"secs": "int", "nanosecs": "uint32"}},
        "devices": [
            {
                "type": "string!",
                "path": "string!",
                "major": "int",
                "minor": "int",
                "fileMode": "uint32",
                "uid": "uint32",
                "gid": "uint32",
            }
        ],
        "cgroupsPath": "string",
        "resources": RESOURCES,
        "sysctl": {"*": "string"},
        "seccomp": {"*": "any"},
        "rootfsPropagation": "string",
        "maskedPaths": _STRINGS,
        "readonlyPaths": _STRINGS,
        "mountLabel": "string",
        "personality": {"domain": "string!", "flags": _STRINGS},
        "intelRdt": {"*": "any"},
        "netDevices": {"*": "any"},
        "memoryPolicy": {"*": "any"},
    },
}

_BITS = {"uint": 64, "uint32": 32, "uint16": 16}


def check(value: Any, shape: Any, where: str) -> None:
    """Raise `InvalidParameter` if a value has not the shape; `where` is its path. null stands for a field that is not there."""
    if value is None or shape == "any":
        return
    if isinstance(shape, str):
        _check_plain(value, shape.removesuffix("!"), where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise InvalidParameter(f"{where} is no list")
        for index, entry in enumerate(value):
            if entry is None:
                raise InvalidParameter(f"{where}[{index}] is null")
            check(entry, shape[0], f"{where}[{index}]")
    else:
        _check_object(value, shape, where)


def _check_object(value: Any, shape: dict[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise InvalidParameter(f"{where or 'config.json'} is no object")
    for name, inner in value.items():
        expected = shape.get("*") or shape.get(name)
        if expected is not None:
            check(inner, expected, f"{where}.{name}" if where else name)
    for name, inner in shape.items():
        if isinstance(inner, str) and inner.endswith("!") and value.get(name) is None:
            raise InvalidParameter(f"{where}.{name} is missing" if where else f"{name} is missing")


def _check_plain(value: Any, kind: str, where: str) -> None:
    if kind == "string":
        if not isinstance(value, str):
            raise InvalidParameter(f"{where} is no string")
        if "\0" in value:
            raise InvalidParameter(f"{where} has a NUL byte in it")
    elif kind == "bool":
        if not isinstance(value, bool):
            raise InvalidParameter(f"{where} is neither true nor false")
    elif not isinstance(value, int) or isinstance(value, bool):
        raise InvalidParameter(f"{where} is no whole number")
    elif kind == "int":
        if not -(1 << 63) <= value < 1 << 63:
            raise InvalidParameter(f"{where} is out of range: {value}")
    elif not 0 <= value < 1 << _BITS[kind]:
        raise InvalidParameter(f"{where} is out of range: {value}")
