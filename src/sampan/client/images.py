"""`engine.images` over the API."""

from __future__ import annotations

import base64

from sampan import jsontext
from sampan.client.names import platform as platform_object
from sampan.client.names import split
from sampan.client.session import filters as encoded
from sampan.engine.loading import Loaded
from sampan.errors import System
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.client.registries import RemoteRegistries
    from sampan.client.session import Readable, Session
    from sampan.engine.pulling import Pulled
    from sampan.engine.pushing import Pushed

    Filters = Mapping[str, str | bool | Sequence[str]]
    Report = Callable[[str, str, int, int], None]

    class Sink(Protocol):
        def write(self, data: bytes, /) -> object: ...


_TAR = {"Content-Type": "application/x-tar"}
_DIGEST, _NEWER = "Digest: ", "Status: Downloaded newer image"
_LOADED, _LOADED_ID = "Loaded image: ", "Loaded image ID: "


class RemoteImages:
    """The images of a server."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # looking

    def inspect(self, name: str, platform: str = "") -> dict[str, Any]:
        """`GET /images/{name}/json`. Raises NotFound."""
        found: dict[str, Any] = self._session.json("GET", f"/images/{name}/json", _for(platform))
        return found

    def list(
        self,
        name: str = "",
        dangling: bool | None = None,
        filters: Filters | None = None,
        all: bool = False,
        shared_size: bool = False,
    ) -> builtins.list[dict[str, Any]]:
        """The images as `GET /images/json` lists them, newest first. `name` is a reference with wildcards."""
        wanted = dict(filters or {})
        if name:
            wanted["reference"] = name
        if dangling is not None:
            wanted["dangling"] = dangling
        query = {"filters": encoded(wanted), "all": all, "shared-size": shared_size}
        found: builtins.list[dict[str, Any]] = self._session.json("GET", "/images/json", query)
        return found

    def history(self, name: str, platform: str = "") -> Sequence[dict[str, Any]]:
        """How an image came about, newest step first. Raises NotFound."""
        found: Sequence[dict[str, Any]] = self._session.json("GET", f"/images/{name}/history", _for(platform))
        return found

    # names, and taking away

    def tag(self, source: str, target: str) -> None:
        """Give an image another name. Raises NotFound, InvalidParameter."""
        repository, tag = split(target)
        self._session.ask("POST", f"/images/{source}/tag", {"repo": repository, "tag": tag})

    def remove(
        self, name: str, force: bool = False, prune: bool = True, only: Sequence[str] = ()
    ) -> builtins.list[dict[str, str]]:
        """Take a name away, and the image with its last one. Raises NotFound, Conflict."""
        query = {"force": force, "noprune": not prune, "platforms": [_json(one) for one in only]}
        found: builtins.list[dict[str, str]] = self._session.json("DELETE", f"/images/{name}", query)
        return found

    def prune(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove images that no container uses: {"ImagesDeleted": [...], "SpaceReclaimed": bytes}."""
        done = self._session.json("POST", "/images/prune", {"filters": encoded(filters)})
        return {**done, "ImagesDeleted": done["ImagesDeleted"] or []}

    # coming and going

    def pull(
        self,
        name: str,
        platform: str = "",
        report: Report | None = None,
        all_tags: bool = False,
        registries: RemoteRegistries | None = None,
    ) -> Sequence[Pulled]:
        """Have the server bring an image in from its registry; with `all_tags` every tag of the repository.

        `registries`: as whom (`registries.as_user`). `report(layer, status, done, total)` is told what happens. Raises NotFound,
        Unavailable, InvalidParameter.
        """
        from sampan.engine.pulling import Pulled

        repository, tag = split(name)
        found = reference.parse(name)
        query = {
            "fromImage": repository,
            "tag": "" if all_tags or found.digest else tag or "latest",
            "platform": platform,
        }
        digests, changed = [], False
        for line in self._progress("/images/create", query, None, report, _login(registries, name)):
            status = str(line.get("status", ""))
            if status.startswith(_DIGEST):
                digests.append(status.removeprefix(_DIGEST))
            changed = changed or status.startswith(_NEWER)
        if not all_tags:
            shown = self.inspect(name)
            return [Pulled(str(found.canonical()), shown["Id"], digests[-1] if digests else "", changed)]
        return [
            Pulled(str(reference.parse(one).canonical()), shown["Id"], _digest(shown), changed)
            for shown in self.list(found.familiar_name)
            for one in shown["RepoTags"] or ()
        ]

    def push(
        self,
        name: str,
        platform: str = "",
        report: Report | None = None,
        all_tags: bool = False,
        done: Callable[[Pushed], None] | None = None,
        registries: RemoteRegistries | None = None,
    ) -> Sequence[Pushed]:
        """Have the server send an image to the registry that its name says; `done` is told of each tag. Else as `pull`."""
        from sampan.engine.pushing import Pushed

        repository, tag = split(name)
        query = {"tag": "" if all_tags else tag or "latest", **_for(platform)}
        sent = []
        path = f"/images/{repository}/push"
        # A push without X-Registry-Auth is none to Docker's servers.
        headers = _login(registries, name) or {"X-Registry-Auth": "e30="}
        for line in self._progress(path, query, None, report, headers):
            aux = line.get("aux") or {}
            if "Digest" in aux:
                pushed = Pushed(aux["Tag"], aux["Digest"], int(aux["Size"]))
                sent.append(pushed)
                if done is not None:
                    done(pushed)
        return sent

    def import_(
        self, stream: Readable, name: str = "", changes: Sequence[str] = (), message: str = "", platform: str = ""
    ) -> str:
        """Make an image of one layer out of a tar archive, plain or compressed; return its id."""
        repository, tag = split(name)
        query = {
            "fromSrc": "-",
            "repo": repository,
            "tag": tag,
            "changes": list(changes),
            "message": message,
            "platform": platform,
        }
        last = ""
        for line in self._progress("/images/create", query, stream, None, _TAR):
            last = str(line.get("status", last))
        return last

    def load(
        self, stream: Readable, platform: str = "", progress: Callable[[str, int, int], None] | None = None
    ) -> Sequence[Loaded]:
        """Add the images of an archive as `docker save` and the OCI image layout have it. `progress` is told of each layer."""
        query = {"quiet": "0" if progress else "1", **_for(platform)}
        loaded: list[Loaded] = []
        replaced = ""

        def report(layer: str, status: str, done: int, total: int) -> None:
            if progress is not None and total:
                progress(f"{layer}: {status}", done, total)

        for line in self._progress("/images/load", query, stream, report, _TAR):
            text = str(line.get("stream", "")).rstrip("\n")
            if "renaming the old one with ID " in text:
                replaced = text.partition("renaming the old one with ID ")[2].split(" ")[0]
            elif text.startswith(_LOADED):
                name = text.removeprefix(_LOADED)
                loaded.append(Loaded(name, self.inspect(name)["Id"], replaced))
                replaced = ""
            elif text.startswith(_LOADED_ID):
                loaded.append(Loaded("", text.removeprefix(_LOADED_ID)))
        return loaded

    def save(self, names: Sequence[str], stream: Sink, platform: str = "") -> None:
        """Write images as one archive, which is a Docker archive and an OCI layout. Raises NotFound before anything is written."""
        query = {"names": list(names), **_for(platform)}
        with self._session.stream("GET", "/images/get", query) as answer:
            for piece in answer:
                stream.write(piece)

    def _progress(
        self,
        path: str,
        query: Mapping[str, Any],
        body: Readable | None,
        report: Report | None,
        headers: Mapping[str, str],
    ) -> Iterator[dict[str, Any]]:
        """The objects of a stream, of which `report` is told. Raises what it ends with."""
        with self._session.stream("POST", path, query, body, headers) as stream:
            for line in stream.documents():
                if report is not None and "status" in line:
                    detail = line.get("progressDetail") or {}
                    report(
                        str(line.get("id", "")),
                        line["status"],
                        int(detail.get("current", 0)),
                        int(detail.get("total", 0)),
                    )
                yield line


def _for(platform: str) -> dict[str, str]:
    return {"platform": _json(platform)} if platform else {}


def _json(platform: str) -> str:
    return jsontext.dumps(platform_object(platform)).decode("ascii")


def _login(registries: RemoteRegistries | None, name: str) -> dict[str, str]:
    """Who we are to the image's registry, as the header has it."""
    document = registries.account(reference.parse(name).domain) if registries is not None else None
    if document is None:
        return {}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(jsontext.dumps(document)).decode("ascii")}


def _digest(shown: Mapping[str, Any]) -> str:
    names = shown.get("RepoDigests") or ()
    if not names:
        raise System(f"image {shown['Id']} was pulled and has no digest")
    return str(names[0].partition("@")[2])
