"""Volumes: made, found, listed, removed, pruned; and what the making and the end of a container does to them.

Which volumes are in use follows from the containers' records. Deletion and use exclude each other by the volumes'
lock: who makes a container holds it shared from the look at a volume until the record that names it is written.
"""

from __future__ import annotations

from sampan.engine.failures import told
from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError
from sampan.kernel import clock
from sampan.store.volumes import ANONYMOUS, VolumeRecord, check_name, damaged, no_such_volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.kernel.files import FileLock

    class Store(Protocol):
        def data(self, name: str) -> str: ...
        def find(self, name: str) -> VolumeRecord | None: ...
        def list(self) -> list[VolumeRecord]: ...
        def add(self, record: VolumeRecord, durable: bool = ...) -> bool: ...
        def withdraw(self, name: str) -> str: ...
        def delete(self, aside: str) -> None: ...
        def space(self, name: str) -> int: ...
        def collect_garbage(self) -> None: ...

    class Lock(Protocol):
        def shared(self) -> FileLock: ...
        def exclusive(self) -> FileLock: ...

    class Users(Protocol):
        def all(self) -> dict[str, list[str]]: ...
        def require_readable(self) -> None: ...

    class Mounts(Protocol):
        def mount(self, volume: VolumeRecord) -> bool: ...
        def release(self, names: Iterable[str]) -> None: ...
        def release_unused(self) -> None: ...
        def unmount(self, name: str) -> None: ...
        def visit(self, volume: VolumeRecord) -> Any: ...

    class Announcer(Protocol):
        def emit(self, kind: str, action: str, identifier: str, attributes: Mapping[str, str] = ...) -> None: ...
        def pruned(self, kind: str, reclaimed: int) -> None: ...

    Filters = Mapping[str, str | bool | Sequence[str]]


LOCAL = "local"


class Volume:
    """A volume of an engine, as the library hands it out. May be used long after somebody else has removed it (NotFound)."""

    __slots__ = ("_record", "_volumes")

    def __init__(self, volumes: Volumes, record: VolumeRecord) -> None:
        self._volumes = volumes
        self._record = record

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def id(self) -> str:
        """Its name: a volume has no other id."""
        return self._record.name

    @property
    def path(self) -> str:
        """The directory on the host that is mounted into containers."""
        return self._record.path

    @property
    def driver(self) -> str:
        return self._record.driver

    @property
    def options(self) -> dict[str, str]:
        return dict(self._record.options)

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._record.labels)

    @property
    def broken(self) -> str:
        """Why it cannot be used, "" for a good one."""
        return self._record.broken

    @property
    def attrs(self) -> dict[str, Any]:
        """What `inspect` gave when the volume was looked up."""
        return shown(self._record)

    def __repr__(self) -> str:
        return f"<Volume {self.name}>"

    def inspect(self) -> dict[str, Any]:
        """`GET /volumes/{name}`. Raises NotFound, System if it is damaged."""
        self._record = self._volumes.record(self.name)
        return shown(self._record)

    def remove(self, force: bool = False) -> None:
        """Remove it with its content. Raises Conflict if a container uses it, NotFound (not with `force`)."""
        self._volumes.remove(self.name, force)


