"""`update`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

# flag -> field of HostConfig
_FIELDS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "kernel-memory": "KernelMemory",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
}


def update(context: Context, arguments: Arguments) -> int:
    """Change each container and print its name; the warnings come when all are done."""
    if not any(arguments.given(flag) for flag in (*_FIELDS, "pids-limit", "restart")):
        raise Failure("you must provide one or more flags when using this command")
    request = _request(arguments)
    warnings: list[str] = []

    def one(name: str) -> None:
        warnings.extend(context.engine.containers.get(name).update_from(request))
        out(name)

    code = context.each(arguments.words, one)
    for warning in warnings:
        out(warning)
    return code


def _request(arguments: Arguments) -> dict[str, Any]:
    request: dict[str, Any] = {field: arguments[flag] for flag, field in _FIELDS.items()}
    if arguments["pids-limit"]:  # 0 leaves it as it is, on the command line
        request["PidsLimit"] = arguments["pids-limit"]
    if arguments["restart"]:
        from sampan.oci import restartpolicy

        request["RestartPolicy"] = restartpolicy.parse(arguments["restart"])
    return request


UPDATE = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    update,
    (
        Flag("blkio-weight", "uint16", "Share of block I/O, 10 to 1000"),
        Flag("cpu-period", "int", "CPU period in microseconds, that the quota is a part of"),
        Flag("cpu-quota", "int", "CPU time in microseconds that may be used in each period (-1: no limit)"),
        Flag("cpu-rt-period", "int", "Real-time period in microseconds"),
        Flag("cpu-rt-runtime", "int", "Real-time CPU time in microseconds in each real-time period"),
        Flag("cpu-shares", "int", "CPU time relative to other containers (1024 is one share)", "c"),
        Flag("cpus", "cpus", "CPUs that may be used at once, 0.5 for example"),
        Flag("cpuset-cpus", "string", "CPUs that may be used (0-3, 0,1)"),
        Flag("cpuset-mems", "string", "Memory nodes that may be used (0-3, 0,1)"),
        Flag("kernel-memory", "bytes", "No effect", hidden=True),
        Flag("memory", "bytes", "Memory limit", "m"),
        Flag("memory-reservation", "bytes", "Memory that is left to the container when memory is short"),
        Flag("memory-swap", "bytes or -1", "Limit of memory and swap together (-1: as much swap as there is)"),
        Flag("pids-limit", "int", "Limit of processes and threads (-1 for none)"),
        Flag("restart", "string", "Restart policy: no, always, unless-stopped or on-failure[:N]"),
    ),
    at_least=1,
)
