"""Execs: created, started over a connection that is taken over, looked at, resized.

What was created is a file in the container's run directory: another server, or this one after a restart, starts it as well. An
exec that runs is joined with its client by a relay of this process, which is how its terminal is resized.
"""

from __future__ import annotations

import threading

from sampan.api import bodyfields
from sampan.api.relay import Relay, frame, stream_type
from sampan.engine.exec import ExecRequest
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.oci.detachkeys import parse_detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.api.exchange import Exchange
    from sampan.engine.container import Container
    from sampan.engine.engine import Engine

_START = "x-sampan-start"
"""By which sampan's own client asks for a start that fails to be an answer with a status."""
_relays: dict[str, Relay] = {}
_lock = threading.Lock()


def create(engine: Engine, exchange: Exchange, name: str) -> None:
    body = exchange.json_body()
    container = engine.containers.get(name)
    command = bodyfields.texts(body, "Cmd")
    if not command:
        raise InvalidParameter("no exec command specified")
    keys = bodyfields.text(body, "DetachKeys")
    if keys:
        parse_detach_keys(keys)
    request = ExecRequest(
        command=tuple(command),
        user=bodyfields.text(body, "User"),
        workdir=bodyfields.text(body, "WorkingDir"),
        environment=tuple(bodyfields.texts(body, "Env")),
        tty=bodyfields.flag(body, "Tty"),
        stdin=bodyfields.flag(body, "AttachStdin"),
        privileged=bodyfields.flag(body, "Privileged"),
        size=bodyfields.size(body, "ConsoleSize"),
        detach_keys=keys,
        stdout=bodyfields.flag(body, "AttachStdout"),
        stderr=bodyfields.flag(body, "AttachStderr"),
    )
    exchange.reply(201, {"Id": container.exec_create(request)})


def start(engine: Engine, exchange: Exchange, id: str) -> None:
    body = exchange.json_body(empty=True)
    container = engine.containers.of_exec(id)
    detach, size = bodyfields.flag(body, "Detach"), bodyfields.size(body, "ConsoleSize")
    if detach:
        container.exec_begin(id, True, size)[1].close()
        exchange.reply(200)
        return
    _joined(container, exchange, id, size)


def _joined(container: Container, exchange: Exchange, exec_id: str, size: tuple[int, int]) -> None:
    tty = _may_start(container, exec_id)
    begun = container.exec_begin(exec_id, False, size) if exchange.headers.get(_START) == "answered" else None
    try:
        # Else the header first, as dockerd does: docker-py loses what comes along with it.
        client, early = exchange.hijack(stream_type(exchange, tty))
    except BaseException:
        if begun is not None:
            begun[1].close()
        raise
    try:
        request, attachment = begun or container.exec_begin(exec_id, False, size)
    except SampanError as e:
        # The client has its connection already, and looks for the exit code afterwards.
        text = f"{e}\r\n".encode("utf-8", "surrogateescape")
        exchange.send_raw(text if tty else frame(1, text))
        return
    outputs = frozenset(
        stream for stream, wanted in ((1, request.stdout or request.tty), (2, request.stderr)) if wanted
    )
    keys = parse_detach_keys(request.detach_keys) if request.tty and request.stdin else b""
    relay = Relay(
        client, attachment, early=early, stdin=request.stdin, outputs=outputs, tty=request.tty, detach_keys=keys
    )
    with _lock:
        _relays[exec_id] = relay
    try:
        relay.run()
    finally:
        with _lock:
            del _relays[exec_id]


def _may_start(container: Container, exec_id: str) -> bool:
    """Whether it has a terminal. Raises NotFound, Conflict while that can still be an answer."""
    shown = container.exec_inspect(exec_id)
    if shown["Running"] or shown["ExitCode"] is not None:
        raise Conflict(f"exec session {exec_id} was started before")
    state = container.status
    if state == "paused":
        raise Conflict(f"container {container.id} is paused, unpause the container before exec")
    if state != "running":
        raise Conflict(f"container {container.id} is not running")
    return bool(shown["ProcessConfig"]["tty"])


def inspect(engine: Engine, exchange: Exchange, id: str) -> None:
    shown: dict[str, Any] = engine.containers.of_exec(id).exec_inspect(id)
    exchange.reply(200, shown)


def resize(engine: Engine, exchange: Exchange, id: str) -> None:
    size = bodyfields.window(exchange.query)
    shown = engine.containers.of_exec(id).exec_inspect(id)
    with _lock:
        relay = _relays.get(id)
    if relay is None or not shown["Running"]:
        raise Conflict(f"exec {id} is not running, or not by this server")
    relay.resize(*size)
    exchange.reply(200)
