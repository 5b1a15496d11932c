"""Health checks on the parent's side: what a start gives its shim to probe with, and the health as it is now.

The shim probes by itself (`shim.health`) and writes what it finds into a file; whoever wants to know reads that, and
asks no process.
"""

from __future__ import annotations

from sampan.engine.exec import ExecRequest, process_object
from sampan.oci import duration, health, lifecycle
from sampan.runtime.plan import Mode
from sampan.runtime.planexec import make_exec_stages
from sampan.shim.protocol import HealthPlan
from sampan.store import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.steps.process import LoadFilter
    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record
    from sampan.store.states import Observation


def make_health_plan(
    record: Record,
    paths: ContainerPaths,
    number: int,
    group: str,
    cgroups: CgroupDriver,
    load_filter: LoadFilter | None,
) -> str:
    """The `HealthPlan` of start `number` as text; "" if the container has no health check."""
    command = health.command(record.config)
    if not command:
        return ""

    def seconds(name: str) -> float:
        return health.setting(record.config, name) / 1e9

    process = process_object(record, ExecRequest(command=tuple(command)))
    return HealthPlan(
        interval=seconds("Interval"),
        timeout=seconds("Timeout"),
        start_period=seconds("StartPeriod"),
        start_interval=seconds("StartInterval"),
        retries=health.setting(record.config, "Retries"),
        command=tuple(command),
        stages=make_exec_stages(process, group, cgroups, Mode(), process["ownIds"], load_filter).to_text(),
        too_long=f"Health check exceeded timeout ({duration.shown(health.setting(record.config, 'Timeout'))})",
        health=health.beginning(_of_run(paths, states.earlier_success(paths, number))),
    ).to_text()


def observe(record: Record, paths: ContainerPaths, seen: Observation) -> dict[str, Any] | None:
    """Docker's `State.Health` of a container that has run; None if it has no health check."""
    if not health.command(record.config):
        return None
    try:
        number = states.earlier_success(paths, seen.number) if seen.failed else seen.number
    except FileNotFoundError:
        number = 0  # the container has gone meanwhile
    # In the run directory while it runs; the shim puts it beside the exit file before it takes that away.
    last = states.read_json(paths.health) or _of_run(paths, number)
    if seen.status == lifecycle.RUNNING:
        return last or health.beginning(None)
    return health.unwatched(last)


def _of_run(paths: ContainerPaths, number: int) -> dict[str, Any] | None:
    """The health that a run ended with; None if there was no such run, or no check then."""
    return states.read_json(paths.start(number).health) if number else None
