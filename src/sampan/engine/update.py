"""Changing the limits and the restart policy of a container that is there, whether it runs or not."""

from __future__ import annotations

from sampan.engine import resources
from sampan.engine.fields import HOST_CONFIG, normalise_host_config
from sampan.errors import InvalidParameter, SampanError, System
from sampan.kernel import cgroup, cgroupchange
from sampan.oci import lifecycle, limits, restartpolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.steps.trace import Trace
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str) -> RecordLock: ...
        def change(self, lock: RecordLock, record: Record) -> None: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str) -> None: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...


_DECIDED_BY = {
    "memory": ("Memory", "MemorySwap"),
    "memory_swap": ("Memory", "MemorySwap"),
    "memory_reservation": ("MemoryReservation",),
    "cpu_shares": ("CpuShares",),
    "cpu_quota": ("NanoCpus", "CpuPeriod", "CpuQuota"),
    "cpu_period": ("NanoCpus", "CpuPeriod", "CpuQuota"),
    "cpu_realtime_runtime": ("CpuRealtimeRuntime", "CpuRealtimePeriod"),
    "cpu_realtime_period": ("CpuRealtimeRuntime", "CpuRealtimePeriod"),
    "cpuset_cpus": ("CpusetCpus",),
    "cpuset_mems": ("CpusetMems",),
    "block_weight": ("BlkioWeight",),
    "pids": ("PidsLimit",),
}
"""A limit, and the fields of HostConfig that it is made of: if one of these changes, it is set anew."""

_FIELDS = frozenset(field for fields in _DECIDED_BY.values() for field in fields)
_CONFLICTS = (
    ("NanoCpus", "CpuPeriod", "Nano CPUs cannot be updated as CPU Period has already been set"),
    ("NanoCpus", "CpuQuota", "Nano CPUs cannot be updated as CPU Quota has already been set"),
    ("CpuPeriod", "NanoCpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
    ("CpuQuota", "NanoCpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
)


class Updater:
    """`POST /containers/{id}/update`."""

    def __init__(
        self, records: Records, settler: Settler, cgroups: CgroupDriver, events: Announcer, trace: Trace
    ) -> None:
        self._records = records
        self._settler = settler
        self._cgroups = cgroups
        self._events = events
        self._trace = trace

    def update(self, record: Record, request: dict[str, Any]) -> list[str]:
        """Change what the request names, a HostConfig of which limits and RestartPolicy count; Docker's warnings.

        All of it or nothing: what the kernel refuses leaves the other limits as they were. The kernel comes first and the
        record last, for limits are taken back without a disk that has room. Killed in between, the container may run with
        limits that are not written down, until the same update is made again or the container is started anew.
        Raises InvalidParameter, Conflict, NotFound, System.
        """
        asked, warnings = self._asked(request)
        with self._records.lock(record.id) as lock:
            record = self._records.read(record.id)
            seen = self._settler.recover(record, lock)
            lifecycle.check(lifecycle.UPDATE, seen.status, record.id, record.name)
            try:
                host = merged(record.host_config, asked)
                if seen.status in lifecycle.ALIVE:
                    self._set_limits(record, host, asked)
            except SampanError as e:
                raise e.within(f"Cannot update container {record.id}") from None
            # The monitor reads the policy there when the program ends, so that it needs no word of this.
            self._records.change(lock, record.replace(host_config=host))
            self._events.container(record, "update")
        return warnings

    def _asked(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The fields that are to change, checked by themselves as Docker does it, and the warnings."""
        whole = normalise_host_config(request)
        asked = {field: whole[field] for field in _FIELDS if whole[field] != HOST_CONFIG[field][1]}
        if whole["PidsLimit"] is not None:
            asked["PidsLimit"] = max(whole["PidsLimit"], 0)  # all that is not positive is "no limit"
        if (request.get("RestartPolicy") or {}).get("Name"):
            asked["RestartPolicy"] = restartpolicy.check(whole["RestartPolicy"])
        warnings = resources.check(whole, self._cgroups, update=True)
        return asked, warnings

    def _set_limits(self, record: Record, host: dict[str, Any], asked: dict[str, Any]) -> None:
        group = cgroup.container_group(record.id, host)
        wanted = resources.kernel_limits(host)
        touched = {
            name: getattr(wanted, name)
            for name, fields in _DECIDED_BY.items()
            if any(field in asked for field in fields)
        }
        done: list[cgroupchange.Change] = []
        try:
            for change in cgroupchange.ordered(self._cgroups.limits(group, cgroup.Limits(**touched))):
                done.append(change)  # before: whoever is interrupted in it takes it back too
                with self._trace.step(f"write {change.write.value!r} to", change.write.path):
                    cgroup.apply(change.write)
        except BaseException as e:
            if isinstance(e, OSError) and self._settler.observe(record).status not in lifecycle.ALIVE:
                return  # It has ended meanwhile, and the next start sets what the record says.
            self._take_back(done)
            if isinstance(e, OSError):
                raise System(str(e)) from e
            raise

    def _take_back(self, done: list[cgroupchange.Change]) -> None:
        """In the reverse order, each finds what it found when it was changed."""
        for change in reversed(done):
            with self._trace.step(f"write back {change.before!r} to", change.write.path):
                change.undo()


def merged(host: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The HostConfig with the changes in it. Raises InvalidParameter in Docker's words if they do not go together."""
    for field, other, words in _CONFLICTS:
        if asked.get(field, 0) > 0 and host[other] > 0:
            raise InvalidParameter(f"Conflicting options: {words}")
    swap = host["MemorySwap"]
    if asked.get("Memory", 0) > swap >= 0 and "MemorySwap" not in asked:
        raise InvalidParameter(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    if host["AutoRemove"] and not restartpolicy.is_none(asked.get("RestartPolicy", {})):
        raise InvalidParameter("Restart policy cannot be updated because AutoRemove is enabled for the container")
    changed = {**host, **asked}
    # Docker leaves the rest to the kernel, or to the next start if the container does not run now.
    limits.check_memory(changed["Memory"], changed["MemorySwap"])
    limits.check_realtime(changed["CpuRealtimePeriod"], changed["CpuRealtimeRuntime"])
    return changed
