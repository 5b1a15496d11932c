"""What an end leaves to do: recovering a container whose monitor was killed, `--rm`, taking a container apart.

A removal is one rename; everything after it is taking parts away in an order in which each part can be taken
away again: a command killed on the way leaves `.removing-ID` for the next one (`engine.reconcile`).
"""

from __future__ import annotations

import _thread
import os
import sys
import time

from sampan.errors import Conflict, NotFound, SampanError, System
from sampan.kernel import cgroup
from sampan.kernel.clock import boot_id
from sampan.kernel.files import FileLock, lock_directory, lock_is_held
from sampan.oci import lifecycle, restart
from sampan.store import states
from sampan.store.layout import CREATING, drop_run_directory
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.oci.network import Network
    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths, StartPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str, patience: float = ...) -> RecordLock: ...
        def paths(self, container_id: str) -> ContainerPaths: ...
        def begin_removal(self, lock: RecordLock, with_volumes: bool | None = ...) -> ContainerPaths: ...
        def finish_removal(self, paths: ContainerPaths) -> None: ...
        def release_name(self, name: str, container_id: str) -> None: ...

    class Announcer(Protocol):
        def emit(self, kind: str, action: str, identifier: str) -> None: ...
        def container(self, record: Record, action: str, extra: Mapping[str, str] = ...) -> None: ...
        def container_once(
            self, record: Record, action: str, since_ns: int, extra: Mapping[str, str] = ...
        ) -> None: ...
        def ended(self, record: Record, networks: Iterable[Network]) -> None: ...

    class Snapshots(Protocol):
        def remove(self, container_id: str) -> None: ...

    class Volumes(Protocol):
        def release(self, names: Iterable[str]) -> None: ...
        def remove_anonymous(self, names: Iterable[str]) -> None: ...
        def remove_made_for(self, container_id: str) -> None: ...

    class Connector(Protocol):
        def joined(self, record: Record, number: int) -> list[Network]: ...
        def release(self, record: Record, number: int) -> None: ...
        def forget(self, record: Record) -> None: ...

    class Later(Protocol):
        def __call__(self, job: Callable[[], None], delay: float = ...) -> None: ...

    class Images(Protocol):
        def released(self, image_id: str) -> None: ...


class Patience(Struct):
    """How many seconds are waited for what: for killed processes to be gone; for those of them that are in uninterruptible
    sleep; for others who are at work on the container (its monitor at its end, a command that has its record lock).
    """

    killed: float
    stuck: float
    others: float


FULL = Patience(killed=10.0, stuck=10.0, others=10.0)
"""Of a command that was given for this container."""

BRIEF = Patience(killed=1.0, stuck=0.05, others=0.0)
"""Of a command that came for something else and met it on the way: one container that is stuck must not hold up the others."""


_START_PAUSE = 0.01
_NETWORK_SECONDS = 0.5
"""How long nobody has come to a network or left it before what is made of it goes. To take a bridge away holds the network for 50 ms, and to make
it again takes as long: who makes one container after the other would meet both."""


