"""`cp`: between a container and the caller's own files, by Docker's rules for what goes where.

    the destination     a file is copied                       a directory is copied
    is a directory      into it, by its own name               into it, by its own name; with "/." what is in it
    is something else   over it                                "cannot copy directory"
    is not there        as that name; with "/" at its end      as that name
                        "no such directory"

Both sides are archives of `engine.archive`: here is the half that reads and writes the caller's files. What comes out of a
container may have been made to harm, so it is put below the destination without following any link on the way.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.engine.archive import Buffer, NoSuchPath
from sampan.engine.failures import explain
from sampan.errors import InvalidParameter, System
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol, Self

    from sampan.engine.archive import PathStat

    class Readable(Protocol):
        def read(self, size: int, /) -> bytes: ...

    class Pieces(Protocol):
        def __iter__(self) -> Iterator[bytes]: ...
        def __enter__(self) -> Self: ...
        def __exit__(self, *_: Any) -> None: ...

    class Files(Protocol):
        """The files of one container: `engine.archive.Files`, or a server's."""

        def stat(self, path: str) -> PathStat: ...
        def get(self, path: str) -> tuple[PathStat, Pieces]: ...
        def put(self, path: str, stream: Readable, keep_kinds: bool = ..., owned_by_user: bool = ...) -> None: ...
        def __enter__(self) -> Self: ...
        def __exit__(self, *_: Any) -> None: ...

    class Seen(Protocol):
        def stat(self, path: str) -> PathStat: ...

    class Archives(Protocol):
        def open(self, record: Any, reference: str, /) -> Files: ...

    Progress = Callable[[int], None]

_PIECE = 1 << 18


class Unfitting(InvalidParameter):
    """Source and destination do not go together, or one of the caller's own paths is wrong: nothing was copied."""


class Destination(Struct):
    """What is known of where something is to go. path: as it was named, or where the link that it is leads to."""

    path: str
    exists: bool
    is_directory: bool


class Copied(Struct):
    """What was copied. size: bytes of the archive that it went as. path: where it went, when links at the end of it were followed."""

    size: int
    path: str


def place(source: str, is_directory: bool, destination: Destination) -> tuple[str, str]:
    """The directory that something is put into and the name that it gets there; "" for what is in the directory `source` itself.

    source: its name, "." for the content of a directory. Raises Unfitting.
    """
    path = destination.path
    if destination.exists and destination.is_directory:
        return path, "" if source in (".", "/") else source
    if destination.exists and is_directory:
        raise Unfitting("cannot copy directory")
    if not destination.exists and not is_directory and asserts_directory(path):
        raise Unfitting("no such directory")
    above, name = split(path)
    return above, name


def asserts_directory(path: str) -> bool:
    """Whether a path can only be a directory's."""
    return path.rpartition("/")[2] in ("", ".", "..")


def split(path: str) -> tuple[str, str]:
    """A path's directory and last component, whatever it ends in: "/a/b/" is b in /a."""
    above, name = os.path.split(os.path.normpath(path))
    return above or ".", name


class Source:
    """A generator of pieces as a file that is read."""

    def __init__(self, pieces: Iterable[bytes], progress: Progress | None = None) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._at = 0
        self._progress = progress
        self.total = 0

    def read(self, size: int, /) -> bytes:
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
            self.total += len(self._piece)
            if self._progress is not None:
                self._progress(self.total)
        part = self._piece[self._at : self._at + size]
        self._at += len(part)
        return part


class Copier:
    """Copies between containers and the caller's files."""

    def __init__(self, archives: Archives) -> None:
        self._archives = archives

    def copy_in(
        self,
        record: Any,
        reference: str,
        source: str,
        path: str,
        follow: bool = False,
        owned_by_user: bool = False,
        progress: Progress | None = None,
    ) -> Copied:
        """Copy a file or directory of the caller's into a container.

        follow: a link at `source` is followed. owned_by_user: see `Files.put`. progress: is told the size as it grows.
        Raises Unfitting, and what `Files.put` raises.
        """
        local = _LocalSource(source, follow)
        with self._archives.open(record, reference) as files:
            destination = destination_in(files, path)
            directory, name = place(local.name, local.is_directory, destination)
            stream = Source(local.archive(os.fsencode(name) or b"."), progress)
            files.put(directory, stream, keep_kinds=True, owned_by_user=owned_by_user)
            return Copied(stream.total, destination.path)

    def copy_out(
        self,
        record: Any,
        reference: str,
        path: str,
        target: str,
        follow: bool = False,
        keep_owners: bool = False,
        progress: Progress | None = None,
    ) -> Copied:
        """Copy a file or directory of a container to the caller's.

        follow: a link at `path` is followed. keep_owners: what is made has the owners that it has in the container, and its
        set-id bits and capabilities; else it is the caller's, without them. Raises Unfitting, and what `Files.get` raises.
        """
        from sampan.store.copyin import CopyIn, Manner
        from sampan.store.extract import clean

        _check_output(target)
        with self._archives.open(record, reference) as files:
            path, name = followed(files, path, follow)
            found, pieces = files.get(path)
            with pieces:
                top = found.name if found.name in (".", "/") else name
                directory, name = place(top, found.is_directory, _local_destination(target))
                owner = None if keep_owners else (os.geteuid(), os.getegid())
                renamed = (clean(os.fsencode(found.name)), os.fsencode(name))
                manner = Manner(True, owner, not keep_owners, renamed)
                stream = Source(pieces, progress)
                fd = _open_local(directory)
                try:
                    CopyIn(fd, os.fsencode(os.path.abspath(directory)), manner).run(stream)
                except OSError as e:
                    raise System(explain(e)) from e
                finally:
                    os.close(fd)
            return Copied(stream.total, target)


