"""The part of `system check` that looks at containers: what killed commands left, lost parts, damaged documents.

A container moves from `.creating-ID` to ID to `.removing-ID`. Whoever looks for it looks in this order, so that one
which moves on meanwhile is seen at its next place; whoever finds something amiss looks once more whether it is still there.
"""

from __future__ import annotations

import os

from sampan.engine.check import ERROR, GARBAGE, found
from sampan.errors import NotFound
from sampan.kernel import cgroup
from sampan.kernel.files import lock_is_held
from sampan.oci import lifecycle
from sampan.store import states
from sampan.store.locks import RecordLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from sampan.engine.check import Found
    from sampan.kernel.cgroup import CgroupDriver
    from sampan.store.layout import ContainerPaths, Layout
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...
        def paths(self, container_id: str) -> ContainerPaths: ...
        def leftovers(self) -> list[ContainerPaths]: ...
        def is_abandoned(self, paths: ContainerPaths) -> bool: ...
        def stale_names(self) -> list[str]: ...
        def release_stale_names(self) -> None: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def settle(self, record: Record) -> Observation | None: ...
        def drop_parts(self, paths: ContainerPaths) -> None: ...

    class Janitor(Protocol):
        def finish_leftovers(self) -> None: ...

    class Root(Protocol):
        @property
        def lower(self) -> tuple[str, ...]: ...
        @property
        def upper(self) -> str: ...
        @property
        def work(self) -> str: ...
        @property
        def source(self) -> str: ...

    class Snapshots(Protocol):
        def root(self, record: Record) -> Root: ...


_ID_LENGTH = 64
_AT_REST = (lifecycle.CREATED, lifecycle.EXITED)


