"""Containers: what is asked and answered at once. Their streams are in `attaching`, `logs`, `stats`, `archives`, their end in `waits`."""

from __future__ import annotations

from sampan.api import containerview
from sampan.api.failures import KIND, kind
from sampan.errors import ImageNotFound, InvalidParameter, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine


def list_all(engine: Engine, exchange: Exchange) -> None:
    query = exchange.query
    found = engine.containers.summaries(
        query.flag("all"), query.filters(), last=max(0, query.number("limit") or 0), size=query.flag("size")
    )
    exchange.reply(200, [containerview.summary(one, exchange.version) for one in found])


def create(engine: Engine, exchange: Exchange) -> None:
    body = exchange.json_body()
    if not body:
        raise InvalidParameter("config cannot be empty in order to create a container")
    body = containerview.request(body, exchange.version)
    request = {**body, "Name": exchange.query.text("name"), "Platform": exchange.query.text("platform")}
    try:
        container, warnings = engine.containers.create_from(request)
    except ImageNotFound:
        raise
    except NotFound as e:
        # A network, a container, a driver: to 404 the docker command line would pull the image, and say that it is missing.
        exchange.reply(400, {"message": str(e)}, {KIND: kind(e)})
        return
    exchange.reply(201, {"Id": container.id, "Warnings": warnings})


def inspect(engine: Engine, exchange: Exchange, name: str) -> None:
    document = engine.containers.get(name).inspect(size=exchange.query.flag("size"))
    exchange.reply(200, containerview.inspection(document, exchange.version))


def start(engine: Engine, exchange: Exchange, name: str) -> None:
    engine.containers.get(name).start()
    exchange.reply(204)


def stop(engine: Engine, exchange: Exchange, name: str) -> None:
    engine.containers.get(name).stop(exchange.query.number("t"), exchange.query.text("signal"))
    exchange.reply(204)


def restart(engine: Engine, exchange: Exchange, name: str) -> None:
    engine.containers.get(name).restart(exchange.query.number("t"), exchange.query.text("signal"))
    exchange.reply(204)


def kill(engine: Engine, exchange: Exchange, name: str) -> None:
    try:
        container = engine.containers.get(name)
    except NotFound as e:
        raise NotFound(f"cannot kill container: {name}: {e}") from None
    container.kill(exchange.query.text("signal") or "KILL")
    exchange.reply(204)


def pause(engine: Engine, exchange: Exchange, name: str) -> None:
    engine.containers.get(name).pause()
    exchange.reply(204)


def unpause(engine: Engine, exchange: Exchange, name: str) -> None:
    engine.containers.get(name).unpause()
    exchange.reply(204)


def rename(engine: Engine, exchange: Exchange, name: str) -> None:
    engine.containers.get(name).rename(exchange.query.text("name"))
    exchange.reply(204)


def update(engine: Engine, exchange: Exchange, name: str) -> None:
    body = exchange.json_body()
    exchange.reply(200, {"Warnings": engine.containers.get(name).update_from(body) or None})


def remove(engine: Engine, exchange: Exchange, name: str) -> None:
    query = exchange.query
    container = engine.containers.get(name)
    if query.flag("link"):
        raise InvalidParameter("links are taken away with their container: there is no other way")
    container.remove(force=query.flag("force"), volumes=query.flag("v"))
    exchange.reply(204)


def resize(engine: Engine, exchange: Exchange, name: str) -> None:
    size = exchange.query.window()
    engine.containers.get(name).resize(*size)
    exchange.reply(200)


def top(engine: Engine, exchange: Exchange, name: str) -> None:
    exchange.reply(200, engine.containers.get(name).top(exchange.query.text("ps_args")))


def changes(engine: Engine, exchange: Exchange, name: str) -> None:
    exchange.reply(200, engine.containers.get(name).diff())


def prune(engine: Engine, exchange: Exchange) -> None:
    exchange.reply(200, engine.containers.prune(exchange.query.filters()))
