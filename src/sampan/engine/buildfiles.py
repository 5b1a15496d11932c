"""What COPY and ADD take: files of a context, of a stage or of an image, found by name or pattern, and as archives.

Every name is resolved by the kernel below the descriptor of the tree's root (`kernel.paths`): a link in a context, or in a stage,
leads nowhere outside of it.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.build.patterns import Ignore, has_wildcards, match
from sampan.engine.archive import Buffer
from sampan.engine.failures import explain
from sampan.errors import InvalidParameter, NotFound, System
from sampan.kernel import paths
from sampan.kernel.libc import KernelError
from sampan.oci import digest as digests
from sampan.store.archive import LEFT, TAKEN, PlainTree
from sampan.store.copyout import CopyOut
from sampan.store.tarstream import HARDLINK, TarEntry
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from sampan.store.layerwriter import Writer
    from sampan.store.tarwriter import Sink

    class Tree(Protocol):
        """What a destination takes from: a `FileTree`, or what was read of one."""

        fd: int

        def archive(self, found: Found, shown: bytes, manner: Manner) -> Iterator[bytes]: ...
        def write(self, found: Found, shown: bytes, manner: Manner, writer: Writer) -> None: ...
        def names(self, path: bytes) -> list[bytes]: ...


_PIECE = 1 << 18
_NEAR = 5
_ENTRY = 1 << 10
"""Bytes that an entry is counted with that is kept, beside its data."""


class Manner(Struct):
    """How something is copied.

    owner: (uid, gid), None for as it is. mode: makes permissions of permissions, None for as they are. exclude: what is left out, by
    its path below the source, or the source's own name. mtime_ns: the time of all of it, None for as they are.
    """

    owner: tuple[int, int] | None
    mode: Callable[[int, bool], int] | None = None
    exclude: Ignore = Ignore()
    mtime_ns: int | None = None


class Found(Struct):
    """Something to be copied. path: in the tree, clean, without a slash in front."""

    path: bytes
    is_directory: bool

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]


class FileTree:
    """The files below one root. fd: that root, which stays the caller's. ignore: what is left out of it."""

    def __init__(self, fd: int, ignore: Ignore) -> None:
        self.fd = fd
        self.ignore = ignore

    def find(self, source: str) -> list[Found]:
        """What a name or a pattern stands for, in the order of names. A name must be there; a pattern may fit nothing.

        The last component of a name is followed where it is a link. Raises `NotFound` with what is near, System.
        """
        path = paths.clean(source)
        if not has_wildcards(source):
            return [self._named(path, source)]
        candidates = [b""]
        for part in path.split(b"/"):
            candidates = [name for above in candidates for name in self._matching(above, part)]
        return [self._named(name, source) for name in candidates]

    def _named(self, path: bytes, source: str) -> Found:
        if path and self.ignore.ignores(os.fsdecode(path)) and not self._keeps_below(path):
            raise NotFound(f'"/{os.fsdecode(path)}": not found: it is excluded by .dockerignore')
        try:
            path = paths.resolve_in_root(self.fd, path)
            fd = paths.open_in_root(self.fd, path, os.O_PATH)
        except KernelError as e:
            if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise System(explain(e)) from e
            raise NotFound(f'"/{os.fsdecode(path)}": not found{self._near(path)}') from None
        try:
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
        if stat.S_ISSOCK(mode):
            raise InvalidParameter(f"{source}: sockets cannot be copied")
        return Found(path, stat.S_ISDIR(mode))

    def _keeps_below(self, path: bytes) -> bool:
        return self.ignore.keeps_some and any(True for _ in self._kept(path))

    def _kept(self, path: bytes) -> Iterator[bytes]:
        for name in self._names(path):
            below = path + b"/" + name
            if not self.ignore.ignores(os.fsdecode(below)):
                yield below
            else:
                yield from self._kept(below)

    def keeps(self, path: bytes, is_directory: bool) -> bool:
        """Whether something of the tree is taken: it is not ignored, or something in it is not."""
        if not self.ignore.ignores(os.fsdecode(path)):
            return True
        return is_directory and self._keeps_below(path)

    def _names(self, path: bytes) -> list[bytes]:
        try:
            fd = paths.open_in_root(self.fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except KernelError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return []
            raise System(explain(e)) from e
        try:
            return sorted(os.fsencode(name) for name in os.listdir(fd))
        finally:
            os.close(fd)

    def _matching(self, above: bytes, part: bytes) -> Iterator[bytes]:
        prefix = above + b"/" if above else b""
        if not has_wildcards(os.fsdecode(part)):
            yield prefix + part
            return
        pattern = match(os.fsdecode(part))
        for name in self._names(above):
            path = prefix + name
            if pattern.fullmatch(os.fsdecode(name)) and self.keeps(path, True):
                yield path

    def _near(self, path: bytes) -> str:
        """What is in the directory, if the name may be a misspelt one of it."""
        from difflib import get_close_matches

        above, _, name = path.rpartition(b"/")
        names = [os.fsdecode(n) for n in self._names(above)]
        near = get_close_matches(os.fsdecode(name), names, n=_NEAR, cutoff=0.6)
        return f" (there is: {', '.join(near)})" if near else ""

    def archive(self, found: Found, shown: bytes, manner: Manner) -> Iterator[bytes]:
        """It as an archive, whose top name is `shown`: of a directory only what is in it. Raises System for what cannot be read."""
        buffer = Buffer()
        for _ in self._copied(found, shown, manner, buffer, None):
            if buffer.size >= _PIECE:
                yield buffer.take()
        yield buffer.take()

    def write(self, found: Found, shown: bytes, manner: Manner, writer: Writer) -> None:
        """The same, given to a writer entry by entry."""
        for _ in self._copied(found, shown, manner, Buffer(), writer):
            pass

    def _copied(
        self, found: Found, shown: bytes, manner: Manner, buffer: Buffer, writer: Writer | None
    ) -> Iterator[None]:
        above, _, name = found.path.rpartition(b"/")
        try:
            top = paths.open_in_root(self.fd, found.path if found.is_directory else above, os.O_RDONLY | os.O_DIRECTORY)
            try:
                tree = PlainTree(top)
            finally:
                os.close(top)
            try:
                filtered = found.is_directory and (self.ignore.patterns or manner.exclude.patterns)
                form = _Taken(self, found.path, shown, manner.exclude) if filtered else None
                copy = _Copy(tree, buffer, form, manner)
                if writer is not None:
                    copy.write_to(writer)
                yield from copy.write_content(shown) if found.is_directory else copy.write_named(name, shown)
            finally:
                tree.close()
        except OSError as e:
            raise System(f"copy of /{os.fsdecode(found.path)}: {explain(e)}") from e

    def digests(self, found: Found, manner: Manner) -> dict[str, str]:
        """What decides whether it is the same, for each name in it: content, modes and owners, but no times."""
        return self.read(found, manner).digests

    def read(self, found: Found, manner: Manner, room: int = 0, going: Callable[[], None] | None = None) -> Read:
        """`digests`, and what they are of, if that has not more than `room` bytes: then it need not be read again.

        `going` is called between two pieces, and may raise what ends it.
        """
        shown = found.name or b"."
        taken = _Reading(len(shown), room if manner.owner is not None else 0)
        for _ in self._copied(found, shown, manner.replace(mtime_ns=0), Buffer(), taken):
            if going is not None:
                going()
        return Read(taken.found, taken.kept, room - taken.room)

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted; none if it is none. Raises System."""
        return self._names(path)


class Read(Struct):
    """What was read of a tree. digests: as `FileTree.digests` gives them. size: bytes that are kept.

    entries: (the place below what is copied, the entry, its data) for each; None if that was too much, or is not to be had twice.
    """

    digests: dict[str, str]
    entries: list[tuple[bytes, TarEntry, list[bytes]]] | None
    size: int


class ReadTree:
    """A tree of which something was read: that is what is written, and not what may be there by now. So what is copied is what the key is of."""

    def __init__(self, tree: FileTree, read: Read) -> None:
        self.fd = tree.fd
        self._tree = tree
        self._read = read

    def archive(self, found: Found, shown: bytes, manner: Manner) -> Iterator[bytes]:
        return self._tree.archive(found, shown, manner)

    def names(self, path: bytes) -> list[bytes]:
        return self._tree.names(path)

    def write(self, found: Found, shown: bytes, manner: Manner, writer: Writer) -> None:
        entries = self._read.entries
        if entries is None or manner.owner is None or manner.mtime_ns is None:
            self._tree.write(found, shown, manner, writer)
            return
        for below, entry, data in entries:
            entry.name = shown + b"/" + below if shown and below else shown or below
            entry.uid, entry.gid = manner.owner
            entry.mtime_ns = manner.mtime_ns
            writer.begin(entry)
            for piece in data:
                writer.write(piece)
            writer.end()
        writer.close()


class _Reading:
    """Takes entries as a `TarWriter` does, and keeps of each "KIND+MODE UID:GID DIGEST"; itself, too, as long as there is room.

    above: bytes of every name that are not below what is copied.
    """

    def __init__(self, above: int, room: int) -> None:
        self.found: dict[str, str] = {}
        self.kept: list[tuple[bytes, TarEntry, list[bytes]]] | None = [] if room else None
        self.room = room
        self._above = above
        self._data: list[bytes] = []
        self._name = self._open = ""
        self._hash = digests.new_hash()

    def add(self, entry: TarEntry, data: bytes = b"") -> None:
        self.begin(entry)
        self.write(data)
        self.end()

    def begin(self, entry: TarEntry) -> None:
        self._name = os.fsdecode(entry.name)
        # Apart from the rest, so that it can be told what was changed.
        self._open = f"{entry.kind.decode('ascii')}{entry.mode:o} {entry.uid}:{entry.gid} "
        kept = (entry.size, entry.target, entry.major, entry.minor)
        self._hash = digests.new_hash()
        self._hash.update(repr((*kept, sorted(entry.xattrs.items()), entry.regions)).encode())
        if self.kept is not None:
            self._keep(entry)

    def _keep(self, entry: TarEntry) -> None:
        self._data = []
        size = _ENTRY + entry.size
        # A hard link's target is a name that changes with the place; a sparse file's data are regions.
        if size > self.room or entry.kind == HARDLINK or entry.regions is not None:
            self.kept = None
            return
        self.room -= size
        assert self.kept is not None
        self.kept.append((entry.name[self._above + 1 :], entry, self._data))

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        if self.kept is not None and data:
            self._data.append(data)

    def end(self) -> None:
        self.found[self._name] = self._open + self._hash.hexdigest()

    def close(self) -> None: ...


class _Taken:
    """A form of archive (`store.archive.Form`) that leaves out what is ignored."""

    def __init__(self, tree: FileTree, path: bytes, shown: bytes, exclude: Ignore) -> None:
        self._tree = tree
        self._exclude = exclude
        self._path = path
        self._shown = shown

    def enter(self, fd: int, path: bytes, above: bool) -> tuple[bool, list[bytes]]:
        return False, []

    def judge(self, path: bytes, status: os.stat_result, covered: bool) -> str:
        below = path[len(self._shown) :].lstrip(b"/")
        if self._exclude.ignores(os.fsdecode(below)):
            return LEFT
        path = self._path + b"/" + below if self._path else below
        return TAKEN if self._tree.keeps(path, stat.S_ISDIR(status.st_mode)) else LEFT


class _Copy(CopyOut):
    """Files with other owners and modes than they have."""

    def __init__(self, tree: PlainTree, sink: Sink, form: _Taken | None, manner: Manner) -> None:
        super().__init__(tree, sink, form)
        self._manner = manner

    def write_to(self, writer: Any) -> None:
        """Give the entries to somebody else than a `TarWriter`."""
        self._writer = writer

    def write_content(self, shown: bytes) -> Iterator[None]:
        """What is in the tree's present directory, as if in `shown`."""
        yield from self._rest([self._level(shown, False)])

    def _described(self, path: bytes, kind: bytes, status: os.stat_result) -> TarEntry:
        # In one step, as it is done for each of thousands of files: of what the copy of a container's files has (its ids, whole seconds), nothing is to be here.
        manner = self._manner
        uid, gid = (status.st_uid, status.st_gid) if manner.owner is None else manner.owner
        mode = stat.S_IMODE(status.st_mode)
        if manner.mode is not None and not stat.S_ISLNK(status.st_mode):
            mode = manner.mode(mode, stat.S_ISDIR(status.st_mode))
        mtime_ns = status.st_mtime_ns if manner.mtime_ns is None else manner.mtime_ns
        return TarEntry(path, kind, mode, uid, gid, mtime_ns=mtime_ns)


__all__ = ["FileTree", "Found", "Manner", "Read", "ReadTree"]
