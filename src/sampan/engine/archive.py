"""The files of a container from outside: `HEAD`, `GET` and `PUT /containers/{id}/archive`.

Every path is resolved by the kernel inside the container's root (`kernel.paths`), from a descriptor of that root which
`containerroots` opens: no path of a container is ever joined with one of the host. Nothing is executed for it, and nothing is
loaded that was not before: a container's own files decide about names only.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.engine.failures import explain
from sampan.errors import InvalidParameter, NotFound, SampanError, System
from sampan.kernel import paths, roots
from sampan.kernel.libc import KernelError
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Any, Protocol, Self

    from sampan.engine.containerroots import ContainerRoot
    from sampan.store.copyout import CopyOut
    from sampan.store.record import Record
    from sampan.store.tarstream import Source

    class Roots(Protocol):
        def open(self, record: Record) -> ContainerRoot: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str) -> None: ...


_PIECE = 1 << 18
_READ_ONLY = 1  # ST_RDONLY, statvfs(3)

# The bits of Go's fs.FileMode that say more than permissions, as the field "mode" has them.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_FLAGS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class NoSuchPath(NotFound):
    """The container is there, and has nothing at that path."""


class PathStat(Struct):
    """What the header X-Docker-Container-Path-Stat says of a path, the link itself where it is one.

    name: the last component, "/" for the root, "." for a path that ends so. size: bytes. mode: the st_mode of stat(2). mtime_ns:
    nanoseconds since the epoch. link_target: where a link leads inside the container, an absolute path without links; "" for
    what is no link.
    """

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    def shown(self) -> dict[str, Any]:
        """As the header has it, before it is encoded (Engine API, ContainerArchiveInfo)."""
        return {
            "name": self.name,
            "size": self.size,
            "mode": go_mode(self.mode),
            "mtime": _go_time(self.mtime_ns),
            "linkTarget": self.link_target,
        }

    @classmethod
    def from_shown(cls, shown: Mapping[str, Any]) -> PathStat:
        """Back again, of a header that came from a server. Raises ValueError, KeyError."""
        time = _nanoseconds(shown["mtime"])
        return cls(
            shown["name"], int(shown["size"]), unix_mode(int(shown["mode"])), time, shown.get("linkTarget") or ""
        )


def go_mode(mode: int) -> int:
    """The st_mode of stat(2) as Go's fs.FileMode."""
    flags = sum(go for unix, go in _GO_FLAGS.items() if mode & unix)
    return mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0) | flags


def unix_mode(mode: int) -> int:
    """And back."""
    flags = sum(unix for unix, go in _GO_FLAGS.items() if mode & go)
    # What is a character device has the bit of devices too.
    kind = next((unix for unix, go in _GO_KINDS.items() if unix == stat.S_IFCHR and mode & go == go), 0)
    kind = kind or next((unix for unix, go in _GO_KINDS.items() if mode & go == go), stat.S_IFREG)
    return mode & 0o777 | kind | flags


def _nanoseconds(text: str) -> int:
    """Of RFC 3339, as Go writes it. Raises ValueError."""
    from datetime import datetime

    whole, _, rest = text.partition(".")
    digits = "".join(c for c in rest if c.isdigit())[:9] if rest.endswith("Z") else ""
    at = datetime.fromisoformat(whole if whole.endswith("Z") or not digits else f"{whole}Z")
    return int(at.timestamp()) * 1_000_000_000 + int(digits.ljust(9, "0") or 0)


def _go_time(nanoseconds: int) -> str:
    import time

    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    digits = f".{fraction:09}".rstrip("0") if fraction else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + digits + "Z"


class _Place(Struct):
    """A path of a container, as Docker reads it: from the root, with ".." resolved by the text.

    path: clean, without a slash in front. through: it ends in a slash or in ".", so that a link is followed and a directory is
    meant. name: the last component, as `PathStat` has it.
    """

    path: bytes
    through: bool
    name: bytes


def _place(text: str) -> _Place:
    if not text:
        raise InvalidParameter("bad parameter: path cannot be empty")
    try:
        path = paths.clean(text)
    except KernelError:
        raise InvalidParameter("bad parameter: path cannot hold a NUL") from None
    last = os.fsencode(text).rpartition(b"/")[2]
    name = b"." if last == b"." else path.rpartition(b"/")[2] or b"/"
    return _Place(path, last in (b"", b".") or not path, name)


