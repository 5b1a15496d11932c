"""`sampan-oci` state, start, kill, delete: the operations of the runtime specification but for create."""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.kernel import process
from sampan.oci import signals
from sampan.runtime import ocilaunch, ocilog, ocimake, ocistate
from sampan.runtime.ociflags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.ocicli import Global
    from sampan.runtime.ociflags import Arguments
    from sampan.runtime.ocilog import Log
    from sampan.runtime.ocistate import Container

_NONE = "accepted for runc's sake: there is no checkpoint"
_CHECKPOINT = (
    Flag("image-path", "string", _NONE),
    Flag("work-path", "string", _NONE),
    Flag("leave-running", "bool", _NONE),
)

FLAGS = {
    "state": (),
    "start": (),
    "kill": (Flag("all", "bool", "signal all processes of the container", "a"),),
    "delete": (Flag("force", "bool", "kill it first if it runs", "f"),),
    "checkpoint": _CHECKPOINT,
    "restore": _CHECKPOINT,
}

SIGKILL = 9
KILL_SECONDS = 10.0


def state(given: Global, arguments: Arguments) -> int:
    container = ocistate.find(given.root, arguments.words[0])
    text = jsontext.dumps(container.state(container.status()))
    ocilog.out(ocilog.indented(text))
    return 0


def start(given: Global, arguments: Arguments) -> int:
    container = ocistate.find(given.root, arguments.words[0])
    with container.lock():
        container = ocistate.find(given.root, container.id)
        status = container.status()
        if status == ocistate.STOPPED:
            raise Conflict("cannot start a container that has stopped")
        if status != ocistate.CREATED:
            raise Conflict(f"cannot start an already running container: it is {status}")
        directory = container.open_directory()
        try:
            ocilaunch.release(directory, ocistate.START_SOCKET)
        except (ConnectionRefusedError, FileNotFoundError):
            raise Conflict("cannot start a container that has stopped") from None
        finally:
            os.close(directory)
        poststart(container, given.log)
    return 0


def poststart(container: Container, log: Log) -> None:
    """The hooks after the start: the container runs whatever becomes of them."""
    entries = (container.config.get("hooks") or {}).get("poststart") or ()
    state = jsontext.dumps(container.state(ocistate.RUNNING)) if entries else b""
    ocimake.try_hooks("poststart", entries, state, log)


def kill(given: Global, arguments: Arguments) -> int:
    container = ocistate.find(given.root, arguments.words[0])
    number = _signal(arguments.words[1] if len(arguments.words) > 1 else "SIGTERM")
    everybody = arguments["all"] or (number == SIGKILL and not ocimake.own_pid_namespace(container))
    if everybody:
        return _kill_all(container, number, arguments["all"])
    try:
        pidfd = container.open_process()
        try:
            if not container.alive():
                raise ProcessLookupError
            process.signal_process(pidfd, number)
        finally:
            os.close(pidfd)
    except ProcessLookupError:
        raise Conflict("container not running") from None
    if number == SIGKILL:
        # A frozen process of cgroup v1 dies when it is thawed.
        container.driver.thaw(container.group)
    return 0


def _kill_all(container: Container, number: int, asked: bool) -> int:
    if not asked and not container.alive():
        raise Conflict("container not running")
    if number == SIGKILL:
        container.driver.kill(container.group)
        return 0
    found = container.driver.processes(container.group)
    if not found:
        raise Conflict("container not running")
    for pid in found:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return 0


def _signal(text: str) -> int:
    """A signal by its name, with or without SIG, or its number."""
    try:
        return signals.parse(text)
    except InvalidParameter:
        raise InvalidParameter(f'unknown signal "{text}"') from None


def delete(given: Global, arguments: Arguments) -> int:
    force = arguments["force"]
    try:
        container = ocistate.find(given.root, arguments.words[0])
        lock = container.lock()
    except NotFound:
        if force:
            _remove_remains(given, arguments.words[0])
            return 0
        raise
    with lock:
        container = ocistate.find(given.root, container.id)
        status = container.status()
        if status != ocistate.STOPPED and not force:
            raise Conflict(f"cannot delete container {container.id} that is not stopped: {status}")
        ocimake.undo(container, given.log)
    return 0


def _remove_remains(given: Global, identifier: str) -> None:
    """The directory of a `create` that was killed before it had written anything."""
    ocistate.Container(given.root, identifier, {}).remove()


def checkpoint(given: Global, arguments: Arguments) -> int:
    raise InvalidParameter("checkpoint and restore are not supported: a container cannot be written to disk")
