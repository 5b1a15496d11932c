"""Making images by the Engine API: `POST /build` in the classic way, `POST /commit`."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from sampan.api import registryauth
from sampan.api.buildoutput import BuildOutput
from sampan.api.buildrequest import build_request, check
from sampan.api.images import repository
from sampan.api.leaving import ended_with
from sampan.api.progress import answered
from sampan.engine.buildcancel import Cancellation
from sampan.errors import InvalidParameter, SampanError
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine

_LOOK = 0.2  # seconds between two attempts to end a build
_SHORT = 12


def build(engine: Engine, exchange: Exchange) -> None:
    """`POST /build`. The context is read to its end before anything is built; a client that goes away ends the build."""
    check(exchange.query)
    quiet = exchange.query.flag("q")
    registries = engine.registries.as_user(registryauth.logins(exchange.headers.get(registryauth.CONFIG, "")))
    cancellation = Cancellation()
    request = build_request(exchange.query, exchange.body).replace(cancellation=cancellation)
    with answered(exchange) as stream:
        try:
            with _ended_with(exchange, cancellation):
                image = engine.builds.build(request, BuildOutput(stream, quiet), registries)
        except SampanError as e:
            if not stream.begun:
                raise
            stream.fail(e, _code(e))
            return
        if quiet:
            stream.send(stream=f"{image}\n")
            return
        if exchange.version >= (1, 30):
            stream.send(aux={"ID": image})
        stream.send(stream=f"Successfully built {image.partition(':')[2][:_SHORT]}\n")
        for name in request.tags:
            stream.send(stream=f"Successfully tagged {reference.parse(name).tagged().familiar}\n")


def _code(error: SampanError) -> int:
    """The exit code of the command that failed, 0 if it was something else."""
    return int(getattr(getattr(error, "error", None), "code", 0))


@contextmanager
def _ended_with(exchange: Exchange, cancellation: Cancellation) -> Iterator[None]:
    """End the build inside when its client goes away, also while a command or a host that it waits for says nothing. Raises ClientGone then."""
    over = threading.Event()

    def end() -> None:
        while True:
            try:
                return cancellation.cancel()
            except SampanError:
                # Somebody else is at work on the container: it is tried again.
                if over.wait(_LOOK):
                    return None

    # A kill may wait for somebody's lock, and the thread that calls back must not.
    leave = threading.Thread(target=end, name="build end", daemon=True).start
    try:
        with ended_with(exchange, leave):
            yield
    finally:
        over.set()


def prune(engine: Engine, exchange: Exchange) -> None:
    """`POST /build/prune`."""
    query = exchange.query
    for name in ("max-used-space", "min-free-space"):
        if query.number(name):
            raise InvalidParameter(f"{name} cannot be had: reserved-space says how much of the cache stays")
    keep = query.number("reserved-space") or query.number("keep-storage") or 0
    done = engine.builds.prune(query.filters(), all=query.flag("all"), keep_storage=keep)
    exchange.reply(200, {"CachesDeleted": done["CachesDeleted"] or None, "SpaceReclaimed": done["SpaceReclaimed"]})


def commit(engine: Engine, exchange: Exchange) -> None:
    """`POST /commit`."""
    query = exchange.query
    name = repository(query.text("repo"), query.text("tag"))
    body = exchange.json_body(empty=True)
    image = engine.containers.get(query.text("container")).commit(
        name,
        author=query.text("author"),
        message=query.text("comment"),
        changes=[line for text in query.texts("changes") for line in text.split("\n")],
        pause=query.flag("pause", True),
        config=body or None,
    )
    exchange.reply(201, {"Id": image})
