"""`GET /events`: JSON documents, one a line."""

from __future__ import annotations

from sampan import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine


def stream(engine: Engine, exchange: Exchange) -> None:
    query = exchange.query
    events = engine.events(query.text("since") or None, query.text("until") or None, query.filters())
    # It waits for the next event and not for the client: whose leaving wakes it up.
    forget = exchange.on_gone(events.close)
    try:
        exchange.start(200, {"Content-Type": "application/json"})
        for event in events:
            exchange.write(jsontext.dumps(event) + b"\n")
    finally:
        forget()
        events.close()
