"""The names of images, and the lock of everything that images share.

An image is there as long as the record of its id is (`sha256:HEX`, the digest of its config); names are further
records that point to it. Both are files images/HEX, the HEX being the sha256 of the reference: a lookup is one open,
a tag is one rename. Blobs and layers belong to whichever record or container leads to them, nothing counts them.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import Damaged, ImageNotFound, InvalidParameter, System, Unavailable
from sampan.kernel.files import FileLock, read_bounded, sync_directory, write_atomic
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci import reference
from sampan.store.locks import acquire_in_turn
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.oci.image import Descriptor
    from sampan.steps.trace import Trace

_LIMIT = 64 << 10
_PATIENCE = 60.0
_TEMPORARY = ".tmp-"


class NameRecord(Struct):
    """One reference and where it leads.

    reference: a complete name (`docker.io/library/base:latest`, or with a digest) or an image id (`sha256:HEX`).
    target: the manifest, or the index of several. image: the id that the target resolves to on this machine, so
    that a start need not read the manifest. tagged: RFC 3339. parent: in the record of an image that was made here, the
    id of the one that it was made from; it may be gone since.
    """

    reference: str
    target: Descriptor
    image: str
    tagged: str
    parent: str = ""

    @property
    def is_image(self) -> bool:
        """Whether this is the record of an image itself: complete names have a slash, ids have none."""
        return self.reference == self.image

    def to_bytes(self) -> bytes:
        """The content of the file."""
        data = {**self.to_json(), "target": self.target.document()}
        return jsontext.dumps(data)


class ImageNames:
    """All image records below one directory. Holds no state: every call looks at the disk."""

    def __init__(self, directory: str, trace: Trace) -> None:
        self.directory = directory
        self._trace = trace

    def path(self, reference: str) -> str:
        return f"{self.directory}/{digests.hex_of(reference.encode('utf-8'))}"

    def get(self, reference: str) -> NameRecord | None:
        """The record of a reference. Raises `System` if its file is damaged."""
        record = self._read(self.path(reference))
        if record is not None and record.reference != reference:
            raise _damaged(self.path(reference), f"it is the record of {record.reference}")
        return record

    def set(self, record: NameRecord) -> None:
        """Add or replace a record, whole and durable. Raises `System` if the disk refuses."""
        path = self.path(record.reference)
        try:
            with self._trace.step("write image name", path):
                write_atomic(path, record.to_bytes())
        except OSError as e:
            raise System(f"write {path}: {os.strerror(e.errno or 0).lower()}") from e

    def delete(self, reference: str) -> None:
        """Remove a record, durably: content is deleted after it. Nothing happens if it is not there."""
        path = self.path(reference)
        try:
            with self._trace.step("remove image name", path):
                os.unlink(path)
                sync_directory(self.directory)
        except FileNotFoundError:
            pass  # Another process removes the same image.
        except OSError as e:
            raise System(f"remove {path}: {os.strerror(e.errno or 0).lower()}") from e

    def list(self) -> list[NameRecord]:
        """All records, sorted by reference. Raises `System` if one is damaged."""
        found = []
        for name in os.listdir(self.directory):
            if not name.startswith(".") and (record := self._read(f"{self.directory}/{name}")) is not None:
                found.append(record)
        return sorted(found, key=lambda record: record.reference)

    def survey(self) -> tuple[tuple[NameRecord, ...], dict[str, str], tuple[str, ...]]:
        """All records that can be read; why others cannot, by path; the paths that killed writers left.

        Only under the store's exclusive lock.
        """
        good: tuple[NameRecord, ...] = ()
        bad: dict[str, str] = {}
        dead: tuple[str, ...] = ()
        for name in sorted(os.listdir(self.directory)):
            path = f"{self.directory}/{name}"
            if name.startswith("."):
                if name.startswith(_TEMPORARY):
                    dead = (*dead, path)
                continue
            try:
                record = self._read(path)
            except System as e:
                bad[path] = str(e)
                continue
            if record is not None and self.path(record.reference) != path:
                bad[path] = f"it is the record of {record.reference}"
            elif record is not None:
                good = (*good, record)
        return good, bad, dead

    def leftovers(self) -> tuple[str, ...]:
        """The paths of what killed writers left, and of what others are writing unless the store's lock is held."""
        names = os.listdir(self.directory)
        return tuple(f"{self.directory}/{name}" for name in names if name.startswith(_TEMPORARY))

    def collect(self) -> int:
        """Remove what killed writers left; return how many that were. Only under the store's exclusive lock."""
        dead = self.leftovers()
        for path in dead:
            with self._trace.step("remove dead image name", path):
                os.unlink(path)
        return len(dead)

    def _read(self, path: str) -> NameRecord | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            data = jsontext.loads(read_bounded(fd, _LIMIT))
            target = documents.parse_descriptor(data["target"])
            record = NameRecord(
                str(data["reference"]), target, str(data["image"]), str(data["tagged"]), str(data.get("parent", ""))
            )
            digests.sha256_hex(record.image)
        except (ValueError, KeyError, TypeError, OSError, InvalidParameter) as e:
            raise _damaged(path, e) from None
        finally:
            os.close(fd)
        return record


def no_such_image(name: str) -> ImageNotFound:
    """Docker's error for a name that leads nowhere."""
    image_id = reference.parse_id(name)
    return ImageNotFound(f"No such image: {image_id or reference.parse(name).tagged().familiar}", name)


def damaged_image(image_id: str, why: object) -> Damaged:
    """What is said of an image whose content is not what it was: in a listing, in `inspect`, in a start."""
    return Damaged(f"image {image_id} is damaged: {why}: remove it (rmi) and bring it in again")


def _damaged(path: str, why: object) -> System:
    return System(f"image record {path} is damaged ({why}): remove the file and bring the image in again")


class StoreLock:
    """Who may add to the store and who may take away from it.

    Shared: whoever makes something that leads to blobs and layers (import, tag, create), from the moment it looks
    until its record is written. Exclusive: whoever deletes what nothing leads to (rmi, collection). It is the last
    lock of the order, after a container's and a network's, and nothing is waited for under it but the disk.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def shared(self) -> FileLock:
        """A context manager. Raises `Unavailable` if a deletion takes longer than a minute."""
        return _acquire(self._path, shared=True)

    def exclusive(self) -> FileLock:
        """A context manager. Raises `Unavailable` if an import or a create takes longer than a minute."""
        return _acquire(self._path, shared=False)

    def exclusive_now(self) -> FileLock | None:
        """The exclusive lock if nobody holds either, not even this process; else None."""
        try:
            return FileLock.acquire(self._path, 0)
        except BlockingIOError:
            return None

    def making(self, what: str) -> FileLock:
        """A context manager that lets one process at a time make a certain thing, so that others wait for it.

        Taken before the shared lock or under it; never under the exclusive one. Raises `Unavailable`.
        """
        return _acquire(f"{os.path.dirname(self._path)}/making-{what}.lock", shared=False)


def _acquire(path: str, shared: bool) -> FileLock:
    try:
        return acquire_in_turn(path, _PATIENCE, shared)
    except BlockingIOError:
        raise Unavailable(
            f"the image store is in use: another command has held {path} for {_PATIENCE:.0f} s, try again"
        ) from None
