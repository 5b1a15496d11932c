"""The steps of a start that concern its cgroups, for `runtime.plan`."""

from __future__ import annotations

from sampan.kernel import cgroup
from sampan.oci import runtime as oci
from sampan.runtime.resources import make_limits
from sampan.steps import cgroups, joining
from sampan.steps.base import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.runtime.plan import Launching


def make(group: str, driver: CgroupDriver) -> list[Step]:
    """Make them, and what has to be set before they can be joined."""
    steps: list[Step] = [cgroups.MakeCgroup(path) for path in driver.directories(group)]
    return steps + [_write(write) for write in driver.prepare(group)]


def _write(write: cgroup.Write) -> Step:
    return cgroups.WriteCgroup(write.path, write.value, write.required, write.unless_set)


def limit(spec: dict[str, Any], facts: Launching, driver: CgroupDriver, alone: bool) -> list[Step]:
    """Limit them, and open what init needs to join them. alone: it was born in the cgroup2 one."""
    group, resources = facts.group, spec["linux"].get("resources") or {}
    limits = make_limits(resources)
    steps = [_write(write) for write in driver.limits(group, limits)]
    if facts.mode.strict:
        from sampan.runtime import planmore

        steps += [_write(write) for write in planmore.more_limits(resources, group, driver)]
    filtered = driver.device_program(group)
    if filtered is not None and limits.devices:
        rules = tuple((r.allow, r.type, r.major, r.minor, r.access) for r in limits.devices)
        steps.append(cgroups.FilterDevices(filtered, rules))
    if alone:
        files = tuple(driver.join_files(group))
        return [*steps, joining.OpenCgroups(files)] if files else steps
    return [*steps, open_cgroups(group, driver, by_file=joined_by_file(spec, driver))]


def joined_by_file(spec: dict[str, Any], driver: CgroupDriver) -> bool:
    """Whether the container's group belongs to its user when init is made in a user namespace, which may not clone into it then."""
    return driver.version == "v2" and oci.namespace(spec, "user") is not None and has_own_groups(spec)


def open_cgroups(group: str, driver: CgroupDriver, beside: bool = False, by_file: bool = False) -> Step:
    """Open what has to be open to get into them. The arguments: `joining.OpenCgroups`."""
    directory = driver.clone_directory(group) or ""
    mount = directory.removesuffix(f"/{group}") if beside else ""
    return joining.OpenCgroups(tuple(driver.join_files(group)), directory, mount, by_file)


def has_own_groups(spec: dict[str, Any]) -> bool:
    """Whether the container sees its own group as the root of all, and may write there."""
    own = oci.namespace(spec, "cgroup")
    return (
        own is not None
        and "path" not in own
        and any(e["type"] == "cgroup" and "ro" not in (e.get("options") or ()) for e in spec["mounts"])
    )
