"""`boot`: what the machine does once when it comes up (docs/boot.md)."""

from __future__ import annotations

from sampan.cli.output import err, out
from sampan.cli.verbs import Command
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def boot(context: Context, _arguments: Arguments) -> int:
    """Start what should run and print the names; one that cannot be started is told and stops no other."""
    failed = []
    for container, error in context.engine.containers.boot():
        if error is None:
            out(container.name)
        elif isinstance(error, SampanError):
            err(f"Error: {container.name}: {error}")
            failed.append(container.name)
        else:
            raise error
    if failed:
        err(f"Error: failed to start containers: {', '.join(failed)}")
    return 1 if failed else 0


BOOT = Command("", boot, at_most=0)
