"""What is on disk about a container's starts, read into one observation, and the few files the engine writes there.

The monitor writes `started` and `exit.json`; the engine makes the directory of a start (with `restarted` in it, if no person
made it), writes `stopping`, and writes `exit.json` itself only for a start whose monitor is gone.
"""

from __future__ import annotations

import errno
import os

from sampan import jsontext
from sampan.kernel import clock
from sampan.kernel.clock import boot_id
from sampan.kernel.files import lock_is_held, read_small, write_all, write_atomic
from sampan.oci import lifecycle, restart
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths, StartPaths

LOST_EXIT_CODE = 255
"""What Docker shows for a container whose end nobody saw."""

_RESERVED = 4096


class Observation(Struct):
    """A container's state at one moment, with the facts behind it.

    number: of the newest start, 0 for none. started, exit: the monitor's two files of that start, None where
    there is none. monitor: whether the monitor lives (for a moment after the exit too, and while it waits to restart
    the container). intent: what somebody who asked for the end of that start wrote down, see `oci.restart`.
    """

    status: str
    number: int = 0
    started: dict[str, Any] | None = None
    exit: dict[str, Any] | None = None
    monitor: bool = False
    intent: dict[str, Any] | None = None

    @property
    def restart(self) -> dict[str, Any]:
        """The restart that the end of the newest start made due, {} for none; done, cancelled or still to come."""
        return dict((self.exit or {}).get("restart") or {})

    @property
    def orphaned(self) -> bool:
        """Whether a restart is due that no monitor waits to make: it was killed."""
        return self.status == lifecycle.RESTARTING and not self.monitor

    @property
    def running(self) -> bool:
        """Whether its program was started and has not ended for good; one that is paused or restarting runs, as with Docker."""
        return self.status in lifecycle.UP

    @property
    def failed(self) -> bool:
        """Whether the newest start never came as far as the container's own program."""
        return self.exit is not None and bool(self.exit.get("failed"))

    @property
    def exit_code(self) -> int:
        """0 as long as there is none; of a lost container the one that settling it will write."""
        if self.exit is None:
            return LOST_EXIT_CODE if self.status == lifecycle.LOST else 0
        return int(self.exit.get("exit_code", LOST_EXIT_CODE))


def observe(paths: ContainerPaths, holding: bool = False, frozen: Callable[[], bool] | None = None) -> Observation:
    """Look at a container; `holding` says that the caller has its record lock.

    `frozen` asks the kernel whether its cgroup is, once it is plain that the container runs; without it none is paused.
    Raises FileNotFoundError if the container is gone.
    """
    number = paths.newest_start()
    if number == 0:
        return Observation(lifecycle.CREATED)
    start = paths.start(number)
    # This order: see lifecycle.derive. And once more if the start looks lost to somebody who does not hold the record
    # lock: its monitor may have come up, or have ended, between the questions.
    monitor = lock_is_held(paths.monitor_lock)
    ended = read_json(start.exit)
    locked = False
    if not monitor and ended is None and not holding:
        locked = lock_is_held(paths.record_lock)
        monitor = lock_is_held(paths.monitor_lock)
        ended = read_json(start.exit)
        if not locked and not monitor and ended is None:
            # Not lost, but gone: whoever removed it meanwhile took all these files out of sight with one rename.
            paths.newest_start()
    started = read_json(start.started)
    intent = read_json(start.stopping)
    runs = monitor and started is not None and ended is None
    status = lifecycle.derive(
        starts=number,
        started=started is not None,
        exited=ended is not None,
        monitor=monitor,
        locked=locked,
        frozen=runs and frozen is not None and frozen(),
        restart=_is_due(ended, intent),
    )
    return Observation(status, number, started, ended, monitor, intent)


def _is_due(ended: dict[str, Any] | None, intent: dict[str, Any] | None) -> bool:
    """Whether a restart is to be made: not if it was cancelled, nor after a reboot, which is `sampan boot`'s to judge."""
    due = (ended or {}).get("restart")
    return due is not None and not restart.is_cancelled(intent) and due["boot"] == boot_id()


def read_json(path: str) -> dict[str, Any] | None:
    """A small JSON object; None if it is not there or was not written whole (it counts as not written then)."""
    try:
        value = jsontext.loads(read_small(path))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def begin_start(
    paths: ContainerPaths, number: int, trace: Trace, restarted: dict[str, Any] | None = None
) -> StartPaths:
    """Make the directory of start `number`, with the space of its exit file set aside. Needs the record lock.

    restarted: the restart that it is, from the exit file of the start before. The directory gets its name when all is in it:
    whoever comes after a crash sees whether a person or a policy made the start.
    Raises OSError (ENOSPC) before anything was started: a disk that fills up later loses no exit code, and keeps nobody
    from stopping the container.
    """
    start, draft = paths.start(number), paths.draft()
    if os.path.isdir(draft.directory):
        forget_start(draft, trace)  # of a command that was killed here
    with trace.step("make directory", draft.directory):
        os.mkdir(draft.directory, 0o700)
    try:
        with trace.step("reserve exit file", start.reserved_exit):
            _reserve(draft.reserved_exit)
            _reserve(draft.reserved_stopping)
        if restarted is not None:
            write_atomic(draft.restarted, jsontext.dumps(restarted), sync=False)
        with trace.step("rename to", start.directory):
            os.rename(draft.directory, start.directory)
    except BaseException:
        forget_start(draft, trace)
        raise
    return start


