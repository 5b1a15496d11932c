"""What a build does to files: each step makes a container, changes its files, and the container's writable directory becomes a layer.

`Steps` is one build's hold on the store: what it has made and found is not collected before it ends, and the containers of its steps
do not outlive it (`Record.build`). What a step came to is an entry of the cache, which keeps the layer (`store.buildcache`).
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext

from sampan.engine import buildprepared
from sampan.engine.archive import Files
from sampan.engine.buildcaching import FileSystem, StepCache, now
from sampan.engine.buildcancel import Cancellation
from sampan.engine.buildexport import Tree
from sampan.engine.buildmounts import Prepared, Stubs
from sampan.engine.buildpending import Pending
from sampan.engine.buildremoval import Removals, remove
from sampan.engine.create import Step
from sampan.engine.failures import explain
from sampan.errors import NotFound, SampanError, System
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.runtime.handle import STDERR, STDOUT
from sampan.store.buildcache import Entry, key_of
from sampan.store.snapshots import EMPTY_LAYER
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Protocol, Self

    from sampan.engine.buildcopy import Fill
    from sampan.engine.buildmounts import RunMounts
    from sampan.engine.buildprepared import PreparedStep
    from sampan.engine.containerroots import ContainerRoot, ContainerRoots
    from sampan.engine.containers import Container, Containers
    from sampan.engine.images import Content, Image, Lock
    from sampan.kernel.files import FileLock
    from sampan.oci.image import Descriptor, Manifest
    from sampan.oci.platform import Platform
    from sampan.runtime.handle import Attachment
    from sampan.store.buildcache import BuildCache
    from sampan.store.content import VerifiedReader
    from sampan.store.ingest import Ingest
    from sampan.store.layers import LayerInfo
    from sampan.store.prepared import Prepared as PreparedLayer
    from sampan.store.record import Record
    from sampan.store.records import Records
    from sampan.store.snapshots import RootMount
    from sampan.store.tarstream import Source

    class Action(Protocol):
        """A change of files."""

        def look(self, root_fd: int) -> Fill | None:
            """Only look at the files; what writes the layer without a file system in between, None if that cannot be."""

        def prepared(self) -> PreparedStep | None:
            """After `look`: what was written already of it, to be taken over."""

        def act(self, root: ContainerRoot, files: Files) -> None:
            """Change the files of a container."""

    class Snapshots(Protocol):
        def root(self, record: Record) -> RootMount: ...
        def adopt(self, record: Record, sink: Ingest, newest: int) -> LayerInfo: ...
        def collect_garbage(self) -> None: ...
        def sync(self, chain_ids: Sequence[str]) -> int: ...
        def write(self, below: Sequence[str], sink: Ingest, newest: int, fill: Fill, known: bool) -> LayerInfo: ...
        def prepare(self, below: Sequence[str], newest: int, fill: Fill) -> PreparedLayer | None: ...
        def layer_directories(self, chain_ids: Sequence[str]) -> tuple[str, ...]: ...
        def has(self, chain_id: str) -> bool: ...
        def unpack(
            self, parent_chain_ids: Sequence[str], stream: Source, expected_diff_id: str | None
        ) -> LayerInfo: ...

    class Images(Protocol):
        def manifest(self, target: Descriptor, image_id: str) -> Manifest: ...
        def ensure_unpacked(self, image: Image) -> tuple[str, ...]: ...


class _Ground(Struct):
    """What a container of a step stands on: files and nothing else, so that nothing of a base (volumes, entrypoint, health check) has any effect on a step."""

    id: str
    layers: tuple[str, ...]
    config: dict[str, Any]


class RunFailed(SampanError):
    """A command of a build ended with another code than 0."""

    def __init__(self, command: Sequence[str], code: int) -> None:
        shown = " ".join(command)
        super().__init__(f'process "{shown}" did not complete successfully: exit code: {code}')
        self.code = code


class Steps:
    """Carries out the steps of one build, or finds in the cache what they came to. A context manager."""

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
        self.cache = StepCache(cache, content, snapshots, lock, self._hold_more)
        self._pending = Pending(content, snapshots, lock, self.cache)
        self._hold: FileLock | None = None
        self._removals = Removals()
        self.cancellation = Cancellation()

    def __enter__(self) -> Self:
        # What builds that were killed had begun; downloads can go on.
        self._content.collect_ingests(partial=False)
        self._snapshots.collect_garbage()
        with self._lock.shared():
            self._hold = self._content.hold(())
        return self

    def __exit__(self, _kind: type[BaseException] | None, e: BaseException | None, _tb: TracebackType | None) -> None:
        try:
            try:
                # Also of a build that failed: what was done is found by the next one.
                self._pending.flush()
            finally:
                self._removals.finish()
        except (SampanError, OSError):
            if e is None:
                raise
        finally:
            # After the last of its containers: whoever sees one without a hold takes it for a killed build's.
            hold, self._hold = self._hold, None
            if hold is not None:
                self._content.drop(hold)

    @property
    def _build(self) -> FileLock:
        assert self._hold is not None, "a step outside of its build"
        return self._hold

    def flush(self, files: FileSystem) -> None:
        """Have on the disk what was done, and all layers of `files`, which an image is made of next. Raises OSError."""
        self._pending.flush(documents.chain_ids(files.diff_ids))

    def _hold_more(self, wanted: Iterable[str]) -> None:
        """Keep blobs and layers to the end of the build. The caller has the store's lock shared."""
        self._content.hold_more(self._build, wanted)

    # Where a stage begins

    def scratch(self, date: int) -> FileSystem:
        """No files at all. `date`: as of `FileSystem`."""
        return self._start("", (), (), date, [], platforms.here())

    def of_image(self, image: Image, date: int) -> FileSystem:
        """The files of an image. Raises `NotFound` if a layer of it is not in the store."""
        config = documents.parse_config(documents.dump(image.document))
        layers = tuple(documents.as_oci(layer) for layer in self._images.manifest(image.target, image.id).layers)
        with self._lock.shared():
            for layer in layers:
                if not self._content.exists(layer.digest):
                    raise NotFound(f"image {image.id} is not complete: content {layer.digest} is not in the store")
            self._images.ensure_unpacked(image)
            self._hold_more((*(layer.digest for layer in layers), *image.layers))
        return self._start(image.id, config.diff_ids, layers, date, config.history, config.platform)

    def _start(
        self,
        image: str,
        diff_ids: tuple[str, ...],
        layers: tuple[Descriptor, ...],
        date: int,
        history: Sequence[Mapping[str, Any]],
        platform: Platform,
    ) -> FileSystem:
        chain = documents.chain_ids(diff_ids)
        key = key_of({"files": chain[-1] if chain else "", "platform": str(platform), "date": date})
        return FileSystem(image, diff_ids, layers, date, key, platform, tuple(history))

    # Steps

    def run(
        self,
        before: FileSystem,
        key: str,
        request: dict[str, Any],
        command: Sequence[str],
        output: Callable[[bytes], None],
        created_by: Mapping[str, Any],
        runs: Callable[[Container], None],
        mounts: RunMounts | None = None,
    ) -> FileSystem:
        """Run a command in a container, which `runs` is told of before it is started. Raises `RunFailed`, and what starting a container raises; nothing is left behind."""
        made: list[Container] = []

        def begun(container: Container, _: object) -> None:
            made.append(container)
            runs(container)
            self.cancellation.check()

        self.cancellation.check()
        try:
            body = {**request, "Image": _NAME, "AttachStdout": True, "AttachStderr": True}
            with mounts.ready() if mounts is not None else nullcontext(Prepared()) as prepared:
                body["HostConfig"] = {**body["HostConfig"], "Mounts": list(prepared.mounts)}
                stubs = self._stubs(before, prepared.targets)
                container, attachment = self._containers.launch(
                    body,
                    True,
                    begun,
                    environment=prepared.environment,
                    mounts=prepared.points,
                    step=self._step(before),
                )
                assert attachment is not None
                with self.cancellation.watching(made):
                    code = _follow(attachment, output)
            self.cancellation.check()
            if code:
                raise RunFailed(command, code)
            record = self._records.get(container.id)
            if stubs is not None:
                self._remove_stubs(stubs, record)
            newest = before.date * 1_000_000_000
            after = self._keep(before, key, created_by, lambda ingest: self._snapshots.adopt(record, ingest, newest))
        except BaseException:
            for one in made:
                remove(one)
            raise
        for one in made:
            self._removals.begin(one)
        return after

    def _stubs(self, before: FileSystem, targets: Sequence[str]) -> Stubs | None:
        if not targets:
            return None
        with self.reading(before) as root:
            return Stubs(root, targets)

    def _remove_stubs(self, stubs: Stubs, record: Record) -> None:
        root = self._snapshots.root(record)
        fd = os.open(root.upper or root.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stubs.remove(fd, bool(root.upper))
        finally:
            os.close(fd)

    def change(self, before: FileSystem, key: str, action: Action, created_by: Mapping[str, Any]) -> FileSystem:
        """Let `action` change files. What it raises leaves nothing behind."""
        self.cancellation.check()
        newest = before.date * 1_000_000_000
        with self.reading(before) as root_fd:
            fill = action.look(root_fd)
        below = documents.chain_ids(before.diff_ids)
        prepared = action.prepared()
        if prepared is not None:
            return self._take_over(before, key, prepared, created_by)
        if fill is not None:
            # Also when it is not to be taken from the cache: what is made again is most probably the same.
            known = self.cache.has_layer(key)
            return self._keep(
                before, key, created_by, lambda ingest: self._snapshots.write(below, ingest, newest, fill, known)
            )
        with self._container(before) as record:
            with self._roots.open(record) as root:
                action.act(root, Files(root, record.name, _Silent()))
            return self._keep(before, key, created_by, lambda ingest: self._snapshots.adopt(record, ingest, newest))

    def prepare(
        self, before: FileSystem, action: Action, known: bool, going: Callable[[], None]
    ) -> PreparedStep | None:
        """Have a change to come written, None if it meets something; `known` and `going` as of `buildprepared.prepare`. Raises as `change`."""
        with self.reading(before) as root_fd:
            fill = action.look(root_fd)
        if fill is None:
            return None
        below, newest = documents.chain_ids(before.diff_ids), before.date * 1_000_000_000
        return buildprepared.prepare(below, newest, fill, known, going, self._content, self._snapshots)

    def _take_over(
        self, before: FileSystem, key: str, prepared: PreparedStep, created_by: Mapping[str, Any]
    ) -> FileSystem:
        below = documents.chain_ids(before.diff_ids)
        try:
            return self._keep(before, key, created_by, lambda _: prepared.layer(below), prepared.archive)
        except BaseException:
            prepared.leave()
            raise

    @contextmanager
    def reading(self, files: FileSystem) -> Iterator[int]:
        """A descriptor of the root of the files, to be read: what the layers have, without the places that every container gets.

        (`COPY --from=stage / /` would take /proc, /.dockerenv and /etc/hosts along.) Raises System.
        """
        fd = self._joined(files)
        try:
            yield fd
        finally:
            os.close(fd)

    def _joined(self, files: FileSystem) -> int:
        if not files.diff_ids:
            import tempfile

            with tempfile.TemporaryDirectory() as empty:
                return os.open(empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        from sampan.kernel.namespaces import in_thread
        from sampan.steps.base import Context
        from sampan.steps.sources import BuildImage

        directories = self._snapshots.layer_directories(documents.chain_ids(files.diff_ids))
        context = Context()
        try:
            # It leaves whoever does it in the directory /: not the caller, who may have a path that is relative to another one.
            in_thread(lambda: BuildImage("files", directories).run(context))
        except OSError as e:
            raise System(f"cannot join the files of a stage: {explain(e)}") from e
        return context.fds["files"]

    def open_layer(self, digest: str) -> VerifiedReader:
        """The archive of a layer that a step made. Raises `NotFound`."""
        return self._content.open_verified(digest)

    def tree(self, files: FileSystem) -> Tree:
        """The files, to be taken out of the store."""
        return Tree(self._snapshots.layer_directories(documents.chain_ids(files.diff_ids)))

    def _step(self, files: FileSystem) -> Step:
        ground = _Ground(files.image, documents.chain_ids(files.diff_ids), {})
        return Step(ground, os.path.basename(self._build.path))

    @contextmanager
    def _container(self, files: FileSystem) -> Iterator[Record]:
        """A container that is never started."""
        host = {"NetworkMode": "none", "LogConfig": {"Type": "none", "Config": {}}}
        body = {"Image": _NAME, "Cmd": ["build"], "HostConfig": host}
        container, _ = self._containers.create_from(body, self._step(files))
        try:
            yield self._records.get(container.id)
        finally:
            remove(container)

    def _keep(
        self,
        before: FileSystem,
        key: str,
        created_by: Mapping[str, Any],
        make: Callable[[Ingest], LayerInfo],
        ingest: Ingest | None = None,
    ) -> FileSystem:
        """One more layer, if `make` makes one, and an entry in the cache that leads to it. ingest: its archive, where that is written."""
        after, what = before.replace(key=key), str(created_by.get("created_by") or "")
        entry = Entry(before.key, "", 0, "", "", 0, what, now(), now())
        ingest = ingest or self._content.writer()
        try:
            with self._lock.shared():
                layer = make(ingest)
                if layer.diff_id == EMPTY_LAYER:
                    self.cache.put(key, entry)
                    ingest.abort()
                    return after
                after = before.grown(key, layer.diff_id, layer.diff_id, ingest.size)
                chain_id = documents.chain_ids(after.diff_ids)[-1]
                self._hold_more((layer.diff_id, chain_id))
        except BaseException:
            ingest.abort()
            raise
        entry = entry.replace(
            blob=layer.diff_id, bytes=ingest.size, diff_id=layer.diff_id, chain_id=chain_id, size=layer.size
        )
        self._pending.add(key, entry, ingest)
        return after


_NAME = "build"
"""What the container of a step says that it was made from."""


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
