"""The volumes on disk: volumes/NAME/{_data/, volume.json}.

A volume is what a container keeps beyond its own life. It is made by one rename (of a directory that has both, synced,
under a name that nobody looks at) and goes by one. Who uses it is nowhere written down but in the containers' records.
"""

from __future__ import annotations

import os
import stat

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter, NotFound, System, Unavailable
from sampan.kernel.files import FileLock, sync_directory, write_atomic
from sampan.kernel.mountinfo import mount_points
from sampan.store.locks import acquire_in_turn
from sampan.store.staging import Staging, delete_tree
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.steps.trace import Trace

SCHEMA = 1
"""The version of volume.json that this code writes; it reads all up to it."""

ANONYMOUS = "com.docker.volume.anonymous"
"""The label, with an empty value, of a volume that nobody named."""

_DATA, _DOCUMENT = "_data", "volume.json"
_REMOVING = ".removing-"
_LIMIT = 1 << 20
_PATIENCE = 60.0
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")


class VolumeRecord(Struct):
    """One volume. The fields are Docker's.

    path: of its `_data`. options: of the driver. created: RFC 3339. made_for: the container for which an anonymous one
    was made. broken: why the volume cannot be used ("" for a good one); such a one can only be removed.
    """

    name: str
    path: str
    options: dict[str, str]
    labels: dict[str, str]
    created: str
    driver: str = "local"
    scope: str = "local"
    made_for: str = ""
    broken: str = ""

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS in self.labels

    def to_bytes(self) -> bytes:
        """The content of volume.json."""
        data = self.to_json()
        del data["broken"], data["path"]
        return jsontext.dumps({"schema": SCHEMA, **data})


