"""Layers made to get out: not a byte outside of the directory that they are unpacked into may change.

P3 of the faults, CVE-2021-32760, -41089, CVE-2026-17106 and their kind. Each archive is unpacked beside a canary
that it is aimed at, in both forms, and the canary is compared with all that can be seen of it: contents, modes,
owners, xattrs, times (of change, too), inode numbers and link counts.

79 of them were seen to fail where the reader was weakened, in a copy of it: `_DIRECTORY` (store/layertree.py) without O_NOFOLLOW. (In a mount
namespace whose file systems are read-only: what a weakened one writes, it writes to the machine.)
"""

from __future__ import annotations

import io
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.kernel.tree import remove_tree
from sampan.store.layers import LayerInfo, apply

from support.archives import (
    END,
    directory,
    fingerprint,
    hardlink,
    header,
    member,
    opaque,
    pax,
    symlink,
    whiteout,
)

pytestmark = pytest.mark.root

FORMS = ["overlay", "delete"]


class Target:
    """A directory to unpack into, and what is around it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "store/layer"
        self.root.mkdir(parents=True)
        self.canary = top / "canary"
        (self.canary / "dir").mkdir(parents=True)
        (self.canary / "dir/deep").write_text("deep")
        (self.canary / "secret").write_text("secret")
        (self.canary / "setuid").write_text("x")
        (self.canary / "setuid").chmod(0o4755)
        os.link(self.canary / "secret", self.canary / "linked")
        os.mkfifo(self.canary / "fifo")
        (self.canary / "link").symlink_to("secret")
        os.utime(self.canary / "secret", ns=(10**18, 10**18))
        self.before = self.outside()

    def outside(self) -> dict[bytes, tuple[object, ...]]:
        """All around the target; no path of the target itself is walked, it may be too deep."""
        assert sorted(os.listdir(self.top)) == ["canary", "store"]
        assert os.listdir(self.top / "store") in (["layer"], [])
        status = os.stat(self.top)
        return {b"top": (status.st_mode, status.st_uid, status.st_mtime_ns), **fingerprint(self.canary)}

    def apply(self, data: bytes, form: str, lower: tuple[str, ...] = ()) -> LayerInfo | InvalidParameter:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return apply(io.BytesIO(data + END), fd, whiteouts=form, lower=lower)  # type: ignore[arg-type]
        except InvalidParameter as e:
            return e
        finally:
            os.close(fd)
            assert self.outside() == self.before


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    made = Target(tmp_path)
    yield made
    fd = os.open(tmp_path / "store", os.O_RDONLY)
    try:
        remove_tree(fd, "layer")
    finally:
        os.close(fd)
    assert os.listdir(tmp_path / "store") == []
    assert made.outside() == made.before


UP = b"../" * 30
DATA = b"overwritten"

# Each is an archive, by a canary's path; what it must come to: "refused", or "inside" the target.
HOSTILE: dict[str, tuple[str, str]] = {
    "absolute file": ("inside", "member(C + b'/secret', DATA, mode=0o777)"),
    "absolute directory": ("inside", "directory(C, mode=0o777, mtime=1) + directory(C + b'/dir', mode=0)"),
    "dotdot file": ("refused", "member(UP + C, DATA)"),
    "dotdot in the middle": ("refused", "member(b'a/b/' + UP + C + b'/secret', DATA)"),
    "dotdot alone": ("refused", "directory(b'..', mode=0o777)"),
    "dotdot by pax": ("refused", "pax({b'path': UP + C + b'/secret'}) + header(size=1) + bytes(512)"),
    "dotdot that stays inside": ("inside", "member(b'a/../b/../secret', DATA)"),
    "root that is a file": ("refused", "member(b'./', DATA)"),
    "root that is a link": ("refused", "symlink(b'/', C)"),
    "root that is a hard link": ("refused", "hardlink(b'.', C + b'/secret')"),
    "file through an absolute link": ("inside", "symlink(b'l', C) + member(b'l/secret', DATA, mode=0o777)"),
    "file through a relative link": ("inside", "symlink(b'l', UP + C) + member(b'l/secret', DATA)"),
    "file through two links": ("inside", "symlink(b'a', b'/') + symlink(b'a/b', C) + member(b'b/secret', DATA)"),
    "file through a link to ..": ("inside", "symlink(b'l', b'..') + member(b'l/canary/secret', DATA)"),
    "file through .. of a link": ("inside", "symlink(b'l', C + b'/dir') + member(b'l/../secret', DATA)"),
    "file through links that climb": (
        "inside",
        "directory(b'a/b/c') + symlink(b'a/b/c/l', b'../../../../../..') + member(b'a/b/c/l/canary/secret', DATA)",
    ),
    "file over a link out": ("inside", "symlink(b'secret', C + b'/secret') + member(b'secret', DATA, mode=0o777)"),
    "file over a link to a device": ("inside", "symlink(b'x', b'/dev/full') + member(b'x', DATA)"),
    "directory over a link out": (
        "inside",
        "symlink(b'd', C) + directory(b'd', mode=0o777) + member(b'd/secret', DATA)",
    ),
    "directory with a slash over a link": ("inside", "symlink(b'd', C) + directory(b'd/', mode=0o777, mtime=7)"),
    "link over a directory": (
        "inside",
        "directory(b'd') + member(b'd/f') + symlink(b'd', C) + member(b'd/secret', DATA)",
    ),
    "link over an open directory": (
        "inside",
        "directory(b'd') + member(b'd/one') + symlink(b'd', C) + member(b'd/secret', DATA) + member(b'd/new', DATA)",
    ),
    "link that changes under the walk": (
        "inside",
        "directory(b'x') + symlink(b'd', b'x') + member(b'd/f') + symlink(b'd', C) + member(b'd/secret', DATA)",
    ),
    "parent that became a link": (
        "inside",
        "directory(b'a/b/c') + member(b'a/b/c/f') + symlink(b'a/b', C) + member(b'a/b/secret', DATA) + member(b'a/b/c/f')",
    ),
    "device through a link": ("inside", "symlink(b'l', C) + header(b'l/sda', b'4', device=(8, 0), mode=0o666)"),
    "fifo through a link": ("inside", "symlink(b'l', C) + header(b'l/fifo', b'6', mode=0o666)"),
    "link through a link": ("inside", "symlink(b'l', C) + symlink(b'l/link', b'/etc/passwd')"),
    "times and mode through a link": ("inside", "symlink(b'l', C) + directory(b'l/dir', mode=0, mtime=1, uid=5)"),
    "metadata of links": ("inside", "symlink(b'l', C + b'/secret', mode=0o7777, uid=77, gid=77, mtime=3)"),
    "hard link to an absolute path": ("refused", "hardlink(b'h', C + b'/secret')"),
    "hard link with a mode": ("refused", "hardlink(b'h', C + b'/secret', mode=0o777, uid=9)"),
    "hard link out by dotdot": ("refused", "hardlink(b'h', UP + C + b'/secret')"),
    "hard link through a link": ("refused", "symlink(b'l', C) + hardlink(b'h', b'l/secret')"),
    "hard link through a relative link": ("refused", "symlink(b'l', UP + C) + hardlink(b'h', b'l/secret')"),
    "hard link to a link, then written": (
        "inside",
        "symlink(b'l', C + b'/secret') + hardlink(b'h', b'l') + member(b'h', DATA, mode=0o777)",
    ),
    "hard link to a link, then made": ("inside", "symlink(b'l', C) + hardlink(b'h', b'l') + member(b'h/secret', DATA)"),
    "hard link into a link": ("inside", "member(b'f', DATA) + symlink(b'l', C) + hardlink(b'l/secret', b'f')"),
    "hard link over a link": (
        "inside",
        "member(b'f', DATA) + symlink(b'l', C) + hardlink(b'l', b'f') + member(b'l', b'2')",
    ),
    "hard link to a directory": ("refused", "directory(b'd') + hardlink(b'h', b'd')"),
    "hard link to the root": ("refused", "hardlink(b'h', b'/')"),
    "hard link to its own parent's child": ("refused", "member(b'a/b', DATA) + hardlink(b'a', b'a/b')"),
    "hard link to itself": ("inside", "member(b'a', DATA) + hardlink(b'a', b'./a')"),
    "whiteout through a link": ("inside", "symlink(b'l', C) + member(b'l/.wh.secret')"),
    "whiteout through ..": ("refused", "member(UP + C + b'/.wh.secret')"),
    "whiteout of ..": ("refused", "member(b'd/.wh...')"),
    "whiteout of .": ("refused", "member(b'd/.wh..')"),
    "whiteout of nothing": ("refused", "member(b'd/.wh.')"),
    "whiteout of .. at the top": ("refused", "member(b'.wh...')"),
    "whiteout with a slash": ("inside", "member(b'.wh./' + C + b'/secret')"),
    "whiteout with a slash and dots": ("refused", "member(b'.wh./../../' + UP + C + b'/secret')"),
    "whiteout by pax with a slash": ("inside", "pax({b'path': b'.wh.a/' + C + b'/secret'}) + header()"),
    "opaque through a link": ("inside", "symlink(b'l', C) + member(b'l/.wh..wh..opq')"),
    "opaque through ..": ("refused", "member(UP + C + b'/.wh..wh..opq')"),
    "opaque that is a link": ("inside", "symlink(b'.wh..wh..opq', C) + symlink(b'd/.wh..wh..opq', C)"),
    "opaque that is a directory": ("inside", "directory(b'.wh..wh..opq') + member(b'.wh..wh..opq/f', DATA)"),
    "aufs directory": (
        "inside",
        "directory(b'.wh..wh.plnk') + member(b'.wh..wh.plnk/1', DATA) + symlink(b'.wh..wh.aufs', C)",
    ),
    "aufs link then file": ("inside", "symlink(b'.wh..wh.x', C) + member(b'.wh..wh.x/secret', DATA)"),
    "whiteout of a link's target": ("inside", "symlink(b'l', C + b'/secret') + member(b'.wh.l')"),
    "whiteout, then through it": ("inside", "symlink(b'l', C) + member(b'.wh.l') + member(b'l/secret', DATA)"),
    "opaque xattr by pax": ("inside", "pax({b'SCHILY.xattr.trusted.overlay.opaque': b'y'}) + directory(b'd')"),
    "redirect xattr by pax": (
        "inside",
        "pax({b'SCHILY.xattr.trusted.overlay.redirect': b'/../../canary'}) + directory(b'd')",
    ),
    "metacopy xattr by pax": ("inside", "pax({b'SCHILY.xattr.trusted.overlay.metacopy': b''}) + member(b'f', DATA)"),
    "user overlay xattr": ("inside", "pax({b'SCHILY.xattr.user.overlay.opaque': b'y'}) + directory(b'd')"),
    "xattr on a link": ("inside", "pax({b'SCHILY.xattr.user.x': b'y'}) + symlink(b'l', C + b'/secret')"),
    "trusted xattr on a link": ("inside", "pax({b'SCHILY.xattr.security.x': b'y'}) + symlink(b'l', C + b'/secret')"),
    "xattr with a NUL": ("refused", "pax({b'SCHILY.xattr.user.a\\0b': b'y'}) + member(b'f')"),
    "xattr without a name": ("refused", "pax({b'SCHILY.xattr.': b'y'}) + member(b'f')"),
    "xattr of no namespace": ("inside", "pax({b'SCHILY.xattr.nonsense': b'y'}) + member(b'f')"),
    "name of 300 bytes": ("refused", "member(b'n' * 300, DATA)"),
    "name of 5000 bytes": ("refused", "member(b'n/' * 2500 + b'f', DATA)"),
    "link to nowhere": ("refused", "symlink(b'l', b'')"),
    "link of 5000 bytes": ("refused", "symlink(b'l', b't/' * 2500)"),
    "circle of links": ("refused", "symlink(b'a', b'b') + symlink(b'b', b'a') + member(b'a/f', DATA)"),
    "link to itself": ("refused", "symlink(b'a', b'a/x') + member(b'a/f', DATA)"),
    "file below a file": ("refused", "member(b'f', b'1') + member(b'f/g', DATA)"),
    "file below a device": ("refused", "header(b'f', b'3', device=(1, 3)) + member(b'f/g', DATA)"),
    "file below a fifo": ("refused", "header(b'f', b'6') + member(b'f/g', DATA)"),
    "device number out of range": ("refused", "header(b'f', b'3', device=(4096, 0))"),
    "file of 4 EiB": ("refused", "header(b'f', size=b'\\x80' + b'\\0' * 3 + b'\\x3f' + b'\\xff' * 7) + bytes(512)"),
}


def build(expression: str, target: Target) -> bytes:
    names = {
        "C": os.fsencode(target.canary),
        "UP": UP,
        "DATA": DATA,
        "member": member,
        "directory": directory,
        "symlink": symlink,
        "hardlink": hardlink,
        "header": header,
        "pax": pax,
    }
    made = eval(expression, names)
    assert isinstance(made, bytes)
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_outside_changes(case: str, form: str, target: Target) -> None:
    expected, expression = HOSTILE[case]
    result = target.apply(build(expression, target), form)
    assert ("refused" if isinstance(result, InvalidParameter) else "inside") == expected, result
    if isinstance(result, InvalidParameter):
        assert "entry" in str(result)
        assert "at byte" in str(result)


@pytest.mark.parametrize("case", HOSTILE)
def test_on_top_of_a_lower_layer_that_helps(
    case: str, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same archives, above a layer whose directories are links out: copied up, and followed inside."""
    lower = tmp_path_factory.mktemp("lower")
    for name in ("l", "d", "a", "x"):
        (lower / name).symlink_to(target.canary)
    (lower / "f").symlink_to(target.canary / "secret")
    (lower / "h").write_text("lower")
    before = fingerprint(lower)
    target.apply(build(HOSTILE[case][1], target), "overlay", (str(lower),))
    assert fingerprint(lower) == before


