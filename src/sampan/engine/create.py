"""Making a container: the request checked, the image found, the parts laid out, one rename at the end.

Nothing runs yet. What is on disk before the rename is under `.creating-ID`, where nobody sees it; a command that
dies on the way leaves it there for the next one (`engine.reconcile`).
"""

from __future__ import annotations

import os

from sampan.engine import etcfiles, fields, initprogram, resources, validate
from sampan.errors import InvalidParameter
from sampan.kernel import clock
from sampan.oci.network import is_joined
from sampan.oci.process import merge, resolve_argv
from sampan.store.record import SCHEMA, Record, check_name, new_id
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from sampan.engine.config import Config
    from sampan.engine.mounts import Mounts
    from sampan.kernel.cgroup import CgroupDriver
    from sampan.kernel.files import FileLock
    from sampan.oci.network import Attachment, Network
    from sampan.steps.trace import Trace
    from sampan.store.locks import RecordLock
    from sampan.store.records import Creation
    from sampan.store.snapshots import RootMount

    class Image(Protocol):
        @property
        def id(self) -> str: ...
        @property
        def config(self) -> dict[str, Any]: ...
        @property
        def layers(self) -> Sequence[str]: ...

    class Images(Protocol):
        def hold(self) -> FileLock: ...
        def resolve(self, reference: str, platform: str = ...) -> Image: ...
        def ensure_unpacked(self, image: Any) -> tuple[str, ...]: ...

    class Snapshots(Protocol):
        name: str

        def create(self, record: Record) -> None: ...
        def root(self, record: Record) -> RootMount: ...
        def remove(self, container_id: str) -> None: ...

    class Records(Protocol):
        def get(self, reference: str) -> Record: ...
        def begin(self, container_id: str, name: str, durable: bool) -> Creation: ...
        def finish_removal(self, paths: Any) -> None: ...
        def release_name(self, name: str, container_id: str) -> None: ...

    class Networks(Protocol):
        def find(self, reference: str) -> Network: ...

    class Filters(Protocol):
        def of_container(self, host: dict[str, Any], capabilities: Sequence[str]) -> object: ...

    class Janitor(Protocol):
        def finish_leftovers(self) -> None: ...


class Created(Struct):
    """A new container, its record lock still held, and Docker's warnings about the request."""

    record: Record
    lock: RecordLock
    warnings: tuple[str, ...]


class Step(Struct):
    """What a container is a step of. image: what it stands on, all of it unpacked. build: as of `Record.build`."""

    image: Image
    build: str


