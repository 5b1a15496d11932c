"""The containers of an engine: making, running, finding and listing them."""

from __future__ import annotations

from sampan.engine.container import Container
from sampan.engine.failures import told
from sampan.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from sampan.engine.container import Verbs
    from sampan.engine.containerfilters import Filters
    from sampan.engine.create import Step
    from sampan.engine.networkviews import Connections
    from sampan.engine.results import Created, RunResult
    from sampan.oci.mountpoint import MountPoint
    from sampan.runtime.handle import Attachment
    from sampan.store.record import Record
    from sampan.store.states import Observation

__all__ = ["Container", "Containers"]


class Containers:
    """`engine.containers`."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def create(
        self, image: str, command: str | Sequence[str] | None = None, *, name: str | None = None, **options: Any
    ) -> Container:
        """Make a container, without starting it. The options have docker-py's names; see `engine.options`.

        Raises NotFound (no such image), InvalidParameter, Conflict (the name is taken).
        """
        from sampan.engine.options import request

        return self.create_from(request(image, command, name, options))[0]

    @told
    def create_from(self, request: dict[str, Any], step: Step | None = None) -> tuple[Container, list[str]]:
        """Make the container of a body of Docker's `POST /containers/create`, with "Name" beside it; and the warnings.

        `step`, here and below: what it is a step of, for builds.
        """
        created = self._verbs.creator.create(request, step)
        with created.lock:  # nobody starts it before its creation was told
            self._verbs.events.container(created.record, "create")
        return Container(self._verbs, created.record), list(created.warnings)

    @told
    def launch(
        self,
        request: dict[str, Any],
        attach: bool = False,
        created: Callable[[Container, list[str]], None] | None = None,
        *,
        environment: Sequence[str] = (),
        mounts: Sequence[MountPoint] = (),
        step: Step | None = None,
    ) -> tuple[Container, Attachment | None]:
        """Make a container and start it: faster than one after the other, for its shim comes up meanwhile.

        `created` is called with the container and the warnings before it is started. A container whose start fails
        stays (unless AutoRemove is set), as with `docker run`. `environment` (NAME=value) and
        `mounts` are for this start alone: no record has them.
        """
        # First of all: what is imported, checked and written from here on costs no time while an interpreter comes up.
        launch = self._verbs.launcher.open()
        try:
            made = self._verbs.creator.create(request, step)
            try:
                container = Container(self._verbs, made.record)
                self._verbs.events.container(made.record, "create")
                if created is not None:
                    created(container, list(made.warnings))
            except BaseException:
                # An interrupt, or a caller who cannot take it: nobody else will ever start it, so `--rm` ends it here.
                with made.lock:
                    if made.record.auto_remove:
                        self._verbs.settler.remove_locked(made.record, made.lock, volumes=True)
                raise
        except BaseException:
            launch.abandon()
            raise
        record = made.record
        if environment or mounts:
            config = {**record.config, "Env": [*record.config["Env"], *environment]}
            record = record.replace(config=config, mounts=(*record.mounts, *mounts))
        return container, self._verbs.starter.start(record, attach, launch, made.lock)

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
        """Run a command in a new container to its end; what it wrote and its exit code.

        The container is removed afterwards unless `remove` is False. `check` makes another exit code than 0 raise
        RunFailed. Raises StartFailed, and what `create` raises.
        """
        from sampan.engine.options import request
        from sampan.engine.results import attached, result_of

        body = request(image, command, name, {"auto_remove": remove, **options}) | attached(input is not None)
        made: list[Container] = []

        def launch(created: Created) -> tuple[Container, Attachment | None]:
            container, attachment = self.launch(body, True, created)
            made.append(container)
            return container, attachment

        result = result_of(launch, input)
        made[0].settle()
        return result.checked(check)

    @told
    def stats(
        self,
        containers: Sequence[Container] | None = None,
        *,
        all: bool = False,
        before: Sequence[Mapping[str, Any]] = (),
    ) -> builtins.list[dict[str, Any]]:
        """`Container.stats(one_shot=True)` of many at once: of these (but for those that were removed), else of all that run.

        With `all` of every container, the newest first. With the documents of an earlier call as `before`, `precpu_stats`
        is what their `cpu_stats` was.
        """
        earlier = {document["id"]: document for document in before}
        if containers is None:
            return self._verbs.stats.listing(all, earlier)
        return self._verbs.stats.of([container.id for container in containers], earlier)

    def boot(self) -> Iterator[tuple[Container, BaseException | None]]:
        """Start again, after the machine has come up, what should run by its restart policy: see `engine.boot`.

        Each that was started, or could not be and why, as soon as that is known.
        """
        return self._verbs.booter.boot()

    @told
    def prune(self, filters: Mapping[str, str | Sequence[str]] | None = None, dry_run: bool = False) -> dict[str, Any]:
        """Remove all containers that do not run: {"ContainersDeleted": [ids], "SpaceReclaimed": bytes of the disk}.

        `filters`: until, label, label!, as `container prune --filter` has them. `dry_run`: say so and remove nothing.
        Raises InvalidParameter.
        """
        return self._verbs.pruner.containers(filters, dry_run)

    @told
    def get(self, reference: str) -> Container:
        """The container with that id, name, or unique beginning of an id. Raises NotFound, InvalidParameter."""
        return Container(self._verbs, self._verbs.records.get(reference), reference)

    @told
    def of_exec(self, exec_id: str) -> Container:
        """The container that has an exec of this id, which begins as the container's. Raises NotFound."""
        from sampan.engine.exec import EXEC_ID_PREFIX

        try:
            container = self.get(exec_id[:EXEC_ID_PREFIX]) if len(exec_id) == 64 and exec_id.isalnum() else None
        except NotFound:
            container = None
        if container is None or not container.id.startswith(exec_id[:EXEC_ID_PREFIX]):
            raise NotFound(f"No such exec instance: {exec_id}")
        return container

    @told
    def list(self, all: bool = False, filters: Filters | None = None) -> list[Container]:
        """The containers that run, newest first; with `all` every one; `filters` as `GET /containers/json` takes them.

        What killed commands and monitors left is put right on the way. Raises InvalidParameter for what is no filter.
        """
        return [Container(self._verbs, look.record) for look in self._looks(all, filters)]

    @told
    def summaries(
        self, all: bool = False, filters: Filters | None = None, *, last: int = 0, size: bool = False
    ) -> builtins.list[dict[str, Any]]:
        """`GET /containers/json`: what `summary()` of each of `list()` says, but each is looked at once.

        `last`: of all containers only the newest ones, that many (0: no limit). One that goes meanwhile is left out.
        Raises InvalidParameter.
        """
        looks = self._looks(all or last > 0, filters)
        found = []
        for look in looks[:last] if last > 0 else looks:
            try:
                found.append(look.summary(size))
            except NotFound:
                continue
        return found

    def _looks(self, all: bool, filters: Filters | None) -> builtins.list[Look]:
        """The containers that a listing shows, the newest first."""
        wanted = None
        if filters:
            from sampan.engine.containerfilters import ContainerFilter  # in here: most listings show everything

            wanted = ContainerFilter(filters)
            all = all or wanted.looks_at_stopped
        every = self._every()
        shown = every if all else [look for look in every if look.seen.running]
        return shown if wanted is None else wanted.select(shown, every, self._verbs.images)

    def _every(self) -> builtins.list[Look]:
        verbs = self._verbs
        verbs.janitor.sweep()
        connections = verbs.inspector.connections()
        found = []
        for container_id in verbs.records.ids():
            record = verbs.records.try_read(container_id)
            seen = verbs.janitor.observe(record) if record is not None else None
            if record is not None and seen is not None:
                found.append(Look(verbs, record, seen, connections))
        found.sort(key=lambda look: look.record.created, reverse=True)
        return found


class Look:
    """A container as one listing found it. It is not looked at again: 500 containers are two thousand files as it is."""

    __slots__ = ("_connections", "_verbs", "record", "seen")

    def __init__(self, verbs: Verbs, record: Record, seen: Observation, connections: Connections) -> None:
        self._verbs = verbs
        self._connections = connections
        self.record = record
        self.seen = seen

    def inspect(self) -> dict[str, Any]:
        """`GET /containers/{id}/json`. Raises NotFound if the container has gone meanwhile."""
        return self._verbs.inspector.inspect(self.record, self.seen, connections=self._connections)

    def summary(self, size: bool = False) -> dict[str, Any]:
        """An item of `GET /containers/json`. Raises NotFound if the container has gone meanwhile."""
        return self._verbs.inspector.summary(self.record, self.seen, size, self._connections)
