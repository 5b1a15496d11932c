"""What of Docker's API sampan does not have, refused in Docker's words, so that clients stay calm."""

from __future__ import annotations

from sampan.api.failures import NotImplementedHere
from sampan.errors import NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine

_OF_A_PLUGIN = ("json", "enable", "disable", "push", "set", "upgrade")
"""What may be behind a plugin's name, which may have slashes itself."""


def no_swarm(_engine: Engine, _exchange: Exchange, **_parameters: str) -> None:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
    )


def plugins(_engine: Engine, exchange: Exchange) -> None:
    exchange.query.filters()
    exchange.reply(200, [])


def no_plugins(_engine: Engine, exchange: Exchange, rest: str) -> None:
    if rest == "privileges" or (exchange.method == "POST" and rest in ("pull", "create")):
        raise NotImplementedHere("sampan has no managed plugins")
    name, _, what = rest.rpartition("/")
    if what not in _OF_A_PLUGIN:
        name = rest
    raise NotFound(f'plugin "{name}" not found')


def no_checkpoints(_engine: Engine, _exchange: Exchange, **_parameters: str) -> None:
    raise NotImplementedHere("sampan has no checkpoints")


def no_session(_engine: Engine, _exchange: Exchange) -> None:
    raise NotImplementedHere("sampan has no BuildKit: build by POST /build (DOCKER_BUILDKIT=0)")
