"""A container's files: `archive` in three methods, and `export`."""

from __future__ import annotations

import base64

from sampan import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.archive import PathStat
    from sampan.engine.engine import Engine

_TAR = "application/x-tar"


def _stat_header(found: PathStat) -> dict[str, str]:
    document = base64.b64encode(jsontext.dumps(found.shown())).decode("ascii")
    return {"X-Docker-Container-Path-Stat": document}


def head(engine: Engine, exchange: Exchange, name: str) -> None:
    found = engine.containers.get(name).stat_path(exchange.query.text("path"))
    exchange.reply(200, headers=_stat_header(found))


def get(engine: Engine, exchange: Exchange, name: str) -> None:
    found, pieces = engine.containers.get(name).get_archive(exchange.query.text("path"))
    with pieces:
        exchange.start(200, {**_stat_header(found), "Content-Type": _TAR})
        for piece in pieces:
            exchange.write(piece)


def put(engine: Engine, exchange: Exchange, name: str) -> None:
    query = exchange.query
    container = engine.containers.get(name)
    container.put_archive(
        query.text("path"),
        exchange.body,
        keep_kinds=query.flag("noOverwriteDirNonDir"),
        owned_by_user=query.flag("copyUIDGID"),
    )
    exchange.reply(200)


def export(engine: Engine, exchange: Exchange, name: str) -> None:
    pieces = engine.containers.get(name).export()
    first = next(pieces, b"")  # what cannot be exported is an answer, and no archive that breaks off
    exchange.start(200, {"Content-Type": "application/octet-stream"})
    exchange.write(first)
    for piece in pieces:
        exchange.write(piece)
