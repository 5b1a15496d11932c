"""Layers that nobody would write, generated: names that lead out, links to links, lying headers, marks over marks.

Whatever a layer holds, nothing around the store changes; it is refused in words and leaves nothing, or it comes to the tree that the
image specification says (layer.md), as `store.imagetree` reads it from the archives alone, without a file system in between.
"""

from __future__ import annotations

import io
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.steps.trace import Trace
from sampan.store.imagetree import ImageTree
from sampan.store.layers import DigestStream
from sampan.store.overlay import OverlaySnapshotter
from sampan.store.staging import delete_tree
from sampan.store.tarstream import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK
from sampan.store.vfs import VfsSnapshotter

from support.archives import END, base256, fingerprint, header, padded, pax

pytestmark = pytest.mark.root

_FORMATS = {
    FILE: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    FIFO: stat.S_IFIFO,
    CHARACTER: stat.S_IFCHR,
    BLOCK_DEVICE: stat.S_IFBLK,
}
_SNAPSHOTTERS: tuple[type[OverlaySnapshotter | VfsSnapshotter], ...] = (OverlaySnapshotter, VfsSnapshotter)

Entry = tuple[tuple[object, ...], tuple[tuple[bytes, bytes], ...]]
"""What a header says, and the pax records before it; bytes are made of it when OUT is known."""

# Names: few, so that entries meet; OUT stands for the path of what is around the store, which a test knows first when it runs.
OUT = b"%OUT%"
_ORDINARY = st.sampled_from([b"a", b"b", b"a", b"link"])
_ODD = st.sampled_from(
    [
        b"..",
        b"..",
        b"..",
        b"..",
        b".",
        b"",
        OUT,
        b"../../../../../../../.." + OUT,
        b"\xff\n",
        b"n" * 256,
        b".wh.a",
        b".wh.b",
        b".wh.link",
        b".wh.",
        b".wh..",
        b".wh...",
        b".wh..wh..opq",
        b".wh..wh.plnk",
        b".wh..wh.a",
        b".wh..wh.a/b",
    ]
)
_COMPONENT = st.integers(0, 15).flatmap(
    lambda n: _ODD if n == 0 else _ORDINARY.map(lambda name: b".wh." + name if n < 4 else name)
)
_PATH = st.builds(
    lambda slash, parts, end: slash + b"/".join(parts) + end,
    st.sampled_from([b"", b"", b"", b"/", b"./"]),
    st.integers(1, 5).flatmap(lambda n: st.lists(_COMPONENT, min_size=max(1, n - 2), max_size=max(1, n - 2))),
    st.sampled_from([b"", b"", b"", b"/"]),
)
_TARGET = st.one_of(
    _PATH,
    st.sampled_from(
        [b"a", b"/b", b"..", b"../..", b"/", OUT, OUT + b"/dir", b"link", b".wh.a", b"/proc/self/root" + OUT, b""]
    ),
)
_KIND = st.sampled_from([FILE, FILE, DIRECTORY, DIRECTORY, SYMLINK, SYMLINK, HARDLINK, CHARACTER, BLOCK_DEVICE, FIFO])
_SIZE_THAT_LIES = st.sampled_from([base256(1 << 61), base256(-1), b"77777777777\0", b"00000001000\0"])
_RECORD = st.one_of(
    st.tuples(st.just(b"path"), _PATH),
    st.tuples(st.just(b"linkpath"), _TARGET),
    st.tuples(st.just(b"size"), st.sampled_from([b"0", b"1", b"512", b"99999999999999", b"-1", b"x"])),
    st.tuples(st.sampled_from([b"uid", b"gid"]), st.sampled_from([b"0", b"7", b"4294967295", b"-1"])),
    st.tuples(st.just(b"mtime"), st.sampled_from([b"1.5", b"-1", b"99999999999999999999", b"now"])),
    st.tuples(
        st.sampled_from(
            [b"SCHILY.xattr.user.a", b"SCHILY.xattr.trusted.overlay.opaque", b"SCHILY.xattr.trusted.overlay.redirect"]
        ),
        st.sampled_from([b"y", b"/" + OUT]),
    ),
    st.tuples(st.just(b"GNU.sparse.map"), st.sampled_from([b"0,1", b"5,1,0,1", b"0,1,2"])),
)


@st.composite
def _entry(draw: Callable[..., object]) -> Entry:
    number = draw(st.sampled_from([0, 0, 0, 5, 4000]))
    mode = draw(st.sampled_from([0o644, 0o755, 0o4755, 0o2770, 0o1777, 0]))
    said = (draw(_PATH), draw(_KIND), draw(_TARGET), mode, number, draw(st.binary(max_size=4)))
    lie = draw(_SIZE_THAT_LIES) if draw(st.integers(0, 29)) == 0 else None
    records = draw(st.lists(_RECORD, max_size=2)) if draw(st.integers(0, 4)) == 0 else []
    assert isinstance(records, list)
    return ((*said, lie), tuple(records))


