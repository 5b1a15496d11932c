"""The containers on disk: their records, and the names that they claim.

Making and removing a container is one rename each (`.creating-ID` -> `ID` -> `.removing-ID`), so that a reader
sees a whole container or none; what a killed command leaves under the other two names is finished by the next.
A name is claimed by the file names/NAME, changed under the names lock; the record is what counts, and a claim
that no record confirms is stale. Claims are not synced: what a power cut takes of them, the first command that asks
for a name after it puts back from the records, which are.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import InvalidParameter, NotFound, Unavailable
from sampan.kernel.clock import boot_id
from sampan.kernel.files import FileLock, is_young, lock_is_held, read_small, sync_directory, sync_file, write_atomic
from sampan.store.layout import CREATING, REMOVING
from sampan.store.locks import PATIENCE, RecordLock
from sampan.store.record import broken_record, check_name, is_hex, is_id, is_name, name_conflict, parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths, Layout
    from sampan.store.record import Record

_NAMES_PATIENCE = 30.0


class Records:
    """All container records below one root. Holds no state of its own: every call looks at the disk.

    Only that the names are whole it remembers, which no boot can change under a process.
    """

    def __init__(self, layout: Layout, trace: Trace) -> None:
        self._layout = layout
        self._trace = trace
        self._names_are_whole = False

    # Looking up

    def get(self, reference: str) -> Record:
        """The container with that full id, that name, or that unique beginning of an id, in this order.

        Raises NotFound, or InvalidParameter for an empty or an ambiguous reference, in Docker's words.
        """
        name = reference.removeprefix("/")
        if not name:
            raise InvalidParameter(f'invalid name or ID supplied: "{reference}"')
        # Nothing but these characters reaches a path.
        if not is_name(name, shortest=1):
            raise NotFound(f"No such container: {reference}")
        if len(name) == 64:
            try:
                return self.read(name)
            except NotFound:
                pass  # a name may be as long
        owner = self._owner(name)
        if owner is None and not self._are_names_whole():
            with self._names_lock():
                self._complete_names()
            owner = self._owner(name)
        if owner is not None:
            return owner
        matches = [i for i in self.ids() if i.startswith(name)] if is_hex(name) else []
        if len(matches) > 1:
            raise InvalidParameter(f"Multiple IDs found with provided prefix: {name}")
        if not matches:
            raise NotFound(f"No such container: {reference}")
        return self.read(matches[0])

    def read(self, container_id: str) -> Record:
        """The record of a full id. Raises NotFound; a record that cannot be read comes back as a broken one."""
        paths = self._layout.container(container_id)
        try:
            data = read_small(paths.record)
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.isdir(paths.directory):
                raise NotFound(f"No such container: {container_id}") from None
            return broken_record(container_id, f"{paths.record}: No such file or directory")
        return parse_record(container_id, data, paths.record)

    def try_read(self, container_id: str) -> Record | None:
        """As `read`, None for a container that has gone meanwhile."""
        try:
            return self.read(container_id)
        except NotFound:
            return None

    def ids(self) -> list[str]:
        """All containers, in no order. One directory is read, no record."""
        return [entry for entry in os.listdir(self._layout.containers) if not entry.startswith(".")]

    def paths(self, container_id: str) -> ContainerPaths:
        return self._layout.container(container_id)

    def lock(self, container_id: str, patience: float = PATIENCE) -> RecordLock:
        """Take the record lock. Raises NotFound, or Conflict after `patience` seconds."""
        return RecordLock.acquire(self._layout.container(container_id), patience)

    # Making

    def begin(self, container_id: str, name: str, durable: bool) -> Creation:
        """Claim `name` and make the directory of a new container, which nobody sees before `Creation.commit`.

        An empty name takes a random one. Raises Conflict if another container has the name.
        """
        from sampan.store.names import random_name

        paths = self._layout.creating(container_id)
        with self._names_lock():
            self._complete_names()
            if name:
                owner = self._claimant(name)
                if owner is not None:
                    raise name_conflict(name, owner)
            else:
                name = random_name(lambda candidate: self._claimant(candidate) is None)
            # The directory first: a name that points nowhere is stale, and anybody may take it.
            with self._trace.step("make directory", paths.directory):
                os.mkdir(paths.directory, 0o700)
            try:
                # Nobody can hold it: whoever looks at a directory that is being made has the names lock.
                lock = RecordLock.acquire(paths)
            except BaseException:
                self.finish_removal(paths)
                raise
            try:
                with self._trace.step("claim name", name):
                    write_atomic(self._layout.name(name), container_id.encode(), sync=False)
            except BaseException:
                self._release(name, container_id)
                self.finish_removal(paths)
                lock.release()
                raise
        return Creation(self._layout, self._trace, paths, lock, name, durable)

    # Changing

    def change(self, lock: RecordLock, record: Record) -> None:
        """Put `record` in the place of the one that is there; the caller holds the container's lock.

        Written whole under another name, then renamed: readers take no lock and see the old one or the new one, and so
        does whoever comes after a crash. The name is not changed like this, see `rename`. Raises NotFound, OSError.
        """
        with self._trace.step("write record", lock.paths.record):
            try:
                write_atomic(lock.paths.record, record.to_bytes(), sync=record.durable)
            except FileNotFoundError:
                raise NotFound(f"No such container: {record.id}") from None

    def rename(self, lock: RecordLock, name: str) -> Record:
        """Give the container another name; the caller holds its lock. The changed record.

        The new name is claimed first and the old one given back last, for the record is what counts: killed in between, the
        container has the one name or the other, and a claim that its record does not confirm is anybody's to take.
        Raises InvalidParameter for what is no name, Conflict for one that is taken.
        """
        name = check_name(name)
        # Under the record lock it cannot change: what the caller has read may be older.
        record = self.read(lock.paths.id)
        with self._names_lock():
            self._complete_names()
            owner = self._claimant(name)
            if owner is not None:
                raise name_conflict(name, owner)
            renamed = record.replace(name=name)
            try:
                with self._trace.step("claim name", name):
                    write_atomic(self._layout.name(name), record.id.encode(), sync=False)
                self.change(lock, renamed)
            except BaseException:
                # Whichever of the two the record says by now, the other one is given back.
                if self.read(record.id).name != name:
                    self._release(name, record.id)
                raise
            self._release(record.name, record.id)
        return renamed

    # Removing

    def begin_removal(self, lock: RecordLock, with_volumes: bool | None = None) -> ContainerPaths:
        """Rename the container out of everybody's sight; the caller holds its lock. The rename is the removal.

        Of a container that has anonymous volumes `with_volumes` says whether they go along. That is written down
        first, so that whoever finishes the removal knows it too (`ContainerPaths.with_volumes`).
        """
        if with_volumes is not None:
            self._write_intent(lock.paths.with_volumes, with_volumes)
        paths = self._layout.removing(lock.paths.id)
        with self._trace.step("rename to", paths.directory):
            os.rename(lock.paths.directory, paths.directory)
        return paths

    def _write_intent(self, path: str, wanted: bool) -> None:
        """Make or remove a file that says something by being there; another one that was killed may have left it."""
        with self._trace.step("write removal intent", path):
            if wanted:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            elif os.path.exists(path):
                os.unlink(path)

    def finish_removal(self, paths: ContainerPaths) -> None:
        """Remove what is left of a directory under `.creating-` or `.removing-`. Idempotent.

        The lock file goes last but one: while it has its name, others see that somebody is at work.
        """
        with self._trace.step("remove directory", paths.directory):
            with os.scandir(paths.directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name == "record.lock")
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    _remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
            try:
                os.rmdir(paths.directory)
            except FileNotFoundError:
                pass  # Somebody found it empty and without a lock, see `adopt`.

    def release_name(self, name: str, container_id: str) -> None:
        """Give a name back, if `container_id` still is the one that claims it. Idempotent."""
        if not is_name(name):
            return
        with self._names_lock():
            self._release(name, container_id)

    # What killed commands left

    def leftovers(self) -> list[ContainerPaths]:
        """Directories of creates and removes that are not finished, by this moment's directory listing."""
        found = []
        for entry in os.listdir(self._layout.containers):
            if entry.startswith(CREATING):
                found.append(self._layout.creating(entry.removeprefix(CREATING)))
            elif entry.startswith(REMOVING):
                found.append(self._layout.removing(entry.removeprefix(REMOVING)))
        return found

    def adopt(self, paths: ContainerPaths) -> RecordLock | None:
        """Take over an unfinished create or remove; None if its command is alive or somebody else was faster."""
        if lock_is_held(paths.record_lock):
            return None  # what most are: without the names lock, which every create and remove needs
        # The names lock: a create holds it between making the directory and locking it.
        with self._names_lock():
            # Without a lock file it is one that was killed before it locked it, or one whose remover is between its last
            # two steps, or was killed there. A lock file that is made now would keep that remover from its last step:
            # so none is made of one that was there a moment ago.
            if os.path.exists(paths.record_lock):
                return RecordLock.attempt(paths, make=False)
            return None if _remove_empty(paths.directory) else RecordLock.attempt(paths)

    def names(self) -> Iterator[tuple[str, str]]:
        """All claims as (name, id); an id may be empty or name a container that is not there."""
        for name in os.listdir(self._layout.names):
            yield name, _read_claim(self._layout.name(name))

    def release_stale_names(self) -> None:
        """Remove the claims that no container confirms, and temporary files of killed commands."""
        with self._names_lock():
            for name, owner in list(self.names()):
                if is_name(name) and self._claimant(name) is not None:
                    continue
                self._release(name, owner)

    def is_abandoned(self, paths: ContainerPaths) -> bool:
        """Whether the create or remove that works on an unfinished directory was killed."""
        with self._names_lock():
            if lock_is_held(paths.record_lock) or not os.path.isdir(paths.directory):
                return False
            # Without a lock file a remove may be between its last two steps.
            return os.path.exists(paths.record_lock) or not is_young(paths.directory)

    def stale_names(self) -> list[str]:
        """The paths of claims that no container confirms, and of files that killed commands left beside them."""
        found = []
        with self._names_lock():
            for name, owner in self.names():
                if not is_name(name) or (self._claimant(name) is None and not self._is_going(owner)):
                    found.append(self._layout.name(name))
        return found

    # Within

    def _are_names_whole(self) -> bool:
        """Whether nothing is missing of the claims: somebody has looked since the machine came up."""
        if not self._names_are_whole:
            try:
                self._names_are_whole = read_small(self._layout.whole_names) == boot_id().encode()
            except FileNotFoundError:
                pass
        return self._names_are_whole

    def _complete_names(self) -> None:
        """Claim once more, once after each boot, the names whose claims were lost with the machine. Names lock held."""
        if self._are_names_whole():
            return
        try:
            for container_id in self.ids():
                record = self.try_read(container_id)
                if record is not None and is_name(record.name) and self._claimant(record.name) is None:
                    with self._trace.step("claim name", record.name):
                        write_atomic(self._layout.name(record.name), container_id.encode(), sync=False)
            # Last: who is killed before it leaves all of it to the next one.
            write_atomic(self._layout.whole_names, boot_id().encode(), sync=False)
        except OSError:
            pass  # a full disk keeps nobody from finding the others; the next command tries again

    def _is_going(self, owner: str) -> bool:
        """Whether a container is being removed: it gives its name back before its directory goes. Names lock held.

        Asked after `_claimant`: the rename that begins a removal does not take the names lock.
        """
        return is_id(owner) and os.path.isdir(self._layout.removing(owner).directory)

    def _names_lock(self) -> FileLock:
        try:
            return FileLock.acquire(self._layout.names_lock, _NAMES_PATIENCE)
        except BlockingIOError:
            raise Unavailable(
                f"the names of containers are in use: another command has held {self._layout.names_lock} for "
                f"{_NAMES_PATIENCE:.0f} s, try again"
            ) from None

    def _release(self, name: str, container_id: str) -> None:
        path = self._layout.name(name)
        if _read_claim(path) == container_id:
            with self._trace.step("release name", name):
                os.unlink(path)

    def _owner(self, name: str) -> Record | None:
        """The container that has this name, by the claim and by its own record."""
        container_id = _read_claim(self._layout.name(name))
        if not is_id(container_id):
            return None
        try:
            record = self.read(container_id)
        except NotFound:
            return None
        return record if record.name == name else None

    def _claimant(self, name: str) -> str | None:
        """The id for which a name is taken: a container that has it, or one that is being made. Names lock held."""
        container_id = _read_claim(self._layout.name(name))
        if not is_id(container_id):
            return None
        if os.path.isdir(self._layout.creating(container_id).directory):
            return container_id
        # Asked second: the rename from `.creating-` to the final name does not take the names lock.
        owner = self._owner(name)
        return None if owner is None else owner.id


