"""The engine of a server, and `connect`, which gives it."""

from __future__ import annotations

from sampan.client import address
from sampan.client.builds import RemoteBuilds
from sampan.client.containers import RemoteContainers
from sampan.client.images import RemoteImages
from sampan.client.networks import RemoteNetworks
from sampan.client.registries import RemoteRegistries
from sampan.client.session import Session, filters
from sampan.client.volumes import RemoteVolumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Self

    from sampan.client.session import Stream
    from sampan.engine.interface import EngineInterface


def connect(url: str | None = None, tls: str | ssl.SSLContext | None = None) -> RemoteEngine:
    """The engine that a server of the Engine API has, used as one on this machine.

    >>> with sampan.connect("unix:///run/sampan/sampan.sock") as engine:
    ...     print(engine.containers.run("base", ["uname", "-a"]).stdout)

    url: unix:///PATH or tcp://HOST:PORT; without one what DOCKER_HOST says, else sampan's own socket. tls: for TCP, a directory with
    ca.pem, cert.pem and key.pem (what DOCKER_CERT_PATH names), or a context. Nothing is opened before the first request.
    Raises InvalidParameter; what is asked of the engine later raises Unavailable if nobody answers.
    """
    return RemoteEngine(Session(address.find(url, tls)))


class RemoteEngine:
    """See `connect`. May be used by many threads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.containers = RemoteContainers(session)
        self.images = RemoteImages(session)
        self.builds = RemoteBuilds(session)
        self.volumes = RemoteVolumes(session)
        self.networks = RemoteNetworks(session)
        self.registries = RemoteRegistries(session)
        self.system = RemoteSystem(session)

    def events(
        self,
        since: str | float | None = None,
        until: str | float | None = None,
        filters: Mapping[str, str | Sequence[str]] | None = None,
    ) -> RemoteEvents:
        """What happens to containers, images, volumes and networks: an iterator that goes on until `until` or `close()`.

        since, until: RFC 3339, seconds since the epoch, or a duration before now. Raises InvalidParameter.
        """
        query = {"since": _moment(since), "until": _moment(until), "filters": _encoded(filters)}
        return RemoteEvents(self._session.stream("GET", "/events", query))

    def close(self) -> None:
        """Close the connections that are kept. The engine can be used again: it opens what it needs."""
        self._session.close()

    def __repr__(self) -> str:
        return f"<RemoteEngine {self._session.address.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteSystem:
    """`engine.system` over the API."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def version(self) -> dict[str, Any]:
        """`GET /version`."""
        return self._document("/version")

    def info(self) -> dict[str, Any]:
        """`GET /info`."""
        return self._document("/info")

    def df(self) -> dict[str, Any]:
        """`GET /system/df`."""
        return self._document("/system/df")

    def _document(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._session.json("GET", path)
        return found


class RemoteEvents:
    """Messages of the Engine API, one after the other."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._events = stream.documents()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._events)

    def close(self) -> None:
        """End it, also while it waits for the next event: from another thread. Safe to call twice."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_encoded = filters


def _moment(value: str | float | None) -> str:
    return "" if value is None else str(value)


if TYPE_CHECKING:
    from sampan.engine.engine import Engine

    def _both(local: Engine, remote: RemoteEngine) -> tuple[EngineInterface, EngineInterface]:
        """What runs on one runs on the other: the type checker says so."""
        return local, remote
