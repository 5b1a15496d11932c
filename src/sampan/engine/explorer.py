"""What the layers of an image hold: `image layers`, `image tree`, `image diff`. Read from the archives, whether they are unpacked or not."""

from __future__ import annotations

from sampan.engine.imagegraph import manifest_of
from sampan.engine.imagehistory import steps_of, unexplained
from sampan.errors import InvalidParameter, NotFound
from sampan.store.decompress import decompress
from sampan.store.images import damaged_image
from sampan.store.imagetree import ImageTree
from sampan.store.layers import ENTRY_LIMIT, DigestStream
from sampan.store.tarstream import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol

    from sampan.engine.images import Content, Image, Lock, Names
    from sampan.oci.image import Manifest
    from sampan.store.imagetree import Node

    class Images(Protocol):
        def resolve(self, name: str) -> Image: ...
        def collect_now(self) -> None: ...


ADDED, CHANGED, DELETED = "A", "C", "D"
_LETTERS = {FILE: "-", SYMLINK: "l", CHARACTER: "c", BLOCK_DEVICE: "b", DIRECTORY: "d", FIFO: "p"}


class Explorer:
    """Looks into images. Every method raises `NotFound` for an image that is not here, and `Damaged`."""

    def __init__(self, content: Content, names: Names, lock: Lock, images: Images) -> None:
        self._content = content
        self._names = names
        self._lock = lock
        self._images = images

    def layers(self, name: str) -> list[dict[str, Any]]:
        """The layers, the lowest first, which is number 1: {"Layer", "Digest", "DiffID", "Size", "PackedSize", "Added", "Changed", "Removed",
        "Wasted", "CreatedBy"}; sizes in bytes, the others count names that are no directories."""
        image, manifest, (tree,) = self._read((name,))
        made = [""] * unexplained(image)
        made += [str(step.get("created_by") or "") for step in steps_of(image) if not step.get("empty_layer")]
        made += [""] * (len(tree.layers) - len(made))
        return [
            {
                "Layer": number,
                "Digest": packed.digest,
                "DiffID": diff_id,
                "Size": layer.size,
                "PackedSize": packed.size,
                "Added": layer.added,
                "Changed": layer.changed,
                "Removed": layer.removed,
                "Wasted": layer.wasted,
                "CreatedBy": by,
            }
            for number, (layer, packed, diff_id, by) in enumerate(
                zip(tree.layers, manifest.layers, image.diff_ids, made, strict=False), 1
            )
        ]

    def tree(self, name: str, path: str, depth: int = 1) -> list[dict[str, Any]]:
        """What is at a path and `depth` levels below it, with the layer that each comes from: {"Path", "Layer", "Hidden", "Mode", "Uid", "Gid",
        "Size", "Target"}; "Hidden" are the layers whose versions nobody sees. Raises `NotFound` for a path that is not there, and says which
        layer removed it."""
        _, _, (tree,) = self._read((name,))
        wanted = path.encode("utf-8", "surrogateescape").strip(b"/")
        try:
            top = tree.find(wanted)
            gone = tree.removed_by(wanted) if top is None else None
        except ValueError as e:
            raise InvalidParameter(f"{path}: {e}") from None
        if top is None:
            why = f": layer {gone + 1} removed it" if gone is not None else ""
            raise NotFound(f"no such path in image {name}: {path}{why}")
        found = [_shown(b"/" + wanted, top)]
        for below, node in top.below(depth):
            found.append(_shown(b"/" + (wanted + b"/" if wanted else b"") + below, node))
        return found

    def diff(self, old: str, new: str) -> list[dict[str, Any]]:
        """What makes the second image another one than the first: {"Kind": "A", "C" or "D", "Path", "What"}, by path.

        "What" names what is different: type, content, target, mode, owner, device, xattrs. Times are not compared: no two builds have the same.
        """
        _, _, (before, after) = self._read((old, new))
        return [
            {"Kind": kind, "Path": _text(path), "What": ", ".join(what)}
            for kind, path, what in _differences(b"", before.root, after.root)
        ]

    # Reading

    def _read(self, names: Sequence[str]) -> tuple[Image, Manifest, list[ImageTree]]:
        """The first image, and the tree of each; of several the contents of files are hashed."""
        images = [self._images.resolve(name) for name in names]
        with self._lock.shared():
            found = [(image, self._manifest(image)) for image in images]
            hold = self._content.hold(sorted({layer.digest for _, manifest in found for layer in manifest.layers}))
        try:
            trees = [self._tree(image, manifest, hashed=len(found) > 1) for image, manifest in found]
        finally:
            self._content.drop(hold)
            if any(self._names.get(image.id) is None for image, _ in found):
                self._images.collect_now()
        return *found[0], trees

    def _manifest(self, image: Image) -> Manifest:
        try:
            return manifest_of(self._content, image.target, image.id)[1]
        except (NotFound, InvalidParameter) as e:
            raise damaged_image(image.id, e) from None

    def _tree(self, image: Image, manifest: Manifest, hashed: bool) -> ImageTree:
        tree = ImageTree(hashed)
        try:
            for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
                with self._content.open_verified(layer.digest) as blob:
                    plain = DigestStream(decompress(blob))
                    tree.add(plain, ENTRY_LIMIT)
                    blob.drain()
                if plain.digest != diff_id:
                    raise InvalidParameter(f'invalid diffID: expected "{diff_id}", got "{plain.digest}"')
        except (NotFound, InvalidParameter, ValueError) as e:
            raise damaged_image(image.id, e) from None
        return tree


def _shown(path: bytes, node: Node) -> dict[str, Any]:
    entry = node.file.entry
    return {
        "Path": _text(path),
        "Layer": node.layer + 1,
        "Hidden": [layer + 1 for layer in node.hidden],
        "Mode": _LETTERS[entry.kind] + _permissions(entry.mode),
        "Uid": entry.uid,
        "Gid": entry.gid,
        "Size": entry.size,
        "Target": _text(entry.target) if entry.kind == SYMLINK else "",
    }


def _permissions(mode: int) -> str:
    """The mode as ls(1) writes it, without the type."""
    import stat

    return stat.filemode(mode & 0o7777)[1:]


def _text(name: bytes) -> str:
    """A name for people: what a terminal must not be told is escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _differences(path: bytes, old: Node, new: Node) -> Iterator[tuple[str, bytes, list[str]]]:
    """By path, directories before what is in them."""
    stack: list[tuple[bytes, Node | None, Node | None]] = [(path, old, new)]
    while stack:
        path, before, after = stack.pop()
        if before is None or after is None:
            yield (ADDED if before is None else DELETED), path, []
        elif what := _what(before, after):
            yield CHANGED, path or b"/", what
        mine = (before.children or {}) if before is not None else {}
        theirs = (after.children or {}) if after is not None else {}
        for name in sorted({*mine, *theirs}, reverse=True):
            stack.append((path + b"/" + name, mine.get(name), theirs.get(name)))


def _what(old: Node, new: Node) -> list[str]:
    before, after = old.file.entry, new.file.entry
    if before.kind != after.kind:
        return ["type"]
    pairs = (
        ("content", (before.size, old.file.content), (after.size, new.file.content)),
        ("target", before.target, after.target),
        ("mode", before.mode, after.mode),
        ("owner", (before.uid, before.gid), (after.uid, after.gid)),
        ("device", (before.major, before.minor), (after.major, after.minor)),
        ("xattrs", before.xattrs, after.xattrs),
    )
    return [name for name, one, other in pairs if one != other]