@pytest.mark.parametrize("case", HOSTILE)
def test_in_a_whole_copy_that_helps(case: str, target: Target) -> None:
    """The same in a directory that has such links already, as vfs unpacks."""
    for name in ("l", "d", "a", "x"):
        (target.root / name).symlink_to(target.canary)
    (target.root / "f").symlink_to(target.canary / "secret")
    (target.root / "h").write_text("lower")
    target.apply(build(HOSTILE[case][1], target), "delete")


def test_where_the_files_went(target: Target) -> None:
    """Links are not refused, they lead inside: an image whose /var/run is /run is no attack."""
    canary = os.fsencode(target.canary)
    data = symlink(b"l", canary) + member(b"l/secret", DATA) + symlink(b"up", UP + b"etc") + member(b"up/f", b"1")
    assert not isinstance(target.apply(data, "overlay"), InvalidParameter)
    inside = target.root / str(target.canary).lstrip("/")
    assert (inside / "secret").read_bytes() == DATA
    assert (target.root / "etc/f").read_bytes() == b"1"
    assert (target.root / "l").is_symlink()


def test_overlay_marks_come_from_whiteouts_alone(target: Target) -> None:
    xattrs = {b"opaque": b"y", b"redirect": b"/etc", b"metacopy": b"", b"origin": b"x" * 20, b"nlink": b"U+1"}
    records = {b"SCHILY.xattr.trusted.overlay." + k: v for k, v in xattrs.items()}
    others = {b"SCHILY.xattr.trusted.other": b"1", b"SCHILY.xattr.user.fine": b"2"}
    data = pax(records | others) + directory(b"d") + pax(records | others) + member(b"d/f", b"1")
    assert not isinstance(target.apply(data, "overlay"), InvalidParameter)
    for path in (target.root / "d", target.root / "d/f"):
        assert os.listxattr(path) == ["user.fine"]


