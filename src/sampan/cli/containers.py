"""`stop`, `restart`, `kill`, `pause`, `unpause`, `rm` and `wait`: verbs that do one thing to each of several containers; `rename`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, out
from sampan.cli.verbs import Command
from sampan.errors import Conflict, NotFound, NotModified, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def stop(context: Context, arguments: Arguments) -> int:
    """Stop the containers and print their names; one that does not run is stopped already."""
    timeout = arguments["timeout"] if arguments.given("timeout") else None

    def one(name: str) -> str:
        try:
            context.engine.containers.get(name).stop(timeout=timeout, signal=arguments["signal"])
        except NotModified:
            pass
        return name

    return context.each_at_once(arguments.words, one)


def restart(context: Context, arguments: Arguments) -> int:
    """Stop each container, start it again and print its name; one after the other, for one may need another."""
    timeout = arguments["timeout"] if arguments.given("timeout") else None

    def one(name: str) -> None:
        context.engine.containers.get(name).restart(timeout=timeout, signal=arguments["signal"])
        out(name)

    return context.each(arguments.words, one)


def kill(context: Context, arguments: Arguments) -> int:
    """Send the containers a signal and print their names."""

    def one(name: str) -> str:
        try:
            container = context.engine.containers.get(name)
        except NotFound as e:
            raise NotFound(f"cannot kill container: {name}: {e}") from None
        container.kill(arguments["signal"] or "KILL")
        return name

    return context.each_at_once(arguments.words, one)


def pause(context: Context, arguments: Arguments) -> int:
    """Freeze the containers and print their names."""

    def one(name: str) -> str:
        context.engine.containers.get(name).pause()
        return name

    return context.each_at_once(arguments.words, one)


def unpause(context: Context, arguments: Arguments) -> int:
    """Let the containers go on and print their names."""

    def one(name: str) -> str:
        context.engine.containers.get(name).unpause()
        return name

    return context.each_at_once(arguments.words, one)


def remove(context: Context, arguments: Arguments) -> int:
    """Remove the containers and print their names; with -f one that is not there is told, and is no failure."""
    force = arguments["force"]
    if arguments["link"]:
        return context.each(arguments.words, lambda name: _refuse_link(context, name))

    def one(name: str) -> str | None:
        try:
            context.engine.containers.get(name).remove(force=force, volumes=arguments["volumes"])
        except NotFound as e:
            if not force:
                raise
            err(f"Error: {e}")
            return None
        return name

    return context.each_at_once(arguments.words, one)


def _refuse_link(context: Context, name: str) -> None:
    """What Docker says of what is no link: nothing is, here, and a container is not what was to be removed."""
    context.engine.containers.get(name)
    raise Conflict("Conflict, cannot remove the default link name of the container")


def rename(context: Context, arguments: Arguments) -> int:
    """Give a container another name; nothing is printed."""
    old, new = (word.strip() for word in arguments.words)
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        context.engine.containers.get(old).rename(new)
    except SampanError as e:
        err(f"Error: {e}")
        raise Failure(f"Error: failed to rename container named {old}") from None
    return 0


def wait(context: Context, arguments: Arguments) -> int:
    """Wait for the containers and print their exit codes.

    For all from the beginning on: one with `--rm` may end, and be gone, while another one is waited for.
    """
    return context.each_at_once(arguments.words, lambda name: str(context.engine.containers.get(name).wait()))


_STOP_FLAGS = (
    Flag("signal", "string", "Signal to send instead of the container's own", "s"),
    Flag("time", "int", alias_of="timeout", hidden=True, deprecated="use --timeout instead"),
    Flag("timeout", "int", "Seconds until SIGKILL (-1: never; default: the container's own, else 10)", "t"),
)
STOP = Command("[OPTIONS] CONTAINER [CONTAINER...]", stop, _STOP_FLAGS, at_least=1)
RESTART = Command("[OPTIONS] CONTAINER [CONTAINER...]", restart, _STOP_FLAGS, at_least=1)
KILL = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    kill,
    (Flag("signal", "string", "Signal to send (default KILL)", "s"),),
    at_least=1,
)
PAUSE = Command("CONTAINER [CONTAINER...]", pause, at_least=1)
UNPAUSE = Command("CONTAINER [CONTAINER...]", unpause, at_least=1)
RM = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    remove,
    (
        Flag("force", "bool", "Kill the container first if it runs", "f"),
        Flag("link", "bool", "Remove a link and not a container; there is none yet", "l"),
        Flag("volumes", "bool", "Remove its anonymous volumes too", "v"),
    ),
    at_least=1,
)
RENAME = Command("CONTAINER NEW_NAME", rename, at_least=2, at_most=2)
WAIT = Command("CONTAINER [CONTAINER...]", wait, at_least=1)
