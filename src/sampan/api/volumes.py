"""The volumes of the Engine API."""

from __future__ import annotations

from sampan.api import volumeview
from sampan.api.bodies import Texts, fields
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine

_CREATE = {"Name": str, "Driver": str, "DriverOpts": Texts, "Labels": Texts, "ClusterVolumeSpec": dict}


def listing(engine: Engine, exchange: Exchange) -> None:
    """`GET /volumes`."""
    found = engine.volumes.list(exchange.query.filters())
    exchange.reply(200, volumeview.listing([volume.attrs for volume in found], exchange.version))


def create(engine: Engine, exchange: Exchange) -> None:
    """`POST /volumes/create`."""
    body = fields(exchange.json_body(), _CREATE)
    if body.get("ClusterVolumeSpec"):
        raise InvalidParameter("cluster volumes cannot be had: there is no swarm here")
    made = engine.volumes.create(
        body.get("Name") or "", body.get("Driver") or "local", body.get("DriverOpts"), body.get("Labels")
    )
    exchange.reply(201, volumeview.volume(made.attrs, exchange.version))


def inspect(engine: Engine, exchange: Exchange, name: str) -> None:
    """`GET /volumes/{name}`."""
    exchange.reply(200, volumeview.volume(engine.volumes.get(name).attrs, exchange.version))


def remove(engine: Engine, exchange: Exchange, name: str) -> None:
    """`DELETE /volumes/{name}`."""
    engine.volumes.remove(name, exchange.query.flag("force"))
    exchange.reply(204)


def prune(engine: Engine, exchange: Exchange) -> None:
    """`POST /volumes/prune`. Before 1.42 the named ones went too."""
    filters = exchange.query.filters()
    if exchange.version < (1, 42):
        filters["all"] = ["true"]
    done = engine.volumes.prune(filters)
    exchange.reply(200, {"VolumesDeleted": done["VolumesDeleted"], "SpaceReclaimed": done["SpaceReclaimed"]})