class Archives:
    """The three operations. `reference` is how the caller has named the container: Docker's messages repeat it."""

    def __init__(self, roots: Roots, events: Announcer) -> None:
        self._roots = roots
        self._events = events

    def open(self, record: Record, reference: str) -> Files:
        """The container's files, for several operations on the same; to be closed. Raises NotFound, Conflict, System."""
        return Files(self._roots.open(record), reference, self._events)

    def stat(self, record: Record, path: str, reference: str) -> PathStat:
        """`HEAD`: see `Files.stat`."""
        _place(path)  # What is wrong in itself is told before a container that does not run is mounted for it.
        with self.open(record, reference) as files:
            return files.stat(path)

    def get(self, record: Record, path: str, reference: str) -> tuple[PathStat, ArchiveStream]:
        """`GET`: see `Files.get`."""
        _place(path)
        files = self.open(record, reference)
        try:
            return files.get(path)
        except BaseException:
            files.close()
            raise

    def put(
        self,
        record: Record,
        path: str,
        reference: str,
        stream: Source,
        keep_kinds: bool = False,
        owned_by_user: bool = False,
    ) -> None:
        """`PUT`: see `Files.put`."""
        _place(path)
        with self.open(record, reference) as files:
            files.put(path, stream, keep_kinds, owned_by_user)


class Files:
    """The files of one container, as they are seen from its open root. By `with`, or to be closed."""

    def __init__(self, root: ContainerRoot, reference: str, events: Announcer) -> None:
        self._root = root
        self._reference = reference
        self._events = events

    def stat(self, path: str) -> PathStat:
        """What is at a path. Raises NoSuchPath, InvalidParameter, System."""
        found = _Found(self._root, _place(path), path, self._reference)
        found.close()
        return found.stat

    def get(self, path: str) -> tuple[PathStat, ArchiveStream]:
        """What is at a path and the archive of it, which is read while it is made. Its end closes this, too.

        A link is a link in it; of sockets it has nothing. What is mounted in a directory is in it, but for /proc, /sys and /dev
        and what else the kernel makes up. Raises as `stat`; so does the stream, and NotFound or Conflict, if the container goes
        or is started again in the middle.
        """
        found = _Found(self._root, _place(path), path, self._reference)
        self._events.container(self._root.record, "archive-path")
        return found.stat, ArchiveStream(self._root, found)

    def put(self, path: str, stream: Source, keep_kinds: bool = False, owned_by_user: bool = False) -> None:
        """Put the entries of an archive, which may be compressed, into a directory.

        keep_kinds: the API's noOverwriteDirNonDir. owned_by_user: its copyUIDGID; if the container has a user of its own, all of
        it will be that user's (found in the container's own passwd), else and without it all has the owners that the archive
        says. Raises as `stat`; InvalidParameter for what is no archive, and if `path` is no directory or on a read-only mount.
        What was put until an error stays.
        """
        from sampan.store.copyin import CopyIn, Manner
        from sampan.store.decompress import decompress

        root, place = self._root, _place(path)
        directory = _open_directory(root.fd, place, path, self._reference)
        try:
            _check_writable(root, directory)
            owner = _container_user(root) if owned_by_user and root.record.config.get("User") else None
            shown = b"/" + paths.resolve_in_root(root.fd, place.path)
            record = root.record
            ids = (record.uids, record.gids) if record.uids else None
            copy = CopyIn(directory, shown, Manner(keep_kinds, owner, ids=ids), root.fd)
            with _as_root_of(record):
                copy.run(decompress(stream, directory), root.check)
        except OSError as e:
            root.check()
            raise System(explain(e)) from e
        finally:
            os.close(directory)
        self._events.container(root.record, "extract-to-dir")

    def close(self) -> None:
        """Let go of the container. May be called twice."""
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


class ArchiveStream:
    """An archive in pieces, made as it is read. Ends, closes itself, at the end and after an error; else by `close()` or `with`."""

    def __init__(self, root: ContainerRoot, found: _Found) -> None:
        self._root = root
        self._found = found
        self._pieces = found.pieces()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the container. May be called twice."""
        self._pieces.close()  # type: ignore[attr-defined]
        self._found.close()
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # Somebody has dropped it in the middle: the container is not to wait for that.


class Looking:
    """Files that are only looked at, below the descriptor of a root that is no container's."""

    def __init__(self, root_fd: int) -> None:
        self.fd = root_fd

    def stat(self, path: str) -> PathStat:
        """As `Files.stat`."""
        found = _Seen(self.fd, _place(path), path, "")
        found.close()
        return found.stat