class ContainerCheck:
    """All containers of one root."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        settler: Settler,
        janitor: Janitor,
        snapshots: Snapshots,
        cgroups: CgroupDriver,
        cgroup_parent: str,
    ) -> None:
        self._layout = layout
        self._records = records
        self._settler = settler
        self._janitor = janitor
        self._snapshots = snapshots
        self._cgroups = cgroups
        self._parents = {cgroup_parent}

    def findings(self) -> Iterator[Found]:
        yield from self._leftovers()
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            if record is not None:
                yield from self._container(record)
        yield from self._orphans()
        yield from self._lost_cgroups()
        # Names last: what was finished above has given its own back.
        for path in self._records.stale_names():
            what = "no container has this name"
            yield found(GARBAGE, "name", path, what, "give the name back", self._records.release_stale_names)

    def _leftovers(self) -> Iterator[Found]:
        for paths in self._records.leftovers():
            if self._records.is_abandoned(paths):
                what = "the command that was making or removing this container was killed"
                yield found(GARBAGE, "leftover", paths.directory, what, "finish it", self._janitor.finish_leftovers)

    def _is_known(self, container_id: str) -> bool:
        places = (self._layout.creating, self._layout.container, self._layout.removing)
        return any(os.path.isdir(place(container_id).directory) for place in places)

    # One container

    def _container(self, record: Record) -> Iterator[Found]:
        paths = self._records.paths(record.id)
        if record.broken:
            yield found(ERROR, "record", paths.directory, f"{record.broken} (rm -f {record.id[:12]} removes it)")
            return
        self._parents.add(str(record.host_config.get("CgroupParent") or ""))
        problems = [*self._parts(record), *self._documents(paths)]
        # What was amiss because the container was taken apart meanwhile is none of ours.
        if os.path.isdir(paths.directory):
            yield from problems
        yield from self._remains(record, paths)

    def _parts(self, record: Record) -> Iterator[Found]:
        """The directories that its root file system is joined of."""
        root = self._snapshots.root(record)
        name = f"container {record.name}"
        for path in root.lower:
            if not os.path.isdir(path):
                yield found(ERROR, "layer", path, f"{name} stands on this layer, and it is gone")
        for path in (root.upper, root.work, root.source):
            if path and not os.path.isdir(path):
                yield found(ERROR, "writable", path, f"the writable part of {name} is gone")

    def _documents(self, paths: ContainerPaths) -> Iterator[Found]:
        """The monitor's files of every start that is kept."""
        try:
            numbers = [int(name) for name in os.listdir(paths.starts) if name.isdigit()]
        except FileNotFoundError:
            yield found(ERROR, "record", paths.starts, "it is missing: how the container ended is not known any more")
            return
        for start in map(paths.start, numbers):
            for path in (start.exit, start.started):
                if os.path.exists(path) and states.read_json(path) is None and os.path.exists(path):
                    yield found(ERROR, "document", path, "it is no JSON object", "take it for not written",
                                os.unlink, path)  # fmt: skip

    def _remains(self, record: Record, paths: ContainerPaths) -> Iterator[Found]:
        """What is left of an end that nobody has settled, or that a monitor could not clean up after."""
        try:
            seen = self._settler.observe(record)
        except NotFound:
            return
        if seen.status == lifecycle.LOST:
            what = f"the monitor of container {record.name} was killed while it ran"
            yield found(GARBAGE, "lost", paths.directory, what, "end what is left of it, and write exit code 255",
                        self._settler.settle, record)  # fmt: skip
            return
        if seen.status not in _AT_REST:
            return
        group = cgroup.container_group(record.id, record.host_config)
        left = [path for path in (paths.run_directory, *self._cgroups.directories(group)) if os.path.exists(path)]
        if not left:
            return
        lock = RecordLock.attempt(paths)
        if lock is None:
            return  # somebody starts it, or removes it
        with lock:
            if self._rests(paths):
                for path in left:
                    if os.path.exists(path):
                        what = f"container {record.name} does not run, and this is left of its last run"
                        yield found(GARBAGE, "remains", path, what, "remove it", self._drop, group, paths)

    def _rests(self, paths: ContainerPaths) -> bool:
        """Whether nothing runs of a container whose record lock we hold."""
        try:
            status = states.observe(paths, holding=True).status
        except FileNotFoundError:
            return False
        return status in _AT_REST and not lock_is_held(paths.monitor_lock)

    def _drop(self, group: str, paths: ContainerPaths) -> None:
        """Still under the record lock: a finding is mended before the next one is looked for."""
        self._cgroups.kill(group)
        self._cgroups.remove(group)
        if os.path.isdir(paths.run_directory):
            for entry in os.listdir(paths.run_directory):
                os.unlink(f"{paths.run_directory}/{entry}")
            os.rmdir(paths.run_directory)

    # Parts without a container

    def _orphans(self) -> Iterator[Found]:
        layout = self._layout
        for directory, what in ((layout.snapshots, "writable part"), (layout.run_root, "run directory")):
            for name in os.listdir(directory):
                if len(name) == _ID_LENGTH and not self._is_known(name) and os.path.exists(f"{directory}/{name}"):
                    yield found(GARBAGE, "orphan", f"{directory}/{name}", f"a {what} without its container", "remove it",
                                self._settler.drop_parts, layout.container(name))  # fmt: skip

    def _lost_cgroups(self) -> Iterator[Found]:
        """Groups that are named by the id of a container that is not here, with processes that are ours for certain.

        Other roots have containers below the same parent, so that an empty group says nothing: it may be theirs.
        """
        seen: set[str] = set()
        for parent in self._parents:
            for directory in self._cgroups.directories(cgroup.group_name("", parent).rstrip("/")):
                for name in _children(directory):
                    group = cgroup.group_name(name, parent)
                    if group in seen or self._is_known(name):
                        continue
                    seen.add(group)
                    path = f"{directory}/{name}"
                    processes = self._cgroups.processes(group)
                    if processes and self._are_ours(processes):
                        what = f"{len(processes)} processes of a container that is gone"
                        yield found(ERROR, "cgroup", path, what, "kill them", self._end, group)

    def _are_ours(self, processes: list[int]) -> bool:
        """Whether a process has a root file system out of this store: its overlay's options say so."""
        wanted = os.fsencode(f"{self._layout.snapshots}/")
        for pid in processes:
            try:
                with open(f"/proc/{pid}/mountinfo", "rb") as file:
                    if wanted in file.read():
                        return True
            except (FileNotFoundError, ProcessLookupError):
                continue
        return False

    def _end(self, group: str) -> None:
        self._cgroups.kill(group)
        self._cgroups.remove(group)


def _children(directory: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if len(name) == _ID_LENGTH]
    except FileNotFoundError:
        return []
