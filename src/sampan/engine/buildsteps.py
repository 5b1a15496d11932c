"""What a build does to files: each step makes a container, changes its files, and keeps the changes as a layer of a new image.

An image between two steps has no name and no configuration but its layers, so that nothing of the base's (volumes, entrypoint,
health check) has any effect on the next step. It is also what the cache leads to.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext

from sampan.engine.archive import Files
from sampan.engine.buildmounts import Prepared, Stubs
from sampan.engine.commit import as_oci
from sampan.errors import Damaged, NotFound, SampanError
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.oci.image import Descriptor
from sampan.runtime.handle import STDERR, STDOUT
from sampan.store.buildcache import key_of
from sampan.store.snapshots import EMPTY_LAYER
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    from sampan.engine.buildmounts import RunMounts
    from sampan.engine.containerroots import ContainerRoot, ContainerRoots
    from sampan.engine.containers import Container, Containers
    from sampan.engine.images import Content, Image, Lock
    from sampan.oci.image import Manifest
    from sampan.oci.platform import Platform
    from sampan.oci.reference import Reference
    from sampan.runtime.handle import Attachment
    from sampan.store.buildcache import BuildCache
    from sampan.store.ingest import Ingest
    from sampan.store.layers import LayerInfo
    from sampan.store.record import Record
    from sampan.store.records import Records
    from sampan.store.snapshots import RootMount

    class Snapshots(Protocol):
        def root(self, record: Record) -> RootMount: ...
        def commit(self, record: Record, sink: Ingest, reading: AbstractContextManager[object]) -> LayerInfo: ...
        def note(self, layer: LayerInfo) -> None: ...

    class Images(Protocol):
        def resolve(self, name: str, platform: str = ...) -> Image: ...
        def manifest(self, target: Descriptor, image_id: str) -> Manifest: ...
        def publish(
            self,
            config: bytes,
            layers: Sequence[Descriptor],
            name: Reference | None,
            parent: str = "",
            unpack: bool = ...,
        ) -> Image: ...
        def collect_now(self) -> None: ...


class FileSystem(Struct):
    """The files at one point of a build.

    image: the id of the image that has them, and nothing else. diff_ids, layers: its layers. created: when the newest one was made,
    RFC 3339. key: what they depend on, see `store.buildcache`. history: how they came about, oldest first.
    """

    image: str
    diff_ids: tuple[str, ...]
    layers: tuple[Descriptor, ...]
    created: str
    key: str
    platform: Platform
    history: tuple[Mapping[str, Any], ...] = ()


class RunFailed(SampanError):
    """A command of a build ended with another code than 0."""

    def __init__(self, command: Sequence[str], code: int) -> None:
        shown = " ".join(command)
        super().__init__(f'process "{shown}" did not complete successfully: exit code: {code}')
        self.code = code


class Steps:
    """Carries out steps, or finds in the cache what they came to."""

    def __init__(
        self,
        containers: Containers,
        records: Records,
        roots: ContainerRoots,
        snapshots: Snapshots,
        content: Content,
        lock: Lock,
        images: Images,
        cache: BuildCache,
    ) -> None:
        self._containers = containers
        self._records = records
        self._roots = roots
        self._snapshots = snapshots
        self._content = content
        self._lock = lock
        self._images = images
        self._cache = cache

    # Where a stage begins

    def scratch(self, created: str) -> FileSystem:
        """No files at all."""
        return self._start((), (), created, [], platforms.here(), "")

    def of_image(self, image: Image) -> FileSystem:
        """The files of an image. Raises `NotFound` if a layer of it is not in the store."""
        config = documents.parse_config(documents.dump(image.document))
        layers = tuple(as_oci(layer) for layer in self._images.manifest(image.target, image.id).layers)
        for layer in layers:
            if not self._content.exists(layer.digest):
                raise NotFound(f"image {image.id} is not complete: content {layer.digest} is not in the store")
        created = str(image.document.get("created") or "1970-01-01T00:00:00Z")
        return self._start(config.diff_ids, layers, created, config.history, config.platform, image.id)

    def _start(
        self,
        diff_ids: tuple[str, ...],
        layers: tuple[Descriptor, ...],
        created: str,
        history: Sequence[Mapping[str, Any]],
        platform: Platform,
        parent: str,
    ) -> FileSystem:
        """An image of nothing but files. It is the same one for whoever begins with the same files."""
        document = documents.make_config(platform, created, {}, diff_ids, history)
        with self._lock.shared():
            made = self._images.publish(document, layers, None, parent, unpack=False)
        chain = documents.chain_ids(diff_ids)
        key = key_of({"files": chain[-1] if chain else "", "platform": str(platform)})
        return FileSystem(made.id, diff_ids, layers, created, key, platform, tuple(history))

    # The cache

    def cached(self, before: FileSystem, key: str) -> FileSystem | None:
        """What a step made of `before` when it was done with the same key, None if that is not known (any more)."""
        image_id = self._cache.get(key)
        if not image_id:
            return None
        try:
            image = self._images.resolve(image_id)
            layers = tuple(self._images.manifest(image.target, image.id).layers)
            complete = all(self._content.exists(layer.digest) for layer in layers)
        except (NotFound, Damaged):
            complete = False
        if not complete:
            self._cache.forget(key)
            return None
        created, history = str(image.document["created"]), tuple(image.document["history"])
        return FileSystem(image.id, image.diff_ids, layers, created, key, before.platform, history)

    # Steps

    def run(
        self,
        before: FileSystem,
        key: str,
        request: dict[str, Any],
        command: Sequence[str],
        output: Callable[[bytes], None],
        created_by: Mapping[str, Any],
        mounts: RunMounts | None = None,
    ) -> FileSystem:
        """Run a command in a container. Raises `RunFailed`, and what starting a container raises; nothing is left behind."""
        made: list[Container] = []
        try:
            body = {**request, "Image": before.image, "AttachStdout": True, "AttachStderr": True}
            with mounts.ready() if mounts is not None else nullcontext(Prepared()) as prepared:
                body["HostConfig"] = {**body["HostConfig"], "Mounts": list(prepared.mounts)}
                stubs = self._stubs(before, prepared.targets)
                container, attachment = self._containers.launch(
                    body,
                    True,
                    lambda one, _: made.append(one),
                    environment=prepared.environment,
                    mounts=prepared.points,
                )
                assert attachment is not None
                code = _follow(attachment, output)
            if code:
                raise RunFailed(command, code)
            record = self._records.get(container.id)
            if stubs is not None:
                self._remove_stubs(stubs, record)
            return self._keep(before, key, record, created_by)
        finally:
            for one in made:
                _remove(one)

    def _stubs(self, before: FileSystem, targets: Sequence[str]) -> Stubs | None:
        if not targets:
            return None
        with self.reading(before) as root:
            return Stubs(root.fd, targets)

    def _remove_stubs(self, stubs: Stubs, record: Record) -> None:
        root = self._snapshots.root(record)
        fd = os.open(root.upper or root.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stubs.remove(fd, bool(root.upper))
        finally:
            os.close(fd)

    def change(
        self,
        before: FileSystem,
        key: str,
        action: Callable[[ContainerRoot, Files], None],
        created_by: Mapping[str, Any],
    ) -> FileSystem:
        """Let `action` change files. What it raises leaves nothing behind."""
        with self._container(before) as record:
            with self._roots.open(record) as root:
                action(root, Files(root, record.name, _Silent()))
            return self._keep(before, key, record, created_by)

    @contextmanager
    def reading(self, files: FileSystem) -> Iterator[ContainerRoot]:
        """The files, to be read."""
        with self._container(files) as record, self._roots.open(record) as root:
            yield root

    @contextmanager
    def _container(self, files: FileSystem) -> Iterator[Record]:
        """A container that is never started."""
        host = {"NetworkMode": "none", "AutoRemove": True, "LogConfig": {"Type": "none", "Config": {}}}
        container, _ = self._containers.create_from({"Image": files.image, "Cmd": ["build"], "HostConfig": host})
        try:
            yield self._records.get(container.id)
        finally:
            _remove(container)

    def _keep(self, before: FileSystem, key: str, record: Record, created_by: Mapping[str, Any]) -> FileSystem:
        """A container's changes as one more layer, and an entry in the cache that leads to it."""
        self._content.collect_ingests()
        with self._content.writer() as ingest:
            layer = self._snapshots.commit(record, ingest, nullcontext())
            if layer.diff_id == EMPTY_LAYER:
                after = before.replace(key=key)
            else:
                after = self._publish(before, key, ingest, layer, created_by)
        self._cache.set(key, after.image)
        return after

    def _publish(
        self, before: FileSystem, key: str, ingest: Ingest, layer: LayerInfo, created_by: Mapping[str, Any]
    ) -> FileSystem:
        created = str(created_by.get("created") or clock.now())
        diff_ids = (*before.diff_ids, layer.diff_id)
        history = (*before.history, {"created": created, **created_by})
        document = documents.make_config(before.platform, created, {}, diff_ids, history)
        try:
            with self._lock.shared():
                digest, size = ingest.commit(layer.diff_id)
                layers = (*before.layers, Descriptor(documents.OCI_LAYER, digest, size))
                self._snapshots.note(layer.replace(chain_id=documents.chain_ids(diff_ids)[-1]))
                image = self._images.publish(document, layers, None, before.image, unpack=False)
        except BaseException:
            # The layer is noted, and perhaps its blob has its name: nothing leads to them.
            self._images.collect_now()
            raise
        return FileSystem(image.id, diff_ids, layers, created, key, before.platform, history)


class _Silent:
    """Steps are no copies that anybody asked for: events tell their containers, not their files."""

    def container(self, record: Record, action: str) -> None:
        return


def _follow(attachment: Attachment, output: Callable[[bytes], None]) -> int:
    """Hand on what a program says until it ends; its exit code."""
    from sampan.engine.results import ConnectionLost

    try:
        for kind, data in attachment:
            if kind in (STDOUT, STDERR):
                output(data)
    finally:
        attachment.close()
    if attachment.exit is None:
        raise ConnectionLost("the container's monitor was killed, its exit code is unknown")
    return int(attachment.exit["exit_code"])


def _remove(container: Container) -> None:
    try:
        container.remove(force=True)
    except NotFound:
        return  # Somebody else was quicker.
