"""Ending a container: stop (a signal, patience, then force), kill (a signal), and waiting for the end."""

from __future__ import annotations

import time

from sampan.engine.settle import unkillable
from sampan.errors import Conflict, System
from sampan.kernel import cgroup
from sampan.oci import lifecycle, signals
from sampan.runtime.handle import Handle
from sampan.store import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str) -> RecordLock: ...
        def paths(self, container_id: str) -> ContainerPaths: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str, extra: Mapping[str, str] = ...) -> None: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...
        def settle(self, record: Record) -> Observation | None: ...


DEFAULT_TIMEOUT = 10
FOREVER = -1

_KILL_SECONDS = 5.0
_CONCLUDE_SECONDS = 15.0
_CANCEL_SECONDS = 0.25
_SHORTEST, _LONGEST = 0.001, 0.02
"""Seconds between two looks at a container that changes its state in this moment."""


class Stopper:
    """`POST /containers/{id}/stop`, `/kill` and `/wait`."""

    def __init__(
        self, records: Records, settler: Settler, cgroups: CgroupDriver, events: Announcer, trace: Trace
    ) -> None:
        self._records = records
        self._settler = settler
        self._cgroups = cgroups
        self._events = events
        self._trace = trace

    def stop(self, record: Record, timeout: int | None = None, signal: str = "", again: bool = False) -> None:
        """End the container: its stop signal, after `timeout` seconds SIGKILL. -1 waits without end.

        None takes the container's own timeout, else 10 s. One that is restarting is not restarted any more. `again` says that a
        start follows: the end then leaves the container *restarting*, which a killed command leaves to the next one.
        Raises NotModified if it does not run.
        """
        number = signals.parse(signal or record.config.get("StopSignal") or "TERM")
        if timeout is None:
            timeout = record.config.get("StopTimeout")
        if timeout is None:
            timeout = DEFAULT_TIMEOUT
        handle = self._intend(record, lifecycle.STOP, number, again=again)
        if handle.exited() is None:
            self._signal(record, handle, number)
            self._resume(record)
            if not handle.wait_init(None if timeout < 0 else timeout):
                self._force(record, handle)
        self._conclude(record, handle, again)
        self._events.container(record, "stop")

    def kill(self, record: Record, signal: str = "KILL") -> None:
        """Send a signal; SIGKILL also waits for the end. Raises Conflict if the container does not run."""
        number = signals.parse(signal)
        if number == signals.SIGKILL:
            self.kill_and_wait(record)
            return
        # Docker's rule: what may be the container's end must reach it, and any signal may if none is named as that.
        expected = record.config.get("StopSignal")
        final = not expected or signals.parse(expected) == number
        handle = self._foresee(record, number, final)
        if handle.exited() is not None:
            if final:
                self._conclude(record, handle)  # it was restarting
            return
        self._signal(record, handle, number)
        if final:
            self._resume(record)

    def _foresee(self, record: Record, number: int, final: bool) -> Handle:
        """What a signal may come to: for a container with a restart policy it is written down whether that holds on.

        Without a policy the signal goes straight to the program, past whoever has the record lock.
        """
        seen = self._settler.observe(record)
        policy = self._records.read(record.id).host_config.get("RestartPolicy") or {}
        if seen.running and (policy.get("Name") or "no") != "no":
            return self._intend(record, lifecycle.KILL, number, final)
        lifecycle.check(lifecycle.KILL, seen.status, record.id, record.name)
        return self._handle(record, seen)

    def kill_and_wait(self, record: Record) -> None:
        """SIGKILL, and wait for the end. Raises Conflict if the container does not run."""
        handle = self._intend(record, lifecycle.KILL, signals.SIGKILL)
        if handle.exited() is None:
            self._force(record, handle)
        self._conclude(record, handle)

    def wait(self, record: Record) -> int:
        """Wait until the container does not run; its exit code (0 if it was never started), as `docker wait`.

        The exit is settled then. With a restart policy it is the first exit; of one that is restarting, the next. Raises
        NotFound if it is removed before it has an exit code.
        """
        revived = 0
        pause = _SHORTEST
        while True:
            seen = self._settler.observe(record)
            if seen.orphaned and seen.number != revived:
                revived = seen.number
                self._settler.settle(record)
            if seen.status not in lifecycle.BUSY:
                settled = self._settler.settle(record)
                return (settled or seen).exit_code
            code = self._hear_exit(self._handle(record, seen))
            if code is not None:
                self._settler.settle(record)
                return code
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def _hear_exit(self, handle: Handle) -> int | None:
        """The exit code from the monitor itself: with `--rm` the file is gone soon. None if it did not say."""
        try:
            attachment = handle.attach(stdout=False, stderr=False)
        except (Conflict, System, OSError):
            return None  # it has just ended, or does not listen yet
        try:
            while attachment.receive() is not None and attachment.exit is None:
                pass
        finally:
            attachment.close()
        return int(attachment.exit["exit_code"]) if attachment.exit is not None else None

    # Within

    def _intend(self, record: Record, verb: str, signal: int, final: bool = True, again: bool = False) -> Handle:
        """Check the state and write the intent down, under the record lock; the signal is sent without it."""
        with self._records.lock(record.id) as lock:
            seen = self._settler.recover(record, lock)
            lifecycle.check(verb, seen.status, record.id, record.name)
            states.write_stopping(lock.paths.start(seen.number), signal, self._trace, final, again)
            return self._handle(record, seen)

    def _signal(self, record: Record, handle: Handle, number: int) -> None:
        # Told first: an end that comes of it is told by another process.
        self._events.container(record, "kill", {"signal": str(number)})
        with self._trace.step("send signal", str(number)):
            try:
                handle.signal(number)
            except ProcessLookupError:
                pass  # It has ended by itself meanwhile, which is what was wanted.

    def _resume(self, record: Record) -> None:
        """A paused container goes on, or the signal that was sent to it would wait; after the signal, which is then the first thing it sees."""
        group = cgroup.container_group(record.id, record.host_config)
        if self._cgroups.frozen(group):
            with self._trace.step("thaw cgroup", group):
                self._cgroups.thaw(group)

    def _force(self, record: Record, handle: Handle) -> None:
        """SIGKILL to init, which takes its pid namespace along; then to whatever else is in the cgroup."""
        self._signal(record, handle, signals.SIGKILL)
        self._resume(record)
        if handle.wait_init(_KILL_SECONDS):
            return
        group = cgroup.container_group(record.id, record.host_config)
        try:
            with self._trace.step("kill cgroup", group):
                self._cgroups.kill(group)
        except TimeoutError as e:
            raise unkillable(record.id, e) from None

    def _conclude(self, record: Record, handle: Handle, again: bool = False) -> None:
        """Wait until the monitor has written the exit down, and settle it, unless a start follows that does more.

        A monitor that does not (it is stopped, or hangs) is killed: the exit is then that of a lost container.
        """
        if not self._await_monitor(handle) and handle.exited() is None:
            with self._trace.step("kill monitor", record.id):
                handle.kill_monitor()
            if not handle.wait_monitor(_KILL_SECONDS):
                raise System(f"container {record.id}: its monitor cannot be killed")
        if not again:
            self._settler.settle(record)

    def _await_monitor(self, handle: Handle) -> bool:
        """Whether the monitor came to its end. One that rests before a restart is told that there will be none.

        Only then: one that has not written its exit yet sees our intent when it has (`shim.monitor`, `_rest`).
        """
        deadline = time.monotonic() + _CONCLUDE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if (handle.exited() or {}).get("restart"):
                handle.cancel_restart()
            if handle.wait_monitor(min(left, _CANCEL_SECONDS)):
                return True
            handle.wake_monitor()  # it has the exit code, and nobody else: stopped by a signal, it could not tell it
        return False

    def _handle(self, record: Record, seen: Observation) -> Handle:
        paths = self._records.paths(record.id)
        return Handle(paths, paths.start(seen.number).directory)
