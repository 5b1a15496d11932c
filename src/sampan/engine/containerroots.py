"""A container's root file system as a descriptor, for those who copy files: with its volumes, whatever its state.

Of one that runs it is the root of its mount namespace, with all that is mounted there; the descriptor of the namespace keeps
it whole when the container ends in the middle. Of one that does not, it is mounted in a namespace of our own, under the record
lock, so that nobody starts it meanwhile.

No overlay may be mounted twice. So who has the root of a running container holds its `files.lock` shared, and a start waits for
the copies of the run before: they go on for a moment, and then give way (`ContainerRoot.check`).
"""

from __future__ import annotations

import errno
import os
import select
import time

from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.kernel import roots
from sampan.kernel.files import FileLock
from sampan.oci import lifecycle
from sampan.runtime.handle import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Protocol, Self

    from sampan.engine.snapshots import Snapshots
    from sampan.engine.volumes import Volumes
    from sampan.steps.base import Step
    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str) -> RecordLock: ...
        def paths(self, container_id: str) -> ContainerPaths: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...


PATIENCE = 60.0
"""Seconds that are waited for a container that other commands start, stop or copy from."""

GRACE = 3.0
"""Seconds that a copy goes on when its container has been started again: longer than most take, and a start waits for it."""


class ContainerRoot:
    """An open root. `fd` is for openat2(2) below it (O_PATH); to be closed, by `with` or `close()`."""

    def __init__(self, fd: int, record: Record, descriptors: tuple[int, ...], lock: FileLock | RecordLock) -> None:
        self.fd = fd
        self.record = record
        self._descriptors = descriptors
        self._lock = lock

    def check(self) -> None:
        """To be called while files are copied. Raises Conflict if the copy has to give way, NotFound if the container is gone."""

    def close(self) -> None:
        """Let go: first of the mounts, then of what keeps others from mounting them. May be called twice."""
        descriptors, self._descriptors = self._descriptors, ()
        if descriptors:
            os.close(self.fd)
            for fd in descriptors:
                os.close(fd)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


class _RunningRoot(ContainerRoot):
    """Of one that runs, or ran when it was opened."""

    def __init__(
        self, fd: int, record: Record, namespace: int, pidfd: int, lock: FileLock, paths: ContainerPaths, number: int
    ) -> None:
        super().__init__(fd, record, (namespace, pidfd), lock)
        self._paths = paths
        self._number = number
        self._pidfd = pidfd
        self._ended = select.poll()
        self._ended.register(pidfd, select.POLLIN)
        self._deadline = 0.0

    def check(self) -> None:
        if not self._deadline:
            if not self._ended.poll(0):
                return
            try:
                newest = self._paths.newest_start()
                if newest == self._number:
                    return  # It has ended, and nobody wants to start it: its files are all there.
                # From when that start was made, for we may have been suspended since: this is its oldest file.
                since = time.time() - os.stat(self._paths.start(newest).reserved_exit).st_mtime
            except FileNotFoundError:
                if not os.path.isdir(self._paths.directory):
                    raise NotFound(f"No such container: {self.record.id}") from None
                since = GRACE  # That start is over, too.
            self._deadline = time.monotonic() + GRACE - min(max(since, 0.0), GRACE)
        if time.monotonic() >= self._deadline:
            raise Conflict(
                f"container {self.record.name} was started again while its files were copied: the copy is not complete, try again"
            )


