"""`import`: an image of one layer out of a tar archive, in one pass.

The archive is read once: what comes out of the decompressor is hashed and written as a blob (an uncompressed layer,
so that its digest is its diff id), and unpacked while it flows by. Nothing has a name until all of it was read and
found good; a command that dies before that leaves a dead ingest and a temporary directory, which are collected.
"""

from __future__ import annotations

import errno

from sampan.engine.failures import explain
from sampan.errors import InvalidParameter, System
from sampan.kernel import clock
from sampan.oci import changes as instructions
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.oci import reference
from sampan.oci.image import Descriptor
from sampan.store.decompress import decompress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from sampan.engine.images import Content, Image, Lock, Snapshotter
    from sampan.oci.reference import Reference
    from sampan.store.ingest import Ingest

    class Source(Protocol):
        def read(self, size: int, /) -> bytes: ...

    class Publisher(Protocol):
        def publish(self, config: bytes, layers: Sequence[Descriptor], name: Reference | None) -> Image: ...
        def collect_now(self) -> None: ...


_CHUNK = 1 << 18
_DEFAULT_MESSAGE = "Imported from -"


class Importer:
    """Makes images of one layer."""

    def __init__(self, content: Content, snapshots: Snapshotter, lock: Lock, images: Publisher) -> None:
        self._content = content
        self._snapshots = snapshots
        self._lock = lock
        self._images = images

    def run(self, stream: Source, name: str, changes: Sequence[str], message: str, platform: str) -> Image:
        """Import an archive, plain or compressed. What is wrong in the arguments is told before anything is read.

        Raises `InvalidParameter` for a bad argument or a bad archive, `System` for a disk that is full.
        """
        target = _target(name) if name else None
        config = instructions.apply({}, changes)
        where = platforms.parse(platform) if platform else platforms.here()
        if where.os != platforms.here().os:
            raise InvalidParameter("operating system is not supported")
        created = clock.now()
        comment = message or _DEFAULT_MESSAGE
        history = [{"created": created, "comment": comment}]

        def describe(diff_id: str) -> bytes:
            return documents.make_config(where, created, config, [diff_id], history, comment)

        return self.add(stream, describe, target)

    def add(self, stream: Source, describe: Callable[[str], bytes], name: Reference | None) -> Image:
        """Add the image whose only layer is an archive; `describe` makes its config when the diff id is known.

        Raises `InvalidParameter` for a bad archive, `System` for a disk that is full; nothing is left behind then.
        """
        try:
            return self._add(stream, describe, name)
        except OSError as e:
            raise System(f"error processing tar file: {told(e)}") from e

    def _add(self, stream: Source, describe: Callable[[str], bytes], name: Reference | None) -> Image:
        self._content.collect_ingests(partial=False)
        with self._content.writer() as ingest:
            tee = Tee(decompress(stream, self._content.directory), ingest)
            layer = self._snapshots.unpack((), tee)
            tee.drain()
            try:
                with self._lock.shared():
                    digest, size = ingest.commit(layer.diff_id)
                    config = describe(digest)
                    return self._images.publish(config, [Descriptor(documents.OCI_LAYER, digest, size)], name)
            except BaseException:
                # The layer is unpacked, and perhaps a blob has its name: nothing leads to them. Not waited for, since
                # whoever makes a container of `base` holds the lock while the image is made.
                self._images.collect_now()
                raise


class Tee:
    """Hands on what it reads, and writes it to the ingest on the way."""

    def __init__(self, source: Source, ingest: Ingest) -> None:
        self._read = source.read
        self._write = ingest.write

    def read(self, size: int, /) -> bytes:
        data = self._read(size)
        if data:
            self._write(data)
        return data

    def drain(self) -> None:
        """What comes behind the archive's end mark belongs to the blob as well."""
        while self.read(_CHUNK):
            pass


def _target(name: str) -> Reference:
    found = reference.parse(name)
    if found.digest:
        raise InvalidParameter("cannot import digest reference")
    return found.tagged()


def told(error: OSError) -> str:
    """An OSError in the words of Docker: `write PATH: no space left on device`. One of a limit with what can be done about it."""
    if error.errno == errno.EAGAIN:
        return explain(error)
    text = (error.strerror or str(error)).lower()
    return f"{error.filename}: {text}" if isinstance(error.filename, str) else text