@pytest.mark.parametrize("form", FORMS)
def test_ten_thousand_levels_in_one_name(form: str, target: Target) -> None:
    result = target.apply(directory(b"d/" * 10_000), form)
    assert isinstance(result, InvalidParameter)
    assert "file name too long" in str(result)


@pytest.mark.parametrize("form", FORMS)
def test_levels_built_up_through_links(form: str, target: Target) -> None:
    """Each link hides a thousand levels; where no path could name it any more, it is refused."""
    deep = b"/".join([b"d"] * 900)
    data = b"".join(symlink(b"l%d" % n, (b"l%d/" % (n - 1) if n else b"") + deep) for n in range(12))
    data += b"".join(directory(b"l%d/x" % n) for n in range(12))
    result = target.apply(data, form)
    assert isinstance(result, InvalidParameter)
    assert "file name too long" in str(result)


@pytest.mark.parametrize("form", FORMS)
def test_as_many_levels_as_a_path_can_have(form: str, target: Target) -> None:
    name = b"/".join([b"d"] * 2047)
    result = target.apply(directory(name, mode=0o711) + member(name[:-1] + b"f", b"deep"), form)
    assert isinstance(result, LayerInfo)


def test_a_tree_of_ten_thousand_levels_is_removed(tmp_path: Path) -> None:
    """A container can make one, a mkdir and a chdir at a time."""
    (tmp_path / "top").mkdir()
    fd = os.open(tmp_path / "top", os.O_RDONLY)
    for n in range(10_000):
        os.mkdir("d", dir_fd=fd)
        if n % 100 == 0:
            os.close(os.open("f", os.O_CREAT, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    top = os.open(tmp_path, os.O_RDONLY)
    remove_tree(top, "top")
    os.close(top)
    assert os.listdir(tmp_path) == []


def test_many_entries_do_not_fill_the_memory(target: Target) -> None:
    """Directories with long names, each visited once: what is kept for them is bounded."""
    base = b"/".join([b"n" * 200] * 15)
    piece = b"".join(directory(base + b"/%d/%d" % (n, m)) for n in range(40) for m in range(10))
    tracemalloc.start()
    try:
        assert not isinstance(target.apply(piece, "overlay"), InvalidParameter)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(piece) + (3 << 20)  # The archive itself is in memory here.


def test_descriptors_are_bounded_and_returned(target: Target) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    data = b"".join(directory(b"d%d/e/f" % n) + member(b"d%d/e/f/x" % n, b"1") for n in range(500))
    assert not isinstance(target.apply(data, "overlay"), InvalidParameter)
    assert count() == before
    assert isinstance(target.apply(data + member(b"../x"), "delete"), InvalidParameter)
    assert count() == before


def test_set_id_bits_and_owners_are_the_layers_own(target: Target) -> None:
    """A directory with the set-group-ID bit hands its group to nothing in it."""
    data = (
        directory(b"g", mode=0o2775, gid=50) + member(b"g/f", b"1", mode=0o4711, uid=7) + directory(b"g/d", mode=0o700)
    )
    assert not isinstance(target.apply(data, "overlay"), InvalidParameter)
    f, d = (target.root / "g/f").stat(), (target.root / "g/d").stat()
    assert (f.st_uid, f.st_gid, stat.S_IMODE(f.st_mode)) == (7, 0, 0o4711)
    assert (d.st_uid, d.st_gid, stat.S_IMODE(d.st_mode)) == (0, 0, 0o700)


def test_whiteouts_in_a_hostile_order(target: Target) -> None:
    data = member(b"d/f", b"1") + whiteout(b"d") + whiteout(b"d") + member(b"d/g", b"2") + opaque(b"d") + opaque(b"")
    assert not isinstance(target.apply(data, "overlay"), InvalidParameter)
    assert sorted(os.listdir(target.root / "d")) == ["g"]


def test_entries_are_bounded(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.store.layers.ENTRY_LIMIT", 100)
    assert not isinstance(target.apply(b"".join(member(b"f%d" % n) for n in range(100)), "overlay"), InvalidParameter)
    refused = target.apply(b"".join(member(b"f%d" % n) for n in range(101)), "overlay")
    assert "more than 100 entries" in str(refused)
