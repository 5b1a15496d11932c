"""What containers use: processors, memory, disks, network, processes, and how long they waited for it.

A document has the shape of `GET /containers/{id}/stats` (Engine API 1.51), with `pressure_stats` beside it, which is
ours. Everything is read from the kernel in this process and without any lock: a monitor that is stopped, or a
process in uninterruptible sleep, holds nothing up.
"""

from __future__ import annotations

import os
import time

from sampan.errors import NotFound
from sampan.kernel import cgroup, clock, counters, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.kernel.cgroupusage import (
        BlockCount,
        BlockUsage,
        CpuUsage,
        MemoryUsage,
        PidsUsage,
        Pressure,
        Stall,
        Usage,
    )
    from sampan.kernel.counters import MachineTime, Traffic
    from sampan.store.record import Record
    from sampan.store.states import Observation

    Before = Mapping[str, Mapping[str, Any]]

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def read(self, container_id: str) -> Record: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...


NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: a document that has none before it, or is of a container that does not run."""

_NO_TIME = {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}}
_NO_THROTTLING = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
_BLOCK_LISTS = (
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)
"""What only CFQ counted, which Linux has no more since 5.0."""

_INTERVAL = 1.0
"""Seconds between the two looks of one document, as dockerd's."""


class StatsReader:
    """`GET /containers/{id}/stats`."""

    def __init__(self, records: Records, settler: Settler, cgroups: CgroupDriver) -> None:
        self._records = records
        self._settler = settler
        self._cgroups = cgroups

    def one(self, container_id: str, one_shot: bool) -> dict[str, Any]:
        """A container's document; but for `one_shot` after a second, so that `precpu_stats` has something to compare with.

        Raises NotFound.
        """
        first = self._only(container_id, {})
        if one_shot or first["read"] == NEVER:
            return first
        time.sleep(_INTERVAL)
        return self._only(container_id, {container_id: first})

    def _only(self, container_id: str, before: Before) -> dict[str, Any]:
        found = self.of([container_id], before)
        if not found:
            raise NotFound(f"No such container: {container_id}")
        return found[0]

    def of(self, ids: Iterable[str], before: Before) -> list[dict[str, Any]]:
        """The documents of those containers that are there, in their order; that of one that does not run has no counters.

        before: earlier documents by id, whose `cpu_stats` become `precpu_stats`.
        """
        return [document for _, document in self._documents(ids, True, before)]

    def listing(self, all: bool, before: Before) -> list[dict[str, Any]]:
        """The same of the containers that run, or of every one, the newest first.

        Nothing is put right on the way, as other listings do: this one is made every second, and waits for nobody.
        """
        found = self._documents(self._records.ids(), all, before)
        return [document for _, document in sorted(found, key=lambda one: one[0], reverse=True)]

    def _documents(self, ids: Iterable[str], all: bool, before: Before) -> Iterator[tuple[str, dict[str, Any]]]:
        """Documents with the time of the container's creation."""
        # Of the machine once for all, as dockerd does: on one with many processors it is the longest file of them all.
        machine = counters.machine_time()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        for container_id in ids:
            try:
                record = self._records.read(container_id)
                seen = self._settler.observe(record)
            except NotFound:
                continue
            if all or seen.running:
                document = self._document(record, seen, machine, memory)
                _compare(document, before.get(container_id))
                yield record.created, document

    def _document(self, record: Record, seen: Observation, machine: MachineTime, memory: int) -> dict[str, Any]:
        names = {"name": f"/{record.name}", "id": record.id}
        if not seen.running:
            return {"read": NEVER, **_empty(), **names}
        read = clock.now()
        usage = self._cgroups.usage(cgroup.container_group(record.id, record.host_config))
        document = {"read": read, **_counted(usage, machine, memory)}
        traffic = _traffic(record, seen.started or {})
        if traffic:
            document["networks"] = {name: one.to_json() for name, one in traffic.items()}
        return {**document, **names}


