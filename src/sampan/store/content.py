"""The content store: blobs named by the sha256 of their bytes.

A blob comes in under a temporary name, is hashed as it is written, synced, and only then renamed to its digest: a
name in `sha256/` always was the whole content. It is hashed again when it is used, because disks and people change
files. Two processes that write the same content do not disturb each other: the later rename replaces equal bytes.

    sha256/HEX      a blob
    ingest/NAME     a blob on its way in; locked by its writer, so that what a killed writer left can be told
    ingest/hold-X   the digests of blobs and layers that somebody needs meanwhile, a line each; locked by who needs them
    ingest/pull-HEX a blob that is downloaded; it outlives its writer, see `store.ingest`
"""

from __future__ import annotations

import errno
import os

from sampan.errors import InvalidParameter, NotFound
from sampan.kernel.files import FileLock, is_young, lock_is_held, read_bounded, write_all
from sampan.oci import digest as digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from sampan.steps.trace import Trace
    from sampan.store.ingest import Ingest, Partial


_PARTIAL = "pull-"
_HOLD = "hold-"


class ContentStore:
    """The blobs below one directory."""

    def __init__(self, directory: str, trace: Trace) -> None:
        self.directory = directory
        self._blobs = f"{directory}/{digests.SHA256}"
        self._ingest = f"{directory}/ingest"
        self._trace = trace

    def path(self, digest: str) -> str:
        """Where a blob is, if it is there. Raises `InvalidParameter` for what is no sha256 digest."""
        return f"{self._blobs}/{digests.sha256_hex(digest)}"

    def exists(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises `NotFound`."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    # Reading

    def read(self, digest: str, limit: int) -> bytes:
        """A whole small blob, verified.

        Raises `NotFound`, and `InvalidParameter` if there are more than `limit` bytes or they do not hash to it.
        """
        fd = self._open(digest)
        try:
            data = read_bounded(fd, limit)
        except OSError as e:
            raise InvalidParameter(f"content {digest} cannot be read: {e}") from None
        finally:
            os.close(fd)
        if digests.of_bytes(data) != digest:
            raise digests.mismatch(digest, digests.of_bytes(data))
        return data

    def open_verified(self, digest: str) -> VerifiedReader:
        """A reader that fails at the end of the content if it was not what its name says. Raises `NotFound`."""
        return VerifiedReader(self._open(digest), digest)

    def _open(self, digest: str) -> int:
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise _missing(digest) from None

    def list(self) -> list[str]:
        """The digests of all blobs."""
        return [f"{digests.SHA256}:{name}" for name in sorted(os.listdir(self._blobs)) if digests.is_id(name)]

    # Changing

    def writer(self) -> Ingest:
        """Begin a new blob. What is not committed is gone when the writer is closed, or collected later."""
        from sampan.store.ingest import Ingest  # in here: a start only reads

        name = os.urandom(8).hex()
        with self._trace.step("make ingest file", f"{self._ingest}/{name}"):
            # Waits only for a collector that found the file before it was locked; then another file is made.
            lock = FileLock.acquire(f"{self._ingest}/{name}")
        return Ingest(lock, self._blobs, self._trace)

    def partial(self, digest: str, size: int, wait_seconds: float) -> Partial:
        """Begin a blob that is known by its digest and its bytes, or go on where an earlier writer stopped.

        Raises BlockingIOError if another one writes it for as long as we wait, OSError.
        """
        from sampan.store.ingest import Partial

        path = f"{self._ingest}/{_PARTIAL}{digests.sha256_hex(digest)}"
        with self._trace.step("open partial blob", path):
            lock = FileLock.acquire(path, wait_seconds)
        try:
            return Partial(lock, digest, size, self._blobs, self._trace)
        except BaseException:
            lock.release()
            raise

    def add(self, data: bytes) -> str:
        """Store a small blob and return its digest."""
        with self.writer() as ingest:
            ingest.write(data)
            return ingest.commit()[0]

    def spool(self) -> int:
        """A file without a name, open for reading and writing: it is gone when it is closed, whoever is killed.

        For what must be looked at before it is known to be wanted. Raises OSError.
        """
        try:
            return os.open(self._ingest, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
        # Not every file system can (nfs, overlay before Linux 6.0). A name that is left is one of a dead writer.
        path = f"{self._ingest}/{os.urandom(16).hex()}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        return fd

    def delete(self, digest: str) -> None:
        """Remove a blob; nothing happens if it is not there."""
        path = self.path(digest)
        with self._trace.step("remove blob", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # Another process collects the same garbage.

    # Holding

    def hold(self, wanted: Iterable[str]) -> FileLock:
        """Keep blobs (by digest) and layers (by chain id) from being collected until the lock that is returned is released, by `drop`.

        For a reader who takes his time, and who can have more blobs to read than a process may have files open. The
        caller holds the store's lock shared: no collector is between its look at the holds and the deletion.
        """
        path = f"{self._ingest}/{_HOLD}{os.urandom(8).hex()}"
        with self._trace.step("hold blobs", path):
            lock = FileLock.acquire(path)
            try:
                write_all(lock.fd, "".join(f"{digest}\n" for digest in wanted).encode("ascii"))
            except BaseException:
                self.drop(lock)
                raise
        return lock

    def hold_more(self, hold: FileLock, wanted: Iterable[str]) -> None:
        """Add to a hold. The caller has the store's lock shared, since before what he adds had its name."""
        write_all(hold.fd, "".join(f"{digest}\n" for digest in wanted).encode("ascii"))

    def drop(self, hold: FileLock) -> None:
        """End a hold."""
        with self._trace.step("drop hold", hold.path):
            os.unlink(hold.path)
        hold.release()

    def held(self) -> set[str]:
        """The digests of all blobs, and the chain ids of all layers, that somebody who lives holds. The caller has the store's lock, exclusive."""
        found: set[str] = set()
        for name in os.listdir(self._ingest):
            path = f"{self._ingest}/{name}"
            if name.startswith(_HOLD) and lock_is_held(path):
                try:
                    with open(path, encoding="ascii") as stream:
                        found.update(stream.read().split())
                except FileNotFoundError:
                    continue  # It was dropped meanwhile.
        return found

    def ingests(self) -> tuple[set[str], set[str]]:
        """The paths of blobs on their way in: those whose writer lives, and those that a killed one left."""
        living: set[str] = set()
        dead: set[str] = set()
        for name in os.listdir(self._ingest):
            path = f"{self._ingest}/{name}"
            # Between the making of the file and its lock it is empty and new.
            if lock_is_held(path) or is_young(path):
                living.add(path)
            elif os.path.exists(path):
                dead.add(path)
        return living, dead

    def abandoned(self) -> tuple[str, ...]:
        """The paths that `collect_ingests` would remove now."""
        paths = (f"{self._ingest}/{name}" for name in os.listdir(self._ingest))
        return tuple(path for path in paths if not lock_is_held(path))

    def collect_ingests(self, partial: bool = True) -> int:
        """Remove what writers left that live no more; return how many that were. Without `partial` pulls can go on."""
        removed = 0
        for name in os.listdir(self._ingest):
            if name.startswith(_PARTIAL) and not partial:
                continue
            path = f"{self._ingest}/{name}"
            try:
                lock = FileLock.acquire(path, 0)
            except BlockingIOError:
                continue  # Its writer lives.
            with lock, self._trace.step("remove dead ingest", path):
                os.unlink(path)
                removed += 1
        return removed


class VerifiedReader:
    """A binary stream over a blob that is hashed as it is read.

    The bytes are good only once the end was reached without an error: a consumer must read to the end (`drain`),
    and keep what it made under a temporary name until then.
    """

    _CHUNK = 1 << 20

    def __init__(self, fd: int, digest: str) -> None:
        self._fd = fd
        self._digest = digest
        self._hash = digests.new_hash()
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all that are left if negative); empty at the end.

        Raises `InvalidParameter` at the end if the content does not hash to its digest.
        """
        if size < 0:
            return b"".join(self._chunks())
        if self._ended or size == 0:
            return b""
        data = os.read(self._fd, size)
        if not data:
            self._verify()
        self._hash.update(data)
        return data

    def interrupt(self) -> None:
        """Nothing: a file does not keep its reader waiting. So it may be read ahead (`store.ahead`)."""

    def drain(self) -> None:
        """Read to the end, for the sake of the verdict."""
        for _ in self._chunks():
            pass

    def close(self) -> None:
        """Close the file; safe to call twice. No verdict."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _chunks(self) -> Iterator[bytes]:
        while data := self.read(self._CHUNK):
            yield data

    def _verify(self) -> None:
        self._ended = True
        found = f"{digests.SHA256}:{self._hash.hexdigest()}"
        if found != self._digest:
            raise digests.mismatch(self._digest, found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


def _missing(digest: str) -> NotFound:
    return NotFound(f"content {digest} is not in the store")
