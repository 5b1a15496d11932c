"""The images of the Engine API, but for what streams them (`imagestreams`) and makes them (`builds`)."""

from __future__ import annotations

from sampan.api import imageview, queries, registryauth
from sampan.api.leaving import ended_with
from sampan.engine.search import LIMIT
from sampan.errors import InvalidParameter
from sampan.oci import reference
from sampan.oci.reference import DEFAULT_DOMAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine


def listing(engine: Engine, exchange: Exchange) -> None:
    """`GET /images/json`."""
    query, version = exchange.query, exchange.version
    filters = query.filters()
    if version < (1, 41) and (pattern := query.text("filter")):
        filters.setdefault("reference", []).append(pattern)
    shared = version >= (1, 42) and query.flag("shared-size")
    items = engine.images.list(filters=filters, all=query.flag("all"), shared_size=shared)
    used = _used(engine) if version >= (1, 51) else None
    exchange.reply(200, [imageview.summary(item, version, used) for item in items])


def _used(engine: Engine) -> dict[str, int]:
    """How many containers each image has."""
    counts: dict[str, int] = {}
    for item in engine.containers.summaries(all=True):
        image = item["ImageID"]
        counts[image] = counts.get(image, 0) + 1
    return counts


def inspect(engine: Engine, exchange: Exchange, name: str) -> None:
    """`GET /images/{name}/json`. A store that keeps images for several platforms has more to tell with `manifests`."""
    text = exchange.query.text("platform") if exchange.version >= (1, 49) else ""
    if text and exchange.query.flag("manifests"):
        raise InvalidParameter("conflicting options: manifests and platform options cannot both be set")
    image = engine.images.inspect(name, queries.platform(text))
    exchange.reply(200, imageview.inspected(image, exchange.version))


def history(engine: Engine, exchange: Exchange, name: str) -> None:
    """`GET /images/{name}/history`."""
    text = exchange.query.text("platform") if exchange.version >= (1, 48) else ""
    exchange.reply(200, list(engine.images.history(name, queries.platform(text))))


def tag(engine: Engine, exchange: Exchange, name: str) -> None:
    """`POST /images/{name}/tag`."""
    engine.images.tag(name, repository(exchange.query.text("repo"), exchange.query.text("tag")))
    exchange.reply(201)


def repository(name: str, tag: str) -> str:
    """A repository and a tag as one name: what `tag`, `commit` and `import` give. Raises InvalidParameter."""
    if not name:
        return ""
    found = reference.parse(name)
    if found.digest:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    return f"{name.rpartition(':')[0] if found.tag else name}:{tag}" if tag else name


def remove(engine: Engine, exchange: Exchange, name: str) -> None:
    """`DELETE /images/{name}`."""
    query = exchange.query
    only = [queries.platform(text) for text in query.texts("platforms") if text] if exchange.version >= (1, 50) else []
    force, prune = query.flag("force"), not query.flag("noprune")
    exchange.reply(200, engine.images.remove(name, force, prune, only))


def prune(engine: Engine, exchange: Exchange) -> None:
    """`POST /images/prune`."""
    done = engine.images.prune(exchange.query.filters())
    exchange.reply(200, {"ImagesDeleted": done["ImagesDeleted"] or None, "SpaceReclaimed": done["SpaceReclaimed"]})


def search(engine: Engine, exchange: Exchange) -> None:
    """`GET /images/search`, with the client's credentials."""
    query = exchange.query
    term = query.text("term")
    login = registryauth.login(exchange.headers.get(registryauth.AUTH, ""))
    first, slash, _ = term.partition("/")
    domain = first if slash and ("." in first or ":" in first) else DEFAULT_DOMAIN
    registries = engine.registries.as_user({domain: login} if login.credential else {})
    limit, filters = query.number("limit") or LIMIT, query.filters()
    with ended_with(exchange, registries.stop):
        found = registries.search(term, limit, filters)
    exchange.reply(200, found)
