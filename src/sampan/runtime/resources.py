"""linux.resources of an OCI configuration -> the limits that the cgroup drivers set."""

from __future__ import annotations

from sampan.kernel import cgroup, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def make_limits(resources: dict[str, Any]) -> cgroup.Limits:
    """linux.resources as the drivers take them; what they do not know is `planmore.more_limits`."""
    in_user = namespaces.in_user_namespace()
    memory, cpu, block = (resources.get(part) or {} for part in ("memory", "cpu", "blockIO"))
    return cgroup.Limits(
        memory=memory.get("limit") or 0,
        memory_swap=memory.get("swap") or 0,
        memory_reservation=memory.get("reservation") or 0,
        memory_swappiness=memory.get("swappiness", -1),
        oom_kill_disable=memory.get("disableOOMKiller", False),
        cpu_shares=cpu.get("shares") or 0,
        cpu_quota=cpu.get("quota") or 0,
        cpu_period=cpu.get("period") or 0,
        cpu_realtime_runtime=cpu.get("realtimeRuntime", 0),
        cpu_realtime_period=cpu.get("realtimePeriod", 0),
        cpuset_cpus=cpu.get("cpus", ""),
        cpuset_mems=cpu.get("mems", ""),
        block_weight=block.get("weight", 0),
        block_weights=tuple(
            cgroup.BlockWeight(entry["major"], entry["minor"], entry["weight"])
            for entry in block.get("weightDevice") or ()
            if entry.get("weight")
        ),
        throttles=tuple(
            cgroup.Throttle(knob, entry["major"], entry["minor"], entry["rate"])
            for name, knob in _THROTTLES
            for entry in block.get(name) or ()
        ),
        hugepages=tuple((entry["pageSize"], entry["limit"]) for entry in resources.get("hugepageLimits") or ()),
        pids=(resources.get("pids") or {}).get("limit") or 0,
        # In a user namespace no rule can be made, and none is needed: the kernel opens no node that was made in it.
        devices=() if in_user else _device_rules(resources.get("devices") or ()),
    )


_rules: dict[tuple[tuple[object, ...], ...], tuple[cgroup.DeviceRule, ...]] = {}
"""What was made of lists of rules, up to a bound: nearly all containers have the same, of a dozen."""
_MOST_RULES = 32


def _device_rules(entries: Sequence[dict[str, Any]]) -> tuple[cgroup.DeviceRule, ...]:
    key = tuple(tuple(entry.items()) for entry in entries)
    found = _rules.get(key)
    if found is None:
        found = tuple(cgroup.DeviceRule(**entry) for entry in entries)
        if len(_rules) < _MOST_RULES:
            _rules[key] = found
    return found


_THROTTLES = (
    ("throttleReadBpsDevice", "read_bps"),
    ("throttleWriteBpsDevice", "write_bps"),
    ("throttleReadIOPSDevice", "read_iops"),
    ("throttleWriteIOPSDevice", "write_iops"),
)
