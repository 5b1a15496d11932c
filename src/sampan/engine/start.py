"""Starting a container: everything that is known is turned into a plan, and the plan is given to a shim.

the shim's interpreter comes up ............................................. takes the plan, runs it
record lock - state checked - starts/N made - joins opened - spec - plan -----^   answers: runs | failed
"""

from __future__ import annotations

import os
import time

from sampan.engine import etcfiles, initprogram, logoptions
from sampan.errors import Conflict, NotFound, StartFailed, System
from sampan.kernel import cgroup
from sampan.kernel.files import FileLock, lock_is_held
from sampan.oci import lifecycle
from sampan.runtime.handle import Handle
from sampan.runtime.plan import Launching, RootFilesystem, make_plan
from sampan.runtime.spec import OWN_NETWORK, make_spec
from sampan.shim.protocol import WAITING
from sampan.store import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.oci.network import Network
    from sampan.runtime.handle import Attachment
    from sampan.runtime.launcher import Launch, Launcher
    from sampan.steps.process import LoadFilter
    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths, StartPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str) -> RecordLock: ...
        def paths(self, container_id: str) -> ContainerPaths: ...

    class RootMount(Protocol):
        @property
        def kind(self) -> str: ...
        @property
        def lower(self) -> tuple[str, ...]: ...
        @property
        def upper(self) -> str: ...
        @property
        def work(self) -> str: ...
        @property
        def source(self) -> str: ...

    class Snapshots(Protocol):
        def root(self, record: Record) -> RootMount: ...
        def image_root(self, record: Record, chain_ids: Sequence[str]) -> RootMount: ...

    class Volumes(Protocol):
        def mount(self, name: str) -> bool: ...
        def record(self, name: str) -> Any: ...

    class Filters(Protocol):
        def of_container(self, host: dict[str, Any], capabilities: Sequence[str]) -> LoadFilter | None: ...

    class Joined(Protocol):
        environment: list[str]

        commands: list[tuple[str, ...]]

        @property
        def networks(self) -> list[Network]: ...
        def descriptors(self) -> dict[str, int]: ...
        def close(self) -> None: ...

    class Connector(Protocol):
        def prepare(self, record: Record, paths: ContainerPaths, number: int) -> Joined: ...
        def release(self, record: Record, number: int) -> None: ...

    class Announcer(Protocol):
        path: str
        limit: int

        def container(self, record: Record, action: str, extra: Mapping[str, str] = ...) -> None: ...
        def starting(self, record: Record, networks: Iterable[Network], attached: bool) -> None: ...
        def ended(self, record: Record, networks: Iterable[Network]) -> None: ...
        def for_shim(self, record: Record, networks: Iterable[Network]) -> tuple[str, ...]: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...
        def drop_start(self, record: Record, start: StartPaths) -> None: ...
        def remove_locked(self, record: Record, lock: RecordLock, volumes: bool = ...) -> None: ...
        def release_volumes(self, record: Record) -> None: ...


_JOINS = (("network", "NetworkMode"), ("pid", "PidMode"), ("ipc", "IpcMode"))
_JOIN = "container:"
_SHIM_END_SECONDS = 5.0
_FAILED_EXIT_CODE = 128
_COPY_PATIENCE = 10.0
"""Seconds that those who copy files of the last run may take to notice that theirs are over (`containerroots.GRACE`)."""


