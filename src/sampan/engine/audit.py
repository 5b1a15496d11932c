"""`sampan audit`: what a container's programs are kept from, found out by trying it, harmlessly, from inside.

Namespaces and limits are seen from outside; the rest is tried by a process that has joined the container with its
programs' own user and privileges (`steps/audit.py`).
"""

from __future__ import annotations

import os

from sampan.engine.exec import ExecRequest, process_object
from sampan.errors import Conflict
from sampan.kernel import cgroup, process
from sampan.oci import lifecycle
from sampan.runtime.auditor import probe
from sampan.runtime.plan import Mode
from sampan.runtime.planexec import make_exec_stages
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.steps.process import LoadFilter
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Filters(Protocol):
        def of_container(self, host: dict[str, Any], capabilities: Sequence[str]) -> LoadFilter | None: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...


HELD, OPEN, NOTE = "held", "open", "note"

_NAMESPACES = (("mnt", "mount"), ("pid", "pid"), ("net", "network"), ("ipc", "ipc"), ("uts", "uts"))


class AuditFinding(Struct):
    """One thing that was looked at. result: "held", "open", or "note" where the default leaves it so, too."""

    check: str
    result: str
    detail: str


class Auditor:
    """Audits running containers."""

    def __init__(self, settler: Settler, cgroups: CgroupDriver, filters: Filters) -> None:
        self._settler = settler
        self._cgroups = cgroups
        self._filters = filters

    def audit(self, record: Record) -> list[AuditFinding]:
        """Every finding. Raises Conflict if the container does not run, System if nothing can be tried in it."""
        seen = self._settler.observe(record)
        lifecycle.check(lifecycle.EXEC, seen.status, record.id, record.name)
        started = seen.started or {}
        try:
            init = process.open_process(started["pid"], started["pid_start"])
        except ProcessLookupError:
            raise Conflict(f"container {record.id} is not running") from None
        try:
            return [*self._from_outside(record, started["pid"]), *self._from_inside(record, init)]
        finally:
            os.close(init)

    def _from_inside(self, record: Record, init: int) -> Iterator[AuditFinding]:
        request = ExecRequest(("audit",))
        group = cgroup.container_group(record.id, record.host_config)
        process_spec = process_object(record, request)
        load_filter = self._filters.of_container(record.host_config, process_spec["capabilities"]["bounding"])
        stages = make_exec_stages(process_spec, group, self._cgroups, Mode(), process_spec["ownIds"], load_filter)
        for name, held, detail in probe(init, stages):
            yield AuditFinding(name, HELD if held else OPEN, detail)

    def _from_outside(self, record: Record, pid: int) -> Iterator[AuditFinding]:
        for file, kind in _NAMESPACES:
            shared = _is_shared(pid, file)
            yield AuditFinding(f"{kind} namespace", OPEN if shared else HELD, "the host's" if shared else "its own")
        shared = _is_shared(pid, "user")
        yield AuditFinding("user namespace", NOTE, "the host's: its root is the host's" if shared else "its own")
        host = record.host_config
        yield AuditFinding(
            "memory limit", HELD if host["Memory"] else NOTE, f"{host['Memory']} bytes" if host["Memory"] else "none"
        )
        pids = host["PidsLimit"]
        yield AuditFinding("limit of processes", HELD if pids else NOTE, str(pids) if pids else "none")


def _is_shared(pid: int, file: str) -> bool:
    return os.readlink(f"/proc/{pid}/ns/{file}") == os.readlink(f"/proc/self/ns/{file}")
