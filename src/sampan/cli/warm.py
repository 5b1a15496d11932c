"""`warm`: a process at hand that makes starts fast, for those who have no server."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import out
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_DEFAULT = 600 * 10**9


def warm(context: Context, arguments: Arguments) -> int:
    """Have it there and print its pid; with --stop, not there."""
    if arguments["stop"]:
        if arguments.given("idle"):
            raise InvalidParameter("--idle and --stop exclude each other")
        context.engine.system.cool()
        return 0
    seconds = arguments["idle"] // 10**9
    if seconds < 1:
        raise InvalidParameter("--idle is a second at least")
    out(str(context.engine.system.warm(seconds)))
    return 0


WARM = Command(
    "[OPTIONS]",
    warm,
    (
        Flag("idle", "duration", "How long it stays when nothing is started (ms|s|m|h)", default=_DEFAULT),
        Flag("stop", "bool", "End it; containers do not notice"),
    ),
    at_most=0,
)