class Creation:
    """A container between its first directory and the rename that makes it one. The name is claimed already."""

    __slots__ = ("_durable", "_layout", "_lock", "_trace", "name", "paths")

    def __init__(
        self, layout: Layout, trace: Trace, paths: ContainerPaths, lock: RecordLock, name: str, durable: bool
    ) -> None:
        self._layout = layout
        self._trace = trace
        self._lock = lock
        self._durable = durable
        self.paths = paths
        self.name = name

    def commit(self, record: Record, files: dict[str, bytes]) -> RecordLock:
        """Write the files and the record, and let the container appear, with its lock held by the caller.

        `files` maps names in the container's directory to contents; they are 0644, for they are mounted into it.
        """
        with self._trace.step("make directory", self.paths.starts):
            os.mkdir(self.paths.starts, 0o700)
        for name, content in files.items():
            with self._trace.step("write file", f"{self.paths.directory}/{name}"):
                _write_new(f"{self.paths.directory}/{name}", content, 0o644)
        with self._trace.step("write file", self.paths.monitor_lock):
            _write_new(self.paths.monitor_lock, b"", 0o600)
        with self._trace.step("write record", self.paths.record):
            write_atomic(self.paths.record, record.to_bytes(), sync=False)
            if self._durable:
                # Nobody sees it before the rename below: so its bytes and its name may go to the disk together.
                sync_file(self.paths.record)
                sync_directory(self.paths.directory)
        final = self._layout.container(record.id)
        with self._trace.step("rename to", final.directory):
            os.rename(self.paths.directory, final.directory)
            if self._durable:
                sync_directory(self._layout.containers)
        self.paths = final
        self._lock.paths = final
        return self._lock

    def hide(self) -> None:
        """Undo the rename of `commit`, if it was done: an interrupt came in before anybody was told of the container.

        What follows takes the parts away, as of any container that is removed.
        """
        final = self._layout.container(self.paths.id)
        if not os.path.isdir(final.directory):
            return
        self.paths = self._layout.removing(final.id)
        with self._trace.step("rename to", self.paths.directory):
            os.rename(final.directory, self.paths.directory)

    def release(self) -> None:
        self._lock.release()


def _read_claim(path: str) -> str:
    try:
        return read_small(path).decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def _write_new(path: str, content: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        os.write(fd, content)
    finally:
        os.close(fd)


def _remove_empty(directory: str) -> bool:
    """rmdir(2), which somebody else may have done already; False if something is in it."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as e:
        if e.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _remove_tree(path: str) -> None:
    """rm -r of a directory of our own making (starts/): two levels, no links are followed."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)
