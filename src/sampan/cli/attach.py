"""`attach`."""

from __future__ import annotations

from sampan.cli import session, terminal
from sampan.cli.flags import Flag
from sampan.cli.output import Failure
from sampan.cli.run import DETACH_KEYS, SIG_PROXY
from sampan.cli.verbs import Command
from sampan.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.interface import Attachment


def attach(context: Context, arguments: Arguments) -> int:
    """Join the streams of a running container; its exit code."""
    keys = terminal.detach_keys(arguments["detach-keys"])
    container = context.engine.containers.get(arguments.words[0])
    config = container.inspect()["Config"]
    tty = config["Tty"]
    attached = {"stdout", "stderr"}
    if config["OpenStdin"] and not arguments["no-stdin"]:
        attached.add("stdin")
    proxy = arguments["sig-proxy"] and not tty
    # Before the check of the terminal: that a container does not run is the more useful thing to hear.
    try:
        attachment = container.attach(stdin="stdin" in attached, running=True)
    except Conflict as e:
        raise Failure(str(e)) from None  # Docker's command line says this itself, as it is
    session.check_terminal("stdin" in attached, tty)
    with session.caught(tty, proxy) as held:
        held.hold()
        if tty:
            _make_redraw(attachment)
        ended = session.relay(attachment, session.streams(attached, tty, keys), held, container.kill if proxy else None)
        return session.exit_code(ended, container.wait, detached=1)


def _make_redraw(attachment: Attachment) -> None:
    """A size that the terminal does not have, before the relay sets the true one: the program notices and draws anew."""
    size = terminal.size(1) or terminal.size(0)
    if size is not None:
        attachment.resize(size[0] + 1, size[1] + 1)


ATTACH = Command(
    "[OPTIONS] CONTAINER",
    attach,
    (DETACH_KEYS, Flag("no-stdin", "bool", "Do not attach standard input"), SIG_PROXY),
    at_least=1,
    at_most=1,
)
