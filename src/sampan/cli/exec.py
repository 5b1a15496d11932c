"""`exec`."""

from __future__ import annotations

from sampan.cli import session, terminal
from sampan.cli.flags import Flag
from sampan.cli.output import err
from sampan.cli.request import ENVIRONMENT_FLAGS
from sampan.cli.run import DETACH_KEYS
from sampan.cli.variables import read_environment
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter, StartFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

CANNOT_EXECUTE, NOT_FOUND = 126, 127


def execute(context: Context, arguments: Arguments) -> int:
    """Run a command in a running container; its exit code."""
    keys = terminal.detach_keys(arguments["detach-keys"])
    environment = read_environment(arguments["env-file"], arguments["env"])
    detached, tty = arguments["detach"], arguments["tty"]
    stdin = arguments["interactive"] and not detached
    session.check_terminal(stdin, tty)
    name, *command = arguments.words
    container = context.engine.containers.get(name)
    # Ctrl-C is not handed on as `run` does it: the process has no name by which Docker's client could send it a signal.
    with session.caught(tty and not detached, proxy=False) as held:
        held.hold()
        try:
            attachment = container.exec_start(
                command,
                user=arguments["user"],
                workdir=arguments["workdir"],
                environment=environment,
                tty=tty,
                stdin=stdin,
                privileged=arguments["privileged"],
                detach=detached,
                size=terminal.size(1) or terminal.size(0) or (0, 0),
                detach_keys=arguments["detach-keys"],
            )
        except (StartFailed, InvalidParameter) as e:
            if detached:
                raise  # nobody has asked for an exit code: it is an error like any other
            err(f"Error: {e}")
            return NOT_FOUND if getattr(e, "container_exit_code", 0) == NOT_FOUND else CANNOT_EXECUTE
        if detached:
            attachment.close()
            return 0
        attached = {"stdin", "stdout", "stderr"} if stdin else {"stdout", "stderr"}
        ended = session.relay(attachment, session.streams(attached, tty, keys), held)
        # Without an exit code the shim was killed, and the process with it.
        return session.exit_code(ended, lambda: 128 + 9, detached=1)


EXEC = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    execute,
    (
        *ENVIRONMENT_FLAGS,
        Flag("detach", "bool", "Run in the background", "d"),
        DETACH_KEYS,
        Flag("interactive", "bool", "Join standard input to the command's", "i"),
        Flag("privileged", "bool", "Give the command all capabilities"),
        Flag("tty", "bool", "Give the command a terminal", "t"),
        Flag("user", "string", "Who runs it: name or number, and a group behind a colon", "u"),
        Flag("workdir", "string", "Directory that it is started in", "w"),
    ),
    at_least=2,
    interspersed=False,
)