def _made(entry: Entry, out: bytes) -> bytes:
    (name, kind, target, mode, number, data, lie), records = entry
    assert isinstance(name, bytes)
    assert isinstance(kind, bytes)
    assert isinstance(target, bytes)
    assert isinstance(mode, int)
    assert isinstance(number, int)
    assert isinstance(data, bytes)
    name, target = name.replace(OUT, out), target.replace(OUT, out)
    body = data if kind == FILE else b""
    long = {b"path": name} if len(name) > 100 else {}
    if len(target) > 100:
        long[b"linkpath"] = target
    said = {**long, **{key: value.replace(OUT, out) for key, value in records}}
    size = lie if isinstance(lie, bytes) else len(body)
    block = header(name[:100], kind, size, mode, number, number, target=target[:100], device=(number, number % 7))
    return (pax(said) if said else b"") + block + padded(body)


class Place:
    """Two stores, and what is around them."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.out = top / "out"
        (self.out / "dir").mkdir(parents=True)
        (self.out / "secret").write_text("secret")
        (self.out / "dir/f").write_text("f")
        (self.out / "link").symlink_to("secret")
        self.stores = {}
        for kind in _SNAPSHOTTERS:
            for place in ("layers", "snapshots"):
                (top / kind.name / place).mkdir(parents=True)
            self.stores[kind.name] = kind(
                str(top / kind.name / "layers"), str(top / kind.name / "snapshots"), Trace(None)
            )
        self.before = self.around()

    def around(self) -> tuple[object, ...]:
        return fingerprint(self.out), sorted(os.listdir(self.top)), self.top.stat().st_mode

    def unpack(self, kind: str, archives: list[bytes]) -> list[str] | InvalidParameter:
        """The chain of the layers, or why they are refused; a refusal leaves the layers below and nothing else."""
        chain: list[str] = []
        layers = self.top / kind / "layers"
        for archive in archives:
            try:
                chain.append(self.stores[kind].unpack(tuple(chain), io.BytesIO(archive)).chain_id)
            except InvalidParameter as e:
                self._nothing_else(layers, chain)
                return e
            self._nothing_else(layers, chain)
        return chain

    def _nothing_else(self, layers: Path, chain: list[str]) -> None:
        assert self.around() == self.before
        assert len(os.listdir(layers)) == len(set(chain))


def _as_specified(archives: list[bytes]) -> dict[bytes, tuple[object, ...]]:
    tree = ImageTree(hashed=True)
    for archive in archives:
        tree.add(DigestStream(io.BytesIO(archive)), 1000)
    found: dict[bytes, tuple[object, ...]] = {}
    for path, node in tree.root.below():
        entry = node.file.entry
        mode = _FORMATS[entry.kind] | (0o777 if entry.kind == SYMLINK else entry.mode)
        device = os.makedev(entry.major, entry.minor) if entry.kind in (CHARACTER, BLOCK_DEVICE) else 0
        what = {FILE: (node.file.content,), SYMLINK: (entry.target,)}.get(entry.kind, ())
        found[b"/" + path] = (mode, entry.uid, entry.gid, device, *what)
    return found


def _as_unpacked(top: Path) -> dict[bytes, tuple[object, ...]]:
    found = fingerprint(top, times=False, inodes=False)
    return {path: (*what[:4], *what[5:]) for path, what in found.items() if path}  # without xattrs


def test_any_layers(tmp_path_factory: pytest.TempPathFactory) -> None:
    came_to: Counter[str] = Counter()

    @settings()
    @given(layers=st.lists(st.lists(_entry(), max_size=12), min_size=1, max_size=2))
    def unpack(layers: list[list[Entry]]) -> None:
        place = Place(tmp_path_factory.mktemp("place"))
        out = os.fsencode(place.out)
        archives = [b"".join(_made(entry, out) for entry in layer) + END for layer in layers]
        results = {kind: place.unpack(kind, archives) for kind in place.stores}
        refused = {kind: str(found) for kind, found in results.items() if isinstance(found, InvalidParameter)}
        assert len(refused) in (0, 2), refused
        assert all(words.startswith("error processing tar file: ") for words in refused.values())
        came_to["refused" if refused else "unpacked"] += 1
        chain = results["vfs"]
        if not isinstance(chain, InvalidParameter):
            unpacked = _as_unpacked(Path(place.stores["vfs"].layer_path(chain[-1])) / "diff")
            assert unpacked == _as_specified(archives)
            came_to["files"] += len(unpacked)
        delete_tree(str(place.top))

    unpack()
    # Neither all is refused, nor is all so harmless that it shows nothing.
    assert came_to["refused"] > 2
    assert came_to["unpacked"] > 2
    assert came_to["files"] > 5
