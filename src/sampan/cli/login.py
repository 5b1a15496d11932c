"""`login` and `logout`."""

from __future__ import annotations

import os

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, out, write
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_LIMIT = 1 << 20


def login(context: Context, arguments: Arguments) -> int:
    """Try credentials at a registry, and keep them."""
    server = arguments.words[0] if arguments.words else ""
    username = arguments["username"].strip()
    password = _password(arguments)
    registries = context.engine.registries
    if not username and not password and (known := registries.known(server)):
        out(f"Authenticating with existing credentials... [Username: {known}]\n")
    elif not username or not password:
        username, password = _asked(username, password)
    done = registries.login(server, username, password)
    if done.stored_in:
        err(
            f"\nWARNING! Your credentials are stored unencrypted in '{done.stored_in}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    out(done.status)
    return 0


def _password(arguments: Arguments) -> str:
    """The password of the flags, "" if they have none. Raises `Failure` for flags that do not go together."""
    password: str = arguments["password"]
    if not arguments["password-stdin"]:
        if password:
            err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        elif arguments.given("password"):
            raise Failure("password is empty")
        return password
    if arguments.given("password"):
        raise Failure("--password and --password-stdin are mutually exclusive")
    if not arguments["username"]:
        raise Failure("the --password-stdin option requires --username to be set")
    data = b""
    while len(data) <= _LIMIT and (more := os.read(0, 1 << 16)):
        data += more
    password = data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not password or len(data) > _LIMIT:
        raise Failure("password is empty" if not password else "the password is longer than 1 MiB")
    return password


def _asked(username: str, password: str) -> tuple[str, str]:
    """What the flags do not say, asked for on the terminal."""
    if not os.isatty(0):
        raise Failure("Cannot perform an interactive login from a non TTY device")
    import getpass

    try:
        if not username:
            write(1, b"Username: ")
            username = os.fsdecode(os.read(0, 4096)).strip()
        password = password or getpass.getpass("Password: ")
    except (EOFError, KeyboardInterrupt):
        raise Failure("", 130) from None
    if not username:
        raise Failure("username is required")
    if not password:
        raise Failure("password is required")
    return username, password


def logout(context: Context, arguments: Arguments) -> int:
    """Forget the credentials of a registry."""
    server = arguments.words[0] if arguments.words else ""
    shown = server or "https://index.docker.io/v1/"
    if context.engine.registries.logout(server):
        out(f"Removing login credentials for {shown}")
    else:
        out(f"Not logged in to {shown}")
    return 0


LOGIN = Command(
    "[OPTIONS] [SERVER]",
    login,
    (
        Flag("password", "string", "Password or access token", "p"),
        Flag("password-stdin", "bool", "Read the password or access token from standard input"),
        Flag("username", "string", "Name of the user", "u"),
    ),
    at_most=1,
)
LOGOUT = Command("[SERVER]", logout, at_most=1)
