"""`engine.builds` over the API: the classic `POST /build`, which sampan's servers give the whole Dockerfile language."""

from __future__ import annotations

import base64
import os
import re

from sampan import jsontext
from sampan.build import addresses
from sampan.client import context
from sampan.client.session import filters as encoded
from sampan.engine.copying import Source as Pieces
from sampan.errors import InvalidParameter, SampanError, System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from sampan.client.registries import RemoteRegistries
    from sampan.client.session import Readable, Session
    from sampan.engine.builder import BuildRequest

    class Told(Protocol):
        """What is called of `engine.builder.Told`."""

        def begin(self, title: str) -> int: ...
        def output(self, step: int, data: bytes) -> None: ...
        def done(self, step: int, cached: bool = False) -> None: ...
        def failed(self, step: int, message: str) -> None: ...


_STEP = re.compile(r"Step (\d+)/(\d+)(?: \[(\S+)\])? : (.*)", re.DOTALL)
_RUNNING, _CACHED = " ---> Running in ", " ---> Using cache"
_TAR = {"Content-Type": "application/x-tar"}
_HOST = {
    "Memory": "memory",
    "MemorySwap": "memswap",
    "CpuShares": "cpushares",
    "CpuPeriod": "cpuperiod",
    "CpuQuota": "cpuquota",
    "ShmSize": "shmsize",
    "CpusetCpus": "cpusetcpus",
    "CpusetMems": "cpusetmems",
    "CgroupParent": "cgroupparent",
    "NetworkMode": "networkmode",
    "ExtraHosts": "extrahosts",
    "Ulimits": "ulimits",
}
_HERE_ONLY = ("secrets", "allowed", "contexts", "exports", "no_cache", "cancellation")


class RemoteBuilds:
    """Images out of Dockerfiles, built by a server."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def build(self, request: BuildRequest, watcher: Told, registries: RemoteRegistries | None = None) -> str:
        """Build an image and return its id; `watcher` is told how it goes. `registries`: as whom base images are pulled.

        The context is a directory of this machine, an address, or a stream. Raises InvalidParameter for what the API has no word for:
        secrets, entitlements, further contexts, exports, single stages without cache. Else as the engine's own.
        """
        for name in _HERE_ONLY:
            if getattr(request, name):
                raise InvalidParameter(f"{name} of a build cannot be had over the API")
        if not request.store:
            raise InvalidParameter("a build over the API keeps its image in the store")
        query, body = _query(request), _context(request)
        if body is not None and request.text is not None and request.stream is None:
            query["dockerfile"] = context.DOCKERFILE
        headers = dict(_TAR)
        if registries is not None:
            document = jsontext.dumps(registries.accounts())
            headers["X-Registry-Config"] = base64.urlsafe_b64encode(document).decode("ascii")
        told = _Telling(watcher)
        try:
            with self._session.stream("POST", "/build", query, body, headers) as stream:
                for line in stream.documents():
                    told.take(line)
        except SampanError as e:
            told.fail(str(e))
            raise
        told.end()
        if not told.image:
            raise System("the server has not said which image it built")
        return told.image

    def prune(
        self,
        filters: Mapping[str, str | Sequence[str]] | None = None,
        *,
        all: bool = False,
        keep_storage: int = 0,
    ) -> dict[str, Any]:
        """Remove build cache: {"CachesDeleted": [ids], "SpaceReclaimed": bytes}."""
        query = {"filters": encoded(filters), "all": all, "keep-storage": keep_storage or None}
        done = self._session.json("POST", "/build/prune", query)
        return {**done, "CachesDeleted": done["CachesDeleted"] or []}


class _Telling:
    """The lines of the classic builder, as steps."""

    def __init__(self, watcher: Told) -> None:
        self.image = ""
        self._watcher = watcher
        self._step: int | None = None
        self._cached = False

    def take(self, line: Mapping[str, Any]) -> None:
        self.image = str((line.get("aux") or {}).get("ID", self.image))
        text = str(line.get("stream", ""))
        found = _STEP.match(text.rstrip("\n"))
        if found is not None:
            self.end()
            number, total, stage, words = found.groups()
            self._step = self._watcher.begin(f"[{stage + ' ' if stage else ''}{number}/{total}] {words}")
        elif text.startswith(_CACHED):
            self._cached = True
        elif text and not text.startswith((_RUNNING, "Successfully ")) and self._step is not None:
            self._watcher.output(self._step, text.encode("utf-8", "surrogateescape"))

    def end(self) -> None:
        step, self._step = self._step, None
        cached, self._cached = self._cached, False
        if step is not None:
            self._watcher.done(step, cached)

    def fail(self, message: str) -> None:
        step, self._step = self._step, None
        if step is not None:
            self._watcher.failed(step, message)


def _context(request: BuildRequest) -> Readable | None:
    """What is sent; None if the server fetches it."""
    if request.stream is not None:
        return request.stream
    if addresses.is_remote(request.context):
        if request.text is not None:
            raise InvalidParameter("a Dockerfile beside a context that the server fetches cannot be had over the API")
        return None
    if not request.context:
        if request.text is None:
            raise InvalidParameter("a build needs a context or a Dockerfile")
        return Pieces([request.text.encode("utf-8", "surrogateescape")])
    dockerfile = request.dockerfile
    if dockerfile and request.text is None:
        inside = os.path.relpath(os.path.realpath(dockerfile), os.path.realpath(request.context))
        if inside.startswith("../"):
            return Pieces(context.pack(request.context, "Dockerfile", _read(dockerfile)))
        dockerfile = inside
    return Pieces(context.pack(request.context, dockerfile or "Dockerfile", request.text))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as e:
        raise InvalidParameter(f"open {path}: {(e.strerror or str(e)).lower()}") from None


def _query(request: BuildRequest) -> dict[str, Any]:
    query: dict[str, Any] = {
        "remote": request.context if request.stream is None and addresses.is_remote(request.context) else None,
        "dockerfile": _dockerfile(request),
        "t": list(request.tags),
        "buildargs": _object(request.arguments),
        "labels": _object(request.labels),
        "target": request.target,
        "platform": request.platform,
        "nocache": not request.use_cache,
        "pull": request.pull,
        "version": "1",
    }
    for name, value in request.host:
        if name not in _HOST:
            raise InvalidParameter(f"{name} of a build cannot be had over the API")
        query[_HOST[name]] = jsontext.dumps(list(value)).decode("ascii") if name == "Ulimits" else value
    return query


def _dockerfile(request: BuildRequest) -> str:
    """Its path in what is sent."""
    path = request.dockerfile
    if not path or request.stream is not None or not request.context or addresses.is_remote(request.context):
        return path
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(request.context))
    return context.DOCKERFILE if inside.startswith("../") else inside


def _object(pairs: Sequence[tuple[str, str]]) -> str | None:
    return jsontext.dumps(dict(pairs)).decode("ascii") if pairs else None