class _Seen:
    """What is at a path below a root: its status, and the descriptor of its directory, or of itself if it is one."""

    def __init__(self, root_fd: int, place: _Place, path: str, reference: str) -> None:
        self._place = place
        self._fd = -1
        try:
            if place.through:
                self._fd = paths.open_in_root(root_fd, place.path, os.O_PATH | os.O_DIRECTORY)
                status = os.fstat(self._fd)
            else:
                above, _, name = place.path.rpartition(b"/")
                self._fd = paths.open_in_root(root_fd, above, os.O_PATH | os.O_DIRECTORY)
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            target = b""
            if stat.S_ISLNK(status.st_mode):
                target = b"/" + paths.resolve_in_root(root_fd, place.path)
        except OSError as e:
            self.close()
            raise _missing(e, path, reference) from None
        self.stat = PathStat(
            os.fsdecode(place.name), status.st_size, status.st_mode, status.st_mtime_ns, os.fsdecode(target)
        )

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Found(_Seen):
    """The same in a container's root, to be taken out."""

    def __init__(self, root: ContainerRoot, place: _Place, path: str, reference: str) -> None:
        super().__init__(root.fd, place, path, reference)
        self._root = root

    def pieces(self) -> Iterator[bytes]:
        """The archive."""
        from sampan.store.copyout import ContainerTree, CopyOut

        directory = self._open_top()
        try:
            tree = ContainerTree(directory, _devices(self._root.fd))
        finally:
            os.close(directory)
        buffer = Buffer()
        try:
            copy = CopyOut(tree, buffer)
            if self._root.record.uids:
                from sampan.oci.subids import reverse  # few containers have ids of their own

                copy.ids = reverse(self._root.record.uids), reverse(self._root.record.gids)
            for _ in self._write(copy):
                self._root.check()
                if buffer.size >= _PIECE:
                    yield buffer.take()
            yield buffer.take()
        except OSError as e:
            self._root.check()
            raise System(f"copy from container {self._root.record.id}: {explain(e)}") from e
        finally:
            tree.close()

    def _write(self, copy: CopyOut) -> Iterator[None]:
        if self.stat.is_directory:
            return copy.write_directory(self._place.name)
        return copy.write_named(self._place.name, self._place.name)

    def _open_top(self) -> int:
        """The directory that is walked, or the one that the file is in (which is not read, and may not be readable)."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        if not self.stat.is_directory:
            return os.dup(self._fd)
        try:
            return os.open(b"." if self._place.through else self._place.name, flags, dir_fd=self._fd)
        except OSError as e:
            raise System(f"copy from container {self._root.record.id}: {explain(e)}") from e


class Buffer:
    """What an archive was written into since the last look."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self._parts.append(data)
        self.size += len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return data


def _missing(error: OSError, path: str, reference: str) -> SampanError:
    if error.errno == errno.ENOENT:
        return NoSuchPath(f"Could not find the file {path} in container {reference}")
    reason = os.strerror(error.errno or errno.EIO).lower()
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL):
        return InvalidParameter(f"lstat {path}: {reason}")
    return System(f"lstat {path} in container {reference}: {reason}")


def _open_directory(root_fd: int, place: _Place, path: str, reference: str) -> int:
    """The directory that is put into, links followed inside the root."""
    try:
        return paths.open_in_root(root_fd, place.path, os.O_PATH | os.O_DIRECTORY)
    except KernelError as e:
        if e.errno == errno.ENOTDIR:
            raise InvalidParameter("extraction point is not a directory") from None
        raise _missing(e, path, reference) from None


def _check_writable(root: ContainerRoot, directory: int) -> None:
    """Refuse before anything is read, in Docker's words, what the kernel would refuse for each file."""
    if roots.mount_id(directory) == roots.mount_id(root.fd):
        if root.record.host_config.get("ReadonlyRootfs"):
            raise InvalidParameter("container rootfs is marked read-only")
    elif os.fstatvfs(directory).f_flag & _READ_ONLY:
        raise InvalidParameter("mounted volume is marked read-only")


def _devices(root_fd: int) -> tuple[int, int]:
    """The container's /dev, if something is mounted there (`ContainerTree`)."""
    try:
        fd = paths.open_in_root(root_fd, "dev", os.O_PATH | os.O_DIRECTORY, no_symlinks=True)
    except KernelError:
        return (-1, -1)
    try:
        if roots.mount_id(fd) == roots.mount_id(root_fd):
            return (-1, -1)
        status = os.fstat(fd)
        return (status.st_dev, status.st_ino)
    finally:
        os.close(fd)


def _as_root_of(record: Record) -> AbstractContextManager[None]:
    """What is made belongs to the container's root, also where that is another one than the machine's."""
    from contextlib import nullcontext

    if not record.uids:
        return nullcontext()
    from sampan.kernel.capabilities import FileIds
    from sampan.oci.subids import outside

    return FileIds(outside(record.uids, 0), outside(record.gids, 0))


def _container_user(root: ContainerRoot) -> tuple[int, int]:
    """The ids of the container's user, by its own passwd and group (Docker asks the host's, where it is another one's)."""
    from sampan.steps.base import Context, StepError
    from sampan.steps.process import FindUser

    who = Context()
    who.fds["root"] = root.fd
    try:
        FindUser(str(root.record.config["User"])).run(who)
    except StepError as e:
        raise InvalidParameter(str(e)) from None
    return who.uid, who.gid


__all__ = ["ArchiveStream", "Archives", "Files", "NoSuchPath", "PathStat", "go_mode"]
