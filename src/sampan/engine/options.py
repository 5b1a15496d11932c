"""The library's friendly options, by docker-py's names, turned into the body of `POST /containers/create`.

    engine.containers.create("debian:12", ["sleep", "60"], memory="128m", cpus=0.5, environment={"A": "1"})

Sizes are read as Docker's command line reads them ("256m", "1.5 GiB"), in powers of 1024.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DIGITS = frozenset("0123456789.")
_FLOAT = _DIGITS | frozenset("eE+-")


def parse_size(text: str, decimal: bool = False) -> int:
    """Bytes of "256m", "1.5g", "1 GiB", "512" (go-units RAMInBytes; with `decimal` FromHumanSize, whose units are powers of
    1000). Raises InvalidParameter in Docker's words.
    """
    at = max((i for i, c in enumerate(text) if c in _DIGITS or c == " "), default=-1)
    if at < 0:
        raise InvalidParameter(f"invalid size: '{text}'")
    number, suffix = (text[:at] if text[at] == " " else text[: at + 1]), text[at + 1 :]
    if number.startswith("-"):
        raise InvalidParameter(f"invalid size: '{text}'")
    try:
        if not _FLOAT.issuperset(number):
            raise ValueError
        return int(float(number) * _multiplier(suffix, decimal))
    except (ValueError, OverflowError):
        raise InvalidParameter(f'strconv.ParseFloat: parsing "{number}": invalid syntax') from None


def _multiplier(suffix: str, decimal: bool) -> int:
    lower = suffix.lower()
    if lower in ("", "b"):
        return 1
    unit = _UNITS.get(lower[0])
    if unit is None or lower[1:] not in ("", "b", "ib"):
        raise InvalidParameter(f"invalid suffix: '{suffix if len(suffix) > 3 else lower}'")
    return int(1000 ** (unit.bit_length() // 10)) if decimal else unit


def parse_cpus(text: str) -> int:
    """Billionths of a CPU of "0.5" or "1/3". Raises InvalidParameter in Docker's words (opts.ParseCPUs)."""
    whole, _, rest = text.partition(".")
    if (whole + rest).isascii() and (whole + rest).isdigit() and len(rest) <= 9:
        return int(whole or "0") * 1_000_000_000 + int(rest.ljust(9, "0"))
    # "1/3", "5e-1", "-1" and what is wrong: rare, and fractions costs 10 ms to import.
    from fractions import Fraction

    try:
        nano = Fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise InvalidParameter(f"failed to parse {text} as a rational number") from None
    if nano.denominator != 1:
        raise InvalidParameter("value is too precise")
    return int(nano)


def parse_swap(text: str) -> int:
    """As `parse_size`, and "-1" for no limit."""
    return -1 if text == "-1" else parse_size(text)


def _same(value: Any) -> Any:
    return value


def _list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value]


def _size(value: str | int) -> int:
    return value if isinstance(value, int) else parse_size(value)


def _swap(value: str | int) -> int:
    return value if isinstance(value, int) else parse_swap(value)


def _cpus(value: str | float) -> int:
    # repr of a float is the shortest decimal that means it: 0.1 is a tenth here, not 0.1000000000000000055.
    return parse_cpus(value if isinstance(value, str) else repr(value))


def environment_entries(value: Mapping[str, str | None] | Sequence[str]) -> list[str]:
    """KEY=VALUE lines; a key without a value takes the caller's own, and none if there is none (docker run -e KEY)."""
    if not hasattr(value, "items"):
        return list(value)
    lines = []
    for key, text in value.items():
        given = os.environ.get(key) if text is None else str(text)
        if given is not None:
            lines.append(f"{key}={given}")
    return lines


