"""What a container has changed, as names and as a layer, with each snapshotter: the layer on top gives the same tree."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sampan.errors import NotFound
from sampan.kernel import mount
from sampan.steps.trace import Trace
from sampan.store.changes import ADDED, DELETED, MODIFIED
from sampan.store.overlay import OverlaySnapshotter
from sampan.store.snapshots import EMPTY_LAYER
from sampan.store.vfs import VfsSnapshotter

from support.archives import END, directory, fingerprint, member, symlink

if TYPE_CHECKING:
    from sampan.store.layers import LayerInfo
    from sampan.store.snapshots import Snapshotter

pytestmark = pytest.mark.root

KINDS = {"overlay": OverlaySnapshotter, "vfs": VfsSnapshotter}
ID = "c0ffee" * 10 + "0001"
IMAGE = (
    directory(b"etc")
    + member(b"etc/passwd", data=b"root")
    + directory(b"usr")
    + directory(b"usr/lib")
    + member(b"usr/lib/a", data=b"a")
    + member(b"usr/lib/b", data=b"b")
    + directory(b"gone")
    + member(b"gone/x", data=b"x")
    + member(b"file", data=b"file")
    + symlink(b"link", b"file")
)
SECOND = directory(b"usr/lib/deep") + member(b"usr/lib/deep/c", data=b"c") + member(b"a-b", data=b"")


class Sink(io.BytesIO):
    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.getvalue()).hexdigest()

    @property
    def size(self) -> int:
        return len(self.getvalue())


class Box:
    """One container on a snapshotter of its own."""

    def __init__(self, top: Path, kind: str, *archives: bytes) -> None:
        self.top = top
        for name in ("layers", "snapshots"):
            (top / name).mkdir(parents=True)
        self.snapshotter: Snapshotter = KINDS[kind](str(top / "layers"), str(top / "snapshots"), Trace())
        self.chain: list[str] = []
        for archive in archives:
            self.chain.append(self.snapshotter.unpack(tuple(self.chain), io.BytesIO(archive + END)).chain_id)
        self.snapshotter.create(ID, self.chain)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        root = self.snapshotter.root(ID, self.chain)
        if root.kind == "bind":
            yield Path(root.source)
            return
        fd = mount.overlay(root.lower, root.upper, root.work)
        try:
            yield Path(f"/proc/self/fd/{fd}/.")
        finally:
            os.close(fd)

    def changes(self) -> list[tuple[int, bytes]]:
        return [(change.kind, change.path) for change in self.snapshotter.changes(ID, self.chain)]

    def commit(self) -> tuple[bytes, LayerInfo]:
        sink = Sink()
        info = self.snapshotter.commit(ID, self.chain, sink, nullcontext())
        return sink.getvalue(), info


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def box(kind: str, tmp_path: Path) -> Box:
    return Box(tmp_path / "box", kind, IMAGE, SECOND)


def everything(root: Path) -> None:
    """One change of every kind."""
    (root / "etc/passwd").write_bytes(b"other")
    (root / "etc").chmod(0o700)
    (root / "gone/x").unlink()
    (root / "gone").rmdir()
    (root / "usr/lib/a").unlink()
    (root / "usr/lib/deep/c").unlink()
    (root / "usr/lib/deep").rmdir()
    (root / "usr/lib/deep").mkdir()
    (root / "usr/lib/deep/d").write_bytes(b"d")
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "link/in").write_bytes(b"")
    new = root / "new"
    new.mkdir()
    (new / "one").write_bytes(b"1" * 70_000)
    os.link(new / "one", root / "two")
    os.symlink("/etc/../../etc/passwd", new / "away")
    os.mkfifo(new / "fifo", 0o640)
    os.mknod(new / "null", 0o20666, os.makedev(1, 3))
    os.chown(new / "one", 1000, 70_000)
    (new / "one").chmod(0o4711)
    os.utime(new / "one", ns=(1, 123_456_789))
    os.utime(new / "away", ns=(1, -5_000_000_001), follow_symlinks=False)
    os.setxattr(new / "one", "user.colour", b"\0\xff=\n")
    os.setxattr(new / "one", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(new, "user.dir", b"")
    (root / os.fsdecode(b"new\nline \xff")).write_bytes(b"odd")
    (root / ("n" * 200)).mkdir()
    (root / ("n" * 200) / ("m" * 255)).write_bytes(b"long")
    os.mknod(new / "socket", stat.S_IFSOCK | 0o600)


EXPECTED = [
    (MODIFIED, b"etc"),
    (MODIFIED, b"etc/passwd"),
    (DELETED, b"gone"),
    (MODIFIED, b"link"),
    (ADDED, b"link/in"),
    (ADDED, b"new"),
    (ADDED, b"new/away"),
    (ADDED, b"new/fifo"),
    (ADDED, b"new/null"),
    (ADDED, b"new/one"),
    (ADDED, b"new/socket"),
    (ADDED, b"new\nline \xff"),
    (ADDED, b"n" * 200),
    (ADDED, b"n" * 200 + b"/" + b"m" * 255),
    (ADDED, b"two"),
    (MODIFIED, b"usr"),
    (MODIFIED, b"usr/lib"),
    (DELETED, b"usr/lib/a"),
    (MODIFIED, b"usr/lib/deep"),
    (DELETED, b"usr/lib/deep/c"),
    (ADDED, b"usr/lib/deep/d"),
]


def tree(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All of a root but what no layer has: the mount points of the init layer, sockets, the root's own times."""
    found = fingerprint(root, inodes=False)
    for path in list(found):
        if path.split(b"/")[1:2] in ([b"dev"], [b"proc"], [b"sys"], [b".dockerenv"]) or path.endswith(b"/socket"):
            del found[path]
    for name in (b"", b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf", b"/etc/mtab"):
        found.pop(name, None)
    return found


def test_nothing_changed(box: Box) -> None:
    assert box.changes() == []
    data, info = box.commit()
    assert (data, info.diff_id, info.entries) == (bytes(1024), EMPTY_LAYER, 0)
    assert len(box.snapshotter.layers()) == 2


def test_every_kind_of_change(box: Box) -> None:
    with box.mounted() as root:
        everything(root)
        # While it is mounted, and after.
        assert box.changes() == EXPECTED
    assert box.changes() == EXPECTED


@pytest.mark.parametrize("other", KINDS)
def test_the_layer_makes_the_same_tree(box: Box, other: str, tmp_path: Path) -> None:
    with box.mounted() as root:
        everything(root)
        wanted = tree(root)
        data, info = box.commit()
    again = Box(tmp_path / "again", other, IMAGE, SECOND, data[: -len(END)])
    assert again.snapshotter.info(again.chain[-1]).replace(chain_id="") == info.replace(chain_id="")
    with again.mounted() as root:
        assert tree(root) == wanted


def test_the_same_changes_are_the_same_bytes(kind: str, tmp_path: Path) -> None:
    found = []
    for number in range(2):
        box = Box(tmp_path / str(number), kind, IMAGE, SECOND)
        with box.mounted() as root:
            everything(root)
            for path, _, _ in os.walk(root):
                os.utime(path, ns=(5, 5))
            for path in (*root.rglob("*"),):
                os.utime(path, ns=(5, 5), follow_symlinks=False)
        found.append(box.commit()[0])
    assert found[0] == found[1]


def test_what_is_in_the_archive(box: Box) -> None:
    with box.mounted() as root:
        everything(root)
    with tarfile.open(fileobj=io.BytesIO(box.commit()[0])) as archive:
        members = {entry.name: entry for entry in archive}
    assert "gone/x" not in members
    assert "new/socket" not in members
    assert {"etc", ".wh.gone", "usr/lib/.wh.a"} <= set(members)
    assert not [n for n in members if n.startswith(("dev", "proc", "sys", "etc/host", "etc/mtab", ".dockerenv"))]
    assert members["two"].islnk()
    assert members["two"].linkname == "new/one"
    keys = [key for entry in members.values() for key in entry.pax_headers]
    assert not [key for key in keys if "trusted" in key]


def test_xattrs_of_overlayfs_itself_are_left_out(box: Box) -> None:
    with box.mounted() as root:
        (root / "odd").mkdir()
        os.setxattr(root / "odd", "user.overlay.opaque", b"y")
    assert b"overlay" not in box.commit()[0]


def test_a_device_that_looks_like_a_mark_is_no_file(tmp_path: Path) -> None:
    """Overlayfs refuses to make one."""
    box = Box(tmp_path / "box", "vfs", IMAGE)
    with box.mounted() as root:
        (root / "file").unlink()
        os.mknod(root / "file", 0o20600, 0)
        os.mknod(root / "other", 0o20600, 0)
    assert box.changes() == [(DELETED, b"file")]
    with tarfile.open(fileobj=io.BytesIO(box.commit()[0])) as archive:
        assert archive.getnames() == [".wh.file"]


def test_the_root_directory_itself(box: Box, kind: str, tmp_path: Path) -> None:
    with box.mounted() as root:
        os.chmod(root, 0o700)
        os.chown(root, 5, 6)
    again = Box(tmp_path / "again", kind, IMAGE, SECOND, box.commit()[0][: -len(END)])
    with again.mounted() as root:
        assert (os.stat(root).st_mode & 0o777, os.stat(root).st_uid, os.stat(root).st_gid) == (0o700, 5, 6)


def test_times_of_whole_seconds_are_compared_as_such(kind: str, tmp_path: Path) -> None:
    box = Box(tmp_path / "box", kind, member(b"f", data=b"1", mtime=1000))
    with box.mounted() as root:
        os.utime(root / "f", ns=(0, 1000_000_000_001))
    assert box.changes() == []
    with box.mounted() as root:
        os.utime(root / "f", ns=(0, 1001_000_000_000))
    assert box.changes() == [(MODIFIED, b"f")]


def test_a_sparse_file_costs_what_is_in_it(box: Box, kind: str, tmp_path: Path) -> None:
    with box.mounted() as root, open(root / "big", "wb") as file:
        file.write(b"begin")
        file.seek(1 << 40)
        file.write(b"end")
        file.truncate((1 << 40) + 100)
    data, _ = box.commit()
    assert len(data) < 100_000
    again = Box(tmp_path / "again", kind, IMAGE, SECOND, data[: -len(END)])
    with again.mounted() as root:
        status = os.stat(root / "big")
        assert status.st_size == (1 << 40) + 100
        assert status.st_blocks < 1000
        with open(root / "big", "rb") as file:
            assert file.read(6) == b"begin\0"
            file.seek(1 << 40)
            assert file.read(4) == b"end\0"


def test_a_deep_tree(box: Box, kind: str, tmp_path: Path) -> None:
    with box.mounted() as root:
        fd = os.open(root, os.O_RDONLY)
        for _ in range(500):
            os.mkdir("d", dir_fd=fd)
            fd, parent = os.open("d", os.O_RDONLY, dir_fd=fd), fd
            os.close(parent)
        os.close(fd)
    assert len(box.changes()) == 500
    _data, info = box.commit()
    assert info.entries == 500
    sink = Sink()
    for _ in box.snapshotter.export(ID, box.chain, sink):
        pass
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        assert "/".join(["d"] * 500) in archive.getnames()


def test_a_path_that_no_layer_can_hold(box: Box) -> None:
    with box.mounted() as root:
        fd = os.open(root, os.O_RDONLY)
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=fd)
            fd, parent = os.open("d" * 250, os.O_RDONLY, dir_fd=fd), fd
            os.close(parent)
        os.close(fd)
    with pytest.raises(OSError, match="File name too long"):
        box.commit()
    assert len(box.snapshotter.layers()) == 2
    assert [n for n in os.listdir(box.top / "layers") if n.startswith(".")] == []