class Volumes:
    """`engine.volumes`."""

    def __init__(self, store: Store, lock: Lock, users: Users, mounts: Mounts, events: Announcer) -> None:
        self._store = store
        self._lock = lock
        self._users = users
        self._mounts = mounts
        self._events = events

    # The library's verbs

    @told
    def create(
        self,
        name: str = "",
        driver: str = LOCAL,
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or give the one that has this name already, whatever its options are.

        Raises InvalidParameter (the name, the options), NotFound (the driver), in Docker's words.
        """
        self._tidy()
        with self.hold():
            return Volume(self, self.ensure(name, driver, driver_opts or {}, labels or {}))

    @told
    def get(self, name: str) -> Volume:
        """The volume of that name. Raises NotFound, System if it is damaged."""
        return Volume(self, self.record(name))

    @told
    def list(self, filters: Filters | None = None) -> list[Volume]:
        """All volumes by name; `filters` as `GET /volumes` takes them: dangling, driver, label, name."""
        from sampan.engine.volumefilters import LISTED, VolumeFilter

        wanted = VolumeFilter(filters or {}, LISTED)
        self._tidy()
        users = self._users.all() if wanted.dangling is not None else {}
        records = self._store.list()
        return [Volume(self, record) for record in records if wanted.matches(record, bool(users.get(record.name)))]

    @told
    def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume with its content. With `force` also one that is damaged, and none is no error.

        Raises NotFound, Conflict (a container uses it, running or not: also with `force`).
        """
        with self._lock.exclusive():
            record = self._store.find(name)
            if record is None:
                if force:
                    return
                raise no_such_volume(name)
            users = self._users.all().get(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{' '.join(sorted(users))}]")
            if record.broken and not force:
                raise damaged(record)
            aside = self._withdraw(name)
        # Without the lock: nobody finds it any more, and there may be a hundred thousand files in it.
        self._delete(aside)
        self._tidy()

    @told
    def prune(
        self, filters: Filters | None = None, dry_run: bool = False, without: Collection[str] = ()
    ) -> dict[str, Any]:
        """Remove the anonymous volumes that no container uses, with the filter `all` the named ones too.

        What was deleted as `POST /volumes/prune` tells it: VolumesDeleted, SpaceReclaimed (bytes of the disk). `dry_run`:
        say what would be deleted, as if the containers with the ids `without` were gone, and delete nothing. Raises
        Conflict if a container's record cannot be read, for nobody knows what it uses.
        """
        from sampan.engine.volumefilters import PRUNED, VolumeFilter

        wanted = VolumeFilter(filters or {}, PRUNED)
        deleted, freed = [], 0
        self._tidy()
        for record in self._store.list():
            if record.broken or not (record.anonymous or wanted.all) or not wanted.matches(record, used=False):
                continue
            size = self._would_prune(record, without) if dry_run else self._prune_one(record)
            if size is not None:
                deleted.append(record.name)
                freed += size
        if not dry_run:
            self._events.pruned("volume", freed)
        return {"VolumesDeleted": deleted, "SpaceReclaimed": freed}

    def _prune_one(self, record: VolumeRecord) -> int | None:
        """Remove a volume unless it is used; the bytes that were given back, None if it stays."""
        with self._lock.exclusive():
            self._users.require_readable()
            if self._users.all().get(record.name):
                return None
            # After this its content is its own, and not that of what is mounted there.
            self._mounts.unmount(record.name)
            size = self._store.space(record.name)
            aside = self._store.withdraw(record.name)
            if aside:
                self._announce("destroy", record.name)
        self._delete(aside)
        return size if aside else None

    def _would_prune(self, record: VolumeRecord, without: Collection[str]) -> int | None:
        """The bytes that `_prune_one` would give back, None if the volume would stay."""
        self._users.require_readable()
        used = set(self._users.all().get(record.name, ())) - set(without)
        return None if used else self._store.space(record.name)

    def record(self, name: str) -> VolumeRecord:
        """The volume of that name. Raises NotFound, System if it is damaged."""
        found = self._store.find(name)
        if found is None:
            raise no_such_volume(name)
        if found.broken:
            raise damaged(found)
        return found

    # For the making and the end of containers

    def hold(self) -> FileLock:
        """A context manager under which no volume is deleted: from `ensure` until the record that names it is written."""
        return self._lock.shared()

    def ensure(
        self,
        name: str,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        made_for: str = "",
        durable: bool = True,
    ) -> VolumeRecord:
        """The volume of that name, made if there is none; under `hold()`. An empty name makes an anonymous one.

        `made_for` is the container that is being made, so that its anonymous volumes are found again if it never is. Without
        `durable` a new volume may be lost when the machine goes down, as the container may that it is made for.
        """
        labels, options = dict(labels or {}), dict(options or {})
        if not name:
            from sampan.store.record import new_id

            name, labels = new_id(), {**labels, ANONYMOUS: ""}
        try:
            if driver not in ("", LOCAL):
                raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
            check_name(name)
            found = self._store.find(name)
            if found is None:
                found = self._make(name, options, labels, made_for, durable)
        except (InvalidParameter, NotFound) as e:
            raise e.within(f"create {name}") from None
        if found.broken:
            raise damaged(found)
        return found

    def _make(
        self,
        name: str,
        options: dict[str, str],
        labels: dict[str, str],
        made_for: str,
        durable: bool,
    ) -> VolumeRecord:
        if options:
            from sampan.engine.volumeoptions import check

            check(options)
        record = VolumeRecord(
            name=name,
            path=self._store.data(name),
            options=options,
            labels=labels,
            created=clock.now(),
            made_for=made_for if ANONYMOUS in labels else "",
        )
        if self._store.add(record, durable):
            self._announce("create", name)
            return record
        # Another process was faster: it is theirs.
        return self._store.find(name) or record

    def remove_anonymous(self, names: Iterable[str]) -> None:
        """Remove those of these volumes that no container uses: `rm -v`. Not under `hold()`. Idempotent."""
        for name in names:
            with self._lock.exclusive():
                if self._store.find(name) is None or self._users.all().get(name):
                    continue
                aside = self._withdraw(name)
            self._delete(aside)

    def remove_made_for(self, container_id: str) -> None:
        """Remove the anonymous volumes of a container that never came to be. Not under `hold()`. Idempotent."""
        self.remove_anonymous([r.name for r in self._store.list() if r.made_for == container_id])

    def mount(self, name: str) -> bool:
        """Mount a volume on its `_data` if its driver options say so; whether they do.

        To be called when its user can be seen to be starting.

        Raises NotFound, System in Docker's words.
        """
        return self._mounts.mount(self.record(name))

    def release(self, names: Iterable[str]) -> None:
        """Unmount those of these volumes that no running container uses any more. Idempotent."""
        self._mounts.release(names)

    def release_unused(self) -> None:
        """Unmount everything that no running container uses: what killed commands left."""
        self._mounts.release_unused()

    def visit(self, volume: VolumeRecord) -> Any:
        """A context manager under which a volume is mounted without a container: for a copy into it."""
        return self._mounts.visit(volume)

    def collect_garbage(self) -> None:
        """Delete what killed commands left half made or half removed."""
        self._store.collect_garbage()

    # Within

    def _withdraw(self, name: str) -> str:
        # First: the deletion must not find somebody else's files below `_data`.
        self._mounts.unmount(name)
        aside = self._store.withdraw(name)
        if aside:
            self._announce("destroy", name)
        return aside

    def _announce(self, action: str, name: str) -> None:
        self._events.emit("volume", action, name, {"driver": LOCAL})

    def _delete(self, aside: str) -> None:
        if aside:
            self._store.delete(aside)

    def _tidy(self) -> None:
        """What a killed command left keeps nobody from his own work: it stays for the next."""
        for step in (self._mounts.release_unused, self._store.collect_garbage):
            _attempt(step)


def _attempt(step: Callable[[], None]) -> None:
    try:
        step()
    except (SampanError, OSError):
        pass  # the trace has the reason


def shown(record: VolumeRecord) -> dict[str, Any]:
    """`GET /volumes/{name}`."""
    return {
        "CreatedAt": _whole_seconds(record.created),
        "Driver": record.driver,
        "Labels": dict(sorted(record.labels.items())) or None,
        "Mountpoint": record.path,
        "Name": record.name,
        "Options": dict(sorted(record.options.items())) or None,
        "Scope": record.scope,
    }


def _whole_seconds(time: str) -> str:
    """An RFC 3339 time of ours without its fraction: Docker's volumes have none."""
    whole, dot, _ = time.partition(".")
    return f"{whole}Z" if dot else time
