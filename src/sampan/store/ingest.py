"""Blobs on their way into the content store: written under a temporary name, hashed, synced, and only then named.

`Ingest` is gone with its writer. `Partial` is worth keeping when its writer is not there to finish it: what was pulled of a
layer. Its file is named after the digest that it is to have, and one process at a time has its lock, so that two pulls of a
layer share the work: the second one waits, and finds the blob. A writer that was killed leaves it where it was, for the
next pull to go on from and for a collection to remove.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.kernel.files import sync_directory, write_all
from sampan.oci import digest as digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sampan.kernel.files import FileLock
    from sampan.oci.digest import Hash
    from sampan.steps.trace import Trace

_CHUNK = 1 << 20
_WRITE_BACK = 8 << 20  # Bytes of a blob after which the kernel is asked to begin writing them to the disk.


class Ingest:
    """A blob on its way in. A context manager: leaving it without `commit` removes what was written."""

    def __init__(self, lock: FileLock, blobs: str, trace: Trace) -> None:
        self._lock = lock
        self._blobs = blobs
        self._trace = trace
        self._hash: Hash | None = digests.new_hash()
        self._written_back = 0
        self._synced = -1
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append; returns the number of bytes. Raises OSError (a full disk)."""
        if self._hash is None:
            raise ValueError("write to an ingest that is closed")
        self._hash.update(data)
        write_all(self._lock.fd, data)
        self.size += len(data)
        if self.size - self._written_back >= _WRITE_BACK:
            self._write_back()
        return len(data)

    @property
    def digest(self) -> str:
        """The digest of all that was written until now."""
        if self._hash is None:
            raise ValueError("the digest of an ingest that is closed")
        return f"{digests.SHA256}:{self._hash.hexdigest()}"

    def _write_back(self) -> None:
        """Let the disk work while the rest of the blob comes in, instead of all at once when it is synced.

        POSIX_FADV_DONTNEED begins the writing and does not wait for it (Linux, mm/fadvise.c). What is written by then
        leaves the page cache, where nobody needs a layer's archive once it is unpacked.
        """
        os.posix_fadvise(self._lock.fd, self._written_back, self.size - self._written_back, os.POSIX_FADV_DONTNEED)
        self._written_back = self.size

    def synced(self, device: int) -> None:
        """The file system with that number (st_dev) was synced: if it is ours, what was written until now is on the disk."""
        if os.fstat(self._lock.fd).st_dev == device:
            self._synced = self.size

    def reader(self) -> Written:
        """What was written until now, to be read from its beginning."""
        return Written(self._lock.fd)

    def commit(self, expected_digest: str | None = None, volatile: bool = False) -> tuple[str, int]:
        """Give the blob its name; return its digest and its size. `volatile`: a power cut may take the name, but not what it says.

        Raises `InvalidParameter` if another digest was expected, and leaves nothing then; OSError.
        """
        if self._hash is None:
            raise ValueError("commit of an ingest that is closed")
        digest = f"{digests.SHA256}:{self._hash.hexdigest()}"
        try:
            if expected_digest is not None and digest != expected_digest:
                raise digests.mismatch(expected_digest, digest)
            self._publish(f"{self._blobs}/{digests.sha256_hex(digest)}", volatile)
        except BaseException:
            self.abort()
            raise
        self._hash = None
        self._lock.release()
        return digest, self.size

    def _publish(self, path: str, volatile: bool) -> None:
        """Sync the bytes, then rename, then sync the directory: a name that survives a power cut has its content."""
        if self._synced != self.size:
            with self._trace.step("sync blob", self._lock.path):
                os.fsync(self._lock.fd)
        with self._trace.step("name blob", path):
            os.rename(self._lock.path, path)
            if not volatile:
                sync_directory(self._blobs)

    def abort(self) -> None:
        """Remove what was written; nothing happens after a commit."""
        if self._hash is None:
            return
        self._hash = None
        with self._trace.step("remove ingest file", self._lock.path):
            os.unlink(self._lock.path)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.abort()


class Written:
    """A stream over a file that is at the same time written, from its beginning."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, size, self._position)
        self._position += len(data)
        return data


class Partial(Ingest):
    """A context manager: leaving it without `commit` or `abort` keeps what was written, and lets others go on."""

    def __init__(self, lock: FileLock, digest: str, limit: int, blobs: str, trace: Trace) -> None:
        """`limit`: bytes that the blob is to have; a file that has more is begun anew. Raises OSError."""
        super().__init__(lock, blobs, trace)
        self.expected = digest
        self._take(limit)
        self.resumed = self.size > 0
        """Whether some of it was there already."""

    def _take(self, limit: int) -> None:
        """What a killed writer left, hashed: its digest is that of the whole in the end, or all is for nothing."""
        fd = self._lock.fd
        if os.fstat(fd).st_size > limit:
            os.ftruncate(fd, 0)
        assert self._hash is not None
        while data := os.pread(fd, _CHUNK, self.size):
            self._hash.update(data)
            self.size += len(data)
        os.lseek(fd, self.size, os.SEEK_SET)

    def read_at(self, position: int, size: int) -> bytes:
        """What is there behind a position. While another thread writes, what `size` says is there is there."""
        return os.pread(self._lock.fd, size, position)

    def finish(self) -> None:
        """Give the blob its name. Raises `InvalidParameter` if it is not what it is to be, and removes it then."""
        if self.digest != self.expected:
            self.abort()
            raise InvalidParameter(f"filesystem layer verification failed for digest {self.expected}")
        self.commit(self.expected)

    def leave(self) -> None:
        """Let go of it as it is; nothing happens after `finish` or `abort`."""
        if self._hash is not None:
            self._hash = None
            self._lock.release()

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.leave()