class ContainerRoots:
    """Opens the roots of containers."""

    def __init__(
        self,
        records: Records,
        settler: Settler,
        snapshots: Snapshots,
        volumes: Callable[[], Volumes],
        trace: Trace,
    ) -> None:
        self._records = records
        self._settler = settler
        self._snapshots = snapshots
        self._volumes = volumes
        self._trace = trace

    def open(self, record: Record) -> ContainerRoot:
        """The root of a container as it is now. One that is about to start or stop is waited for.

        Raises NotFound, Conflict (its record cannot be read; others are at work on it for too long), System.
        """
        if record.broken:
            raise Conflict(f"You cannot copy from or to container {record.id} which is Dead")
        deadline = time.monotonic() + PATIENCE
        try:
            while True:
                found = self._of_running(record) or self._of_stopped(record, deadline)
                if found is not None:
                    return found
                if time.monotonic() > deadline:
                    raise Conflict(
                        f"container {record.id} is in use: another command starts it or copies its files, try again"
                    )
                time.sleep(0.005)
        except FileNotFoundError as e:
            if os.path.isdir(self._records.paths(record.id).directory):
                raise
            raise NotFound(f"No such container: {record.id}") from e

    # Running

    def _of_running(self, record: Record) -> ContainerRoot | None:
        """None if it does not run, or somebody is about to mount it."""
        paths = self._records.paths(record.id)
        try:
            # Before the look at its state: a start that comes after that look finds the lock held.
            lock = FileLock.acquire(paths.files_lock, 0, shared=True)
        except BlockingIOError:
            return None
        opened: list[int] = []
        try:
            seen = self._settler.observe(record)
            if seen.status in lifecycle.ALIVE:
                handle = Handle(paths, paths.start(seen.number).directory)
                for descriptor in (handle.open_init, lambda: handle.open_namespace("mount")):
                    opened.append(descriptor())
                pidfd, namespace = opened
                with self._trace.step("open root", record.id):
                    fd = roots.of_namespace(namespace)
                return _RunningRoot(fd, record, namespace, pidfd, lock, paths, seen.number)
        except ProcessLookupError:
            pass  # It has ended in this moment.
        except BaseException:
            _close(opened)
            lock.release()
            raise
        _close(opened)
        lock.release()
        return None

    # Not running

    def _record_lock(self, record: Record, deadline: float) -> RecordLock:
        while True:
            try:
                return self._records.lock(record.id)
            except Conflict:
                if time.monotonic() > deadline:
                    raise

    def _of_stopped(self, record: Record, deadline: float) -> ContainerRoot | None:
        """None if it runs by now, or a copy of its last run is not at its end."""
        from sampan.engine.settle import await_monitor

        lock = self._record_lock(record, deadline)
        files: FileLock | None = None
        try:
            record = self._records.read(record.id)
            status = self._settler.recover(record, lock).status
            if status == lifecycle.DEAD:
                raise Conflict(f"You cannot copy from or to container {record.id} which is Dead")
            if status not in (lifecycle.CREATED, lifecycle.EXITED, lifecycle.RESTARTING):
                lock.release()
                return None
            if status == lifecycle.EXITED:
                await_monitor(lock.paths)
            try:
                files = FileLock.acquire(lock.paths.files_lock, 0)
            except BlockingIOError:
                lock.release()
                return None
            fd, namespace = self._mount(record, lock.paths)
            # Nobody else opens it as long as we have the record lock.
            files.release()
            return ContainerRoot(fd, record, (namespace,), lock)
        except BaseException:
            if files is not None:
                files.release()
            lock.release()
            raise

    def _mount(self, record: Record, paths: ContainerPaths) -> tuple[int, int]:
        from contextlib import ExitStack

        from sampan.runtime.stopped import StepError, run_steps

        with ExitStack() as mounted:
            if record.mounts:
                from sampan.engine.mountstart import prepare

                volumes = self._volumes()
                for name in sorted(record.volumes()):
                    # Until its file system is part of our namespace; whether it stays mounted is up to others.
                    mounted.enter_context(volumes.visit(volumes.record(name)))
                prepare(record.mounts, volumes, self._trace)
            steps = self._steps(record, paths)
            ids = _user_namespace(record)
            if ids >= 0:
                mounted.callback(os.close, ids)
            try:
                return roots.of_new_namespace(lambda: run_steps(steps, self._trace, ids))
            except StepError as e:
                raise InvalidParameter(f"container {record.id}: {e}") from None
            except OSError as e:
                reason = os.strerror(e.errno or errno.EIO).lower()
                where = e.filename if isinstance(e.filename, str) else ""
                call = " ".join(part for part in (str(getattr(e, "syscall", "")), where) if part)
                raise System(f"container {record.id}: cannot mount its root file system: {call}: {reason}") from e

    def _steps(self, record: Record, paths: ContainerPaths) -> list[Step]:
        from sampan.runtime.plan import RootFilesystem
        from sampan.runtime.stopped import mount_steps

        root = self._snapshots.root(record)
        images = {}
        for point in record.mounts:
            if point.layers:
                image = self._snapshots.image_root(record, point.layers)
                images[point.destination] = image.lower or (image.source,)
        place = RootFilesystem(
            root.kind,
            root.lower,
            root.upper,
            root.work,
            root.source,
            paths.directory,
            mapped=bool(record.uids),
            volatile=bool(record.build),
        )
        return mount_steps(record.to_json(), place, self._own_files(record, paths), images)

    def _own_files(self, record: Record, paths: ContainerPaths) -> dict[str, str]:
        """Docker's three files, as far as they are there: those of a container whose network it joins may be gone with it.

        None for a step of a build, which may well make the image's own (ADD of a whole root).
        """
        if record.build:
            return {}
        from sampan.engine.etcfiles import places

        try:
            found = places(record, paths, self._records)
        except NotFound:
            return {}
        return {target: source for target, source in found.items() if os.path.exists(source)}


def _user_namespace(record: Record) -> int:
    """One with the maps of the container's own, -1 if it has none."""
    if not record.uids:
        return -1
    from sampan.runtime.idmapper import user_namespace

    return user_namespace(record.uids, record.gids)


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


__all__ = ["ContainerRoot", "ContainerRoots"]
