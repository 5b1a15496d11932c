"""`logs`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import write
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def logs(context: Context, arguments: Arguments) -> int:
    """Print what a container has written, each stream to ours of the same name."""
    container = context.engine.containers.get(arguments.words[0])
    stamped = arguments["timestamps"]
    for entry in container.logs(follow=arguments["follow"], tail=_number_of_lines(arguments["tail"])):
        data = f"{entry.time} ".encode() + entry.data if stamped else entry.data
        write(2 if entry.stream == "stderr" else 1, data)
    return 0


def _number_of_lines(text: str) -> int | None:
    """None for all of them, which is also what dockerd makes of a number that is none, or is negative."""
    return int(text) if text.isascii() and text.isdigit() else None


LOGS = Command(
    "[OPTIONS] CONTAINER",
    logs,
    (
        Flag("follow", "bool", "Go on with what it writes until it stops", "f"),
        Flag("tail", "string", "Lines to show from the end (default all)", "n", default="all"),
        Flag("timestamps", "bool", "Show when each line was written", "t"),
    ),
    at_least=1,
    at_most=1,
)