class VolumeStore:
    """All volumes below one directory. Holds no state: every call looks at the disk."""

    def __init__(self, directory: str, trace: Trace) -> None:
        self.directory = directory
        self._trace = trace
        self._staging = Staging(directory, trace)

    def path(self, name: str) -> str:
        """Where a volume is. Raises `InvalidParameter` for what is no name: it becomes a file name."""
        return f"{self.directory}/{check_name(name)}"

    def data(self, name: str) -> str:
        """Where its content is."""
        return f"{self.path(name)}/{_DATA}"

    def find(self, name: str) -> VolumeRecord | None:
        """The volume of that name, a broken one if it is damaged; None if there is none."""
        if not is_name(name):
            return None
        path = f"{self.directory}/{name}"
        try:
            with open(f"{path}/{_DOCUMENT}", "rb") as file:
                data = file.read(_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return self._without_document(name)
        except OSError as e:
            return self._broken(name, f"{path}/{_DOCUMENT}: {(e.strerror or str(e)).lower()}")
        return self._parsed(name, data)

    def _without_document(self, name: str) -> VolumeRecord | None:
        try:
            status = os.lstat(f"{self.directory}/{name}")
        except OSError as e:
            if isinstance(e, FileNotFoundError):
                return None
            return self._broken(name, f"{self.directory}/{name}: {(e.strerror or str(e)).lower()}")
        what = "no such file or directory" if stat.S_ISDIR(status.st_mode) else "not a directory"
        return self._broken(name, f"{self.directory}/{name}/{_DOCUMENT}: {what}")

    def _parsed(self, name: str, data: bytes) -> VolumeRecord:
        document = f"{self.directory}/{name}/{_DOCUMENT}"
        try:
            fields = jsontext.loads(data)
            schema = fields.pop("schema")
            if schema > SCHEMA:
                return self._broken(name, f"{document}: written by a newer sampan (schema {schema})")
            record = VolumeRecord(path=f"{self.directory}/{name}/{_DATA}", **_checked(fields))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            return self._broken(name, f"{document}: not a volume's document: {e}")
        if record.name != name:
            return self._broken(name, f"{document}: it is that of {record.name}")
        try:
            # Not through a link: whoever put one there would have a container's mount lead anywhere.
            if stat.S_ISDIR(os.lstat(record.path).st_mode):
                return record
            reason = "not a directory"
        except OSError as e:
            reason = (e.strerror or str(e)).lower()
        return self._broken(name, f"{record.path}: {reason}")

    def _broken(self, name: str, why: str) -> VolumeRecord:
        return VolumeRecord(
            name=name, path=f"{self.directory}/{name}/{_DATA}", options={}, labels={}, created="", broken=why
        )

    def list(self) -> list[VolumeRecord]:
        """All volumes, sorted by name."""
        found = (self.find(name) for name in sorted(filter(is_name, os.listdir(self.directory))))
        return [record for record in found if record is not None]

    def add(self, record: VolumeRecord, durable: bool = True) -> bool:
        """Make a volume; False if another process has made one of that name. Raises OSError (a full disk: nothing stays)."""
        target = self.path(record.name)
        with self._staging.begin() as staged:
            with self._trace.step("write volume", f"{staged.path}/{_DOCUMENT}"):
                write_atomic(f"{staged.path}/{_DOCUMENT}", record.to_bytes(), sync=durable)
            data = f"{staged.path}/{_DATA}"
            with self._trace.step("make directory", data):
                os.mkdir(data, 0o755)
                os.chmod(data, 0o755)  # the umask is the caller's
                if durable:
                    sync_directory(staged.path)
            if not staged.publish(target):
                return False
        if durable:
            with self._trace.step("sync directory", self.directory):
                sync_directory(self.directory)
        return True

    def withdraw(self, name: str) -> str:
        """Rename a volume out of everybody's sight, which is its removal; where it is now, "" if it was gone.

        Raises Conflict if something is mounted in it: what is mounted there is not the volume's, and would be deleted.
        The caller deletes it with `delete`; if it is killed first, `collect_garbage` does.
        """
        path = self.path(name)
        self._refuse_mounts(path)
        aside = f"{self.directory}/{_REMOVING}{os.urandom(8).hex()}"
        try:
            with self._trace.step("rename away", path):
                os.rename(path, aside)
                # Before the first file of it goes: a machine that goes down now must not come up with half a volume.
                sync_directory(self.directory)
        except FileNotFoundError:
            return ""
        return aside

    def delete(self, aside: str) -> None:
        """Delete what `withdraw` gave. Idempotent."""
        with self._trace.step("delete tree", aside):
            delete_tree(aside)

    def usage(self, name: str) -> int:
        """Bytes of the files in a volume, as Docker counts them; 0 if it is gone."""
        from sampan.kernel.tree import disk_usage

        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return 0  # gone, or no directory at all: nothing to count
        try:
            return disk_usage(fd, _DATA)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        finally:
            os.close(fd)

    def space(self, name: str) -> int:
        """Bytes of the disk that are free again when the volume is removed: not of what is mounted on it."""
        from sampan.kernel.tree import disk_blocks

        return disk_blocks(self.path(name))

    def leftovers(self) -> tuple[str, ...]:
        """What killed commands left, by this moment; see `Staging.leftovers`."""
        from sampan.kernel.files import is_young

        return tuple(path for path in self._staging.leftovers() if not is_young(path))

    def collect_garbage(self) -> None:
        """Delete what killed commands left half made and half removed. Safe beside processes that are at work."""
        for entry in os.listdir(self.directory):
            if entry.startswith(_REMOVING):
                self._refuse_mounts(f"{self.directory}/{entry}")
        self._staging.collect_garbage()

    def _refuse_mounts(self, path: str) -> None:
        mounted = mount_points(os.path.realpath(path))
        if mounted:
            raise Conflict(f"remove {os.path.basename(path)}: something is mounted on {mounted[-1]}: unmount it first")


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The members of a volume.json. Raises ValueError for what is not of its kind."""
    for key in ("name", "driver", "created", "scope", "made_for"):
        if not isinstance(fields.get(key, ""), str):
            raise ValueError(f"{key} is no text")
    for key in ("options", "labels"):
        if not isinstance(fields[key], dict) or not all(isinstance(value, str) for value in fields[key].values()):
            raise ValueError(f"{key} are no texts")
    return fields


def is_name(name: str) -> bool:
    """Whether a volume may have this name."""
    return 2 <= len(name) <= 255 and name[0] in _FIRST and _REST.issuperset(name)


def check_name(name: str) -> str:
    """The name. Raises InvalidParameter in Docker's words (moby, volume/local)."""
    if len(name) == 1:
        raise InvalidParameter("volume name is too short, names should be at least two alphanumeric characters")
    if not name or name[0] not in _FIRST or not _REST.issuperset(name):
        raise InvalidParameter(
            f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
            "allowed. If you intended to pass a host directory, use absolute path"
        )
    if len(name) > 255:
        raise InvalidParameter(f"mkdir {name}: file name too long")
    return name


def no_such_volume(name: str) -> NotFound:
    """Docker's error for a name that leads nowhere."""
    return NotFound(f"get {name}: no such volume")


def damaged(record: VolumeRecord) -> System:
    """What is said to whoever wants to use a broken volume."""
    return System(
        f"volume {record.name} is damaged ({record.broken}): repair it, or remove it with: volume rm -f {record.name}"
    )


class VolumeLock:
    """Who may use volumes and who may delete them.

    Shared: whoever makes a container, from the moment it looks at a volume until the record that names it is written.
    Exclusive: whoever deletes volumes, from the look at the records to the rename. Nothing is waited for under it
    but the disk. An exclusive lock is never asked for by who has the shared one: the two exclude each other also within one process.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def shared(self) -> FileLock:
        """A context manager. Raises `Unavailable` if a deletion takes longer than a minute."""
        return self._acquire(shared=True)

    def exclusive(self) -> FileLock:
        """A context manager. Raises `Unavailable` if a create takes longer than a minute."""
        return self._acquire(shared=False)

    def _acquire(self, shared: bool) -> FileLock:
        try:
            return acquire_in_turn(self._path, _PATIENCE, shared)
        except BlockingIOError:
            raise Unavailable(
                f"the volumes are in use: another command has held {self._path} for {_PATIENCE:.0f} s, try again"
            ) from None
