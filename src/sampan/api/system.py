"""`/version` and `/info`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine


def version(engine: Engine, exchange: Exchange) -> None:
    exchange.reply(200, engine.system.version())


def info(engine: Engine, exchange: Exchange) -> None:
    exchange.reply(200, engine.system.info())
