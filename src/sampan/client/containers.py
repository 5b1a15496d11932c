"""`engine.containers` over the API."""

from __future__ import annotations

from sampan.client.container import RemoteContainer
from sampan.client.session import filters as encoded
from sampan.engine.results import attached, result_of
from sampan.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sampan.client.attachment import RemoteAttachment
    from sampan.client.session import Session
    from sampan.engine.results import RunResult

    Filters = Mapping[str, str | bool | Sequence[str]]


class RemoteContainers:
    """Making, running, finding and listing the containers of a server."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self, image: str, command: str | Sequence[str] | None = None, *, name: str | None = None, **options: Any
    ) -> RemoteContainer:
        """Make a container, without starting it. The options have docker-py's names; see `engine.options`.

        Raises NotFound (no such image), InvalidParameter, Conflict (the name is taken).
        """
        from sampan.engine.options import request

        return self.create_from(request(image, command, name, options))[0]

    def create_from(self, request: dict[str, Any]) -> tuple[RemoteContainer, list[str]]:
        """Make the container of a body of `POST /containers/create`, with "Name" beside it; and the warnings."""
        body = {member: value for member, value in request.items() if member not in ("Name", "Platform")}
        query = {"name": request.get("Name"), "platform": request.get("Platform")}
        made = self._session.json("POST", "/containers/create", query, body)
        name = request.get("Name") or ""
        container = RemoteContainer(self._session, made["Id"], name.removeprefix("/"))
        if not name:
            container.inspect()  # it has got a name
        return container, list(made["Warnings"] or ())

    def launch(
        self,
        request: dict[str, Any],
        attach: bool = False,
        created: Callable[[RemoteContainer, list[str]], None] | None = None,
    ) -> tuple[RemoteContainer, RemoteAttachment | None]:
        """Make a container and start it. `created` is called with the container and the warnings before it is started."""
        container, warnings = self.create_from(request)
        try:
            if created is not None:
                created(container, warnings)
        except BaseException:
            if (request.get("HostConfig") or {}).get("AutoRemove"):
                container.remove(force=True)
            raise
        return container, container.start(attach)

    def run(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        *,
        name: str | None = None,
        input: bytes | str | None = None,
        check: bool = False,
        remove: bool = True,
        **options: Any,
    ) -> RunResult:
        """Run a command in a new container to its end; what it wrote and its exit code. See the engine's own."""
        from sampan.engine.options import request

        body = request(image, command, name, {"auto_remove": remove, **options}) | attached(input is not None)
        return result_of(lambda created: self.launch(body, True, created), input).checked(check)

    def get(self, reference: str) -> RemoteContainer:
        """The container with that id, name, or unique beginning of an id. Raises NotFound, InvalidParameter."""
        shown = self._session.json("GET", f"/containers/{reference.removeprefix('/')}/json")
        return RemoteContainer(self._session, shown["Id"], shown["Name"].removeprefix("/"))

    def list(self, all: bool = False, filters: Filters | None = None) -> list[RemoteContainer]:
        """The containers that run, newest first; with `all` every one. Raises InvalidParameter for what is no filter."""
        return [
            RemoteContainer(self._session, one["Id"], one["Names"][0].removeprefix("/"))
            for one in self.summaries(all, filters)
        ]

    def summaries(
        self, all: bool = False, filters: Filters | None = None, *, last: int = 0, size: bool = False
    ) -> builtins.list[dict[str, Any]]:
        """`GET /containers/json`. `last`: of all containers only the newest ones, that many (0: no limit)."""
        query = {"all": all, "limit": last or None, "size": size, "filters": encoded(filters)}
        found: builtins.list[dict[str, Any]] = self._session.json("GET", "/containers/json", query)
        return found

    def stats(
        self, containers: Sequence[RemoteContainer] | None = None, *, before: Sequence[Mapping[str, Any]] = ()
    ) -> builtins.list[dict[str, Any]]:
        """`Container.stats(one_shot=True)` of these (but for those that were removed), else of all that run.

        With the documents of an earlier call as `before`, `precpu_stats` is what their `cpu_stats` was.
        """
        earlier = {document["id"]: document for document in before}
        found = []
        for container in self.list() if containers is None else containers:
            try:
                document = container.stats(one_shot=True)
            except NotFound:
                continue
            last = earlier.get(document["id"])
            found.append({**document, "precpu_stats": last["cpu_stats"], "preread": last["read"]} if last else document)
        return found

    def prune(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove all containers that do not run: {"ContainersDeleted": [ids], "SpaceReclaimed": bytes of the disk}."""
        done = self._session.json("POST", "/containers/prune", {"filters": encoded(filters)})
        return {**done, "ContainersDeleted": done["ContainersDeleted"] or []}
