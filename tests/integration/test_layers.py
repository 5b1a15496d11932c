"""Layers of real systems, and what `apply` promises about order, digests and replaced entries."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sampan.errors import InvalidParameter
from sampan.store.layers import ARCHIVE_LIMIT, DigestStream, LayerInfo, apply

from support.archives import END, directory, fingerprint, hardlink, header, member, pax, symlink
from support.debian import debian_tar

if TYPE_CHECKING:
    from sampan.store.layers import Whiteouts

pytestmark = pytest.mark.root

FORMS: list[Whiteouts] = ["overlay", "delete"]


def unpack(top: Path, data: bytes, form: Whiteouts = "overlay") -> LayerInfo:
    top.mkdir(exist_ok=True)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return apply(io.BytesIO(data), fd, whiteouts=form)
    finally:
        os.close(fd)


def test_a_debian_is_unpacked_as_gnu_tar_does(tmp_path: Path) -> None:
    data = debian_tar().read_bytes()
    (tmp_path / "gnu").mkdir()
    options = ["--same-permissions", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
    subprocess.run(["tar", "-x", "-C", tmp_path / "gnu", *options], input=data, check=True)
    info = unpack(tmp_path / "ours", data)
    assert info.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert info.archive_size == len(data)
    assert info.entries > 5000
    ours, gnu = fingerprint(tmp_path / "ours", inodes=False), fingerprint(tmp_path / "gnu", inodes=False)
    assert ours.keys() == gnu.keys()
    assert {name: (ours[name], gnu[name]) for name in ours if ours[name] != gnu[name]} == {}


def test_what_gnu_tar_packs_comes_out_the_same(tmp_path: Path) -> None:
    """xattrs, capabilities, sparse files, hard links, names of any bytes, times with ns."""
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True, mode=0o1777)
    (source / "d/f").write_bytes(b"x" * 100_000)
    os.link(source / "d/f", source / "hard")
    os.setxattr(source / "d/f", "user.a", b"\0\1")
    os.setxattr(source / "d/f", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(source / "d", "user.dir", b"1")
    (source / "d/f").chmod(0o6755)
    with (source / "sparse").open("wb") as file:
        for n in range(40):
            file.seek(n << 20)
            file.write(b"data")
        file.truncate(50 << 20)
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xc0 n\xe4me")).touch()
    (source / ("long" * 60)).touch()
    (source / "link").symlink_to("x" * 1000)
    os.chown(source / "link", 5, 6, follow_symlinks=False)
    os.mkfifo(source / "pipe", 0o600)
    os.mknod(source / "dev", 0o60600, os.makedev(7, 300))
    options = ["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"]
    data = subprocess.run(["tar", "-c", "-C", source, *options, "."], check=True, capture_output=True).stdout
    unpack(tmp_path / "ours", data)
    assert fingerprint(tmp_path / "ours", inodes=False) == fingerprint(source, inodes=False)
    assert (tmp_path / "ours/sparse").stat().st_blocks == (source / "sparse").stat().st_blocks
    assert (tmp_path / "ours/hard").stat().st_nlink == 2


def test_what_tarfile_packs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/c").write_text("c")
    (source / "a/l").symlink_to("b/c")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(source, ".")
    unpack(tmp_path / "ours", stream.getvalue())
    assert fingerprint(tmp_path / "ours", times=False, inodes=False) == fingerprint(source, times=False, inodes=False)


# Order inside one archive: a later entry replaces an earlier one

KINDS = {
    "file": member(b"x", b"data", mode=0o600),
    "directory": directory(b"x", mode=0o750) + member(b"x/inside", b"1"),
    "link": symlink(b"x", b"other"),
    "hard link": hardlink(b"x", b"other"),
    "pipe": header(b"x", b"6", mode=0o600),
    "device": header(b"x", b"3", device=(1, 3), mode=0o600),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_any_kind_over_any_kind(first: str, second: str, form: Whiteouts, tmp_path: Path) -> None:
    other = member(b"other", b"other's", mode=0o640, mtime=9)
    unpack(tmp_path / "both", other + KINDS[first] + KINDS[second] + END, form)
    unpack(tmp_path / "second", other + KINDS[second] + END, form)
    both, alone = fingerprint(tmp_path / "both", inodes=False), fingerprint(tmp_path / "second", inodes=False)
    del both[b""], alone[b""]
    assert both == alone
    assert (tmp_path / "both/other").read_text() == "other's"


def test_a_directory_again_keeps_its_contents(tmp_path: Path) -> None:
    data = (
        directory(b"d", mtime=5) + member(b"d/f", b"1") + directory(b"d/", mode=0o700, uid=3, mtime=8) + member(b"d/g")
    )
    unpack(tmp_path / "t", data + END)
    status = (tmp_path / "t/d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o700, 3, 8)
    assert sorted(os.listdir(tmp_path / "t/d")) == ["f", "g"]


def test_a_file_that_is_written_again_does_not_change_its_hard_links(tmp_path: Path) -> None:
    """The name is replaced, not the file (CVE-2021-32760's kind)."""
    data = member(b"a", b"first", mode=0o600) + hardlink(b"b", b"a") + member(b"a", b"second", mode=0o666)
    unpack(tmp_path / "t", data + END)
    assert (tmp_path / "t/b").read_text() == "first"
    assert stat.S_IMODE((tmp_path / "t/b").stat().st_mode) == 0o600


def test_times_of_directories_survive_many_of_them(tmp_path: Path) -> None:
    """More directories than are kept open, filled in turns."""
    names = [b"d%d" % n for n in range(200)]
    data = b"".join(directory(name, mtime=1000 + n) for n, name in enumerate(names))
    data += b"".join(member(name + b"/f%d" % turn, mtime=5) for turn in range(3) for name in names)
    unpack(tmp_path / "t", data + END)
    for n, name in enumerate(names):
        assert os.stat(os.fsencode(tmp_path) + b"/t/" + name).st_mtime == 1000 + n


def test_times_beyond_what_the_disk_holds(tmp_path: Path) -> None:
    data = b"".join(
        pax({b"mtime": b"%d" % time}) + member(b"f%d" % n)
        for n, time in enumerate((-(1 << 40), -5, 1 << 33, 1 << 40, 1 << 61))
    )
    unpack(tmp_path / "t", data + END)
    assert (tmp_path / "t/f1").stat().st_mtime == -5
    assert (tmp_path / "t/f2").stat().st_mtime == 1 << 33


def test_the_umask_has_no_say(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack(
            tmp_path / "t", directory(b"d", mode=0o777) + member(b"d/f", mode=0o666) + member(b"i/f", mode=0o4711) + END
        )
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / "t" / name).stat().st_mode) for name in ("d", "d/f", "i", "i/f")}
    assert modes == {"d": 0o777, "d/f": 0o666, "i": 0o755, "i/f": 0o4711}