class Settler:
    """The one place that takes containers apart. Every function is idempotent."""

    def __init__(
        self,
        records: Records,
        snapshots: Snapshots,
        cgroups: CgroupDriver,
        volumes: Callable[[], Volumes],
        images: Callable[[], Images],
        connector: Callable[[], Connector],
        revive: Callable[[str, int], None],
        events: Callable[[], Announcer],
        trace: Trace,
        later: Later | None = None,
    ) -> None:
        """`volumes`, `images`, `connector` and `events` are asked for when they are needed: most verbs need not import what they are made of.

        `revive` has the restart made that was due after that start of that container. `later` does what nobody has to wait for,
        in a process that lives long enough.
        """
        self._records = records
        self._snapshots = snapshots
        self._cgroups = cgroups
        self._volumes = volumes
        self._images = images
        self._connector = connector
        self._events = events
        self._revive = revive
        self._trace = trace
        self._later = later
        self._leaving: dict[str, int] = {}
        """By the names of networks: how many removals that have yet to be finished had a container in them."""
        self._counting = _thread.allocate_lock()

    def settle(self, record: Record, patience: Patience = FULL) -> Observation | None:
        """Do what an exit leaves to do; the container's state afterwards, None if that was its removal (`--rm`).

        A restart that is due and that nobody is at work on, for its monitor was killed, is begun, and not waited for.
        Idempotent, and safe to be called by everybody who sees an exit: the first one does it. Raises Conflict if others are
        at work on it for longer than `patience` has for them, System if a lost one's processes do not die.
        """
        paths = self._records.paths(record.id)
        try:
            seen = self.observe(record)
            if seen.orphaned and not lock_is_held(paths.record_lock):
                self._begin_restart(record, seen)
            if seen.status not in (lifecycle.EXITED, lifecycle.LOST):
                return seen
            if seen.status == lifecycle.EXITED and not record.auto_remove:
                self._release(record, seen)
                return seen
            await_monitor(paths, patience.others)
            with self._records.lock(record.id, patience.others) as lock:
                seen = self.recover(record, lock, patience)
                if seen.status == lifecycle.EXITED and record.auto_remove:
                    self.remove_locked(record, lock, volumes=True)
                    return None
            if seen.orphaned:
                self._begin_restart(record, seen)
            else:
                self._release(record, seen)
            return seen
        except (NotFound, FileNotFoundError):
            pass  # Somebody else settled it.
        return None

    def _begin_restart(self, record: Record, seen: Observation) -> None:
        with self._trace.step("begin restart", record.id):
            self._revive(record.id, seen.number)

    def recover(self, record: Record, lock: RecordLock, patience: Patience = FULL) -> Observation:
        """The state of a container whose lock we hold; if it was lost, kill what is left of it and write its exit.

        A start whose command was killed is waited for: it is its monitor's now, and over in a moment. Raises System if
        processes of it cannot be killed: it stays lost then.
        """
        if record.broken:
            return states.Observation(lifecycle.DEAD)
        deadline = time.monotonic() + patience.others
        seen = states.observe(lock.paths, holding=True, frozen=self._frozen(record))
        while seen.status == lifecycle.STARTING and time.monotonic() < deadline:
            time.sleep(_START_PAUSE)
            seen = states.observe(lock.paths, holding=True, frozen=self._frozen(record))
        if seen.status != lifecycle.LOST:
            return seen
        self.drop_start(record, lock.paths.start(seen.number), patience)
        try:
            # Its monitor may still be on its way: the plan was sent, and the command killed before the monitor had its lock.
            # From here on it cannot get it, and afterwards it finds that this start is over.
            with FileLock.acquire(lock.paths.monitor_lock, 0):
                return self._conclude_lost(record, lock, seen)
        except BlockingIOError:
            return states.observe(lock.paths, holding=True, frozen=self._frozen(record))

    def _conclude_lost(self, record: Record, lock: RecordLock, seen: Observation) -> Observation:
        start = lock.paths.start(seen.number)
        states.keep_health(lock.paths, start, self._trace)
        drop_run_directory(lock.paths.run_directory, self._trace)
        networks = self._networks(record, seen.number)
        self.release_networks(record, seen.number)
        # Never as far as its own program, unless the monitor said so: then this is a start that failed.
        never_ran = seen.started is None
        error = "the command or the monitor that was starting it was killed" if never_ran else ""
        self._tell_loss(record, seen, networks)
        due = self._restart_due(record, seen, states.read_json(start.restarted))
        ended = states.write_exit(start, states.LOST_EXIT_CODE, error, never_ran, self._trace, due)
        return seen.replace(status=lifecycle.EXITED if due is None else lifecycle.RESTARTING, exit=ended)

    def _restart_due(
        self, record: Record, seen: Observation, restarted: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """The restart that the end of a lost start makes due, as its monitor would have judged; None after a reboot.

        A start that was a restart itself and never came to run is due still: what killed it was no fault of the program.
        """
        boot = (seen.started or restarted or {}).get("boot")
        if boot != boot_id():
            return None
        if seen.started is None:
            return None if restart.is_cancelled(seen.intent) else restarted
        from sampan.engine import times  # in here: few containers are ever lost

        seconds = time.time() - times.parse(seen.started["started"]) / 1_000_000_000
        policy = self._records.read(record.id).host_config.get("RestartPolicy") or {}
        return restart.due(policy, states.LOST_EXIT_CODE, seen.intent, restarted, seconds)

    def _networks(self, record: Record, number: int) -> list[Network]:
        try:
            return self._connector().joined(record, number) if record.networks else []
        except (SampanError, OSError):
            return []  # the events of its networks are less than its end

    def _tell_loss(self, record: Record, seen: Observation, networks: list[Network]) -> None:
        """The end that its monitor did not tell: before the exit file, after which nobody comes here again.

        Once only: a monitor that was killed at its very end may have, and so may a command that was killed right here.
        """
        if seen.started is not None:
            from sampan.engine import times  # in here: few containers are ever lost

            began = times.parse(seen.started["started"])
            duration = max(0, time.time_ns() - began) // 1_000_000_000
            extra = {"exitCode": str(states.LOST_EXIT_CODE), "execDuration": str(duration)}
            self._events().container_once(record, "die", began, extra)
        self._events().ended(record, networks)

    def drop_start(self, record: Record, start: StartPaths, patience: Patience = FULL) -> None:
        """`drop_processes` of a start whose monitor was killed, which may have a child that has not noticed it yet.

        That one is not in the container's cgroup: it makes it. It ends at its next step; what it has made until then goes
        too. Raises System if it does not end.
        """
        deadline = time.monotonic() + patience.killed
        while not _is_quiet(start.directory):
            self.drop_processes(record, patience)  # it may wait for one that is in there
            if time.monotonic() > deadline:
                raise System(f"container {record.id}: a process that was starting it does not end, try again")
            time.sleep(_START_PAUSE)
        self.drop_processes(record, patience)

    def drop_processes(self, record: Record, patience: Patience = FULL) -> None:
        """Kill all that is in the container's cgroup, and remove it. Idempotent. Raises System."""
        group = cgroup.container_group(record.id, record.host_config)
        try:
            # A group that can be removed has no process, and that of a run that has ended is gone: its monitor removes it.
            with self._trace.step("remove cgroup", group):
                empty = self._cgroups.remove_empty(group)
            if not empty:
                with self._trace.step("kill cgroup", group):
                    self._cgroups.kill(group, patience.killed, patience.stuck)
                with self._trace.step("remove cgroup", group):
                    self._cgroups.remove(group)
            if self._cgroups.version == cgroup.NONE:
                self._kill_init(record, patience)
        except TimeoutError as e:
            raise unkillable(record.id, e) from None

    def _kill_init(self, record: Record, patience: Patience) -> None:
        """Without a cgroup its pid namespace holds its processes together: they end with its init. Raises TimeoutError."""
        from sampan.kernel.process import kill_process  # in here: few machines are without cgroups

        paths = self._records.paths(record.id)
        try:
            started = states.read_json(paths.start(paths.newest_start()).started)
        except FileNotFoundError:
            return  # it is being removed, and was ended before
        if started is not None and started["boot"] == boot_id():
            with self._trace.step("kill init", str(started["pid"])):
                kill_process(started["pid"], started["pid_start"], patience.killed)

    def dismantle(
        self, paths: ContainerPaths, record: Record | None, patience: Patience = FULL, resumed: bool = False
    ) -> None:
        """Take away every part of a container that nobody sees any more (`.creating-`, `.removing-`). Idempotent.

        `resumed`: another command was killed over it, and nobody knows how far that had come. The directory goes last: as long as it is there, the next command
        knows that there is something to finish.
        """
        if resumed and record is not None and not record.broken:
            self.drop_processes(record, patience)
        self.drop_parts(paths)
        self._forget_networks(record)
        self._drop_volumes(paths, record)
        if record is not None:
            self._records.release_name(record.name, paths.id)
        self._tell_removal(paths, record, resumed)
        self._records.finish_removal(paths)
        if record is not None:
            # Last: as long as the directory is there, its record says that the layers are in use.
            self._release_image(record)

    def _tell_removal(self, paths: ContainerPaths, record: Record | None, resumed: bool) -> None:
        if os.path.basename(paths.directory).startswith(CREATING):
            return  # nobody has ever heard of it
        if record is None:
            self._events().emit("container", "destroy", paths.id)
        elif resumed:
            self._events().container_once(record, "destroy", 0)
        else:
            self._events().container(record, "destroy")

    def _release_image(self, record: Record) -> None:
        """Free the layers of an image that was removed by force while this container stood on it."""
        try:
            self._images().released(record.image)
        except (SampanError, OSError):
            pass  # The container is gone, which is what was asked for; the next collection finds the layers.

    def _release(self, record: Record, seen: Observation) -> None:
        """What a run that has ended held beside its processes."""
        self.release_volumes(record)
        self.release_networks(record, seen.number)

    def release_networks(self, record: Record, number: int) -> None:
        """Give back the addresses and ports of starts up to `number`, which have ended. Idempotent."""
        if not record.networks:
            return
        try:
            self._connector().release(record, number)
        except (SampanError, OSError):
            pass  # It keeps nobody from the exit code; the network's next user finds them (`engine.networkmembers`).

    def _forget_networks(self, record: Record | None) -> None:
        """The same, and the links and rules of networks that nobody is in any more."""
        if record is None or not record.networks:
            return
        try:
            self._connector().forget(record)
        except (SampanError, OSError):
            pass  # The container is gone, which is what was asked for; the trace says why they are not.

    def release_volumes(self, record: Record) -> None:
        """Unmount the volumes of a container that does not run, where no other needs them. Idempotent."""
        names = record.volumes()
        if not names:
            return
        try:
            self._volumes().release(names)
        except (SampanError, OSError):
            pass  # It keeps nobody from the exit code; the next command finds it (`engine.reconcile`), the trace says why.

    def _drop_volumes(self, paths: ContainerPaths, record: Record | None) -> None:
        """What a container leaves of volumes: mounts, and the anonymous ones if they go along."""
        if os.path.basename(paths.directory).startswith(CREATING):
            # It never came to be, and nobody has seen its volumes. Not all are in the record: that is written last.
            self._volumes().remove_made_for(paths.id)
        if record is None:
            return
        self.release_volumes(record)
        if os.path.exists(paths.with_volumes):
            self._volumes().remove_anonymous(record.volumes(anonymous=True))

    def drop_parts(self, paths: ContainerPaths) -> None:
        """Remove what a container has outside its own directory, but its processes. Idempotent."""
        self._drop_presence(paths)
        self._drop_layer(paths)

    def _drop_presence(self, paths: ContainerPaths) -> None:
        """Its run directory, and those who wait for a start of it."""
        drop_run_directory(paths.run_directory, self._trace)
        if os.path.isdir(paths.waiting):
            from sampan.runtime.waiting import dismiss_all  # in here: mostly nobody waits

            dismiss_all(paths.waiting)

    def _drop_layer(self, paths: ContainerPaths) -> None:
        with self._trace.step("remove writable layer", paths.id):
            self._snapshots.remove(paths.id)

    def observe(self, record: Record) -> Observation:
        """The container's state as it is, nothing done about it. Raises NotFound."""
        if record.broken:
            return states.Observation(lifecycle.DEAD)
        try:
            return states.observe(self._records.paths(record.id), frozen=self._frozen(record))
        except FileNotFoundError:
            raise NotFound(f"No such container: {record.id}") from None

    def _frozen(self, record: Record) -> Callable[[], bool]:
        return lambda: self._cgroups.frozen(cgroup.container_group(record.id, record.host_config))

    def remove_locked(self, record: Record, lock: RecordLock, volumes: bool = False, patience: Patience = FULL) -> None:
        """Remove a container whose lock we hold and whose state allows it, with `volumes` its anonymous volumes too.

        Raises System if a process of it does not die (an exec may outlive its container): nothing is removed then.
        """
        # Once more, under the lock: it may have been renamed since the caller read it, and its name goes with it.
        record = self._records.read(record.id)
        with_volumes = volumes if record.volumes(anonymous=True) else None
        # Before the rename, after which nobody could see what does not go away.
        if not record.broken:
            self.drop_processes(record, patience)
        paths = self._records.begin_removal(lock, with_volumes)
        if self._later is None:
            self.dismantle(paths, record)
            return
        self._drop_presence(paths)
        self.release_networks(record, sys.maxsize)
        self._drop_volumes(paths, record)
        self._tell_removal(paths, record, False)
        # Its lock goes along, so that nobody thinks that this command was killed.
        held = lock.hand_over()
        if not record.networks:
            self._later(lambda: self._delete(paths, record, held))
            return
        with self._counting:
            for attachment in record.networks:
                self._leaving[attachment.network] = self._leaving.get(attachment.network, 0) + 1
        self._later(lambda: self._delete(paths, record, held), _NETWORK_SECONDS)

    def _delete(self, paths: ContainerPaths, record: Record, lock: RecordLock) -> None:
        """The claim and the files of a container that nobody sees any more, and links of networks that it was the last one in.

        What cannot be deleted is found by the next command, which says why.
        """
        last = self._is_last(record)
        try:
            # The name is free since the rename, for no record confirms the claim any more.
            self._records.release_name(record.name, paths.id)
            self._drop_layer(paths)
            if last:
                self._forget_networks(record)
            self._records.finish_removal(paths)
            self._release_image(record)
        except (SampanError, OSError):
            pass
        finally:
            lock.release()

    def _is_last(self, record: Record) -> bool:
        """Whether no later removal has yet to look after all networks of this one."""
        last = False
        with self._counting:
            for attachment in record.networks:
                left = self._leaving.pop(attachment.network, 1) - 1
                if left > 0:
                    self._leaving[attachment.network] = left
                else:
                    last = True
        return last


def unkillable(container_id: str, error: TimeoutError) -> System:
    """What is told of processes that SIGKILL does not end."""
    return System(
        f"container {container_id}: some of its processes cannot be killed: {error.strerror} (in uninterruptible sleep a "
        "process waits for a disk or a file system, and goes when that answers or is unmounted: then try again)"
    )


def _is_quiet(directory: str) -> bool:
    """Whether no process is at work on a start: its monitor's children hold the directory from before their first step."""
    try:
        fd = lock_directory(directory)
    except FileNotFoundError:
        return True
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def await_monitor(paths: ContainerPaths, patience: float = FULL.others) -> None:
    """Wait for the end of a monitor that has written its exit file already; do nothing for one that has not.

    It flushes a log and removes a cgroup there.

    Raises Conflict if it takes too long.
    """
    try:
        number = paths.newest_start()
    except FileNotFoundError:
        return
    deadline = time.monotonic() + patience
    pause = 0.0005
    while lock_is_held(paths.monitor_lock) and os.path.exists(paths.start(number).exit):
        if time.monotonic() > deadline:
            raise Conflict(f"container {paths.id}: its monitor has not ended, try again")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def kill_monitor(paths: ContainerPaths) -> None:
    """SIGKILL to a monitor that has not written yet who it is: the holder of its lock. What it began is lost then."""
    from sampan.kernel.processinfo import kill_lock_holder  # in here: monitors are killed once in a blue moon

    kill_lock_holder(paths.monitor_lock)