def _reserve(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _RESERVED)
    except OSError as e:
        # A file system without fallocate (and libc's emulation): the exit file is then written like any other.
        if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    finally:
        os.close(fd)


def write_stopping(start: StartPaths, signal: int, trace: Trace, final: bool = True, again: bool = False) -> None:
    """Make the intent to stop durable, before any signal is sent. A second one like it finds it there; another replaces it.

    final, again: see `oci.restart`. A signal that is not final takes nothing back.
    """
    before = read_json(start.stopping)
    if before is not None and (not final or (before.get("final"), before.get("again")) == (final, again)):
        return
    intent = jsontext.dumps({"signal": signal, "time": clock.now(), "final": final, "again": again})
    with trace.step("write stop intent", start.stopping):
        if os.path.exists(start.reserved_stopping):
            _write_reserved(start.reserved_stopping, start.stopping, intent)
            return
        try:
            write_atomic(start.stopping, intent)
        except OSError as e:
            if e.errno not in _FULL or before is None:
                raise
            _overwrite(start.stopping, intent)


_FULL = (errno.ENOSPC, errno.EDQUOT)


def _write_reserved(reserved: str, path: str, data: bytes) -> None:
    """Put data at `path`, in the blocks that were set aside for it: this works on a full disk too."""
    fd = os.open(reserved, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        os.ftruncate(fd, len(data))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(reserved, path)


def _overwrite(path: str, data: bytes) -> None:
    """The same where the blocks are those of the file itself, in one write: half of it would count as none (`read_json`)."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data.ljust(os.fstat(fd).st_size), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_exit(
    start: StartPaths, exit_code: int, error: str, failed: bool, trace: Trace, restart: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the exit file of a start whose monitor did not (and never will). Needs the record lock.

    restart: the one that this end makes due, if it does.
    """
    value: dict[str, Any] = {
        "exit_code": exit_code,
        "finished": clock.now(),
        "oom_killed": False,
        "error": error,
        "failed": failed,
    }
    if restart is not None:
        value["restart"] = {**restart, "boot": boot_id()}
    with trace.step("write exit file", start.exit):
        _write_reserved(start.reserved_exit, start.exit, jsontext.dumps(value))
    return value


def keep_health(paths: ContainerPaths, start: StartPaths, trace: Trace) -> None:
    """Save what a killed monitor found out about its container's health, before its run directory goes."""
    health = read_json(paths.health)
    if health is not None:
        with trace.step("write health", start.health):
            try:
                write_atomic(start.health, jsontext.dumps(health))
            except OSError as e:
                if e.errno not in _FULL:
                    raise  # it is not worth keeping a container from its end, which may be what makes room


def restarts(paths: ContainerPaths, seen: Observation) -> int:
    """How often it was restarted since somebody started it; one that is due counts, as with Docker."""
    restarted = seen.restart or read_json(paths.start(seen.number).restarted) or {}
    return int(restarted.get("count", 0))


def earlier_success(paths: ContainerPaths, number: int) -> int:
    """The newest start before `number` whose program ran, 0 if there is none."""
    for earlier in sorted((int(n) for n in os.listdir(paths.starts) if n.isdigit()), reverse=True):
        if earlier < number and not (read_json(paths.start(earlier).exit) or {}).get("failed"):
            return earlier
    return 0


def forget_old_starts(paths: ContainerPaths, number: int, trace: Trace) -> None:
    """Remove what start `number` makes useless: every earlier start but the newest that ran (inspect shows its times)."""
    if number == 1:
        return
    keep = earlier_success(paths, number)
    for name in os.listdir(paths.starts):
        if name.isdigit() and int(name) < number and int(name) != keep:
            forget_start(paths.start(int(name)), trace)


def forget_start(start: StartPaths, trace: Trace) -> None:
    """Remove the directory of a start."""
    with trace.step("remove directory", start.directory):
        # The exit file last: without it this would be a start that was lost, if it were the newest.
        for file in sorted(os.listdir(start.directory), key=lambda entry: entry == "exit.json"):
            os.unlink(f"{start.directory}/{file}")
        os.rmdir(start.directory)
