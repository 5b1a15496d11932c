"""`GET /containers/{id}/stats`: one document, or one every second."""

from __future__ import annotations

from sampan import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine

_INTERVAL = 1.0


def stream(engine: Engine, exchange: Exchange, name: str) -> None:
    query = exchange.query
    container = engine.containers.get(name)
    if not query.flag("stream", default=True):
        exchange.reply(200, container.stats(one_shot=query.flag("one-shot")))
        return
    found = engine.containers.stats([container])
    leaving = exchange.leaving()
    try:
        exchange.start(200, {"Content-Type": "application/json"})
        while found:
            exchange.write(jsontext.dumps(found[0]) + b"\n")
            if leaving.wait(_INTERVAL):
                return
            found = engine.containers.stats([container], before=found)
    finally:
        leaving.close()
