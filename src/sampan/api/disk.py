"""`GET /system/df`."""

from __future__ import annotations

from sampan.api import diskview

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine


def usage(engine: Engine, exchange: Exchange) -> None:
    """`GET /system/df`."""
    types = diskview.wanted(exchange.query.texts("type"), exchange.version)
    found = engine.system.df()
    exchange.reply(200, diskview.usage(found, types, exchange.version, dict))
