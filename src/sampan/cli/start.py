"""`start`."""

from __future__ import annotations

from sampan.cli import session, terminal
from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, out
from sampan.cli.run import DETACH_KEYS
from sampan.cli.verbs import Command
from sampan.errors import NotModified, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def start(context: Context, arguments: Arguments) -> int:
    """Start containers and print their names; with -a or -i start one and stay with it."""
    if not arguments["attach"] and not arguments["interactive"]:
        return _start_all(context, arguments.words)
    if len(arguments.words) > 1:
        raise Failure("you cannot start and attach multiple containers at once")
    return _start_and_stay(context, arguments)


def _start_all(context: Context, names: list[str]) -> int:
    failed = []
    for name in names:
        try:
            context.engine.containers.get(name).start()
        except NotModified:
            pass  # it runs, which is what was wanted
        except SampanError as e:
            err(f"Error: {e}")
            failed.append(name)
            continue
        out(name)
    if failed:
        err(f"Error: failed to start containers: {', '.join(failed)}")
    return 1 if failed else 0


def _start_and_stay(context: Context, arguments: Arguments) -> int:
    keys = terminal.detach_keys(arguments["detach-keys"])
    container = context.engine.containers.get(arguments.words[0])
    config = container.inspect()["Config"]
    tty = config["Tty"]
    attached = {"stdout", "stderr"}
    if arguments["interactive"] and config["OpenStdin"]:
        attached.add("stdin")
    session.check_terminal("stdin" in attached, tty)
    with session.caught(tty, not tty) as held:
        held.hold()
        try:
            attachment = container.start(attach=True)
        except NotModified:
            attachment = container.attach(stdin="stdin" in attached)
        return session.stay(container, attachment, session.streams(attached, tty, keys), held, proxy=not tty)


START = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    start,
    (
        Flag("attach", "bool", "Show what it writes, hand signals to it, exit with its code", "a"),
        DETACH_KEYS,
        Flag("interactive", "bool", "Join standard input to its own", "i"),
    ),
    at_least=1,
)
