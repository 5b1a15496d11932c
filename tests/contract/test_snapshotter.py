"""What every snapshotter does, run with each of them: the same layers give the same root file system."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.kernel import mount
from sampan.oci.image import chain_ids
from sampan.steps.trace import Event, Trace
from sampan.store.imagetree import ImageTree
from sampan.store.layers import DigestStream
from sampan.store.overlay import OverlaySnapshotter
from sampan.store.staging import delete_tree
from sampan.store.tarstream import DIRECTORY, FILE, SYMLINK
from sampan.store.vfs import VfsSnapshotter

from support.archives import (
    END,
    base256,
    directory,
    fingerprint,
    hardlink,
    header,
    member,
    opaque,
    padded,
    pax,
    symlink,
    whiteout,
)

if TYPE_CHECKING:
    from sampan.store.snapshots import RootMount, Snapshotter

pytestmark = pytest.mark.root

_FORMATS = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}
KINDS = {"overlay": OverlaySnapshotter, "vfs": VfsSnapshotter}
ID = "c0ffee" * 10 + "0001"


class Store:
    """A snapshotter on directories of its own."""

    def __init__(self, top: Path, kind: str, observer: Callable[[Event], None] | None = None) -> None:
        self.layers, self.parts = top / "layers", top / "snapshots"
        for place in (self.layers, self.parts):
            place.mkdir(parents=True, exist_ok=True)
        self.trace = Trace(observer)
        self.snapshotter: Snapshotter = KINDS[kind](str(self.layers), str(self.parts), self.trace)

    def image(self, *archives: bytes) -> list[str]:
        """Unpack layers, bottom first; return their chain ids."""
        chain: list[str] = []
        for archive in archives:
            info = self.snapshotter.unpack(tuple(chain), io.BytesIO(archive + END))
            chain.append(info.chain_id)
        return chain

    @contextmanager
    def container(self, *archives: bytes) -> Iterator[Path]:
        """The root file system of a new container, mounted where nobody sees it."""
        chain = self.image(*archives)
        self.snapshotter.create(ID, chain)
        try:
            with mounted(self.snapshotter.root(ID, chain)) as path:
                yield path
        finally:
            self.snapshotter.remove(ID)

    def leftovers(self) -> list[str]:
        return [name for place in (self.layers, self.parts) for name in os.listdir(place) if name.startswith(".")]


@contextmanager
def mounted(root: RootMount) -> Iterator[Path]:
    if root.kind == "bind":
        yield Path(root.source)
        return
    fd = mount.overlay(root.lower, root.upper, root.work)
    try:
        yield Path(f"/proc/self/fd/{fd}/.")
    finally:
        os.close(fd)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, request.param)
    yield made
    assert made.leftovers() == []


def tree(top: Path) -> dict[str, str]:
    """Names and what they are, without what the init layer put there."""
    init = {"dev", "dev/pts", "dev/shm", "dev/console", "proc", "sys", ".dockerenv", "etc", "etc/mtab"}
    init |= {"etc/hosts", "etc/hostname", "etc/resolv.conf"}
    found: dict[str, str] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if name in init:
            continue
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            found[name] = path.read_text()
        elif stat.S_ISLNK(status.st_mode):
            found[name] = "-> " + os.readlink(path)
        else:
            found[name] = {stat.S_IFDIR: "dir", stat.S_IFCHR: "char", stat.S_IFIFO: "fifo", stat.S_IFBLK: "block"}[
                stat.S_IFMT(status.st_mode)
            ]
    return found


# One layer


def test_everything_a_layer_can_hold(store: Store) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    records = {
        b"mtime": b"1234567890.123456789",
        b"SCHILY.xattr.security.capability": capability,
        b"SCHILY.xattr.user.note": b"\0\xff=\n",
        b"SCHILY.xattr.trusted.overlay.opaque": b"y",
    }
    sparse = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9000000"}
    archive = (
        directory(b"./", mode=0o751, mtime=5)
        + directory(b"d", mode=0o1777, uid=10, gid=20, mtime=1000)
        + pax(records)
        + member(b"d/f", b"data", mode=0o4755, uid=base256(3_000_000_000, 8), gid=7)
        + hardlink(b"hard", b"d/f")
        + symlink(b"link", b"../../nowhere", uid=3, mtime=77)
        + header(b"null", b"3", device=(1, 3), mode=0o666, gid=9)
        + header(b"disk", b"4", device=(259, 1 << 18), mode=0o640)
        + header(b"pipe", b"6", mode=0o622)
        + member(b"\xff\xfe\x01name", b"bytes")
        + member(b"long/" * 60 + b"f" * 255, b"far")
        + pax(sparse)
        + member(b"holes", padded(b"1\n8999000\n4\n") + b"last")
    )
    with store.container(archive) as top:
        f = (top / "d/f").stat()
        assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid, f.st_nlink) == (0o4755, 3_000_000_000, 7, 2)
        assert f.st_mtime_ns == 1_234_567_890_123_456_789
        assert os.getxattr(top / "d/f", "security.capability") == capability
        assert os.getxattr(top / "d/f", "user.note") == b"\0\xff=\n"
        assert os.path.samestat(f, (top / "hard").stat())
        d = (top / "d").stat()
        assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_gid, d.st_mtime) == (0o1777, 10, 20, 1000)
        link = (top / "link").lstat()
        assert (os.readlink(top / "link"), link.st_uid, link.st_mtime) == ("../../nowhere", 3, 77)
        null, disk = (top / "null").stat(), (top / "disk").stat()
        assert (stat.S_ISCHR(null.st_mode), null.st_rdev, null.st_gid) == (True, os.makedev(1, 3), 9)
        assert (stat.S_ISBLK(disk.st_mode), disk.st_rdev) == (True, os.makedev(259, 1 << 18))
        assert stat.S_IMODE((top / "pipe").stat().st_mode) == 0o622
        assert b"\xff\xfe\x01name" in os.listdir(os.fsencode(top))
        assert (top / ("long/" * 60 + "f" * 255)).read_text() == "far"
        holes = (top / "holes").stat()
        assert (holes.st_size, holes.st_blocks < 100) == (9_000_000, True)
        assert (top / "holes").read_bytes()[8_999_000:] == b"last" + bytes(996)
        assert stat.S_IMODE(top.stat().st_mode) == 0o751


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_compression_does_not_change_the_identity(store: Store, compress: Callable[[bytes], bytes]) -> None:
    archive = member(b"f", b"data" * 1000) + END + b"behind the end mark"
    info = store.snapshotter.unpack((), io.BytesIO(compress(archive)))
    assert info.diff_id == info.chain_id == "sha256:" + hashlib.sha256(archive).hexdigest()
    assert (info.size, info.entries, info.archive_size) == (4000, 1, len(archive))
    assert store.snapshotter.info(info.chain_id) == info


def test_times_do_not_depend_on_the_unpacking(store: Store) -> None:
    """Directories get their times at the end; those that are only on the way to something have those of that."""
    archive = directory(b"d", mtime=5) + member(b"d/a", mtime=9) + member(b"x/y/z", mtime=42) + whiteout(b"d/a")
    with store.container(archive) as top:
        assert [(top / name).stat().st_mtime for name in ("d", "x", "x/y", "x/y/z")] == [5, 42, 42, 42]


def test_names_come_as_they_are(store: Store) -> None:
    """Names that mean something to a shell, a JSON parser or a terminal, and not to us."""
    names = [b"\x1b[31m", b"a\nb", b"\\", b'"', b"$(id)", b"*", b".wh", b"wh.x", b"..x", b"...", b" "]
    with store.container(b"".join(member(name) for name in names)) as top:
        assert set(names) <= set(os.listdir(os.fsencode(top)))


# Layers on layers

BASE = (
    directory(b"d", mode=0o750, uid=4, mtime=100)
    + member(b"d/one", b"1")
    + member(b"d/two", b"2")
    + directory(b"d/sub", mode=0o1777, mtime=200)
    + member(b"d/sub/three", b"3")
    + member(b"file", b"base", mode=0o600)
    + directory(b"usr/lib")
    + symlink(b"lib", b"usr/lib")
    + symlink(b"abs", b"/usr")
    + member(b"linked", b"shared", mode=0o640, uid=8, mtime=300)
)
BELOW = {"d": "dir", "d/one": "1", "d/two": "2", "d/sub": "dir", "d/sub/three": "3", "file": "base"} | {
    "usr": "dir",
    "usr/lib": "dir",
    "lib": "-> usr/lib",
    "abs": "-> /usr",
    "linked": "shared",
}


def without(*names: str) -> dict[str, str]:
    return {n: v for n, v in BELOW.items() if not any(n == gone or n.startswith(gone + "/") for gone in names)}


LAYERS: dict[str, tuple[list[bytes], dict[str, str]]] = {
    "nothing": ([b""], BELOW),
    "add and replace": ([member(b"d/one", b"new") + member(b"d/new", b"n")], BELOW | {"d/one": "new", "d/new": "n"}),
    "whiteout of a file": ([whiteout(b"d/one")], without("d/one")),
    "whiteout of a directory": ([whiteout(b"d")], without("d")),
    "whiteout of a link": ([whiteout(b"lib")], without("lib")),
    "whiteout of nothing": ([whiteout(b"d/none") + whiteout(b"none")], BELOW),
    "whiteout in a new directory": ([whiteout(b"e/none")], BELOW | {"e": "dir"}),
    "whiteout, then again": ([whiteout(b"file"), member(b"file", b"back")], BELOW | {"file": "back"}),
    "file, then whiteout, in one layer": ([member(b"file", b"x") + whiteout(b"file")], without("file")),
    "whiteout, then file, in one layer": ([whiteout(b"file") + member(b"file", b"x")], BELOW | {"file": "x"}),
    "whiteout, then directory": ([whiteout(b"d") + directory(b"d")], without("d") | {"d": "dir"}),
    "whiteout, then file in it": ([whiteout(b"d") + member(b"d/n", b"n")], without("d") | {"d": "dir", "d/n": "n"}),
    "whiteout, then whiteout in it": ([whiteout(b"d") + whiteout(b"d/one")], without("d") | {"d": "dir"}),
    "directory whited out, then made above": (
        [whiteout(b"d"), directory(b"d") + member(b"d/n", b"n")],
        without("d") | {"d": "dir", "d/n": "n"},
    ),
    "opaque": ([opaque(b"d")], without("d/one", "d/two", "d/sub")),
    "opaque with files before": (
        [member(b"d/new", b"n") + member(b"d/sub/m", b"m") + opaque(b"d")],
        without("d/one", "d/two", "d/sub") | {"d/new": "n", "d/sub": "dir", "d/sub/m": "m"},
    ),
    "opaque with files after": (
        [opaque(b"d") + member(b"d/new", b"n") + member(b"d/sub/m", b"m")],
        without("d/one", "d/two", "d/sub") | {"d/new": "n", "d/sub": "dir", "d/sub/m": "m"},
    ),
    "whiteouts, then opaque": ([whiteout(b"d/one") + whiteout(b"d/sub/three") + opaque(b"d")], without("d/one", "d/two", "d/sub") | {"d/sub": "dir"}),
    "opaque of a new directory": ([opaque(b"e/f")], BELOW | {"e": "dir", "e/f": "dir"}),
    "opaque through a link": ([member(b"usr/lib/x", b"x"), opaque(b"lib")], BELOW),
    "opaque root": ([opaque(b"")], {}),
    "opaque root with files": (
        [member(b"d/new", b"n") + opaque(b"") + member(b"file", b"f")],
        {"d": "dir", "d/new": "n", "file": "f"},
    ),
    "file over directory": ([member(b"d", b"f")], without("d") | {"d": "f"}),
    "directory over file": ([directory(b"file") + member(b"file/f", b"f")], BELOW | {"file": "dir", "file/f": "f"}),
    "file below a lower file": ([member(b"file/f", b"f")], BELOW | {"file": "dir", "file/f": "f"}),
    "link over directory": ([symlink(b"d", b"usr")], without("d") | {"d": "-> usr"}),
    "directory over link": ([directory(b"lib") + member(b"lib/x", b"x")], BELOW | {"lib": "dir", "lib/x": "x"}),
    "device over file": ([header(b"file", b"3", device=(1, 3))], BELOW | {"file": "char"}),
    "file, then directory, over a directory": ([member(b"d", b"f") + directory(b"d")], without("d") | {"d": "dir"}),
    "directory, file, directory in layers": (
        [member(b"d", b"f"), directory(b"d") + member(b"d/n", b"n")],
        without("d") | {"d": "dir", "d/n": "n"},
    ),
    "through a lower link": ([member(b"lib/x", b"x")], BELOW | {"usr/lib/x": "x"}),
    "through an absolute lower link": ([member(b"abs/lib/x", b"x")], BELOW | {"usr/lib/x": "x"}),
    "whiteout through a lower link": ([member(b"lib/x", b"x"), whiteout(b"lib/x")], BELOW),
    "through a new link to a lower directory": ([symlink(b"n", b"d/sub") + member(b"n/x", b"x")], BELOW | {"n": "-> d/sub", "d/sub/x": "x"}),
    "through a new link that climbs": (
        [symlink(b"d/sub/n", b"../../usr/./lib/..") + member(b"d/sub/n/x", b"x")],
        BELOW | {"d/sub/n": "-> ../../usr/./lib/..", "usr/x": "x"},
    ),
    "hard link within": ([member(b"a", b"a") + hardlink(b"d/b", b"a")], BELOW | {"a": "a", "d/b": "a"}),
    "hard link to a lower file": ([hardlink(b"d/again", b"linked")], BELOW | {"d/again": "shared"}),
    "hard link to a lower file deep": ([hardlink(b"again", b"d/sub/three")], BELOW | {"again": "3"}),
    "hard link through a lower link": ([member(b"lib/x", b"x"), hardlink(b"again", b"lib/x")], BELOW | {"usr/lib/x": "x", "again": "x"}),
    "hard link to a lower link": ([hardlink(b"again", b"lib")], BELOW | {"again": "-> usr/lib"}),
    "hard link over a lower directory": ([hardlink(b"d", b"file")], without("d") | {"d": "base"}),
    "device 0:0 is a whiteout": ([header(b"file", b"3", device=(0, 0)) + header(b"none", b"3", device=(0, 0))], without("file")),
    "aufs leftovers": ([directory(b".wh..wh.plnk") + member(b".wh..wh.aufs") + member(b"d/.wh..wh.orph")], BELOW),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_layers_on_layers(store: Store, case: str) -> None:
    archives, expected = LAYERS[case]
    with store.container(BASE, *archives) as top:
        assert tree(top) == expected


def test_directories_on_the_way_keep_what_lower_layers_gave_them(store: Store) -> None:
    """Archives that name files only: /tmp of a base image does not lose its sticky bit, nor /root its mode."""
    with store.container(BASE, member(b"d/sub/x", b"x", mtime=9999)) as top:
        d, sub = (top / "d").stat(), (top / "d/sub").stat()
        assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_mtime) == (0o750, 4, 100)
        assert (stat.S_IMODE(sub.st_mode), sub.st_mtime) == (0o1777, 200)


def test_a_directory_over_a_directory_changes_its_metadata(store: Store) -> None:
    with store.container(BASE, directory(b"d", mode=0o700, uid=0, mtime=7)) as top:
        d = (top / "d").stat()
        assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_mtime) == (0o700, 0, 7)
        assert (top / "d/one").read_text() == "1"


def test_the_root_keeps_its_metadata_from_layer_to_container(store: Store) -> None:
    with store.container(directory(b"./", mode=0o1750, uid=3, mtime=50), member(b"f", b"1")) as top:
        status = top.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o1750, 3)


def test_hard_links_across_layers_are_one_file(store: Store) -> None:
    with store.container(BASE, hardlink(b"d/again", b"linked")) as top:
        first, second = (top / "linked").stat(), (top / "d/again").stat()
        assert first.st_ino == second.st_ino
        assert (stat.S_IMODE(first.st_mode), first.st_uid, first.st_mtime, first.st_nlink) == (0o640, 8, 300, 2)


def test_deleted_names_leave_nothing_to_see(store: Store) -> None:
    """A whiteout in a directory that only one layer has would be listed by the kernel as a device."""
    archives = [whiteout(b"new/gone"), directory(b"e") + whiteout(b"e/x") + whiteout(b"d/one") + opaque(b"d")]
    with store.container(BASE, *archives) as top:
        assert os.listdir(top / "new") == []
        assert os.listdir(top / "e") == []
        assert os.listdir(top / "d") == []


def test_a_hundred_and_twenty_layers(store: Store) -> None:
    archives = [
        member(b"f%d" % n, b"%d" % n) + member(b"same", b"%d" % n) + whiteout(b"f%d" % (n - 2)) for n in range(120)
    ]
    with store.container(*archives) as top:
        assert tree(top) == {"f118": "118", "f119": "119", "same": "119"}


def test_an_image_without_layers(store: Store) -> None:
    with store.container() as top:
        assert tree(top) == {}
        assert stat.S_IMODE(top.stat().st_mode) == 0o755
        (top / "written").write_text("x")
    assert store.snapshotter.layers() == []


def test_an_image_of_an_empty_archive(store: Store) -> None:
    info = store.snapshotter.unpack((), io.BytesIO(b""))
    store.snapshotter.create(ID, [info.chain_id])
    with mounted(store.snapshotter.root(ID, [info.chain_id])) as top:
        assert tree(top) == {}
    store.snapshotter.remove(ID)


# Any layers: overlay and vfs show the same

NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
TARGETS = st.one_of(PATHS, PATHS.map(lambda p: b"/" + p), st.sampled_from([b"..", b"../..", b".", b"../a", b"/"]))
ENTRIES = st.one_of(
    st.tuples(st.just(member), PATHS, st.binary(max_size=3)),
    st.tuples(st.just(directory), PATHS, st.sampled_from([0o755, 0o1700])),
    st.tuples(st.just(symlink), PATHS, TARGETS),
    st.tuples(st.just(hardlink), PATHS, PATHS),
    st.tuples(st.just(whiteout), PATHS),
    st.tuples(st.just(opaque), st.one_of(PATHS, st.just(b""))),
)
LAYER = st.lists(ENTRIES, max_size=6)


def seen(top: Path) -> dict[bytes, tuple[object, ...]]:
    """What layers brought. Of the root only mode and owner: nobody gave it a time."""
    init = (b"/dev", b"/etc", b"/proc", b"/sys", b"/.dockerenv")
    found = {name: what for name, what in fingerprint(top, inodes=False).items() if not name.startswith(init)}
    return found | {b"": found[b""][:3]}


def explored(archives: list[bytes]) -> dict[bytes, tuple[object, ...]]:
    """What `store.imagetree` makes of the layers: mode, owner, and content or target of each name but the root."""
    tree = ImageTree(hashed=True)
    for archive in archives:
        tree.add(DigestStream(io.BytesIO(archive)), 1000)
    found: dict[bytes, tuple[object, ...]] = {}
    for path, node in tree.root.below():
        entry = node.file.entry
        mode = _FORMATS[entry.kind] | (0o777 if entry.kind == SYMLINK else entry.mode)
        what = {FILE: (node.file.content,), SYMLINK: (entry.target,)}.get(entry.kind, ())
        found[b"/" + path] = (mode, entry.uid, entry.gid, *what)
    return found


def shown(top: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """The same of what `seen` has found: between owner and content are device, time and xattrs."""
    return {path: (*what[:3], *what[6:]) for path, what in top.items() if path}


@settings(suppress_health_check=list(HealthCheck))
@given(layers=st.lists(LAYER, min_size=1, max_size=4))
def test_both_show_the_same(layers: list[list[tuple[object, ...]]], tmp_path_factory: pytest.TempPathFactory) -> None:
    top = tmp_path_factory.mktemp("pair")
    archives = []
    for number, layer in enumerate(layers):
        made = [pax({b"mtime": b"%d.5" % (number * 100 + n)}) + entry[0](*entry[1:]) for n, entry in enumerate(layer)]  # type: ignore[operator]
        archives.append(b"".join(made))
    results: list[object] = []
    for kind in KINDS:
        store = Store(top / kind, kind)
        try:
            chain = store.image(*archives)
        except InvalidParameter as e:
            results.append(str(e))
            continue
        store.snapshotter.create(ID, chain)
        with mounted(store.snapshotter.root(ID, chain)) as path:
            results.append(seen(path))
        store.snapshotter.remove(ID)
    delete_tree(str(top))
    assert results[0] == results[1]
    # And who only reads the archives sees the same again.
    if isinstance(results[0], str):
        with pytest.raises(InvalidParameter):
            explored(archives)
    else:
        assert explored(archives) == shown(results[0])  # type: ignore[arg-type]


# The init layer


def test_what_every_container_finds(store: Store) -> None:
    with store.container(member(b"etc/passwd", b"root"), directory(b"etc", mode=0o711, mtime=8)) as top:
        for name in ("dev/pts", "dev/shm", "proc", "sys"):
            assert stat.S_IMODE((top / name).stat().st_mode) == 0o755
        for name in (".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console"):
            assert (top / name).stat().st_size == 0
            assert stat.S_IMODE((top / name).stat().st_mode) == 0o755
        assert os.readlink(top / "etc/mtab") == "/proc/mounts"
        assert (top / "etc/passwd").read_text() == "root"
        assert stat.S_IMODE((top / "etc").stat().st_mode) == 0o711


def test_the_init_layer_against_hostile_images(store: Store, tmp_path: Path) -> None:
    """CVE-2026-41579 and its kind: every name that it writes is a link out, or of another kind, in the image."""
    outside = tmp_path / "outside"
    (outside / "shm").mkdir(parents=True)
    (outside / "hosts").write_text("host")
    before = fingerprint(outside)
    out = os.fsencode(outside)
    image = (
        symlink(b"etc", out)
        + symlink(b"dev", b"../../../../../../.." + out)
        + symlink(b"proc", out)
        + member(b"sys", b"a file")
        + symlink(b".dockerenv", out + b"/hosts")
    )
    with store.container(image) as top:
        assert set(os.listdir(top / "etc")) == {"hosts", "hostname", "resolv.conf", "mtab"}
        assert (top / "dev/shm").is_dir()
        assert not (top / "dev").is_symlink()
        assert not (top / "proc").is_symlink()
        assert (top / "sys").is_dir()
        assert (top / ".dockerenv").stat().st_size == 0
    assert fingerprint(outside) == before


def test_directories_where_files_belong_stay_as_with_docker(store: Store) -> None:
    image = member(b"etc/hosts/inside", b"x") + directory(b".dockerenv") + symlink(b"etc/mtab", b"/elsewhere")
    with store.container(image) as top:
        assert (top / "etc/hosts/inside").read_text() == "x"
        assert (top / ".dockerenv").is_dir()
        assert os.readlink(top / "etc/mtab") == "/proc/mounts"


# Containers


def test_containers_share_layers_and_change_nothing_of_them(store: Store) -> None:
    chain = store.image(BASE, member(b"top", b"t"))
    snapshotter = store.snapshotter
    snapshotter.create(ID, chain)
    snapshotter.create("other", chain)
    before = fingerprint(store.layers)
    with mounted(snapshotter.root(ID, chain)) as top:
        (top / "d/one").write_text("changed")
        (top / "file").unlink()
        (top / "new").write_text("12345")
        (top / "d/sub/three").unlink()
    with mounted(snapshotter.root("other", chain)) as top:
        assert tree(top) == BELOW | {"top": "t"}
    assert fingerprint(store.layers) == before
    assert snapshotter.containers() == [ID, "other"]
    with mounted(snapshotter.root(ID, chain)) as top:
        assert tree(top) == without("file", "d/sub/three") | {"d/one": "changed", "new": "12345", "top": "t"}
    for container in (ID, "other"):
        snapshotter.remove(container)
    assert snapshotter.containers() == []
    assert os.listdir(store.parts) == []


def test_usage_counts_files_once(store: Store) -> None:
    chain = store.image(directory(b"etc"))
    store.snapshotter.create(ID, chain)
    before = store.snapshotter.usage(ID)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        (top / "a").write_bytes(bytes(1000))
        os.link(top / "a", top / "b")
        (top / "d").mkdir()
        (top / "d/c").write_bytes(bytes(10))
    assert store.snapshotter.usage(ID) - before == 1010
    store.snapshotter.remove(ID)
    with pytest.raises(NotFound):
        store.snapshotter.usage(ID)


def test_remove_is_idempotent_and_takes_deep_trees(store: Store) -> None:
    chain = store.image(b"")
    store.snapshotter.create(ID, chain)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        fd = os.open(top, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
    assert store.snapshotter.usage(ID) >= 0
    store.snapshotter.remove(ID)
    store.snapshotter.remove(ID)
    assert os.listdir(store.parts) == []


def test_a_second_create_of_the_same_container(store: Store) -> None:
    chain = store.image(BASE)
    store.snapshotter.create(ID, chain)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        (top / "mine").write_text("1")
    with pytest.raises(Conflict):
        store.snapshotter.create(ID, chain)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        assert (top / "mine").read_text() == "1"
    store.snapshotter.remove(ID)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".tmp-x"])
def test_container_ids_that_are_no_names(store: Store, name: str) -> None:
    for call in (store.snapshotter.usage, store.snapshotter.remove, lambda n: store.snapshotter.create(n, [])):
        with pytest.raises(InvalidParameter):
            call(name)


# Layers as things


def test_a_noted_layer_is_known_and_unpacked_later(store: Store) -> None:
    chain = store.image(BASE)
    upper = member(b"x", b"123") + END
    before = store.snapshotter.unpack(chain, io.BytesIO(upper))
    store.snapshotter.remove_layer(before.chain_id)
    store.snapshotter.note(before)
    store.snapshotter.note(before)
    assert store.snapshotter.info(before.chain_id) == before
    assert not store.snapshotter.has(before.chain_id)
    assert before.chain_id in store.snapshotter.layers()
    with pytest.raises(NotFound, match="layer does not exist"):
        store.snapshotter.create(ID, [*chain, before.chain_id])
    assert store.snapshotter.unpack(chain, io.BytesIO(upper), before.diff_id) == before
    store.snapshotter.note(before)
    assert store.snapshotter.has(before.chain_id)
    assert store.leftovers() == []
    with store.container(BASE, member(b"x", b"123")) as root:
        assert (root / "x").read_bytes() == b"123"


def test_layers_come_and_go(store: Store) -> None:
    chain = store.image(BASE, member(b"x"))
    assert store.snapshotter.layers() == sorted(chain)
    assert store.snapshotter.has(chain[1])
    store.snapshotter.remove_layer(chain[1])
    store.snapshotter.remove_layer(chain[1])
    assert not store.snapshotter.has(chain[1])
    assert store.snapshotter.layers() == [chain[0]]
    with pytest.raises(NotFound):
        store.snapshotter.info(chain[1])
    with pytest.raises(NotFound, match="layer does not exist"):
        store.snapshotter.create(ID, chain)
    with pytest.raises(NotFound):
        store.snapshotter.unpack(chain, io.BytesIO(END))
    for name in ("sha256:../../etc", "sha512:" + "0" * 128, "x"):
        with pytest.raises(InvalidParameter):
            store.snapshotter.has(name)


def test_a_layer_that_is_there_is_not_read_again(store: Store) -> None:
    archive = BASE + END
    digest = "sha256:" + hashlib.sha256(archive).hexdigest()
    first = store.snapshotter.unpack((), io.BytesIO(archive), digest)
    before = fingerprint(store.layers)
    stream = io.BytesIO(archive)
    assert store.snapshotter.unpack((), stream, digest) == first
    assert stream.tell() == 0
    assert store.snapshotter.unpack((), io.BytesIO(archive)) == first
    after = fingerprint(store.layers)
    assert {n: s for n, s in after.items() if n} == {n: s for n, s in before.items() if n}


def test_chain_ids_are_those_of_the_specification(store: Store) -> None:
    archives = [BASE, member(b"x"), member(b"y")]
    digests = ["sha256:" + hashlib.sha256(a + END).hexdigest() for a in archives]
    assert tuple(store.image(*archives)) == chain_ids(digests)


def test_a_wrong_digest_leaves_nothing(store: Store) -> None:
    with pytest.raises(InvalidParameter, match="invalid diffID: expected"):
        store.snapshotter.unpack((), io.BytesIO(BASE + END), "sha256:" + "0" * 64)
    assert os.listdir(store.layers) == []


@pytest.mark.parametrize("archive", [BASE[:-100], b"garbage" * 1000, gzip.compress(BASE)[:-20], BASE + member(b"../x")])
def test_a_bad_archive_leaves_nothing(store: Store, archive: bytes) -> None:
    with pytest.raises(InvalidParameter, match="error processing tar file"):
        store.snapshotter.unpack((), io.BytesIO(archive))
    assert os.listdir(store.layers) == []


def test_errors_of_the_stream_come_through_and_leave_nothing(store: Store) -> None:
    class Broken:
        def read(self, _size: int, /) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        store.snapshotter.unpack((), Broken())
    assert os.listdir(store.layers) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing(kind: str) -> None:
    fd = mount.new_filesystem("tmpfs", [("size", "400k")])
    try:
        store = Store(Path(f"/proc/self/fd/{fd}/."), kind)
        with pytest.raises(System, match=r'entry "big" at byte \d+: no space left on device'):
            store.image(member(b"small", b"x") + member(b"big", bytes(1 << 20)))
        assert os.listdir(store.layers) == []
        chain = store.image(member(b"small", b"x"))
        store.snapshotter.create(ID, chain)
        store.snapshotter.remove(ID)
    finally:
        os.close(fd)


# Two at once, and killed ones


def test_two_threads_unpack_the_same(store: Store) -> None:
    archive = b"".join(member(b"f%d" % n, b"x" * 100) for n in range(300)) + END
    results: list[object] = []

    def unpack() -> None:
        results.append(store.snapshotter.unpack((), io.BytesIO(archive)))

    threads = [threading.Thread(target=unpack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert len(store.snapshotter.layers()) == 1


def test_garbage_collection_spares_what_is_at_work(store: Store) -> None:
    archive = member(b"a", b"1") + member(b"b", b"2") + END
    collector = Store(store.layers.parent, store.snapshotter.name)

    class Slow:
        """Collects garbage, as another process would, in the middle of the archive."""

        left = archive

        def read(self, _size: int, /) -> bytes:
            piece, self.left = self.left[:1000], self.left[1000:]
            collector.snapshotter.collect_garbage()
            return piece

    info = store.snapshotter.unpack((), Slow())
    assert store.snapshotter.has(info.chain_id)


def everything(store: Store) -> None:
    """All that changes the disk, once."""
    chain = store.image(BASE, member(b"x", b"1"))
    store.snapshotter.create(ID, chain)
    store.snapshotter.create("second", chain)
    store.snapshotter.remove(ID)
    store.snapshotter.remove("second")
    store.snapshotter.remove_layer(chain[1])


def run_and_die(top: Path, kind: str, step: int) -> None:
    """Do everything in a process that kills itself before or after the n-th event."""
    events = 0

    def observer(_event: Event) -> None:
        nonlocal events
        if events == step:
            os.kill(os.getpid(), signal.SIGKILL)
        events += 1

    child = os.fork()
    if child == 0:
        try:
            everything(Store(top, kind, observer))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_step(kind: str, tmp_path: Path) -> None:
    """Whatever step a process is killed at: no half layer has a name, and garbage collection leaves no trace."""
    whole = Store(tmp_path / "whole", kind)
    everything(whole)
    steps = 2 * len(whole.trace.events)
    assert steps > 10
    infos = {chain_id: whole.snapshotter.info(chain_id) for chain_id in whole.image(BASE, member(b"x", b"1"))}
    for step in range(steps):
        top = tmp_path / f"killed{step}"
        run_and_die(top, kind, step)
        store = Store(top, kind)
        for chain_id in store.snapshotter.layers():
            assert store.snapshotter.info(chain_id) == infos[chain_id]
        store.snapshotter.collect_garbage()
        assert store.leftovers() == []
        chain = store.image(BASE, member(b"x", b"1"))
        for container in store.snapshotter.containers():
            with mounted(store.snapshotter.root(container, chain)) as path:
                assert tree(path) == BELOW | {"x": "1"}
            store.snapshotter.remove(container)
        store.snapshotter.create(ID, chain)
        with mounted(store.snapshotter.root(ID, chain)) as path:
            assert tree(path) == BELOW | {"x": "1"}
        store.snapshotter.remove(ID)
        assert os.listdir(store.parts) == []
