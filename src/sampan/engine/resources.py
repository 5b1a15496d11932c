"""The resource limits of a create request: Docker's rules on the numbers, then what this machine's kernel has."""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter, Unavailable
from sampan.kernel import cgroup
from sampan.oci import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

THROTTLES = (
    ("BlkioDeviceReadBps", "read_bps"),
    ("BlkioDeviceWriteBps", "write_bps"),
    ("BlkioDeviceReadIOps", "read_iops"),
    ("BlkioDeviceWriteIOps", "write_iops"),
)


def check(host: dict[str, Any], driver: cgroup.CgroupDriver, update: bool = False) -> list[str]:
    """Check the limits of a HostConfig and make them canonical in place, as inspect shows them; Docker's warnings.

    update: they are changes, so that one which needs another may have that already.
    Raises InvalidParameter, or Unavailable for what cannot be had here and must not be left out.
    """
    memory, swap, reservation = host["Memory"], host["MemorySwap"], host["MemoryReservation"]
    if memory < 0 or reservation < 0 or swap < -1:
        raise InvalidParameter("invalid memory limit: it must not be negative")
    limits.check_memory(memory, swap, reservation, update)
    if host["MemorySwappiness"] == -1:
        host["MemorySwappiness"] = None  # how Docker's command line says that none was asked for
    limits.check_swappiness(host["MemorySwappiness"])
    limits.check_cpu(
        os.cpu_count() or 1, host["NanoCpus"], host["CpuPeriod"], max(host["CpuQuota"], 0), host["CpuShares"]
    )
    limits.check_realtime(host["CpuRealtimePeriod"], host["CpuRealtimeRuntime"])
    host["MemorySwap"] = limits.swap_limit(memory, swap)
    if host["PidsLimit"] is not None and host["PidsLimit"] <= 0:
        host["PidsLimit"] = None  # 0 and -1 are Docker's words for "no limit"
    _check_rare(host, driver)
    warnings = cgroup.check(kernel_limits(host), driver)
    if driver.version == cgroup.NONE and not update:
        _confine_without_cgroups(host, driver.reason)
    if host["KernelMemory"]:
        host["KernelMemory"] = 0
        warnings.insert(0, "Specifying a kernel memory limit is deprecated and will be removed in a future release.")
    if host["OomKillDisable"] is not None and not driver.supports("oom kill disable"):
        host["OomKillDisable"] = None
    if host["OomKillDisable"] and memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return warnings


def _confine_without_cgroups(host: dict[str, Any], reason: str) -> None:
    """Keep the container where only cgroups would have kept it; in place. Raises Unavailable for what cannot be kept.

    Nothing judges who opens a device, so it may make none, and those of its image are dead (`runtime.plan`). Nothing but a
    pid namespace gathers its processes, so it has one of its own.
    """
    if host["PidMode"]:
        raise Unavailable(f"--pid {host['PidMode']} cannot be had: {reason}")
    if host["Privileged"]:
        return
    if host["DeviceCgroupRules"]:
        raise Unavailable(f"--device-cgroup-rule cannot be had: {reason}")
    added = {"ALL", "CAP_MKNOD"} & set(host["CapAdd"] or ())
    if added and "CAP_MKNOD" not in (host["CapDrop"] or ()):
        raise Unavailable(
            f"--cap-add {min(added)} cannot be had, for nothing would judge the devices that it makes: {reason}"
        )
    host["CapDrop"] = [*(host["CapDrop"] or ()), "CAP_MKNOD"]


def kernel_limits(host: dict[str, Any]) -> cgroup.Limits:
    """The limits of a HostConfig for the driver; in place of the limits of disks and devices only that there are some."""
    quota, period = limits.bandwidth(host["NanoCpus"], host["CpuPeriod"], host["CpuQuota"])
    return cgroup.Limits(
        memory=host["Memory"],
        memory_swap=host["MemorySwap"],
        memory_reservation=host["MemoryReservation"],
        memory_swappiness=-1 if host["MemorySwappiness"] is None else host["MemorySwappiness"],
        oom_kill_disable=bool(host["OomKillDisable"]),
        cpu_shares=host["CpuShares"],
        cpu_quota=quota,
        cpu_period=period,
        cpu_realtime_runtime=host["CpuRealtimeRuntime"],
        cpu_realtime_period=host["CpuRealtimePeriod"],
        cpuset_cpus=host["CpusetCpus"],
        cpuset_mems=host["CpusetMems"],
        block_weight=host["BlkioWeight"],
        block_weights=(cgroup.BlockWeight(0, 0, 0),) if host["BlkioWeightDevice"] else (),
        throttles=tuple(cgroup.Throttle(knob, 0, 0, 0) for field, knob in THROTTLES if host[field]),
        pids=limits.pids_limit(host["PidsLimit"]),
        # Only --privileged has no rules on devices.
        devices=() if host["Privileged"] else (cgroup.DeviceRule(False, "a"),),
    )


def _check_rare(host: dict[str, Any], driver: cgroup.CgroupDriver) -> None:
    """What few containers ask for; each check is imported for those that do."""
    if host["CpusetCpus"] or host["CpusetMems"]:
        _check_cpuset(host, driver)
    limits.check_block_weight(host["BlkioWeight"])
    if host["IOMaximumBandwidth"] or host["IOMaximumIOps"]:
        raise InvalidParameter("Invalid QoS settings: Linux does not support Maximum IO Bandwidth or Maximum IO IOps")
    if host["Ulimits"]:
        from sampan.oci import rlimits

        host["Ulimits"] = rlimits.check(host["Ulimits"])
    if host["Sysctls"]:
        from sampan.oci import sysctls

        sysctls.check(host)
    if any(host[field] for field in ("Devices", "DeviceCgroupRules", "BlkioWeightDevice", *dict(THROTTLES))):
        from sampan.oci import devices

        host["Devices"] = devices.check_devices(host["Devices"])
        for rule in host["DeviceCgroupRules"] or ():
            devices.check_rule(rule)
        devices.check_disks("BlkioWeightDevice", host["BlkioWeightDevice"], "Weight")
        for field, _ in THROTTLES:
            devices.check_disks(field, host[field], "Rate")


def _check_cpuset(host: dict[str, Any], driver: cgroup.CgroupDriver) -> None:
    from sampan.oci import cpuset

    if driver.supports("cpuset"):
        there = driver.cpuset()
        cpuset.check_available(host["CpusetCpus"], there[0], "cpus", "CPUs")
        cpuset.check_available(host["CpusetMems"], there[1], "mems", "memory nodes")