class Starter:
    """`POST /containers/{id}/start`."""

    def __init__(
        self,
        records: Records,
        snapshots: Snapshots,
        cgroups: CgroupDriver,
        launcher: Launcher,
        settler: Settler,
        volumes: Callable[[], Volumes],
        connector: Callable[[], Connector],
        filters: Filters,
        reaper: Callable[[str], tuple[str, ...]],
        init_path: str,
        events: Announcer,
        trace: Trace,
    ) -> None:
        """`reaper` gives the command that settles a container's exit."""
        self._records = records
        self._snapshots = snapshots
        self._cgroups = cgroups
        self._launcher = launcher
        self._settler = settler
        self._volumes = volumes
        self._connector = connector
        self._filters = filters
        self._reaper = reaper
        self._init_path = init_path
        self._events = events
        self._trace = trace

    def start(
        self, record: Record, attach: bool = False, launch: Launch | None = None, lock: RecordLock | None = None
    ) -> Attachment | None:
        """Start the container; with `attach`, the connection that carries its output from the first byte on.

        `launch` is a shim that is up already, `lock` the container's lock if the caller has it; both are given up here.
        Raises StartFailed, or Conflict and NotModified if its state or another command forbids it.
        """
        try:
            if launch is None:
                self._check_worth_a_shim(record)
                launch = self._launcher.open()
            if lock is None:
                lock = self._records.lock(record.id)
                # Once more, under the lock: it may have been changed since the caller read it.
                record = self._records.read(record.id)
            before = self._check_state(record, lock)
            return self._start_or_clean_up(record, attach, launch, lock, before)
        except BaseException:
            if launch is not None:
                launch.abandon()
            raise
        finally:
            if lock is not None:
                lock.release()

    def carry_on(self, record: Record, number: int, monitor_lock: int) -> None:
        """Make the restart that the end of start `number` made due, unless it was cancelled, or made by somebody else.

        `monitor_lock` is the descriptor by which this process, which was the monitor, still holds monitor.lock; -1 if it does
        not. It is let go of under the record lock only: so nobody finds the restart undone and nobody at work on it.
        Raises StartFailed, Conflict.
        """
        launch = self._launcher.open()
        try:
            with self._await_record_lock(record.id) as lock:
                if monitor_lock >= 0:
                    os.close(monitor_lock)
                record = self._records.read(record.id)
                seen = self._settler.recover(record, lock)
                if seen.orphaned and seen.number == number:
                    self._start_or_clean_up(record, False, launch, lock, number, seen.restart)
        finally:
            launch.abandon()

    def _await_record_lock(self, container_id: str) -> RecordLock:
        """The record lock, however long it takes: nobody else would make the restart."""
        while True:
            try:
                return self._records.lock(container_id)
            except Conflict:
                continue

    def _check_worth_a_shim(self, record: Record) -> None:
        """Refuse what is plain to see before an interpreter is started for it; the judgement under the lock counts."""
        seen = self._settler.observe(record)
        if seen.running and not seen.orphaned:
            lifecycle.check(lifecycle.START, seen.status, record.id, record.name)

    def _check_state(self, record: Record, lock: RecordLock) -> int:
        """Refuse a start that its state forbids; the number of the start before this one."""
        seen = self._settler.recover(record, lock)
        if not seen.orphaned:
            lifecycle.check(lifecycle.START, seen.status, record.id, record.name)
        if seen.number:
            self._await_lock_of_monitor(lock.paths)
        return seen.number

    def _start_or_clean_up(
        self,
        record: Record,
        attach: bool,
        launch: Launch,
        lock: RecordLock,
        before: int,
        restarted: dict[str, Any] | None = None,
    ) -> Attachment | None:
        try:
            return self._start_locked(record, attach, launch, lock, before + 1, restarted)
        except Exception:
            self._settler.release_volumes(record)
            self._remove_if_wanted(record, lock)
            raise

    def _remove_if_wanted(self, record: Record, lock: RecordLock) -> None:
        """`--rm` holds for a start that failed too; not for one whose end we do not know (it may run)."""
        seen = states.observe(lock.paths, holding=True)
        if record.auto_remove and lifecycle.can_remove(seen.status):
            self._settler.remove_locked(record, lock, volumes=True)

    def _start_locked(
        self,
        record: Record,
        attach: bool,
        launch: Launch,
        lock: RecordLock,
        number: int,
        restarted: dict[str, Any] | None,
    ) -> Attachment | None:
        start = states.begin_start(lock.paths, number, self._trace, restarted)
        joins: dict[str, int] = {}
        waiting: dict[str, int] = {}
        joined: Joined | None = None
        try:
            joins = self._open_joins(record)
            if record.networks:
                joined = self._connector().prepare(record, lock.paths, start.number)
            self._await_copies(lock.paths)
            # Not before the start's directory is there: by that others see that their end must not unmount these.
            mounted = self._mount_volumes(record)
            self._prepare_mounts(record)
            waiting = _waiting(lock.paths)
            plan = self._plan(record, lock.paths, start, tuple(joins), joined, attach, len(waiting), mounted)
            # The start and all of the end are told by the shim, so that no end comes before its start.
            self._events.starting(record, _networks(joined), attach)
        except BaseException as e:
            _close(joins)
            _close(waiting)
            self._leave_networks(record, start, joined)
            states.write_exit(start, _FAILED_EXIT_CODE, str(e), True, self._trace)
            raise
        try:
            networks = joined.descriptors() if joined is not None else {}
            attachment = launch.start(plan, {**{f"ns.{kind}": fd for kind, fd in joins.items()}, **networks, **waiting})
        except StartFailed as e:
            self._leave_networks(record, start, joined)
            self._conclude_failure(record, lock.paths, start, e)
            self._events.ended(record, _networks(joined))
            raise
        finally:
            _close(joins)
            _close(waiting)
            if joined is not None:
                joined.close()
        states.forget_old_starts(lock.paths, start.number, self._trace)
        if attachment is not None:
            attachment.notice = lambda action, extra: self._events.container(record, action, extra)
        return attachment

    def _leave_networks(self, record: Record, start: StartPaths, joined: Joined | None) -> None:
        """Take back what a start that failed had in networks."""
        if joined is not None:
            joined.close()
            self._connector().release(record, start.number)

    def _await_copies(self, paths: ContainerPaths) -> None:
        """Wait for those who copy files of the run before, who have its root file system mounted.

        They see that this start is there and give way. One that does not, for its process is suspended, keeps nobody: it
        finds that its time is over before it touches the files again.
        """
        try:
            FileLock.acquire(paths.files_lock, _COPY_PATIENCE, make=False).release()
        except (FileNotFoundError, BlockingIOError):
            pass

    def _mount_volumes(self, record: Record) -> bool:
        """Mount the volumes that have driver options; whether there were any, so that its end leaves something to do."""
        mounted = False
        for name in sorted(record.volumes()):
            mounted = self._volumes().mount(name) or mounted
        return mounted

    def _prepare_mounts(self, record: Record) -> None:
        if record.mounts:
            from sampan.engine.mountstart import prepare  # in here: most containers have none

            prepare(record.mounts, self._volumes(), self._trace)

    def _await_lock_of_monitor(self, paths: ContainerPaths) -> None:
        """The monitor of the last run has written its exit and is about to let go of the lock that the next one needs."""
        deadline = time.monotonic() + _SHIM_END_SECONDS
        while lock_is_held(paths.monitor_lock):
            if time.monotonic() > deadline:
                raise Conflict(f"container {paths.id}: the monitor of its last run has not ended, try again")
            time.sleep(0.001)

    def _conclude_failure(self, record: Record, paths: ContainerPaths, start: StartPaths, error: StartFailed) -> None:
        """See to it that the failure is written down: by the monitor, or by us if that was killed."""
        deadline = time.monotonic() + _SHIM_END_SECONDS
        while lock_is_held(paths.monitor_lock) and time.monotonic() < deadline:
            time.sleep(0.001)
        if states.read_json(start.exit) is None:
            try:
                self._settler.drop_start(record, start)
            except System:
                return  # it stays lost as long as a process of it does not die; why it failed is the thing to tell
            states.write_exit(start, error.container_exit_code, str(error), True, self._trace)

    # What the plan is made of

    def _plan(
        self,
        record: Record,
        paths: ContainerPaths,
        start: StartPaths,
        joined: tuple[str, ...],
        networks: Joined | None,
        attach: bool,
        waiting: int,
        mounted: bool,
    ) -> Any:
        host = record.host_config
        group = cgroup.container_group(record.id, host)
        init = initprogram.find(self._init_path) if host["Init"] else ""
        places = {kind: f"{_JOIN}{kind}" for kind in joined if kind != "mount"}
        if networks is not None:
            places["network"] = OWN_NETWORK
            joined = (*joined, "network", *(("user",) if record.uids else ()))
        spec = make_spec(
            _with_variables(record, networks.environment if networks is not None else ()),
            etcfiles.places(record, paths, self._records),
            group,
            self._cgroups.version,
            places,
            init,
            {
                point.destination: self._image_directories(record, point.layers)
                for point in record.mounts
                if point.layers
            },
        )
        root = self._snapshots.root(record)
        load_filter = self._filters.of_container(host, spec["process"]["capabilities"]["bounding"])
        facts = Launching(
            container=record.id,
            directory=paths.directory,
            start=start.directory,
            run_directory=paths.run_directory,
            root=RootFilesystem(
                root.kind,
                root.lower,
                root.upper,
                root.work,
                root.source,
                *_place(record, paths),
                volatile=bool(record.build),
            ),
            group=group,
            joined=joined,
            log=logoptions.make_plan(record, paths),
            open_stdin=record.config["OpenStdin"],
            stdin_once=record.config["StdinOnce"],
            init=init,
            no_pivot=bool(host.get("NoPivot")),
            attached=attach,
            waiting=waiting,
            # Also where nothing is due: `update` may give it a restart policy while it runs.
            reaper=self._reaper(record.id),
            settles=record.auto_remove or mounted,
            # What is removed at its end, whatever its end was.
            temporary=record.auto_remove or bool(record.build),
            watched=self._trace.observer is not None,
            health=self._health(record, paths, start, group, load_filter) if record.config.get("Healthcheck") else "",
            journal=(self._events.path, self._events.limit),
            events=self._events.for_shim(record, _networks(networks)),
            filter=load_filter,
            keepers=tuple(networks.commands) if networks is not None else (),
        )
        return make_plan(spec, facts, self._cgroups)

    def _health(
        self, record: Record, paths: ContainerPaths, start: StartPaths, group: str, load_filter: LoadFilter | None
    ) -> str:
        from sampan.engine.health import make_health_plan  # in here: most containers have no check

        return make_health_plan(record, paths, start.number, group, self._cgroups, load_filter)

    def _image_directories(self, record: Record, layers: Sequence[str]) -> tuple[str, ...]:
        """What a mounted image is joined of, topmost first."""
        root = self._snapshots.image_root(record, layers)
        return root.lower or (root.source,)

    def _open_joins(self, record: Record) -> dict[str, int]:
        """Descriptors of the namespaces of other containers, by kind. Raises Conflict if one does not run."""
        opened: dict[str, int] = {}
        try:
            for kind, field in _JOINS:
                mode = record.host_config[field]
                if mode.startswith(_JOIN):
                    other = mode.removeprefix(_JOIN)
                    handle = self._running(kind, other)
                    if kind == "pid":
                        handle.share_pids()
                    opened[kind] = handle.open_namespace(kind)
                    if kind == "ipc":
                        # Its /dev/shm is part of the bargain, and is found in its mount namespace.
                        opened["mount"] = handle.open_namespace("mount")
        except ProcessLookupError:
            _close(opened)
            raise _not_running(kind, other, other) from None
        except BaseException:
            _close(opened)
            raise
        return opened

    def _running(self, kind: str, container_id: str) -> Handle:
        try:
            record = self._records.read(container_id)
            paths = self._records.paths(container_id)
            seen = states.observe(paths)
        except (NotFound, FileNotFoundError):
            raise NotFound(f"{_reason(kind, container_id)}: No such container: {container_id}") from None
        if seen.status == lifecycle.RESTARTING:
            raise lifecycle.refusal(lifecycle.EXEC, seen.status, record.id, record.name)
        if not seen.running:
            raise _not_running(kind, container_id, record.id)
        if kind == "ipc" and record.host_config["IpcMode"] not in ("shareable", "host"):
            raise Conflict(
                f"{_reason(kind, container_id)}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            )
        return Handle(paths, paths.start(seen.number).directory)


def _with_variables(record: Record, variables: Sequence[str]) -> dict[str, Any]:
    """The record as the plan is made of it, with variables that its own ones replace. It is read only: nothing of it is copied."""
    document = {**record.__dict__, "mounts": [point.to_json() for point in record.mounts]}
    if variables:
        document["config"] = {**record.config, "Env": [*variables, *(record.config.get("Env") or ())]}
    return document


def _waiting(paths: ContainerPaths) -> dict[str, int]:
    """The connections of those who are attached already, by their names in the plan."""
    if not os.path.isdir(paths.waiting):
        return {}
    from sampan.runtime import waiting  # in here: mostly nobody is

    return {f"{WAITING}{number}": fd for number, fd in enumerate(waiting.take_all(paths.waiting))}


def _networks(joined: Joined | None) -> list[Network]:
    return joined.networks if joined is not None else []


def _place(record: Record, paths: ContainerPaths) -> tuple[str, bool, bool]:
    """Where the root is attached, for a moment, in the container's own mount namespace; whether recursively; whether id-mapped.

    Our own directories are closed to the ids of a user namespace; /sys is open to all, and nothing is looked up in it any more.
    """
    return ("/sys", False, True) if record.uids else (paths.directory, False, False)


def _reason(kind: str, container_id: str) -> str:
    words = {"network": "cannot join network of container", "pid": "cannot join PID namespace of container"}
    return f"{words.get(kind, 'cannot join IPC namespace of container')} {container_id}"


def _not_running(kind: str, container_id: str, full_id: str) -> Conflict:
    if kind == "network":
        return Conflict(f"cannot join network of a non running container: {container_id}")
    return Conflict(f"{_reason(kind, container_id)}: container {full_id} is not running")


def _close(descriptors: dict[str, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
