"""What a container uses, in the shape of `runc events` (types/events.go), which containerd and others read."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroupusage import BlockUsage, Usage
    from sampan.runtime.ocistate import Container

_NO_LIMIT = (1 << 64) - 1


def stats(container: Container) -> dict[str, Any]:
    """One event's data; what this kernel does not count is left out."""
    usage: Usage = container.driver.usage(container.group)
    found: dict[str, Any] = {"hugetlb": {}, "intel_rdt": {}, "network_interfaces": None}
    if usage.cpu is not None:
        cpu = usage.cpu
        counted: dict[str, Any] = {"total": cpu.total, "kernel": cpu.system, "user": cpu.user}
        if cpu.per_cpu:
            counted["percpu"] = list(cpu.per_cpu)
        throttling = {
            "periods": cpu.periods,
            "throttledPeriods": cpu.throttled_periods,
            "throttledTime": cpu.throttled_time,
        }
        found["cpu"] = {"usage": counted, "throttling": throttling}
    if usage.memory is not None:
        memory = usage.memory
        found["memory"] = {
            "cache": memory.stats.get("cache", memory.stats.get("file", 0)),
            "usage": {
                "limit": memory.limit or _NO_LIMIT,
                "usage": memory.usage,
                "max": memory.peak or 0,
                "failcnt": memory.failures,
            },
            "raw": memory.stats,
        }
    if usage.pids is not None:
        found["pids"] = {"current": usage.pids.current, "limit": usage.pids.limit}
    if usage.block is not None:
        found["blkio"] = _block(usage.block)
    if usage.pressure:
        for resource, part in (("cpu", "cpu"), ("memory", "memory"), ("io", "blkio")):
            pressure = usage.pressure.get(resource)
            if pressure is not None and part in found:
                found[part]["psi"] = {
                    kind: stall.to_json()
                    for kind, stall in (("some", pressure.some), ("full", pressure.full))
                    if stall is not None
                }
    return found


def _block(usage: BlockUsage) -> dict[str, Any]:
    return {
        name: [{"major": c.major, "minor": c.minor, "op": c.op, "value": c.value} for c in counts]
        for name, counts in (
            ("ioServiceBytesRecursive", usage.bytes),
            ("ioServicedRecursive", usage.operations),
        )
    }