def _compare(document: dict[str, Any], before: Mapping[str, Any] | None) -> None:
    """Put the processor time of an earlier document beside this one's."""
    document["preread"] = before["read"] if before else NEVER
    document["precpu_stats"] = before["cpu_stats"] if before else _cpu(None, None)


def _traffic(record: Record, started: Mapping[str, Any]) -> dict[str, Traffic]:
    """The traffic of a container's network namespace; nothing if it has the host's, which is everybody's."""
    if record.host_config.get("NetworkMode") == "host" or not started:
        return {}
    pid = int(started["pid"])
    try:
        # One that joined a container with the host's network has it as well.
        if counters.shares_network(pid):
            return {}
        found = counters.traffic(pid)
        # Asked last: the number was its own while the file was read.
        return found if process.start_time(pid) == started["pid_start"] else {}
    except (ProcessLookupError, FileNotFoundError):
        return {}  # it has ended in this moment


# The shape of the Engine API


def _empty() -> dict[str, Any]:
    return {
        "pids_stats": {},
        "blkio_stats": _block(None),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(None, None),
        "memory_stats": {},
        "pressure_stats": {},
    }


def _counted(usage: Usage, machine: MachineTime, machine_memory: int) -> dict[str, Any]:
    return {
        "pids_stats": _pids(usage.pids),
        "blkio_stats": _block(usage.block),
        "num_procs": 0,  # Windows has a number here
        "storage_stats": {},
        "cpu_stats": _cpu(usage.cpu, machine),
        "memory_stats": _memory(usage.memory, machine_memory),
        "pressure_stats": {resource: _pressure(pressure) for resource, pressure in usage.pressure.items()},
    }


def _cpu(usage: CpuUsage | None, machine: MachineTime | None) -> dict[str, Any]:
    if usage is None:
        document: dict[str, Any] = {**_NO_TIME, "throttling_data": _NO_THROTTLING}
    else:
        times: dict[str, Any] = {"total_usage": usage.total}
        if usage.per_cpu:
            times["percpu_usage"] = list(usage.per_cpu)
        times |= {"usage_in_kernelmode": usage.system, "usage_in_usermode": usage.user}
        throttling = (usage.periods, usage.throttled_periods, usage.throttled_time)
        document = {"cpu_usage": times, "throttling_data": dict(zip(_NO_THROTTLING, throttling, strict=True))}
    if usage is not None and machine is not None:
        document |= {"system_cpu_usage": machine.total, "online_cpus": machine.online}
    return document


def _memory(usage: MemoryUsage | None, machine_memory: int) -> dict[str, Any]:
    if usage is None:
        return {}
    document: dict[str, Any] = {"usage": usage.usage}
    if usage.peak is not None:
        document["max_usage"] = usage.peak
    document["stats"] = usage.stats
    if usage.failures:
        document["failcnt"] = usage.failures
    # Without a limit, or with one that is never reached, the machine's memory is what there is.
    document["limit"] = min(usage.limit or machine_memory, machine_memory)
    return document


def _pids(usage: PidsUsage | None) -> dict[str, int]:
    if usage is None:
        return {}
    return {"current": usage.current, **({"limit": usage.limit} if usage.limit else {})}


def _block(usage: BlockUsage | None) -> dict[str, Any]:
    lists: tuple[Any, ...] = (None, None) if usage is None else (_counts(usage.bytes), _counts(usage.operations))
    document = dict(zip(("io_service_bytes_recursive", "io_serviced_recursive"), lists, strict=True))
    return document | {name: None if usage is None else [] for name in _BLOCK_LISTS}


def _counts(counts: Sequence[BlockCount]) -> list[dict[str, Any]]:
    return [count.to_json() for count in counts]


def _pressure(pressure: Pressure) -> dict[str, dict[str, float]]:
    stalls: dict[str, Stall | None] = {"some": pressure.some, "full": pressure.full}
    return {kind: stall.to_json() for kind, stall in stalls.items() if stall is not None}
