"""Execs: created, started over a connection that is taken over, looked at, resized.

What was created is a file in the container's run directory: another server, or this one after a restart, starts it as well, and gives
its terminal another size.
"""

from __future__ import annotations

from sampan.api.bodies import Size, Words, fields
from sampan.api.relay import Relay, frame, stream_type
from sampan.engine.exec import ExecRequest
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.oci import lifecycle
from sampan.oci.detachkeys import parse_detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.api.exchange import Exchange
    from sampan.engine.container import Container
    from sampan.engine.engine import Engine
    from sampan.engine.exec import Planned

_CREATE = {
    **dict.fromkeys(("User", "WorkingDir", "DetachKeys"), str),
    **dict.fromkeys(("Tty", "AttachStdin", "AttachStdout", "AttachStderr", "Privileged"), bool),
    "Cmd": Words,
    "Env": Words,
    "ConsoleSize": Size,
}
_START_BODY = {"Detach": bool, "Tty": bool, "ConsoleSize": Size}
_START = "x-sampan-start"
"""By which sampan's own client asks for a start that fails to be an answer with a status."""


def create(engine: Engine, exchange: Exchange, name: str) -> None:
    body = fields(exchange.json_body(), _CREATE)
    container = engine.containers.get(name)
    command = body.get("Cmd")
    if not command:
        raise InvalidParameter("no exec command specified")
    keys = body.get("DetachKeys") or ""
    if keys:
        parse_detach_keys(keys)
    request = ExecRequest(
        command=tuple(command),
        user=body.get("User", ""),
        workdir=body.get("WorkingDir", ""),
        environment=tuple(body.get("Env", ())),
        tty=body.get("Tty", False),
        stdin=body.get("AttachStdin", False),
        privileged=body.get("Privileged", False),
        size=_size(body),
        detach_keys=keys,
        stdout=body.get("AttachStdout", False),
        stderr=body.get("AttachStderr", False),
    )
    exchange.reply(201, {"Id": container.exec_create(request)})


def _size(body: Mapping[str, Any]) -> tuple[int, int]:
    rows, columns = body.get("ConsoleSize", (0, 0))
    return rows, columns


def start(engine: Engine, exchange: Exchange, id: str) -> None:
    body = fields(exchange.json_body(empty=True), _START_BODY)
    container = engine.containers.of_exec(id)
    detach, size = body.get("Detach", False), _size(body)
    if detach:
        container.exec_begin(id, True, size)[1].close()
        exchange.reply(200)
        return
    _joined(container, exchange, id, size)


def _joined(container: Container, exchange: Exchange, exec_id: str, size: tuple[int, int]) -> None:
    planned = _may_start(container, exec_id)
    tty = planned.request.tty
    begun = container.exec_begin(exec_id, False, size, planned) if exchange.headers.get(_START) == "answered" else None
    try:
        # Else the header first, as dockerd does: docker-py loses what comes along with it.
        client, early = exchange.hijack(stream_type(exchange, tty), wait=begun is not None)
    except BaseException:
        if begun is not None:
            begun[1].close()
        raise
    try:
        request, attachment = begun or container.exec_begin(exec_id, False, size, planned)
    except SampanError as e:
        # The client has its connection already, and looks for the exit code afterwards.
        exchange.await_reader()
        text = f"{e}\r\n".encode("utf-8", "surrogateescape")
        exchange.send_raw(text if tty else frame(1, text))
        return
    if begun is None:
        exchange.await_reader()  # by now it mostly has read the header
    outputs = frozenset(
        stream for stream, wanted in ((1, request.stdout or request.tty), (2, request.stderr)) if wanted
    )
    keys = parse_detach_keys(request.detach_keys) if request.tty and request.stdin else b""
    Relay(
        client, attachment, early=early, stdin=request.stdin, outputs=outputs, tty=request.tty, detach_keys=keys
    ).run()


def _may_start(container: Container, exec_id: str) -> Planned:
    """Raises NotFound, Conflict while that can still be an answer."""
    planned = container.exec_planned(exec_id)
    if planned.seen.status == lifecycle.PAUSED:
        raise Conflict(f"container {container.id} is paused, unpause the container before exec")
    if planned.seen.status != lifecycle.RUNNING:
        raise Conflict(f"container {container.id} is not running")
    return planned


def inspect(engine: Engine, exchange: Exchange, id: str) -> None:
    shown: dict[str, Any] = engine.containers.of_exec(id).exec_inspect(id)
    exchange.reply(200, shown)


def resize(engine: Engine, exchange: Exchange, id: str) -> None:
    size = exchange.query.window()
    engine.containers.of_exec(id).exec_resize(id, *size)
    exchange.reply(200)