def test_many_files_in_one_directory(box: Box) -> None:
    with box.mounted() as root:
        (root / "many").mkdir()
        for number in range(3000):
            (root / f"many/{number}").touch()
    assert len(box.changes()) == 3001
    assert box.commit()[1].entries == 3001


def test_a_container_that_is_not_there(box: Box) -> None:
    for read in (box.changes, box.commit):
        box.snapshotter.remove(ID)
        with pytest.raises(NotFound):
            read()


def exported(box: Box) -> bytes:
    sink = Sink()
    for _ in box.snapshotter.export(ID, box.chain, sink):
        pass
    return sink.getvalue()


@pytest.mark.parametrize("change", [lambda root: None, everything])
def test_export_is_the_whole_tree(box: Box, change: Callable[[Path], None], tmp_path: Path) -> None:
    with box.mounted() as root:
        change(root)
        wanted = tree(root)
        running = exported(box)
    assert exported(box) == running
    again = Box(tmp_path / "again", "vfs", running[: -len(END)])
    with again.mounted() as root:
        assert tree(root) == wanted


@pytest.mark.parametrize("what", ["export", "commit"])
def test_files_that_change_while_they_are_read(box: Box, what: str, tmp_path: Path) -> None:
    """The archive is whole whatever happens to the files, and no link is followed out of the tree."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret of the host")
    with box.mounted() as root:
        for name in ("grow", "shrink", "vanish", "swap"):
            (root / name).write_bytes(b"x" * 100_000)
        (root / "sub").mkdir()
        (root / "sub/f").write_bytes(b"1")

        class Meddling(Sink):
            """Changes the tree at the first byte that is written: names were listed by then."""

            meddled = False

            def write(self, data: object, /) -> int:  # type: ignore[override]
                if not self.meddled:
                    self.meddled = True
                    with open(root / "grow", "ab") as file:
                        file.write(b"y" * 50_000)
                    os.truncate(root / "shrink", 10)
                    (root / "vanish").unlink()
                    (root / "swap").unlink()
                    os.symlink(secret, root / "swap")
                    (root / "sub/f").unlink()
                    (root / "sub").rmdir()
                    os.symlink(tmp_path, root / "sub")
                return super().write(data)  # type: ignore[arg-type]

        (root / "aaa").write_bytes(b"0" * (1 << 19))  # Enough for the first write.
        sink = Meddling()
        if what == "export":
            for _ in box.snapshotter.export(ID, box.chain, sink):
                pass
        else:
            info = box.snapshotter.commit(ID, box.chain, sink, nullcontext())
            assert info.diff_id == sink.digest
        assert sink.meddled
    assert b"secret of the host" not in sink.getvalue()
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        names = archive.getnames()
        assert "vanish" not in names
        assert "sub/f" not in names
        assert archive.getmember("swap").issym()
