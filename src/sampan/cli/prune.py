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
    if agreed(arguments, "WARNING! This will remove all stopped containers."):
        dry_run = arguments["dry-run"]
        report(context.engine.containers.prune(by_name(arguments["filter"]), dry_run), dry_run)
    return 0


def prune_all(context: Context, arguments: Arguments) -> int:
    """Remove what nobody uses, after a question that lists it."""
    filters = by_name(arguments["filter"])
    if arguments["volumes"] and "until" in filters:
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    everything, volumes = arguments["all"], arguments["volumes"]
    if agreed(arguments, _warning(everything, volumes, arguments["filter"])):
        dry_run = arguments["dry-run"]
        report(context.engine.system.prune(everything, volumes, filters, dry_run), dry_run)
    return 0


def agreed(arguments: Arguments, warning: str) -> bool:
    """Whether to go on: nobody is asked with --force, and not for what only looks (--dry-run)."""
    if arguments["force"] or arguments["dry-run"]:
        return True
    from sampan.cli.prompt import confirmed

    return confirmed(warning)


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


# The document's member -> what its things are called. In Docker's order, in which they are removed too.
_KINDS = (
    ("ContainersDeleted", "Containers"),
    ("NetworksDeleted", "Networks"),
    ("VolumesDeleted", "Volumes"),
    ("ImagesDeleted", "Images"),
    ("CachesDeleted", "build cache objects"),
)


def report(done: dict[str, Any], dry_run: bool = False) -> None:
    """What was deleted, by kinds, and the bytes that are free now; what would be, after a dry run."""
    for member, kind in _KINDS:
        if found := done.get(member):
            heading = f"{kind[0].upper()}{kind[1:]} that would be deleted:" if dry_run else f"Deleted {kind}:"
            out("\n".join([heading, *(line for item in found for line in _lines(item)), ""]))
    size = human_size(done["SpaceReclaimed"])
    out(f"Space that would be reclaimed: {size}" if dry_run else f"Total reclaimed space: {size}")


def _lines(item: str | dict[str, str]) -> list[str]:
    """An id or a name; of an image, what becomes of it: "untagged: base:latest"."""
    return [item] if isinstance(item, str) else [f"{what.lower()}: {which}" for what, which in item.items()]


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
DRY_RUN = Flag("dry-run", "bool", "Say what would be removed, and how many bytes that is, and remove nothing")

CONTAINERS = Command("[OPTIONS]", prune_containers, (DRY_RUN, FILTER, FORCE), at_most=0)
SYSTEM = Command(
    "[OPTIONS]",
    prune_all,
    (
        Flag("all", "bool", "Remove all images that no container uses, not only those without a name", "a"),
        DRY_RUN,
        FILTER,
        FORCE,
        Flag("volumes", "bool", "Remove anonymous volumes that no container uses too"),
    ),
    at_most=0,
)
