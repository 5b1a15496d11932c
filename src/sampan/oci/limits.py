"""Docker's rules on the numbers of a resource limit: what may be asked for at all, whatever the kernel has.

What this machine's kernel lacks is the cgroup driver's to say, with warnings (`kernel.cgroup.check`). Order and texts
are those of moby (daemon_unix.go, verifyPlatformContainerResources).
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

MIN_MEMORY = 6 * 1024 * 1024
"""Bytes. Not the kernel's limit: what a container needs to come up."""

MIN_PERIOD, MAX_PERIOD = 1_000, 1_000_000
"""Microseconds, the kernel's bounds (Documentation/scheduler/sched-bwc.rst); a quota has the same minimum."""

DEFAULT_PERIOD = 100_000
"""Microseconds: the period that `--cpus` is a share of."""


def check_memory(memory: int = 0, swap: int = 0, reservation: int = 0, update: bool = False) -> None:
    """Bytes; 0 is unset, swap counts memory and swap together and is -1 for no limit.

    update: a memory limit may be there already. Raises `InvalidParameter`.
    """
    if memory != 0 and memory < MIN_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0 and not update:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < reservation < MIN_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")


def check_cpu(online: int, nano_cpus: int = 0, period: int = 0, quota: int = 0, shares: int = 0) -> None:
    """`online` is the number of CPUs of the machine; nano_cpus billionths of a CPU; period and quota microseconds.

    Raises `InvalidParameter`. Less than a hundredth of a CPU is refused here, as the text says; Docker lets it
    through, and the start fails in the kernel.
    """
    if nano_cpus > 0 and period > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nano_cpus > 0 and quota > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    smallest = 1_000_000_000 * MIN_PERIOD // DEFAULT_PERIOD
    if nano_cpus != 0 and not smallest <= nano_cpus <= online * 1_000_000_000:
        raise InvalidParameter(f"range of CPUs is from 0.01 to {online}.00, as there are only {online} CPUs available")
    if shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({shares}): value must be a positive integer")
    if period != 0 and not MIN_PERIOD <= period <= MAX_PERIOD:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < quota < MIN_PERIOD:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def check_swappiness(swappiness: int | None) -> None:
    """Raises `InvalidParameter`."""
    if swappiness is not None and not 0 <= swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")


def check_realtime(period: int, runtime: int) -> None:
    """Microseconds, 0 is unset. Raises `InvalidParameter`."""
    if period < 0 or runtime < 0:
        raise InvalidParameter("invalid real-time limit: it must not be negative")
    if period != 0 and runtime > period:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")


def check_block_weight(weight: int) -> None:
    """0 is unset. Raises `InvalidParameter`."""
    if weight != 0 and not 10 <= weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")


def swap_limit(memory: int, swap: int) -> int:
    """The memory-and-swap limit that holds, as inspect shows it: twice the memory when only that was given."""
    return 2 * memory if memory > 0 and swap == 0 else swap


def bandwidth(nano_cpus: int, period: int = 0, quota: int = 0) -> tuple[int, int]:
    """(quota, period) in microseconds for `--cpus`, else those that were given; 0 is unset."""
    if nano_cpus:
        return nano_cpus * DEFAULT_PERIOD // 1_000_000_000, DEFAULT_PERIOD
    return quota, period


def pids_limit(limit: int | None) -> int:
    """The kernel's number for `--pids-limit`: 0 when it was not given, -1 (no limit) for all that is not positive."""
    if limit is None:
        return 0
    return limit if limit > 0 else -1