def destination_in(files: Seen, path: str) -> Destination:
    """What is at a path of a container that something is to be copied to."""
    found = _stat(files, path)
    if found is not None and found.is_link:
        path = found.link_target
        found = _stat(files, path)
    return Destination(path, found is not None, found is not None and found.is_directory)


def _stat(files: Seen, path: str) -> PathStat | None:
    try:
        return files.stat(path)
    except NoSuchPath:
        return None
    except InvalidParameter:
        if not path:
            raise
        return None  # Something on the way is no directory: putting it there will say so.


def followed(files: Files, path: str, follow: bool) -> tuple[str, str]:
    """The path to be copied, and the name that it has: a link that is followed gives its own name to what it leads to."""
    found = files.stat(path)
    return (found.link_target, found.name) if follow and found.is_link else (path, found.name)


# The caller's own files


class _LocalSource:
    """What the caller copies from: looked at once, then read by descriptors."""

    def __init__(self, path: str, follow: bool) -> None:
        shown = os.path.abspath(path)
        last = path.rpartition("/")[2]
        self.name = "." if last == "." else os.path.basename(shown) or "/"
        self._path = path
        try:
            status = os.lstat(path)
            if follow and stat.S_ISLNK(status.st_mode):
                shown = self._path = os.path.realpath(path)
                status = os.stat(self._path)
        except NotADirectoryError:
            raise Unfitting("not a directory") from None
        except (OSError, ValueError) as e:
            reason = (getattr(e, "strerror", "") or str(e)).lower()
            raise Unfitting(f"lstat {shown}: {reason}") from None
        if stat.S_ISSOCK(status.st_mode):
            raise Unfitting(f"{shown}: sockets cannot be copied")
        self.is_directory = stat.S_ISDIR(status.st_mode)

    def archive(self, shown: bytes) -> Iterator[bytes]:
        """It as an archive whose top name is `shown`. Raises System for what cannot be read."""
        from sampan.store.archive import PlainTree
        from sampan.store.copyout import CopyOut

        directory, name = (self._path, "") if self.is_directory else _parent_and_name(self._path)
        try:
            top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                tree = PlainTree(top)
            finally:
                os.close(top)
            buffer = Buffer()
            try:
                copy = CopyOut(tree, buffer)
                for _ in copy.write_named(os.fsencode(name), shown) if name else copy.write_directory(shown):
                    if buffer.size >= _PIECE:
                        yield buffer.take()
                yield buffer.take()
            finally:
                tree.close()
        except OSError as e:
            raise System(f"copy from {self._path}: {explain(e)}") from e


def _parent_and_name(path: str) -> tuple[str, str]:
    """Of what is no directory: so its name is its last component as it stands there."""
    above, _, name = path.rpartition("/")
    return (above or "/" if "/" in path else "."), name


def _check_output(target: str) -> None:
    """Docker's checks before anything is read: a place for it is there, and is none that would swallow it."""
    if not target:
        raise Unfitting("destination can not be empty")
    shown = os.path.abspath(target)
    try:
        mode = os.stat(target).st_mode
    except NotADirectoryError:
        raise Unfitting(f"stat {shown}/: not a directory") from None
    except OSError:
        above = os.path.dirname(shown)
        if not os.path.isdir(above):
            raise Unfitting(f'invalid output path: directory "{above}" does not exist') from None
        return
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise Unfitting(f'invalid output path: "{shown}" must be a directory or a regular file: got a device')


def _local_destination(target: str) -> Destination:
    if os.path.isdir(target):
        return Destination(target, True, True)
    if os.path.lexists(target) and not asserts_directory(target):
        # The user's own link is followed, also one to what is not there yet.
        target = os.path.realpath(target)
    return Destination(target, os.path.lexists(target), False)


def _open_local(directory: str) -> int:
    try:
        return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        shown = os.path.abspath(directory)
        if e.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Unfitting(f'invalid output path: directory "{shown}" does not exist') from None
        raise System(f"open {shown}: {(e.strerror or str(e)).lower()}") from None


__all__ = [
    "Copied",
    "Copier",
    "Destination",
    "Source",
    "Unfitting",
    "asserts_directory",
    "destination_in",
    "followed",
    "place",
]
