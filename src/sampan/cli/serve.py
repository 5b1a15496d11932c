"""`serve`: the Docker Engine API for clients that speak it."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

DEFAULT = "unix:///run/sampan/sampan.sock"
_LEVELS = ("debug", "info", "warn", "error")


def serve(context: Context, arguments: Arguments) -> int:
    """Serve until SIGTERM or SIGINT."""
    level = arguments["log-level"]
    if level not in _LEVELS:
        raise InvalidParameter(f"--log-level is one of {', '.join(_LEVELS)}, not {level!r}")
    try:
        import h11  # noqa: F401
        import wsproto  # noqa: F401
    except ImportError as e:
        raise Failure(f"sampan serve needs the Python package {e.name}: pip install 'sampan[serve]'") from None
    from sampan.api import start

    start.serve(
        context.engine,
        arguments["host"] or [DEFAULT],
        group=arguments["group"] if arguments.given("group") else None,
        security=_security(arguments),
        log_level=level,
    )
    return 0


def _security(arguments: Arguments) -> dict[str, object]:
    names = ("tlscacert", "tlscert", "tlskey")
    given = [name for name in names if arguments[name]]
    if given and len(given) < len(names):
        missing = ", ".join(f"--{name}" for name in names if name not in given)
        raise InvalidParameter(f"TLS is mutual here: {missing} is missing")
    return {
        "tls": tuple(arguments[name] for name in names) if given else None,
        "without_tls": arguments["no-tls"],
        "without_authentication": arguments["no-authentication"],
    }


SERVE = Command(
    "[OPTIONS]",
    serve,
    (
        Flag("host", "list", f"Where to listen: unix://PATH, tcp://HOST:PORT or fd:// (default {DEFAULT})", "H"),
        Flag("group", "string", 'Group that may use unix sockets (default "sampan" where it exists)', "G"),
        Flag("log-level", "string", "Least of what is logged: debug, info, warn or error", "l", default="info"),
        Flag("tlscacert", "string", "Certificate of who signs the clients' certificates, for tcp"),
        Flag("tlscert", "string", "The server's certificate, for tcp"),
        Flag("tlskey", "string", "The key of --tlscert"),
        Flag("no-tls", "bool", "Listen on tcp without TLS: anybody on the way can read and change everything"),
        Flag("no-authentication", "bool", "Listen on tcp for anybody, which makes them root on this machine"),
    ),
    at_most=0,
)
