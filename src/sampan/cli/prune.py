"""`container prune` and `system prune`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out
from sampan.cli.values import by_name
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def prune_containers(context: Context, arguments: Arguments) -> int:
    """Remove the stopped containers, after a question."""
    from sampan.cli.prompt import confirmed

    if not arguments["force"] and not confirmed("WARNING! This will remove all stopped containers."):
        return 0
    report(context.engine.containers.prune(by_name(arguments["filter"])))
    return 0


def prune_all(context: Context, arguments: Arguments) -> int:
    """Remove what nobody uses, after a question that lists it."""
    from sampan.cli.prompt import confirmed

    filters = by_name(arguments["filter"])
    if arguments["volumes"] and "until" in filters:
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    everything, volumes = arguments["all"], arguments["volumes"]
    if not arguments["force"] and not confirmed(_warning(everything, volumes, arguments["filter"])):
        return 0
    report(context.engine.system.prune(all=everything, volumes=volumes, filters=filters))
    return 0


def _warning(everything: bool, volumes: bool, filters: list[str]) -> str:
    lines = [
        "WARNING! This will remove:",
        "  - all stopped containers",
        "  - all networks not used by at least one container",
        *(["  - all anonymous volumes not used by at least one container"] if volumes else ()),
        "  - all images without at least one container associated to them" if everything else "  - all dangling images",
        "  - all build cache" if everything else "  - unused build cache",
        "",
    ]
    if filters:
        lines += ["  Items to be pruned will be filtered with:", *(f"  - {word}" for word in sorted(filters)), ""]
    return "\n".join(lines)


def report(done: dict[str, Any]) -> None:
    """What was deleted, by kinds, and the bytes that are free now."""
    if ids := done.get("ContainersDeleted"):
        out("\n".join(["Deleted Containers:", *ids, ""]))
    if names := done.get("VolumesDeleted"):
        out("\n".join(["Deleted Volumes:", *names, ""]))
    if images := done.get("ImagesDeleted"):
        lines = [f"{what.lower()}: {which}" for item in images for what, which in item.items()]
        out("\n".join(["Deleted Images:", *lines, ""]))
    out(f"Total reclaimed space: {human_size(done['SpaceReclaimed'])}")


def human_size(size: float) -> str:
    """Four digits and a unit of 1000: "128.9kB" (go-units HumanSize)."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    at = 0
    while size >= 1000 and at < len(units) - 1:
        size /= 1000
        at += 1
    return f"{size:.4g}{units[at]}"


FILTER = Flag("filter", "filters", "Remove only these: until=TIME or DURATION, label=, label!=")
FORCE = Flag("force", "bool", "Do not ask", "f")

CONTAINERS = Command("[OPTIONS]", prune_containers, (FILTER, FORCE), at_most=0)
SYSTEM = Command(
    "[OPTIONS]",
    prune_all,
    (
        Flag("all", "bool", "Remove all images that no container uses, not only those without a name", "a"),
        FILTER,
        FORCE,
        Flag("volumes", "bool", "Remove anonymous volumes that no container uses too"),
    ),
    at_most=0,
)