def test_a_directory_has_no_say_in_what_is_made_in_it(tmp_path: Path) -> None:
    """Neither one that hands on its group, nor one with a default ACL, nor a top that has both."""
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, 0xFFFFFFFF) for tag in (1, 4, 0x20))  # acl(5)
    parts = [directory(b"group", mode=0o2755, gid=50), pax({b"SCHILY.xattr.system.posix_acl_default": acl})]
    parts += [directory(b"acl")]
    for where in (b"group/", b"acl/", b""):
        parts += [member(where + b"f", b"x", mode=0o644), member(where + b"own", b"x", mode=0o4711, uid=7, gid=8)]
        parts += [member(where + b"set", b"x", mode=0o6755), member(where + b"all", b"x", mode=0o777)]
        parts += [directory(where + b"d", mode=0o750)]
    top = tmp_path / "top"
    top.mkdir()
    os.setxattr(top, "system.posix_acl_default", acl)
    os.chown(top, 0, 9)
    top.chmod(0o2755)
    unpack(top, b"".join([*parts, END]))
    for place in (top / "group", top / "acl", top):
        for name, mode, owner, group in (
            *(("f", 0o644, 0, 0), ("own", 0o4711, 7, 8), ("set", 0o6755, 0, 0)),
            *(("all", 0o777, 0, 0), ("d", 0o750, 0, 0)),
        ):
            status = (place / name).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, owner, group), place / name


def test_the_digest_is_of_all_that_was_sent(tmp_path: Path) -> None:
    data = member(b"f", b"1") + END + b"whatever follows the end mark" * 100_000
    info = unpack(tmp_path / "t", data)
    assert info == LayerInfo("sha256:" + hashlib.sha256(data).hexdigest(), 1, 1, len(data))


def test_an_archive_larger_than_any_layer_is_refused() -> None:
    stream = DigestStream(io.BytesIO(bytes(3000)), limit=2999)
    with pytest.raises(InvalidParameter, match="more than 2999 bytes"):
        stream.read(3000)
    assert ARCHIVE_LIMIT >= 1 << 40


def test_special_attributes_that_a_file_system_lacks_are_left_out(tmp_path: Path) -> None:
    """As containerd does: system.* and the like may not exist here."""
    records = {b"SCHILY.xattr.system.nonsense": b"1", b"SCHILY.xattr.none": b"1", b"SCHILY.xattr.user.ok": b"2"}
    unpack(tmp_path / "t", pax(records) + member(b"f") + END)
    assert os.listxattr(tmp_path / "t/f") == ["user.ok"]


def test_a_stream_that_can_be_read_ahead_gives_the_same_and_leaves_no_thread(tmp_path: Path) -> None:
    """What a pull does: decompressed by one thread, hashed by another one."""

    class Stream(io.BytesIO):
        def interrupt(self) -> None:
            pass

    data = debian_tar().read_bytes()
    before = threading.active_count()
    (tmp_path / "ahead").mkdir()
    fd = os.open(tmp_path / "ahead", os.O_RDONLY | os.O_DIRECTORY)
    try:
        info = apply(Stream(gzip.compress(data, 1)), fd, whiteouts="overlay")
    finally:
        os.close(fd)
    assert info == unpack(tmp_path / "plain", data)
    assert info.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert fingerprint(tmp_path / "ahead", inodes=False) == fingerprint(tmp_path / "plain", inodes=False)
    assert threading.active_count() == before
