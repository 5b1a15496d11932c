"""The one table of what there is: method, pattern, the first version that has it, and the handler.

A pattern is the path without its version; `{name}` stands for one or more characters, slashes among them, for names of images have
them. Handlers are named and imported when they are first asked for: a server that nobody asks to build does not hold the builder.
A handler is called as `handler(engine, exchange, **path_parameters)`.
"""

from __future__ import annotations

import re
from importlib import import_module
from urllib.parse import unquote

from sampan.errors import NotFound
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[..., None]


class Route(Struct):
    """One line of the table. handler: "module:function" below `sampan.api`."""

    method: str
    pattern: str
    since: tuple[int, int]
    handler: str


_FIRST = (1, 24)

_TABLE: tuple[tuple[str, str, tuple[int, int], str], ...] = (
    # system
    ("GET", "/_ping", _FIRST, "ping:get"),
    ("HEAD", "/_ping", _FIRST, "ping:head"),
    ("GET", "/version", _FIRST, "system:version"),
    ("GET", "/info", _FIRST, "system:info"),
    ("GET", "/events", _FIRST, "events:stream"),
    # containers
    ("GET", "/containers/json", _FIRST, "containers:list_all"),
    ("POST", "/containers/create", _FIRST, "containers:create"),
    ("POST", "/containers/prune", (1, 25), "containers:prune"),
    ("GET", "/containers/{name}/json", _FIRST, "containers:inspect"),
    ("GET", "/containers/{name}/top", _FIRST, "containers:top"),
    ("GET", "/containers/{name}/changes", _FIRST, "containers:changes"),
    ("GET", "/containers/{name}/export", _FIRST, "archives:export"),
    ("GET", "/containers/{name}/logs", _FIRST, "logs:read"),
    ("GET", "/containers/{name}/stats", _FIRST, "stats:stream"),
    ("GET", "/containers/{name}/attach/ws", _FIRST, "websockets:attach"),
    ("HEAD", "/containers/{name}/archive", _FIRST, "archives:head"),
    ("GET", "/containers/{name}/archive", _FIRST, "archives:get"),
    ("PUT", "/containers/{name}/archive", _FIRST, "archives:put"),
    ("POST", "/containers/{name}/start", _FIRST, "containers:start"),
    ("POST", "/containers/{name}/stop", _FIRST, "containers:stop"),
    ("POST", "/containers/{name}/restart", _FIRST, "containers:restart"),
    ("POST", "/containers/{name}/kill", _FIRST, "containers:kill"),
    ("POST", "/containers/{name}/pause", _FIRST, "containers:pause"),
    ("POST", "/containers/{name}/unpause", _FIRST, "containers:unpause"),
    ("POST", "/containers/{name}/wait", _FIRST, "waits:wait"),
    ("POST", "/containers/{name}/resize", _FIRST, "containers:resize"),
    ("POST", "/containers/{name}/attach", _FIRST, "attaching:attach"),
    ("POST", "/containers/{name}/rename", _FIRST, "containers:rename"),
    ("POST", "/containers/{name}/update", _FIRST, "containers:update"),
    ("DELETE", "/containers/{name}", _FIRST, "containers:remove"),
    # exec
    ("POST", "/containers/{name}/exec", _FIRST, "execs:create"),
    ("POST", "/exec/{id}/start", _FIRST, "execs:start"),
    ("POST", "/exec/{id}/resize", _FIRST, "execs:resize"),
    ("GET", "/exec/{id}/json", _FIRST, "execs:inspect"),
    # images
    ("GET", "/images/json", _FIRST, "images:listing"),
    ("POST", "/images/create", _FIRST, "imagestreams:create"),
    ("POST", "/images/load", _FIRST, "imagestreams:load"),
    ("GET", "/images/get", _FIRST, "imagestreams:save"),
    ("GET", "/images/search", _FIRST, "images:search"),
    ("POST", "/images/prune", (1, 25), "images:prune"),
    ("GET", "/images/{name}/json", _FIRST, "images:inspect"),
    ("GET", "/images/{name}/history", _FIRST, "images:history"),
    ("GET", "/images/{name}/get", _FIRST, "imagestreams:save_one"),
    ("POST", "/images/{name}/push", _FIRST, "imagestreams:push"),
    ("POST", "/images/{name}/tag", _FIRST, "images:tag"),
    ("DELETE", "/images/{name}", _FIRST, "images:remove"),
    ("POST", "/commit", _FIRST, "builds:commit"),
    ("POST", "/build", _FIRST, "builds:build"),
    ("POST", "/build/prune", (1, 31), "builds:prune"),
    ("POST", "/auth", _FIRST, "registries:auth"),
    ("GET", "/distribution/{name}/json", (1, 30), "registries:distribution"),
    # networks and volumes
    ("GET", "/networks", _FIRST, "networks:listing"),
    ("GET", "/networks/", _FIRST, "networks:listing"),
    ("POST", "/networks/create", _FIRST, "networks:create"),
    ("POST", "/networks/prune", (1, 25), "networks:prune"),
    ("GET", "/networks/{id}", _FIRST, "networks:inspect"),
    ("DELETE", "/networks/{id}", _FIRST, "networks:remove"),
    ("POST", "/networks/{id}/connect", _FIRST, "networks:connect"),
    ("POST", "/networks/{id}/disconnect", _FIRST, "networks:disconnect"),
    ("GET", "/volumes", _FIRST, "volumes:listing"),
    ("POST", "/volumes/create", _FIRST, "volumes:create"),
    ("POST", "/volumes/prune", (1, 25), "volumes:prune"),
    ("GET", "/volumes/{name}", _FIRST, "volumes:inspect"),
    ("PUT", "/volumes/{name}", (1, 42), "refusals:no_swarm"),
    ("DELETE", "/volumes/{name}", _FIRST, "volumes:remove"),
    ("GET", "/system/df", (1, 25), "disk:usage"),
    # what there is none of
    ("GET", "/plugins", _FIRST, "refusals:plugins"),
    *((method, path, _FIRST, "refusals:no_plugins") for method in ("GET", "POST", "DELETE") for path in ("/plugins/{rest}",)),
    *(
        (method, f"/{noun}{more}", _FIRST, "refusals:no_swarm")
        for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
        for more in ("", "/{rest}")
        for method in ("GET", "POST", "DELETE")
    ),
    ("GET", "/containers/{name}/checkpoints", (1, 25), "refusals:no_checkpoints"),
    ("POST", "/containers/{name}/checkpoints", (1, 25), "refusals:no_checkpoints"),
    ("DELETE", "/containers/{name}/checkpoints/{checkpoint}", (1, 25), "refusals:no_checkpoints"),
    ("POST", "/session", (1, 31), "refusals:no_session"),
    ("POST", "/grpc", (1, 39), "refusals:no_session"),
    ("OPTIONS", "/{rest}", _FIRST, "ping:options"),
)  # fmt: skip