class Creator:
    """`POST /containers/create`."""

    def __init__(
        self,
        records: Records,
        images: Images,
        snapshots: Snapshots,
        cgroups: CgroupDriver,
        janitor: Janitor,
        mounts: Callable[[], Mounts],
        filters: Callable[[], Filters],
        networks: Callable[[], Networks],
        settings: Config,
        trace: Trace,
    ) -> None:
        """`mounts` gives what makes mount points, `filters` seccomp filters, `networks` networks, for requests with some."""
        self._records = records
        self._images = images
        self._snapshots = snapshots
        self._cgroups = cgroups
        self._janitor = janitor
        self._mounts = mounts
        self._filters = filters
        self._networks = networks
        self._settings = settings
        self._trace = trace

    def create(self, request: dict[str, Any], step: Step | None = None) -> Created:
        """Make the container that the body of Docker's `POST /containers/create` (with "Name" beside it) describes.

        Raises InvalidParameter, NotFound (no such image), Conflict (the name is taken) in Docker's words; nothing is
        left behind then. `step`: it belongs to a build, and stands on what that says instead of "Image".
        """
        name = check_name(request["Name"]) if request.get("Name") else ""
        config, host, warnings = self._checked(request)
        endpoints = validate.endpoints(request, host["NetworkMode"])
        self._janitor.finish_leftovers()
        networks = self._attachments(host, endpoints)
        # Until the record is there, nothing says that the image's layers are in use.
        with self._images.hold():
            image = step.image if step else self._images.resolve(config["Image"], request.get("Platform") or "")
            config = self._merged(config, image.config)
            resolve_argv(config)
            if step is None:
                self._images.ensure_unpacked(image)
            record, lock = self._lay_out(name, image, config, host, networks, step)
        return Created(record, lock, tuple(warnings))

    def _attachments(self, host: dict[str, Any], endpoints: dict[str, Any]) -> tuple[Attachment, ...]:
        """The networks that it is to join; their names, and not ids or beginnings of ids, in HostConfig.NetworkMode too."""
        if not is_joined(host["NetworkMode"]):
            return ()
        from sampan.engine import attachments

        found = attachments.resolve(
            host["NetworkMode"], endpoints, host["Links"] or (), self._networks(), self._records
        )
        host["NetworkMode"] = found[0].network
        return found

    def _lay_out(
        self,
        name: str,
        image: Image,
        config: dict[str, Any],
        host: dict[str, Any],
        networks: tuple[Attachment, ...],
        step: Step | None,
    ) -> tuple[Record, RecordLock]:
        container_id = new_id()
        self._name_host(config, host, container_id)
        path, *args = resolve_argv(config)
        uids, gids = _ids(host)
        creation = self._records.begin(container_id, name, durable=not (host["AutoRemove"] or step))
        try:
            record = Record(
                schema=SCHEMA,
                id=container_id,
                name=creation.name,
                created=clock.now(),
                image=image.id,
                image_ref=config["Image"],
                layers=tuple(image.layers),
                snapshotter=self._snapshots.name,
                path=path,
                args=tuple(args),
                uids=uids,
                gids=gids,
                config=config,
                host_config=host,
                networks=networks,
                build=step.build if step else "",
            )
            if (host["LogConfig"].get("Config") or {}).get("tag"):
                from sampan.engine import logoptions

                logoptions.check_tag(record)
            if _asks_for_mounts(config, host):
                return self._commit_with_mounts(creation, record)
            return self._commit(creation, record)
        except BaseException:
            self._undo(creation, container_id, _asks_for_mounts(config, host))
            raise

    def _commit(self, creation: Creation, record: Record) -> tuple[Record, RecordLock]:
        self._make_root(record)
        return record, creation.commit(record, etcfiles.make(record.config, record.host_config))

    def _commit_with_mounts(self, creation: Creation, record: Record) -> tuple[Record, RecordLock]:
        mounts = self._mounts()
        # Until the record is there, nothing says that its volumes are in use.
        with mounts.hold():
            resolved = mounts.resolve(record.id, record.config, record.host_config)
            record = record.replace(mounts=resolved.points)
            self._make_root(record)
            mounts.fill(resolved, self._snapshots.root(record))
            return record, creation.commit(record, etcfiles.make(record.config, record.host_config))

    def _make_root(self, record: Record) -> None:
        with self._trace.step("create writable layer", record.id):
            self._snapshots.create(record)

    def _checked(self, request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """Config and HostConfig of the request, complete and canonical, and Docker's warnings."""
        if not request.get("Image"):
            raise InvalidParameter("no image specified")
        config = fields.normalise_config(request)
        host = fields.normalise_host_config(request.get("HostConfig") or {})
        validate.check_config(config)
        validate.check_host_config(host, config)
        if _asks_for_mounts(config, host):
            self._mounts().check(config, host)
        if host["SecurityOpt"]:
            self._check_filter(host)
        warnings = validate.port_warnings(host) + resources.check(host, self._cgroups)
        self._resolve_joins(host)
        # Settled here once: the configuration may be another one when the container is started or killed.
        host["CgroupParent"] = host["CgroupParent"] or self._settings.cgroup_parent
        if host["Init"]:
            initprogram.find(self._settings.init_path)
        if not host["CgroupnsMode"]:
            # Docker's rule: private where the only hierarchy can be shown alone, the host's elsewhere.
            host["CgroupnsMode"] = "private" if self._cgroups.version == "v2" else "host"
        return config, host, warnings

    def _check_filter(self, host: dict[str, Any]) -> None:
        """Raises InvalidParameter for a seccomp profile of which no filter can be made: now, and not at every start."""
        from sampan.runtime.spec import granted_capabilities

        capabilities = granted_capabilities(host["CapAdd"] or [], host["CapDrop"] or [], host["Privileged"])
        self._filters().of_container(host, capabilities)

    def _resolve_joins(self, host: dict[str, Any]) -> None:
        """`container:NAME` becomes `container:ID`: the name may be given to another container later."""
        for field in ("NetworkMode", "PidMode", "IpcMode"):
            mode = host[field]
            if mode.startswith(validate.JOIN):
                host[field] = validate.JOIN + self._records.get(mode.removeprefix(validate.JOIN)).id

    def _merged(self, config: dict[str, Any], image_config: dict[str, Any]) -> dict[str, Any]:
        merged = merge(config, image_config)
        # The image's part has not been checked yet: it comes from anywhere.
        merged["WorkingDir"] = validate.clean_working_directory(merged["WorkingDir"])
        validate.check_environment(merged["Env"])
        # A bare NAME unsets the image's variable. It must not reach the container, nor take the host's value.
        merged["Env"] = [entry for entry in merged["Env"] or () if "=" in entry]
        return merged

    def _name_host(self, config: dict[str, Any], host: dict[str, Any], container_id: str) -> None:
        """The host name: the joined container's, the host's, the one asked for, the short id."""
        mode = host["NetworkMode"]
        if mode.startswith(validate.JOIN):
            other = self._records.get(mode.removeprefix(validate.JOIN)).config
            config["Hostname"], config["Domainname"] = other["Hostname"], other["Domainname"]
        elif not config["Hostname"]:
            shares = mode == "host" or host["UTSMode"] == "host"
            config["Hostname"] = os.uname().nodename if shares else container_id[:12]

    def _undo(self, creation: Creation, container_id: str, with_mounts: bool) -> None:
        """Take back a creation that failed in the middle. If this fails too (or is killed), the next command does it."""
        try:
            creation.hide()
            with self._trace.step("remove writable layer", container_id):
                self._snapshots.remove(container_id)
            if with_mounts:
                # Before the directory goes, by which the next command would know of its volumes.
                self._mounts().undo(container_id)
            self._records.release_name(creation.name, container_id)
            self._records.finish_removal(creation.paths)
        finally:
            creation.release()


def _ids(host: dict[str, Any]) -> tuple[Any, Any]:
    """The maps of its user namespace."""
    if host["UsernsMode"] in ("", "host"):
        return (), ()
    from sampan.engine import userns  # few containers have one of their own

    return userns.maps(host)


def _asks_for_mounts(config: dict[str, Any], host: dict[str, Any]) -> bool:
    return bool(config["Volumes"] or host["Binds"] or host["Mounts"] or host["VolumesFrom"])
