"""What every snapshotter does, run with each of them: the same layers give the same root file system."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.store.imagetree import ImageTree
from sampan.store.layers import DigestStream
from sampan.store.staging import delete_tree
from sampan.store.tarstream import DIRECTORY, FILE, SYMLINK

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
from support.snapshots import BASE, BELOW, ID, KINDS, Store, mounted, store, tree, without

__all__ = ["store"]

pytestmark = pytest.mark.root

_FORMATS = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}


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
