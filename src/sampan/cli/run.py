"""`run` and `create`."""

from __future__ import annotations

import os

from sampan.cli import request as requests
from sampan.cli import session, terminal
from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, out, refusal
from sampan.cli.verbs import Command
from sampan.errors import ImageNotFound, InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.cli.relay import Streams
    from sampan.engine.containers import Container

DETACH_KEYS = Flag(
    "detach-keys", "string", f"Keys that detach from the container (default {terminal.DEFAULT_DETACH_KEYS})"
)
SIG_PROXY = Flag("sig-proxy", "bool", "Hand received signals to the container (default true)", default=True)


def create(context: Context, arguments: Arguments) -> int:
    """Make a container and print its id.

    As with Docker, what is wrong with the flags exits with 125 here too, and what the engine refuses with 1.
    """
    try:
        request = _request(arguments)
    except InvalidParameter as e:
        raise Failure(refusal(context.path, e), 125) from None

    def made() -> int:
        with _IdFile(arguments["cidfile"]) as id_file:
            container, warnings = context.engine.containers.create_from(request)
            id_file.write(container.id)
        _warn(warnings)
        out(container.id)
        return 0

    return _with_image(context, arguments, made)


def _with_image(context: Context, arguments: Arguments, action: Callable[[], int]) -> int:
    """Do it; with a pull before it, if the image is not here or --pull says so."""
    if arguments["pull"] != "always":
        try:
            return action()
        except ImageNotFound as e:
            missing = e
    else:
        missing = None
    from sampan.cli import pull  # in here: mostly the image is there

    return pull.with_image(context, arguments, action, missing)


def run(context: Context, arguments: Arguments) -> int:
    """Make a container, start it, and stay with it unless -d says not to; its exit code."""
    if arguments["detach"]:
        return _run_detached(context, arguments)
    keys = terminal.detach_keys(arguments["detach-keys"])
    request = _request(arguments)
    attached = requests.attached_streams(arguments)
    session.check_terminal("stdin" in attached, arguments["tty"])
    joined = session.streams(attached, arguments["tty"], keys)
    return _with_image(context, arguments, lambda: _run_attached(context, arguments, request, joined))


def _run_attached(context: Context, arguments: Arguments, request: dict[str, Any], joined: Streams) -> int:
    with (
        _IdFile(arguments["cidfile"]) as id_file,
        session.caught(arguments["tty"], arguments["sig-proxy"]) as held,
    ):

        def created(container: Container, warnings: list[str]) -> None:
            id_file.write(container.id)
            _warn(warnings)
            held.hold()

        container, attachment = context.engine.containers.launch(request, attach=True, created=created)
        return session.stay(container, attachment, joined, held, arguments["sig-proxy"])


def _run_detached(context: Context, arguments: Arguments) -> int:
    if arguments["attach"]:
        raise Failure("conflicting options: cannot specify both --attach and --detach")
    request = _request(arguments)
    request |= dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"), False)

    def launched() -> int:
        made = []
        with _IdFile(arguments["cidfile"]) as id_file:

            def created(container: Container, warnings: list[str]) -> None:
                id_file.write(container.id)
                _warn(warnings)
                made.append(container.id)

            try:
                context.engine.containers.launch(request, created=created)
            finally:
                # Of one that could not be started, too: it is there, and has that id.
                for container_id in made:
                    out(container_id)
        return 0

    return _with_image(context, arguments, launched)


def _request(arguments: Arguments) -> dict[str, Any]:
    request = requests.build(arguments)
    for server in request["HostConfig"].get("Dns") or ():
        if server.startswith("127.") or server == "::1":  # the container's own
            err(f"WARNING: Localhost DNS ({server}) may fail in containers.")
            break
    return request


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        err(f"WARNING: {warning}")


class _IdFile:
    """The file of --cidfile, made before the container, so that no container is made whose id cannot be told."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._written = False

    def __enter__(self) -> _IdFile:
        if self._path:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                raise InvalidParameter(
                    f"container ID file found, make sure the other container isn't running or delete {self._path}"
                ) from None
            except OSError as e:
                raise InvalidParameter(
                    f"failed to create the container ID file: open {self._path}: {(e.strerror or str(e)).lower()}"
                ) from None
        return self

    def write(self, container_id: str) -> None:
        if self._fd >= 0:
            os.write(self._fd, container_id.encode())
            self._written = True

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            if not self._written:
                os.unlink(self._path)


CREATE = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    create,
    requests.CREATE_FLAGS,
    at_least=1,
    interspersed=False,
)

RUN = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    run,
    (
        *requests.CREATE_FLAGS,
        Flag("detach", "bool", "Run in the background and print the container's ID", "d"),
        DETACH_KEYS,
        SIG_PROXY,
    ),
    at_least=1,
    interspersed=False,
    refused=125,
)
