"""Registries by the Engine API: `POST /auth` and `GET /distribution/{name}/json`."""

from __future__ import annotations

from sampan.api import registryauth
from sampan.api.bodies import fields
from sampan.api.leaving import ended_with
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine
    from sampan.engine.registries import Registries

_AUTH = dict.fromkeys(("username", "password", "auth", "email", "serveraddress", "identitytoken", "registrytoken"), str)


def auth(engine: Engine, exchange: Exchange) -> None:
    """`POST /auth`: credentials tried. They are the client's, and nothing is kept."""
    body = fields(exchange.json_body(), _AUTH)
    registries = engine.registries.as_user({})
    with ended_with(exchange, registries.stop):
        status, token = registries.check(body.get("serveraddress") or "", registryauth.login_of(body))
    exchange.reply(200, {"Status": status, "IdentityToken": token})


def distribution(engine: Engine, exchange: Exchange, name: str) -> None:
    """`GET /distribution/{name}/json`."""
    registries = as_client(engine, exchange, name)
    with ended_with(exchange, registries.stop):
        found = registries.distribution(name)
    exchange.reply(200, found)


def as_client(engine: Engine, exchange: Exchange, name: str) -> Registries:
    """The registries as they are asked for the client: with the credentials that came with the request, for this image's only."""
    login = registryauth.login(exchange.headers.get(registryauth.AUTH, ""))
    domain = reference.parse(name).domain
    return engine.registries.as_user({domain: login} if login.credential else {})
