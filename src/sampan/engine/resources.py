"""The resource limits of a create request: Docker's rules on the numbers, then what this machine's kernel has."""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.kernel import cgroup
from sampan.oci import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def check(host: dict[str, Any], driver: cgroup.CgroupDriver) -> list[str]:
    """Check the limits of a HostConfig and make them canonical in place, as inspect shows them; Docker's warnings.

    Raises InvalidParameter, or Unavailable for what cannot be had here and must not be left out.
    """
    memory, swap, reservation = host["Memory"], host["MemorySwap"], host["MemoryReservation"]
    if memory < 0 or reservation < 0 or swap < -1:
        raise InvalidParameter("invalid memory limit: it must not be negative")
    limits.check_memory(memory, swap, reservation)
    limits.check_cpu(
        os.cpu_count() or 1, host["NanoCpus"], host["CpuPeriod"], max(host["CpuQuota"], 0), host["CpuShares"]
    )
    host["MemorySwap"] = limits.swap_limit(memory, swap)
    if host["PidsLimit"] is not None and host["PidsLimit"] <= 0:
        host["PidsLimit"] = None  # 0 and -1 are Docker's words for "no limit"
    quota, period = limits.bandwidth(host["NanoCpus"], host["CpuPeriod"], host["CpuQuota"])
    asked = cgroup.Limits(
        memory=memory,
        memory_swap=host["MemorySwap"],
        memory_reservation=reservation,
        cpu_shares=host["CpuShares"],
        cpu_quota=quota,
        cpu_period=period,
        pids=limits.pids_limit(host["PidsLimit"]),
        # Which devices does not matter here: that there are rules does, and only --privileged has none.
        devices=() if host["Privileged"] else (cgroup.DeviceRule(False, "a"),),
    )
    return cgroup.check(asked, driver)
