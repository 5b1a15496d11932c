"""`POST /containers/{id}/attach`: the connection becomes the container's streams."""

from __future__ import annotations

from sampan.api import logs
from sampan.api.relay import Relay, stream_type
from sampan.oci.detachkeys import parse_detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.container import Container
    from sampan.engine.engine import Engine


def attach(engine: Engine, exchange: Exchange, name: str) -> None:
    query = exchange.query
    keys = parse_detach_keys(query.text("detachKeys"))
    container = engine.containers.get(name)
    config = container.inspect()["Config"]
    tty, stdin = bool(config["Tty"]), query.flag("stdin") and bool(config["OpenStdin"])
    outputs = frozenset(stream for stream, word in ((1, "stdout"), (2, "stderr")) if query.flag(word))
    # Before the header: what cannot be attached to is an answer, and what is said from here on is not missed.
    attachment = container.attach(stdin, 1 in outputs, 2 in outputs) if query.flag("stream") else None
    try:
        client, early = exchange.hijack(stream_type(exchange, tty))
        if query.flag("logs"):
            _replay(container, exchange, tty, outputs)
    except BaseException:
        if attachment is not None:
            attachment.close()
        raise
    if attachment is not None:
        Relay(
            client, attachment, early=early, stdin=stdin, outputs=outputs, tty=tty, detach_keys=keys if tty else b""
        ).run()


def _replay(container: Container, exchange: Exchange, tty: bool, outputs: frozenset[int]) -> None:
    for entry in container.logs():
        data = logs.piece(entry, outputs, tty)
        if data:
            exchange.send_raw(data)
