"""The state directory of OCI containers: one directory each, below `--root`.

    ROOT/ID/state.json   what was made of what; written whole
    ROOT/ID/state.next   what it will be when the container's process is ready, see `Container.prepare`
    ROOT/ID/lock         held by a command that changes the container
    ROOT/ID/hold         locked by the container's process from its making until it executes its program: "created"
    ROOT/ID/start.sock   where it waits for `start`

Whether a container lives is asked of the kernel: by its pid, the time that its process began, and the boot. A number that was given
away again is never taken for the container.
"""

from __future__ import annotations

import errno
import os
import time

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.kernel import cgroup, clock, files, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver

START_SOCKET = "start.sock"
_RECORD, _NEXT = "state.json", "state.next"
LOCK_SECONDS = 10.0
VERSION = 1

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"


class Container:
    """One container's directory. `record` is its state.json."""

    def __init__(self, root: str, identifier: str, record: dict[str, Any], driver: CgroupDriver | None = None) -> None:
        """driver: of the cgroups here, found out when it is needed without one."""
        self.id = identifier
        self.directory = f"{root}/{identifier}"
        self.record = record
        self._driver = driver

    @property
    def pid(self) -> int:
        return int(self.record["pid"])

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.record["config"]
        return config

    @property
    def group(self) -> str:
        """Its cgroup, as the drivers name it."""
        return str(self.record["group"])

    @property
    def driver(self) -> CgroupDriver:
        if self._driver is None:
            self._driver = cgroup.detect()
        return self._driver

    def alive(self) -> bool:
        """Whether its first process lives: that one, and no other that has its number now."""
        record = self.record
        return (
            bool(record["pid"])
            and record["boot"] == clock.boot_id()
            and process.lives(record["pid"], record["pid_start"])
        )

    def status(self) -> str:
        """As the runtime specification has it, and "paused"."""
        if not self.alive():
            return CREATING if self.record["creating"] and not self.record["pid"] else STOPPED
        if self.record["creating"]:
            return CREATING
        if files.lock_is_held(f"{self.directory}/hold"):
            return CREATED
        return PAUSED if self.driver.frozen(self.group) else RUNNING

    def open_process(self) -> int:
        """A pidfd of its first process. Raises `ProcessLookupError` if that has ended."""
        if not self.record["pid"] or self.record["boot"] != clock.boot_id():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return process.open_process(self.record["pid"], self.record["pid_start"])

    def state(self, status: str) -> dict[str, Any]:
        """The state as the runtime specification has it (runtime.md, "State"), and no more."""
        return {
            "ociVersion": self.record["oci_version"],
            "id": self.id,
            "status": status,
            "pid": 0 if status == STOPPED else self.pid,
            "bundle": self.record["bundle"],
            "annotations": self.config.get("annotations") or {},
        }

    def write(self, **changes: Any) -> None:
        """Change the record, on disk first."""
        record = {**self.record, **changes}
        files.write_atomic(f"{self.directory}/{_RECORD}", jsontext.dumps(record), sync=False)
        self.record = record

    def prepare(self, **changes: Any) -> dict[str, Any]:
        """Write the record with these changes beside it: what is left is to `settle`, while somebody waits."""
        record = {**self.record, **changes}
        files.write_atomic(f"{self.directory}/{_NEXT}", jsontext.dumps(record), sync=False)
        return record

    def settle(self, record: dict[str, Any]) -> None:
        """Have what was prepared in the place of the record."""
        os.rename(f"{self.directory}/{_NEXT}", f"{self.directory}/{_RECORD}")
        self.record = record

    def lock(self) -> files.FileLock:
        """Keep other commands from changing it. Raises `Conflict` after some seconds."""
        try:
            return files.FileLock.acquire(f"{self.directory}/lock", LOCK_SECONDS, make=False)
        except BlockingIOError:
            raise Conflict(f"container {self.id} is being changed by another command") from None
        except FileNotFoundError:
            raise NotFound("container does not exist") from None

    def open_directory(self) -> int:
        return os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def remove(self) -> None:
        """Take the directory away: the record last, so that a removal that was cut short can be done again."""
        for name in ("hold", START_SOCKET, "lock", _NEXT, _RECORD):
            try:
                os.unlink(f"{self.directory}/{name}")
            except FileNotFoundError:
                pass
        try:
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass


def check_id(identifier: str) -> None:
    """Raise `InvalidParameter` for what cannot be a container's id: it becomes the name of a directory."""
    if not identifier:
        raise InvalidParameter("container id cannot be empty")
    allowed = all(c.isascii() and (c.isalnum() or c in "_+-.") for c in identifier)
    if not allowed or identifier in (".", "..") or len(identifier) > 255:
        raise InvalidParameter(f"invalid container ID format: {identifier!r}")


def new(root: str, identifier: str, record: dict[str, Any], driver: CgroupDriver) -> tuple[Container, files.FileLock]:
    """Make a container's directory, and lock it. driver: of the cgroups here. Raises `Conflict` if there is one of that id, on all roots alike `System`."""
    check_id(identifier)
    try:
        os.makedirs(root, 0o711, exist_ok=True)
        os.mkdir(f"{root}/{identifier}", 0o700)
    except FileExistsError:
        raise Conflict(f"container with given ID already exists: {identifier}") from None
    except OSError as e:
        raise System(f"mkdir {root}/{identifier}: {os.strerror(e.errno or 0).lower()}") from e
    made = Container(root, identifier, {}, driver)
    lock = files.FileLock.acquire(f"{made.directory}/lock", 0)
    made.write(
        version=VERSION, id=identifier, created=time.time(), pid=0, pid_start=0, boot="", creating=True, **record
    )
    return made, lock


def find(root: str, identifier: str) -> Container:
    """The container of that id. Raises `NotFound`."""
    check_id(identifier)
    try:
        with open(f"{root}/{identifier}/{_RECORD}", "rb") as f:
            record = jsontext.loads(f.read())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("container does not exist") from None
    except ValueError as e:
        raise System(f"{root}/{identifier}/{_RECORD}: {e}") from None
    return Container(root, identifier, record)


def everyone(root: str) -> list[Container]:
    """All containers below a root, by their ids; one that goes away meanwhile is left out."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            found.append(find(root, name))
        except (NotFound, InvalidParameter):
            continue
    return found
