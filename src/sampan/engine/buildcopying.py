"""COPY and ADD: what their words stand for, what of it decides the step's key, and how it gets into the files of a stage."""

from __future__ import annotations

import os
import posixpath

from sampan.build import addresses
from sampan.build.patterns import Ignore
from sampan.engine import buildcopy
from sampan.engine.buildcontexts import check_checksum
from sampan.engine.buildfiles import Manner, ReadTree
from sampan.errors import InvalidParameter
from sampan.oci import filemode
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from sampan.build.instructions import Copy
    from sampan.engine.archive import Files
    from sampan.engine.buildcontexts import Contexts
    from sampan.engine.buildcopy import Fill
    from sampan.engine.buildfiles import FileTree, Found, Read, Tree
    from sampan.engine.buildprepared import PreparedStep
    from sampan.engine.containerroots import ContainerRoot

    class Ahead(Protocol):
        """See `buildahead.ReadAhead`."""

        def take(self, tree: FileTree, found: Found, copy: Copy) -> Read | None: ...
        def prepared(self, copy: Copy, shape: Sequence[object]) -> PreparedStep | None: ...


ROOM = 32 << 20
"""Bytes of sources that are kept in memory from the reading that decides the key to the copy: more is read twice."""


class Taken(Struct):
    """Something that is copied. source: as it was named. name: what it is called at its destination. unpacks: it may be an archive."""

    tree: FileTree
    source: str
    found: Found
    name: str
    unpacks: bool = False


class Sources:
    """What the words of a COPY or ADD stand for: files of a tree, of web servers, repositories."""

    def __init__(self, copy: Copy, tree: FileTree, contexts: Contexts) -> None:
        """Raises `NotFound`, `InvalidParameter`, and what fetching raises."""
        self._copy = copy
        self._contexts = contexts
        self.taken: list[Taken] = []
        remote = [source for source in copy.sources if copy.is_add and addresses.is_remote(source)]
        if (copy.checksum or copy.keep_git_dir) and len(remote) != len(copy.sources):
            flag = "checksum" if copy.checksum else "keep-git-dir"
            raise InvalidParameter(f"ADD --{flag} is for the addresses of files and repositories alone")
        for source in copy.sources:
            if source in remote:
                self.taken.append(self._remote(source))
            else:
                unpacks = copy.is_add and copy.unpack is not False
                for one in tree.find(source):
                    self.taken.append(Taken(tree, source, one, os.fsdecode(one.name), unpacks and not one.is_directory))

    def _remote(self, address: str) -> Taken:
        copy = self._copy
        if addresses.is_git(address):
            if copy.unpack is not None:
                raise InvalidParameter("ADD --unpack is not for repositories")
            tree = self._contexts.repository(address, copy.keep_git_dir, copy.checksum)
            (found,) = tree.find("/")
            return Taken(tree, address, found, "")
        if not addresses.is_http(address):
            raise InvalidParameter(f"ADD {addresses.redacted(address)}: the protocol is not known")
        if copy.checksum:
            check_checksum(copy.checksum)
        tree, name = self._contexts.file(address, copy.checksum)
        if not name and copy.destination.endswith("/"):
            raise InvalidParameter(
                f"ADD {addresses.redacted(address)}: cannot determine filename from url: name the file in the destination"
            )
        (found,) = tree.find("file")
        return Taken(tree, address, found, name or "file", copy.unpack is True)


class Copying:
    """One COPY or ADD whose sources are found."""

    def __init__(
        self,
        copy: Copy,
        taken: Sequence[Taken],
        from_image: bool,
        directory: str,
        date: int,
        ahead: Ahead | None = None,
    ) -> None:
        """directory: the destination, absolute. date: what files of a context get, seconds since 1970. Raises `InvalidParameter` for what does not go together.

        ahead: what of it may have been done already.
        """
        self._copy = copy
        self._ahead = ahead
        self._trees: dict[int, Tree] = {}
        self.shape: list[object] = []
        """After `look`: as of `buildcopy.Direct`."""
        # When a context was put on this disk is no part of what it is.
        self._mtime_ns = None if from_image else date * 1_000_000_000
        self._taken = taken
        self._from_image = from_image
        self._directory = directory
        self._mode = filemode.parse(copy.chmod) if copy.chmod else None
        self._exclude = Ignore.of(copy.exclude)
        several = len(taken) + len(copy.files) > 1 or copy.parents
        self._into = several
        if several and not directory.endswith("/") and not copy.parents and len(copy.sources) + len(copy.files) > 1:
            raise InvalidParameter(
                f"When using {copy.node.key.upper()} with more than one source file, the destination must be a directory and end with a /"
            )

    def _manner(self, owner: tuple[int, int] | None) -> Manner:
        return Manner(owner, self._mode, self._exclude, self._mtime_ns)

    def depends(self) -> dict[str, Any]:
        """What decides what the step makes: all that is copied, and how."""
        copy = self._copy
        manner = self._manner(None if self._from_image else (0, 0))
        content = []
        room = ROOM
        for number, one in enumerate(self._taken):
            read = self._read(one, manner, room)
            room -= read.size
            self._trees[number] = ReadTree(one.tree, read)
            content.append((one.name, one.found.is_directory, read.digests))
        return {
            "verb": copy.node.key,
            "content": [*content, *([one.name, one.content] for one in copy.files)],
            "paths": [one.source for one in self._taken] if copy.parents else [],
            "to": [self._directory, self._into],
            "how": [copy.chown, copy.chmod, copy.parents, list(copy.exclude), copy.unpack],
        }

    def _read(self, one: Taken, manner: Manner, room: int) -> Read:
        read = self._ahead.take(one.tree, one.found, self._copy) if self._ahead is not None else None
        return read or one.tree.read(one.found, manner, room)

    def look(self, root_fd: int) -> Fill | None:
        """What writes the layer, if nothing is there that the copy meets; nothing is changed by the look. Raises what finding a place raises."""
        try:
            to = buildcopy.Direct(root_fd, self._directory, self._into, self._manner(self._owner(root_fd)))
            self._put(to)
            self.shape = to.shape
            return to.write
        except buildcopy.NotDirect:
            return None

    def prepared(self) -> PreparedStep | None:
        """What was written already of what `look` has found; the caller's then."""
        return self._ahead.prepared(self._copy, self.shape) if self._ahead is not None else None

    def act(self, root: ContainerRoot, files: Files) -> None:
        """Copy into the files of a container."""
        manner = self._manner(self._owner(root.fd))
        self._put(buildcopy.Destination(root, files, self._directory, self._into, manner))

    def _owner(self, root_fd: int) -> tuple[int, int] | None:
        if self._copy.chown:
            return buildcopy.owner_of(root_fd, self._copy.chown)
        return None if self._from_image else (0, 0)

    def _put(self, to: buildcopy.Where) -> None:
        copy = self._copy
        for number, one in enumerate(self._taken):
            tree = self._trees.get(number, one.tree)
            if not (one.unpacks and to.unpack(tree, one.found)):
                below = _kept_parents(one.source, one.found) if copy.parents else b""
                to.put(tree, one.found, below, os.fsencode(one.name))
        for heredoc in copy.files:
            to.put_text(heredoc.name, heredoc.content)


def _kept_parents(source: str, found: Found) -> bytes:
    """With --parents: the directories that a source keeps, those behind "/./" if it has that."""
    pivot = source.partition("/./")
    cut = len(posixpath.normpath(pivot[0]).lstrip("/").split("/")) if pivot[1] else 0
    parts = found.path.split(b"/")
    return b"/".join(parts[cut:] if found.is_directory else parts[cut:-1])
