"""The networks of the Engine API."""

from __future__ import annotations

from sampan.api import networkview
from sampan.api.bodies import Texts, fields
from sampan.errors import InvalidParameter, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine

_CREATE = {
    "Name": str,
    "CheckDuplicate": bool,
    "Driver": str,
    "Scope": str,
    "Internal": bool,
    "Attachable": bool,
    "Ingress": bool,
    "ConfigOnly": bool,
    "ConfigFrom": dict,
    "IPAM": dict,
    "EnableIPv4": bool,
    "EnableIPv6": bool,
    "Options": Texts,
    "Labels": Texts,
}
_IPAM = {"Driver": str, "Config": list, "Options": Texts}
_POOL = {"Subnet": str, "IPRange": str, "Gateway": str, "AuxiliaryAddresses": Texts}
_CONNECT = {"Container": str, "EndpointConfig": dict}
_DISCONNECT = {"Container": str, "Force": bool}


def listing(engine: Engine, exchange: Exchange) -> None:
    """`GET /networks`. Who is in them was told until 1.28."""
    found = engine.networks.list(exchange.query.filters())
    whole = exchange.version < (1, 28)
    shown = [network.inspect() if whole and not network.broken else network.attrs for network in found]
    exchange.reply(200, [networkview.network(one, exchange.version) for one in shown])


def inspect(engine: Engine, exchange: Exchange, id: str) -> None:
    """`GET /networks/{id}`."""
    scope = exchange.query.text("scope")
    found = engine.networks.inspect(id)
    if scope and scope != found["Scope"]:
        raise NotFound(f"network {id} not found")
    exchange.reply(200, networkview.network(found, exchange.version))


def create(engine: Engine, exchange: Exchange) -> None:
    """`POST /networks/create`."""
    body = fields(exchange.json_body(), _CREATE)
    ipam = fields(body.get("IPAM") or {}, _IPAM, "IPAM.")
    for pool in ipam.get("Config") or ():
        fields(pool, _POOL, "IPAM.Config.")
    fields(body.get("ConfigFrom") or {}, {"Network": str}, "ConfigFrom.")
    request = {name: body[name] for name in _CREATE if name in body and name not in ("Name", "CheckDuplicate")}
    made = engine.networks.create(body.get("Name") or "", **request)
    exchange.reply(201, {"Id": made.id, "Warning": ""})


def remove(engine: Engine, exchange: Exchange, id: str) -> None:
    """`DELETE /networks/{id}`."""
    engine.networks.remove(id)
    exchange.reply(204)


def connect(engine: Engine, exchange: Exchange, id: str) -> None:
    """`POST /networks/{id}/connect`."""
    body = fields(exchange.json_body(), _CONNECT)
    engine.networks.connect(id, _container(body), body.get("EndpointConfig") or None)
    exchange.reply(200)


def disconnect(engine: Engine, exchange: Exchange, id: str) -> None:
    """`POST /networks/{id}/disconnect`."""
    body = fields(exchange.json_body(), _DISCONNECT)
    engine.networks.disconnect(id, _container(body), bool(body.get("Force")))
    exchange.reply(200)


def _container(body: dict[str, object]) -> str:
    if not body.get("Container"):
        raise InvalidParameter("invalid container: it is empty")
    return str(body["Container"])


def prune(engine: Engine, exchange: Exchange) -> None:
    """`POST /networks/prune`."""
    done = engine.networks.prune(exchange.query.filters())
    exchange.reply(200, {"NetworksDeleted": done["NetworksDeleted"] or None})
