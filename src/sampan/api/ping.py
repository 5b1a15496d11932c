"""`/_ping`: what every client asks first, for the version and to see whether anybody is there."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine

_FIELDS = {
    "Builder-Version": "1",  # the classic builder: there is no BuildKit session to be had
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


def get(_engine: Engine, exchange: Exchange) -> None:
    exchange.send(200, b"OK", "text/plain; charset=utf-8", _FIELDS)


def head(_engine: Engine, exchange: Exchange) -> None:
    exchange.send(200, b"", "text/plain; charset=utf-8", _FIELDS)


def options(_engine: Engine, exchange: Exchange, rest: str) -> None:
    exchange.reply(200)
