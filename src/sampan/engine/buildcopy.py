"""COPY and ADD into the files of a stage: what goes where, and whose it is (Dockerfile reference, "COPY", "Destination")."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod

from sampan.engine.archive import Buffer, Looking
from sampan.engine.buildfiles import Found, Manner
from sampan.engine.copying import Source, destination_in
from sampan.errors import InvalidParameter
from sampan.kernel import paths
from sampan.kernel.files import get_xattrs
from sampan.store.tarstream import DIRECTORY, FILE, TarEntry
from sampan.store.tarwriter import TarWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.engine.archive import Files
    from sampan.engine.buildfiles import Tree
    from sampan.engine.containerroots import ContainerRoot
    from sampan.engine.copying import Seen
    from sampan.store.layerwriter import Writer

    Fill = Callable[[Writer], None]

_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
_HEAD = 512


class Where(ABC):
    """Where the sources of one instruction go. path: absolute; it is a directory if it ends in a slash or there are several sources.

    seen: what is below the root now.
    """

    def __init__(self, root_fd: int, seen: Seen, path: str, is_directory: bool, manner: Manner) -> None:
        self._root = root_fd
        self._seen = seen
        self._path = path
        self._is_directory = is_directory or path.endswith(("/", "/."))
        self._manner = manner

    @abstractmethod
    def put(self, tree: Tree, found: Found, below: bytes = b"", name: bytes = b"") -> None:
        """Copy a file, or what is in a directory.

        below: a path below the destination that it keeps (--parents). name: what a file is called in a directory, if not as it is.
        """

    @abstractmethod
    def put_text(self, name: str, content: str) -> None:
        """Make a file of a heredoc."""

    @abstractmethod
    def unpack(self, tree: Tree, found: Found) -> bool:
        """Unpack an archive into the destination, as ADD does; False if the file is none."""

    def _target(self, name: bytes, from_directory: bool, below: bytes) -> bytes:
        """Where something goes, below the root. What is missing above it is made."""
        path = paths.clean(self._path)
        if below:
            path = path + b"/" + below if path else below
        found = destination_in(self._seen, "/" + os.fsdecode(path))
        if from_directory or self._is_directory or below or (found.exists and found.is_directory):
            directory = self._directory(path)
            return directory if from_directory else (directory + b"/" + name if directory else name)
        above, _, last = paths.clean(found.path).rpartition(b"/")
        directory = self._directory(above)
        return directory + b"/" + last if directory else last

    def make_directory(self) -> None:
        """The path itself, as a directory. Raises InvalidParameter."""
        self._directory(paths.clean(self._path))

    @abstractmethod
    def _directory(self, path: bytes) -> bytes:
        """A directory, made if it is not there; where it is in truth. Raises InvalidParameter if something else is there."""

    def _entry(self, path: bytes, kind: bytes, mode: int, size: int) -> TarEntry:
        import time

        uid, gid = self._manner.owner or (0, 0)
        entry = TarEntry(path, kind, mode, uid, gid, mtime_ns=time.time_ns())
        entry.size = size
        return entry


class Destination(Where):
    """In the files of a container, where all of it is done at once."""

    def __init__(self, root: ContainerRoot, files: Files, path: str, is_directory: bool, manner: Manner) -> None:
        super().__init__(root.fd, files, path, is_directory, manner)
        self._files = files

    def put(self, tree: Tree, found: Found, below: bytes = b"", name: bytes = b"") -> None:
        name = name or found.name
        if not found.is_directory and self._manner.exclude.ignores(os.fsdecode(name)):
            return
        target = self._target(name, found.is_directory, below)
        self._files.put("/", Source(tree.archive(found, target, self._manner)), keep_kinds=True)

    def put_text(self, name: str, content: str) -> None:
        target = self._target(os.fsencode(name), False, b"")
        data = content.encode("utf-8", "surrogateescape")
        mode = self._manner.mode(_FILE_MODE, False) if self._manner.mode is not None else _FILE_MODE
        self._files.put("/", Source([_archive([self._entry(target, FILE, mode, len(data))], data)]), keep_kinds=True)

    def unpack(self, tree: Tree, found: Found) -> bool:
        fd = paths.open_in_root(tree.fd, found.path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not is_archive(file.read(_HEAD)):
                return False
            file.seek(0)
            target = self._directory(paths.clean(self._path))
            self._files.put("/" + os.fsdecode(target), file)
        return True

    def _directory(self, path: bytes) -> bytes:
        missing: list[TarEntry] = []
        parts = path.split(b"/") if path else []
        for i in range(len(parts)):
            above = b"/".join(parts[: i + 1])
            found = destination_in(self._seen, "/" + os.fsdecode(above))
            if found.exists and not found.is_directory:
                raise InvalidParameter(f"cannot copy to non-directory: /{os.fsdecode(above)}")
            if not found.exists:
                missing.append(self._entry(above, DIRECTORY, _DIRECTORY_MODE, 0))
        if missing:
            self._files.put("/", Source([_archive(missing)]), keep_kinds=True)
        return paths.resolve_in_root(self._root, path) if path else b""


class NotDirect(Exception):
    """What is copied meets what is there: it is put there file by file, as a container sees it."""


class Direct(Where):
    """At which all that is copied is new. Nothing is changed here: `write` does it, in the new layer alone."""

    def __init__(self, root_fd: int, path: str, is_directory: bool, manner: Manner) -> None:
        super().__init__(root_fd, Looking(root_fd), path, is_directory, manner)
        self._missing: set[bytes] = set()
        self._taken: set[bytes] = set()
        self._work: list[Fill] = []
        self.shape: list[object] = [manner.owner, manner.mtime_ns]
        """What is done where, and what there is on the way: where it is the same, what is written is the same."""

    def write(self, writer: Writer) -> None:
        """All that was put. Raises System, OSError."""
        for work in self._work:
            work(writer)

    def put(self, tree: Tree, found: Found, below: bytes = b"", name: bytes = b"") -> None:
        name = name or found.name
        if not found.is_directory and self._manner.exclude.ignores(os.fsdecode(name)):
            return
        target = self._target(name, found.is_directory, below)
        names = [_joined(target, name) for name in tree.names(found.path)] if found.is_directory else [target]
        self._take(names)
        self.shape.append(("copy", found.path, target))
        self._work.append(lambda writer: tree.write(found, target, self._manner, writer))

    def put_text(self, name: str, content: str) -> None:
        target = self._target(os.fsencode(name), False, b"")
        self._take([target])
        data = content.encode("utf-8", "surrogateescape")
        self.shape.append(("text", target, data))
        mode = self._manner.mode(_FILE_MODE, False) if self._manner.mode is not None else _FILE_MODE
        entry = self._entry(target, FILE, mode, len(data))
        self._work.append(lambda writer: writer.add(entry, data))

    def unpack(self, tree: Tree, found: Found) -> bool:
        """Raises `NotDirect`: what is in an archive is known when it is read."""
        fd = paths.open_in_root(tree.fd, found.path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if is_archive(file.read(_HEAD)):
                raise NotDirect
        return False

    def _take(self, names: Sequence[bytes]) -> None:
        for name in names:
            above, _, last = name.rpartition(b"/")
            if name in self._taken or (above not in self._missing and self._is_there(above, last)):
                raise NotDirect
        self._taken.update(names)

    def _is_there(self, above: bytes, name: bytes) -> bool:
        try:
            os.close(paths.open_in_root(self._root, _joined(above, name), os.O_PATH | os.O_NOFOLLOW))
        except OSError as e:
            if e.errno == errno.ENOENT:
                return False
            raise NotDirect from None
        return True

    def _directory(self, path: bytes) -> bytes:
        """A directory, to be made if it is not there; where it is in truth."""
        real = b""
        for part in path.split(b"/") if path else []:
            here = _joined(real, part)
            if real in self._missing or here in self._missing or not self._is_there(real, part):
                if here not in self._missing:
                    self._take([here])
                    self._missing.add(here)
                    self.shape.append(("make", here))
                    self._work.append(self._making(here))
                real = here
                continue
            found = destination_in(self._seen, "/" + os.fsdecode(here))
            if not found.is_directory:
                raise NotDirect
            real = paths.resolve_in_root(self._root, here)
            self.shape.append(("through", real, self._metadata(real)))
        return real

    def _metadata(self, path: bytes) -> object:
        """What a layer repeats of a directory that it has entries in."""
        fd = paths.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            status = os.fstat(fd)
            return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, get_xattrs(fd)
        finally:
            os.close(fd)

    def _making(self, path: bytes) -> Fill:
        # Once: the archive and the files may be written one after the other, and are to have one time.
        entry = self._entry(path, DIRECTORY, _DIRECTORY_MODE, 0)
        return lambda writer: writer.add(entry)


def _joined(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


class Directory:
    """WORKDIR: the directory, made if it is not there. `look` and `act` as of `buildsteps.Action`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def look(self, root_fd: int) -> Fill | None:
        """Raises InvalidParameter."""
        try:
            to = Direct(root_fd, self._path, True, Manner((0, 0)))
            to.make_directory()
            return to.write
        except NotDirect:
            return None

    def prepared(self) -> None:
        return None  # It is one directory.

    def act(self, root: ContainerRoot, files: Files) -> None:
        """Raises InvalidParameter."""
        Destination(root, files, self._path, True, Manner((0, 0))).make_directory()


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so is what ADD unpacks: a tar archive, plain or compressed by a means that is known."""
    from sampan.store.decompress import is_compressed

    return head[257:262] == b"ustar" or is_compressed(head)


def owner_of(root_fd: int, text: str) -> tuple[int, int]:
    """The ids that --chown says, names by the image's own passwd and group. Raises InvalidParameter.

    A number without a group is the group's number, too, as the Dockerfile reference has it.
    """
    from sampan.steps.base import Context, StepError
    from sampan.steps.process import FindUser

    who = Context()
    who.fds["root"] = root_fd
    try:
        FindUser(f"{text}:{text}" if text.isascii() and text.isdigit() else text).run(who)
    except StepError as e:
        raise InvalidParameter(f"invalid chown {text!r}: {e}") from None
    return who.uid, who.gid


def _archive(entries: Sequence[TarEntry], data: bytes = b"") -> bytes:
    buffer = Buffer()
    writer = TarWriter(buffer)
    for entry in entries:
        writer.add(entry, data)
    writer.close()
    return buffer.take()
