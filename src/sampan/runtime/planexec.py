"""Another process in a running container -> an `ExecPlan`, or the lists alone: like `runtime.plan`, as which it ends."""

from __future__ import annotations

from sampan.kernel import namespaces
from sampan.runtime import plancgroups
from sampan.runtime.plan import Mode, become, oom_score, planmore
from sampan.shim.protocol import VERSION, ExecPlan, Stages
from sampan.steps import joining, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.steps.base import Step

JOINED_BY_EXEC = ("mount", "pid", "network", "ipc", "uts", "cgroup", "time")


def make_exec_plan(
    identifier: str,
    process_spec: dict[str, Any],
    group: str,
    driver: CgroupDriver,
    open_stdin: bool = False,
    detach: bool = False,
    load_filter: process.LoadFilter | None = None,
    about: str = "{}",
    alone: bool = False,
    powerful: bool = False,
) -> ExecPlan:
    """The plan of another process in a running container.

    `process_spec` is an OCI process object, with "ownIds" beside its fields for a container with a user namespace of its own; the rest:
    `ExecPlan`.
    """
    own_ids = bool(process_spec.get("ownIds"))
    size = process_spec.get("consoleSize") or {}
    lists = make_exec_stages(process_spec, group, driver, Mode(), own_ids, load_filter, monitored=True)
    score = process_spec.get("oomScoreAdj")
    return ExecPlan(
        version=VERSION,
        identifier=identifier,
        monitor=(_exec_groups(group, driver, own_ids),),
        stages=lists.to_text(),
        score="" if score is None else str(score),
        alone=alone,
        powerful=powerful,
        terminal=bool(process_spec.get("terminal")),
        size=(size.get("height", 0), size.get("width", 0)),
        open_stdin=open_stdin,
        detach=detach,
        about=about,
    )


def make_exec_stages(
    own: dict[str, Any],
    group: str,
    driver: CgroupDriver,
    mode: Mode,
    user_namespace: bool = False,
    load_filter: process.LoadFilter | None = None,
    groups: Step | None = None,
    monitored: bool = False,
) -> Stages:
    """The lists of an exec's two processes. `user_namespace`: the container has one of its own. `groups`: opens others than the container's.

    `monitored`: a monitor has done what has to be done with the host's files, for where one process runs both lists it is born without them.
    """
    by_file = user_namespace and driver.version == "v2"
    host_files = () if monitored else (groups or _exec_groups(group, driver, user_namespace), *oom_score(own, mode))
    joined = tuple(kind for kind in JOINED_BY_EXEC if namespaces.supported(kind))
    stage1: list[Step] = [
        # The cgroups' files first: behind the setns they are the container's read-only view.
        *host_files,
        *(planmore().affinity(own, "initial") if mode.strict else ()),
        process.JoinProcess((*(("user",) if user_namespace else ()), *joined)),
    ]
    stage2: list[Step] = [
        joining.JoinCgroups(len(driver.join_files(group)) + by_file),
        *(planmore().affinity(own, "final") if mode.strict else ()),
        # setns(2) into a mount namespace has made its root ours.
        process.OpenRoot(),
    ]
    if mode.console:
        stage2.append(planmore().open_console(own))
    # Joining a pid namespace is for children: the clone makes one (and no new namespace).
    return Stages(tuple(stage1), clone=0, stage2=(*stage2, *become({}, own, mode, load_filter)))


def _exec_groups(group: str, driver: CgroupDriver, user_namespace: bool) -> Step:
    return plancgroups.open_cgroups(group, driver, beside=True, by_file=user_namespace and driver.version == "v2")
