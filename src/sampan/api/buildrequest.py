"""`POST /build`: its parameters as a `BuildRequest`."""

from __future__ import annotations

from sampan.api import queries
from sampan.build import addresses
from sampan.engine.builder import BuildRequest
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.api.query import Query
    from sampan.engine.buildcontexts import Stream

_NUMBERS = (
    ("memory", "Memory"),
    ("memswap", "MemorySwap"),
    ("cpushares", "CpuShares"),
    ("cpuperiod", "CpuPeriod"),
    ("cpuquota", "CpuQuota"),
    ("shmsize", "ShmSize"),
)
_TEXTS = (("cpusetcpus", "CpusetCpus"), ("cpusetmems", "CpusetMems"), ("cgroupparent", "CgroupParent"))


def check(query: Query) -> None:
    """Raises InvalidParameter for what is asked for and cannot be had; nothing of the context was read yet."""
    if query.text("version") == "2":
        raise InvalidParameter(
            "BuildKit's protocol (version=2) cannot be had: build without buildx, which understands the same Dockerfiles here"
        )
    if query.text("remote") == "client-session":
        raise InvalidParameter("a context from a session cannot be had: it is BuildKit's")
    if query.flag("squash"):
        raise InvalidParameter("squash is only supported with experimental mode")
    if query.text("securityopt") not in ("", "null", "[]"):
        raise InvalidParameter("The daemon on this platform does not support setting security options on build")
    if query.text("isolation") not in ("", "default"):
        raise InvalidParameter(f"invalid isolation: {query.text('isolation')}")
    if query.text("outputs") not in ("", "null", "[]"):
        raise InvalidParameter("outputs of a build are BuildKit's: the image is in the store, and `save` writes it")
    if not all(isinstance(name, str) for name in queries.document(query, "cachefrom", list) or ()):
        raise InvalidParameter("invalid value for cachefrom: it is a JSON array of texts")


def build_request(query: Query, body: Stream) -> BuildRequest:
    """What is to be built. body: the context, if `remote` names none. Raises InvalidParameter."""
    remote = query.text("remote")
    if remote and not addresses.is_remote(remote):
        # A name of a directory would be one of this machine's.
        raise InvalidParameter(f"remote {remote}: it is no address of an archive, a Dockerfile or a git repository")
    arguments = queries.mapping(query, "buildargs")
    labels = queries.mapping(query, "labels")
    return BuildRequest(
        remote,
        query.text("dockerfile"),
        None,
        tuple(name for name in query.texts("t") if name),
        # What is null is a variable that the client does not have.
        tuple((name, value) for name, value in arguments.items() if value is not None),
        tuple((name, value or "") for name, value in labels.items()),
        query.text("target"),
        _platform(query.text("platform")),
        tuple(_host(query)),
        not query.flag("nocache"),
        query.flag("pull"),
        stream=None if remote else body,
    )


def _platform(value: str) -> str:
    """Some clients send JSON, most os/architecture[/variant]."""
    return queries.platform(value) if value.startswith("{") else value


def _host(query: Query) -> Iterator[tuple[str, Any]]:
    """What the containers of RUN have."""
    yield "NetworkMode", query.text("networkmode") or "default"
    if hosts := [host for host in query.texts("extrahosts") if host]:
        yield "ExtraHosts", hosts
    if (ulimits := queries.document(query, "ulimits", list)) is not None:
        yield "Ulimits", [_ulimit(one) for one in ulimits]
    for name, key in _NUMBERS:
        if value := query.number(name):
            yield key, value
    for name, key in _TEXTS:
        if text := query.text(name):
            yield key, text


def _ulimit(given: Any) -> dict[str, Any]:
    fits = isinstance(given, dict) and isinstance(given.get("Name"), str)
    if not fits or not all(type(given.get(key)) is int for key in ("Soft", "Hard")):
        raise InvalidParameter(
            'invalid value for ulimits: it is a JSON array of {"Name": text, "Soft": number, "Hard": number}'
        )
    return {key: given[key] for key in ("Name", "Soft", "Hard")}