def _labels(value: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    return dict.fromkeys(value, "") if not hasattr(value, "items") else {k: str(v) for k, v in value.items()}


def _hosts(value: Mapping[str, str] | Sequence[str]) -> list[str]:
    return list(value) if not hasattr(value, "items") else [f"{name}:{address}" for name, address in value.items()]


def _devices(value: Sequence[str | Mapping[str, str]]) -> list[Any]:
    """Texts as `--device` takes them, or entries of HostConfig.Devices."""
    from sampan.oci.devices import parse_device

    return [parse_device(item) if isinstance(item, str) else dict(item) for item in value]


def _ulimits(value: Sequence[str | Mapping[str, Any]]) -> list[Any]:
    """Texts as `--ulimit` takes them, or entries of HostConfig.Ulimits; docker-py's `Ulimit` is one (a dict)."""
    from sampan.oci.rlimits import parse

    return [parse(item) if isinstance(item, str) else dict(item) for item in value]


def _sysctls(value: Mapping[str, Any] | Sequence[str]) -> dict[str, str]:
    if not hasattr(value, "items"):
        return dict(entry.partition("=")[::2] for entry in value)
    return {name: str(text) for name, text in value.items()}


def _healthcheck(value: Mapping[str, Any]) -> dict[str, Any]:
    """docker-py's `Healthcheck`, its keys in either spelling; times in nanoseconds or as texts ("30s")."""
    from sampan.oci import duration

    names = {name.lower(): name for name in ("Test", "Interval", "Timeout", "Retries", "StartPeriod", "StartInterval")}
    check: dict[str, Any] = {}
    for key, given in value.items():
        name = names.get(key.replace("_", "").lower())
        if name is None:
            raise InvalidParameter(f"unknown field {key!r} of healthcheck; known are: {', '.join(names.values())}")
        if name == "Test":
            check[name] = ["CMD-SHELL", given] if isinstance(given, str) else given
        elif given is not None:
            check[name] = duration.parse(given) if isinstance(given, str) else given
    return check


def _restart_policy(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """Text as `--restart` takes it, or a HostConfig.RestartPolicy."""
    from sampan.oci.restartpolicy import parse

    return parse(value) if isinstance(value, str) else dict(value)


def command_words(value: str | Sequence[str]) -> list[str]:
    """A command as a list; a string is split as a shell would, without running one (docker-py does so)."""
    if isinstance(value, str):
        import shlex

        return shlex.split(value)
    return [str(word) for word in value]


def _volumes(value: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """docker-py's shapes: {source: {"bind": target, "mode": "ro"}}, {source: target}, or what -v takes, a list of it.

    One without a source makes a new volume, here as with -v.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [_bind(str(source), target) for source, target in value.items()]
    return [str(text) for text in value]


def _bind(source: str, target: Any) -> str:
    if isinstance(target, str):
        return f"{source}:{target}"
    if not isinstance(target, dict) or "bind" not in target or ("mode" in target and "ro" in target):
        raise InvalidParameter(f"invalid volume {source!r}: {target!r} is not a path or {{'bind': path, 'mode': mode}}")
    mode = target["mode"] if "mode" in target else "ro" if target.get("ro") else "rw"
    words = [word for word in (mode, target.get("propagation")) if word]
    return ":".join((source, target["bind"], ",".join(words)))


# option -> (where it goes: "" for Config or "HostConfig", field, conversion)
_OPTIONS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "attach_stdin": ("", "AttachStdin", _same),
    "attach_stdout": ("", "AttachStdout", _same),
    "attach_stderr": ("", "AttachStderr", _same),
    "domainname": ("", "Domainname", _same),
    "entrypoint": ("", "Entrypoint", command_words),
    "environment": ("", "Env", environment_entries),
    "healthcheck": ("", "Healthcheck", _healthcheck),
    "hostname": ("", "Hostname", _same),
    "labels": ("", "Labels", _labels),
    "stdin_open": ("", "OpenStdin", _same),
    "stdin_once": ("", "StdinOnce", _same),
    "stop_signal": ("", "StopSignal", _same),
    "stop_timeout": ("", "StopTimeout", _same),
    "tty": ("", "Tty", _same),
    "user": ("", "User", str),
    "working_dir": ("", "WorkingDir", _same),
    "auto_remove": ("HostConfig", "AutoRemove", _same),
    "remove": ("HostConfig", "AutoRemove", _same),
    "cap_add": ("HostConfig", "CapAdd", _list),
    "cap_drop": ("HostConfig", "CapDrop", _list),
    "cgroup_parent": ("HostConfig", "CgroupParent", _same),
    "cgroupns": ("HostConfig", "CgroupnsMode", _same),
    "blkio_weight": ("HostConfig", "BlkioWeight", _same),
    "blkio_weight_device": ("HostConfig", "BlkioWeightDevice", _same),
    "device_read_bps": ("HostConfig", "BlkioDeviceReadBps", _same),
    "device_write_bps": ("HostConfig", "BlkioDeviceWriteBps", _same),
    "device_read_iops": ("HostConfig", "BlkioDeviceReadIOps", _same),
    "device_write_iops": ("HostConfig", "BlkioDeviceWriteIOps", _same),
    "cpu_rt_period": ("HostConfig", "CpuRealtimePeriod", _same),
    "cpu_rt_runtime": ("HostConfig", "CpuRealtimeRuntime", _same),
    "cpuset_cpus": ("HostConfig", "CpusetCpus", str),
    "cpuset_mems": ("HostConfig", "CpusetMems", str),
    "devices": ("HostConfig", "Devices", _devices),
    "device_cgroup_rules": ("HostConfig", "DeviceCgroupRules", _list),
    "mem_swappiness": ("HostConfig", "MemorySwappiness", _same),
    "oom_kill_disable": ("HostConfig", "OomKillDisable", _same),
    "sysctls": ("HostConfig", "Sysctls", _sysctls),
    "ulimits": ("HostConfig", "Ulimits", _ulimits),
    "cpu_period": ("HostConfig", "CpuPeriod", _same),
    "cpu_quota": ("HostConfig", "CpuQuota", _same),
    "cpu_shares": ("HostConfig", "CpuShares", _same),
    "cpus": ("HostConfig", "NanoCpus", _cpus),
    "nano_cpus": ("HostConfig", "NanoCpus", _same),
    "dns": ("HostConfig", "Dns", _list),
    "dns_opt": ("HostConfig", "DnsOptions", _list),
    "dns_search": ("HostConfig", "DnsSearch", _list),
    "extra_hosts": ("HostConfig", "ExtraHosts", _hosts),
    "group_add": ("HostConfig", "GroupAdd", _list),
    "init": ("HostConfig", "Init", _same),
    "ipc_mode": ("HostConfig", "IpcMode", _same),
    "log_config": ("HostConfig", "LogConfig", dict),
    "mem_limit": ("HostConfig", "Memory", _size),
    "memory": ("HostConfig", "Memory", _size),
    "mem_reservation": ("HostConfig", "MemoryReservation", _size),
    "memory_reservation": ("HostConfig", "MemoryReservation", _size),
    "memswap_limit": ("HostConfig", "MemorySwap", _swap),
    "memory_swap": ("HostConfig", "MemorySwap", _swap),
    "network_mode": ("HostConfig", "NetworkMode", _same),
    "network": ("HostConfig", "NetworkMode", _same),
    "oom_score_adj": ("HostConfig", "OomScoreAdj", _same),
    "pid_mode": ("HostConfig", "PidMode", _same),
    "pids_limit": ("HostConfig", "PidsLimit", _same),
    "privileged": ("HostConfig", "Privileged", _same),
    "read_only": ("HostConfig", "ReadonlyRootfs", _same),
    "restart_policy": ("HostConfig", "RestartPolicy", _restart_policy),
    "security_opt": ("HostConfig", "SecurityOpt", _list),
    "shm_size": ("HostConfig", "ShmSize", _size),
    "tmpfs": ("HostConfig", "Tmpfs", dict),
    "mounts": ("HostConfig", "Mounts", list),
    "volume_driver": ("HostConfig", "VolumeDriver", _same),
    "volumes": ("HostConfig", "Binds", _volumes),
    "volumes_from": ("HostConfig", "VolumesFrom", _list),
    "userns_mode": ("HostConfig", "UsernsMode", _same),
    "uts_mode": ("HostConfig", "UTSMode", _same),
}


_UPDATED = frozenset(
    ("blkio_weight", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpus", "cpuset_cpus",
     "cpuset_mems", "mem_limit", "mem_reservation", "memory", "memory_reservation", "memory_swap", "memswap_limit",
     "nano_cpus", "pids_limit", "restart_policy")
)  # fmt: skip
"""What of a container can be changed later."""


def update_request(options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `POST /containers/{id}/update`. Raises InvalidParameter for what cannot be changed."""
    for option in options:
        if option not in _UPDATED:
            raise InvalidParameter(
                f"option {option!r} cannot be changed; those that can: {', '.join(sorted(_UPDATED))}"
            )
    host: dict[str, Any] = request("", None, None, options)["HostConfig"]
    return host


def request(
    image: str, command: str | Sequence[str] | None, name: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of `POST /containers/create`, with "Name" beside it. Raises InvalidParameter for an unknown option."""
    body: dict[str, Any] = {"Image": image, "HostConfig": {}}
    if command is not None:
        body["Cmd"] = command_words(command)
    if name:
        body["Name"] = name
    for option, value in options.items():
        if option not in _OPTIONS:
            raise InvalidParameter(f"unknown option {option!r}; known are: {', '.join(sorted(_OPTIONS))}")
        if value is None:
            continue
        room, field, convert = _OPTIONS[option]
        target = body[room] if room else body
        if field in target:
            raise InvalidParameter(f"option {option!r} is given twice, under two names ({field})")
        target[field] = convert(value)
    return body