ROUTES = tuple(Route(*line) for line in _TABLE)

_PARAMETER = re.compile(r"\{(\w+)\}")
_EXACT = {(route.method, route.pattern): route for route in ROUTES if "{" not in route.pattern}


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(r"(?P<\1>.+)", pattern), re.DOTALL)


def _first(path: str) -> str:
    return path[1:].partition("/")[0]


# The longer pattern first: /exec/{id}/json is also a name below a shorter one.
_PATTERNS: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
"""By the method and the first segment of the path, "{rest}" for all."""
for _route in sorted(ROUTES, key=lambda route: -len(_PARAMETER.sub("", route.pattern))):
    if "{" in _route.pattern:
        _PATTERNS.setdefault((_route.method, _first(_route.pattern)), []).append((_compiled(_route.pattern), _route))


def find(method: str, path: str, version: tuple[int, int]) -> tuple[Route, dict[str, str]]:
    """The route of a path (without version, as it came, percent-encoded) and its parameters. Raises NotFound."""
    decoded = unquote(path, errors="surrogateescape")
    route = _EXACT.get((method, decoded))
    if route is not None and version >= route.since:
        return route, {}
    for pattern, route in (*_PATTERNS.get((method, _first(decoded)), ()), *_PATTERNS.get((method, "{rest}"), ())):
        if version >= route.since:
            found = pattern.fullmatch(decoded)
            if found is not None:
                return route, {name: value.removeprefix("/") for name, value in found.groupdict().items()}
    raise NotFound("page not found")


def load(route: Route) -> Handler:
    """The handler itself."""
    handler = _loaded.get(route.handler)
    if handler is None:
        module, _, name = route.handler.partition(":")
        handler = _loaded[route.handler] = getattr(import_module(f"sampan.api.{module}"), name)
    return handler


_loaded: dict[str, Handler] = {}
