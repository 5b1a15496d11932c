"""`top`: the processes of a container."""

from __future__ import annotations

from sampan.cli.listing import aligned
from sampan.cli.output import write
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_WIDTH = 20
"""The least width of a column, Docker's for this table."""


def top(context: Context, arguments: Arguments) -> int:
    """Print the processes of a container, by the options of ps that follow its name."""
    name, *options = arguments.words
    found = context.engine.containers.get(name).top(" ".join(options))
    lines = [found["Titles"], *found["Processes"]]
    text = aligned("".join("\t".join(line) + "\n" for line in lines), _WIDTH)
    write(1, text.encode("utf-8", "surrogateescape"))
    return 0


TOP = Command("CONTAINER [ps OPTIONS]", top, at_least=1, interspersed=False)
