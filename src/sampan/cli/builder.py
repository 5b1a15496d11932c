"""`builder prune`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.prune import DRY_RUN, FORCE, agreed, report
from sampan.cli.values import by_name
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def prune(context: Context, arguments: Arguments) -> int:
    """Remove entries of the build cache, after a question."""
    everything = arguments["all"]
    what = "all build cache" if everything else "all dangling build cache"
    if agreed(arguments, f"WARNING! This will remove {what}."):
        dry_run = arguments["dry-run"]
        done = context.engine.builds.prune(
            by_name(arguments["filter"]), all=everything, keep_storage=arguments["keep-storage"] or 0, dry_run=dry_run
        )
        report(done, dry_run)
    return 0


PRUNE = Command(
    "[OPTIONS]",
    prune,
    (
        Flag("all", "bool", "Remove also what images have in them", "a"),
        DRY_RUN,
        Flag("filter", "filters", "Remove only these: until=TIME or DURATION, id=, inuse=, shared=, private=, type="),
        FORCE,
        Flag("keep-storage", "bytes", "Bytes of the disk that the cache may keep"),
    ),
    at_most=0,
)
