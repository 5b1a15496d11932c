"""What the layers of an image make together, out of their archives: nothing is unpacked, nothing is mounted.

Each entry is understood as `store.extract` understands it, and as the joined file system would show it (docs/adr/0005): whiteouts
hide what lower layers have, a link of a lower layer on the way is followed, a later entry replaces an earlier one. For each name the tree
knows the layer that it comes from, and the layers whose versions of it nobody sees any more.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci.digest import new_hash
from sampan.store.extract import clean
from sampan.store.tarfields import Malformed
from sampan.store.tarstream import CHARACTER, DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarReader, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.store.layers import DigestStream

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_LINKS = 40  # As many as the kernel follows in one path.
_IMPLIED_MODE = 0o755  # of a directory that is named only on the way to something


class File:
    """What is at one or several names: of a hard link there is one for all of them."""

    __slots__ = ("content", "entry", "layer", "names")

    def __init__(self, entry: TarEntry, layer: int, content: str) -> None:
        self.entry = entry
        self.layer = layer
        self.content = content
        self.names = 1


class Node:
    """One name. `layer`: where what it shows comes from; `hidden`: layers whose versions it hides; `gone`: names that a layer took away.

    `touched`: the last layer that needed it, to come to something else or as what a hard link leads to. Such a layer holds a copy.
    """

    __slots__ = ("children", "file", "gone", "hidden", "layer", "touched")

    def __init__(self, file: File, layer: int, hidden: tuple[int, ...] = ()) -> None:
        self.file = file
        self.layer = self.touched = layer
        self.hidden = hidden
        self.children: dict[bytes, Node] | None = {} if file.entry.kind == DIRECTORY else None
        self.gone: dict[bytes, int] = {}

    @property
    def is_directory(self) -> bool:
        return self.children is not None

    def below(self, depth: int = 1 << 30) -> Iterator[tuple[bytes, Node]]:
        """Everything so many levels below it with its path from here, directories before what is in them, by name."""
        stack = [(name, node, 1) for name, node in sorted((self.children or {}).items(), reverse=True)]
        while stack:
            path, node, level = stack.pop()
            if level > depth:
                continue
            yield path, node
            for name, child in sorted((node.children or {}).items(), reverse=True):
                stack.append((path + b"/" + name, child, level + 1))


class Layer:
    """What one layer did. Directories count in none of these.

    `size`: bytes of its files. `added`, `changed`: names that were not there below, or that were. `removed`: names that are gone by it.
    `wasted`: bytes of its files that are not seen, because it or a later layer replaced or removed them.
    """

    __slots__ = ("added", "changed", "removed", "size", "wasted")

    def __init__(self) -> None:
        self.size = self.added = self.changed = self.removed = self.wasted = 0


class ImageTree:
    """The tree so far, and what each layer did to it.

    `hashed`: the contents of files are hashed, for comparisons.
    """

    def __init__(self, hashed: bool = False) -> None:
        self.root = Node(File(TarEntry(b"", DIRECTORY, _IMPLIED_MODE), 0, ""), 0)
        self.layers: list[Layer] = []
        self._hashed = hashed

    def add(self, stream: DigestStream, entries: int) -> None:
        """Put a layer on top; its archive is read to the end. Raises `InvalidParameter` for what no layer may hold, or more than `entries` of it."""
        self.layers.append(Layer())
        reader = TarReader(stream)
        for count, entry in enumerate(reader, 1):
            if count > entries:
                raise InvalidParameter(f"error processing tar file: more than {entries} entries")
            try:
                self._put(entry, reader)
            except Malformed as e:
                raise InvalidParameter(f"error processing tar file: entry {printable(entry.name)}: {e}") from None
        reader.drain()

    def find(self, path: bytes) -> Node | None:
        """What is at a path, links on the way followed, its last component not."""
        parent, name = self._parent(clean(path))
        if parent is None or not name:
            return parent
        return (parent.children or {}).get(name)

    def removed_by(self, path: bytes) -> int | None:
        """The layer that took away what was at a path, or a directory on the way to it; None if nothing was there."""
        here: Node | None = self.root
        for name in clean(path).split(b"/"):
            if here is None:
                return None
            if name in here.gone and name not in (here.children or {}):
                return here.gone[name]
            here = (here.children or {}).get(name)
        return None

    # Entries

    @property
    def _here(self) -> int:
        return len(self.layers) - 1

    def _put(self, entry: TarEntry, reader: TarReader) -> None:
        name = clean(entry.name)
        if name.startswith(_META) and name != _OPAQUE:
            return
        parent, base = self._parent(name, make=True)
        assert parent is not None
        if not base:
            if entry.kind != DIRECTORY:
                raise Malformed("the root of a layer must be a directory")
            self._describe(self.root, entry)
        elif base == _OPAQUE:
            self._cover(parent)
        elif base.startswith(_META):
            return
        elif base.startswith(_WHITEOUT):
            self._take_away(parent, base[len(_WHITEOUT) :])
        elif entry.kind == CHARACTER and entry.major == entry.minor == 0:
            self._take_away(parent, base)
        else:
            there = (parent.children or {}).get(base)
            if entry.kind == DIRECTORY and there is not None and there.is_directory:
                self._describe(there, entry)
            else:
                self._place(parent, base, self._file(entry, reader))

    def _file(self, entry: TarEntry, reader: TarReader) -> File:
        if entry.kind == HARDLINK:
            found = self.find(entry.target)
            if found is None or found.is_directory:
                raise Malformed(f"the hard link's target {printable(entry.target)} is not there")
            self._parent(clean(entry.target), make=True)
            found.touched = self._here
            found.file.names += 1
            return found.file
        content = ""
        if entry.kind == FILE and self._hashed:
            content = _content(entry, reader)
        self.layers[-1].size += len(entry.target) if entry.kind == SYMLINK else entry.size
        return File(entry, self._here, content)

    def _place(self, parent: Node, base: bytes, file: File) -> None:
        children = parent.children
        assert children is not None
        old = children.get(base)
        hidden: tuple[int, ...] = ()
        below = old is not None and old.layer < self._here
        if old is not None:
            hidden = (*old.hidden, old.layer) if below else old.hidden
            if old.is_directory:
                self._drop_below(old)
            self._let_go(old)
        if file.entry.kind != DIRECTORY:
            if below:
                self.layers[-1].changed += 1
            elif old is None:
                self.layers[-1].added += 1
        children[base] = Node(file, self._here, hidden)

    def _describe(self, node: Node, entry: TarEntry) -> None:
        """A directory over a directory: what is in it stays, what is said of it is new."""
        if node.layer < self._here:
            node.hidden = (*node.hidden, node.layer)
        node.file, node.layer = File(entry, self._here, ""), self._here

    # Taking away

    def _take_away(self, parent: Node, name: bytes) -> None:
        if name in (b"", b".", b".."):
            raise Malformed(f"invalid whiteout name: {printable(name)}")
        old = (parent.children or {}).pop(name, None)
        if old is None:
            return
        parent.gone[name] = self._here
        self._drop_below(old)
        self._count_removed(old)
        self._let_go(old)

    def _cover(self, directory: Node) -> None:
        """An opaque directory: what lower layers have in it is hidden, what this one has stays, before or behind the mark."""
        stack = [directory]
        while stack:
            here = stack.pop()
            for name, node in list((here.children or {}).items()):
                if max(node.layer, node.touched) < self._here:
                    self._take_away(here, name)
                elif node.is_directory:
                    stack.append(node)

    def _drop_below(self, directory: Node) -> None:
        for _, node in directory.below():
            self._count_removed(node)
            self._let_go(node)

    def _count_removed(self, node: Node) -> None:
        if not node.is_directory and node.layer < self._here:
            self.layers[-1].removed += 1

    def _let_go(self, node: Node) -> None:
        """A name less: with the last one of a file its bytes are carried along for nothing."""
        node.file.names -= 1
        if node.file.names == 0 and node.file.entry.kind == FILE:
            self.layers[node.file.layer].wasted += node.file.entry.size

    # Finding

    def _parent(self, path: bytes, make: bool = False) -> tuple[Node | None, bytes]:
        """The directory that a path's last component is in, and that; for the root itself the root and b""."""
        directory, _, base = path.rpartition(b"/")
        return (self._directory(directory, make), base) if path else (self.root, b"")

    def _directory(self, path: bytes, make: bool) -> Node | None:
        trail = [self.root]
        pending = path.split(b"/")[::-1] if path else []
        links = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                trail = trail[:-1] or [self.root]
                continue
            children = trail[-1].children
            assert children is not None
            node = children.get(name)
            if node is None:
                if not make:
                    return None
                node = children[name] = Node(File(TarEntry(name, DIRECTORY, _IMPLIED_MODE), self._here, ""), self._here)
            if make:
                node.touched = self._here
            if node.file.entry.kind == SYMLINK:
                links += 1
                if links > _LINKS:
                    raise Malformed("too many levels of symbolic links")
                target = node.file.entry.target
                trail = [self.root] if target.startswith(b"/") else trail
                pending += target.split(b"/")[::-1]
                continue
            if not node.is_directory:
                if not make:
                    return None
                if node.layer == self._here:
                    raise Malformed("not a directory")
                # What a lower layer has there gives way, as it would to an entry for the directory.
                self._place(trail[-1], name, File(TarEntry(name, DIRECTORY, _IMPLIED_MODE), self._here, ""))
                node = children[name]
            trail.append(node)
        return trail[-1]


def _content(entry: TarEntry, reader: TarReader) -> str:
    """The digest of a file's bytes. Of a sparse one also of where they are: a hole may be too long to be hashed as zeros."""
    found = new_hash()
    for position, data in reader.chunks():
        if entry.regions is not None:
            found.update(b"%d " % position)
        found.update(data)
    return found.hexdigest()
