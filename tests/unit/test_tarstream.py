"""The tar reader against archives of other programs, and against archives that no program writes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.store.tarstream import DIRECTORY, FILE, Limits, TarEntry, TarReader

from support.archives import END, base256, directory, hardlink, header, member, padded, pax, record, summed, symlink

LONG = "long/" + "x" * 60 + "/" + "y" * 90
VERY_LONG = "d" * 120 + "/" + "e" * 200


class Dribble:
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._stream = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._step))


def entries(data: bytes, limits: Limits | None = None) -> list[TarEntry]:
    return list(TarReader(io.BytesIO(data), limits))


def contents(reader: TarReader, entry: TarEntry) -> bytes:
    """The file's bytes, holes filled in."""
    data = bytearray(min(entry.size, 1 << 26))
    for position, piece in reader.chunks():
        data[position : position + len(piece)] = piece
    return bytes(data)


@pytest.mark.parametrize("step", [1 << 20, 700])
def test_data_that_is_in_memory_is_given_at_once(step: int) -> None:
    data = b"".join(
        [
            *(directory(b"d"), member(b"d/a", b"first"), member(b"d/empty"), symlink(b"d/l", b"a")),
            *(pax({b"GNU.sparse.map": b"0,2,8,2", b"GNU.sparse.size": b"10"}), member(b"sparse", b"abcd")),
            *(member(b"large", b"x" * 5000), member(b"last", b"end"), END),
        ]
    )
    reader = TarReader(Dribble(data, step))
    at_once, found = set(), {}
    for entry in reader:
        view = reader.whole()
        if view is not None:
            at_once.add(entry.name)
            assert reader.whole() is None
        found[entry.name] = bytes(view) if view is not None else contents(reader, entry)
    expected = {b"d/a": b"first", b"large": b"x" * 5000, b"last": b"end", b"sparse": b"ab" + bytes(6) + b"cd"}
    assert {name: data for name, data in found.items() if data} == expected
    assert at_once <= {b"large", b"d/a", b"last"}
    assert (b"large" in at_once) == (step > 5000)


def everything(data: bytes, step: int = 1 << 20) -> list[tuple[object, ...]]:
    """What our reader makes of an archive."""
    reader = TarReader(Dribble(data, step))
    found: list[tuple[object, ...]] = []
    for e in reader:
        numbers = e.mode, e.uid, e.gid, e.mtime_ns, e.size, e.major, e.minor
        found.append((e.name.rstrip(b"/"), e.kind, numbers, e.target, contents(reader, e)))
    return found


def everything_by_tarfile(data: bytes) -> list[tuple[object, ...]]:
    """What Python's tarfile makes of it."""
    found: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for m in archive:
            file = archive.extractfile(m) if m.isreg() or m.issparse() else None
            kind = FILE if file else m.type
            device = (m.devmajor, m.devminor) if m.ischr() or m.isblk() else (0, 0)
            target = os.fsencode(m.linkname) if m.issym() or m.islnk() else b""
            mtime = int(m.mtime) * 1_000_000_000
            if "mtime" in m.pax_headers:
                whole, _, fraction = m.pax_headers["mtime"].partition(".")
                mtime = int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
            numbers = m.mode, m.uid, m.gid, mtime, m.size if file else 0, *device
            found.append((os.fsencode(m.name), kind, numbers, target, file.read() if file else b""))
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    for name in ("plain", LONG, VERY_LONG):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"content of " + name.encode() * 50)
    (top / "empty").touch()
    (top / "link").symlink_to("plain")
    (top / "longlink").symlink_to("z" * 300)
    os.link(top / "plain", top / "hard")
    os.mkfifo(top / "fifo")
    (top / "plain").chmod(0o4751)
    os.utime(top / "plain", ns=(1, 1_234_567_890_123_456_789))
    os.utime(top / "empty", ns=(1, 3_000_000_000))
    for count in (1, 3, 4, 5, 30, 200):  # in the header, full, and in one and more blocks after it
        with (top / f"sparse{count}").open("wb") as file:
            for n in range(count):
                file.seek((2 * n + 1) << 13)
                file.write(b"data %d" % n)
            file.truncate((2 * count + 2) << 13)
    return top


@pytest.fixture(scope="module")
def short_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What v7 and ustar can hold."""
    top = tmp_path_factory.mktemp("short")
    (top / "d").mkdir()
    (top / "d/plain").write_bytes(b"x" * 1000)
    (top / "link").symlink_to("d/plain")
    os.link(top / "d/plain", top / "hard")
    return top


def gnu_tar(top: Path, *options: str) -> bytes:
    return subprocess.run(["tar", "-c", "-C", top, *options, "."], check=True, capture_output=True).stdout


@pytest.mark.parametrize("options", ["gnu", "oldgnu", "pax"])
@pytest.mark.parametrize("step", [1 << 20, 700])
def test_gnu_tar(tree: Path, options: str, step: int) -> None:
    data = gnu_tar(tree, f"--format={options}")
    assert everything(data, step) == everything_by_tarfile(data)


@pytest.mark.parametrize("form", ["v7", "ustar"])
def test_gnu_tar_old_formats(short_tree: Path, form: str) -> None:
    data = gnu_tar(short_tree, f"--format={form}")
    assert everything(data) == everything_by_tarfile(data)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu",),
        ("--format=oldgnu",),
        ("--format=pax", "--sparse-version=0.0"),
        ("--format=pax", "--sparse-version=0.1"),
        ("--format=pax", "--sparse-version=1.0"),
    ],
)
def test_gnu_tar_sparse(tree: Path, options: tuple[str, ...]) -> None:
    data = gnu_tar(tree, "--sparse", "--hole-detection=raw", *options)
    reader = TarReader(io.BytesIO(data))
    found = {e.name.decode(): (contents(reader, e), e.regions) for e in reader if e.kind == FILE}
    for path in tree.glob("sparse*"):
        bytes_read, regions = found[f"./{path.name}"]
        assert bytes_read == path.read_bytes()
        assert regions is not None
        assert len(regions) // 2 >= int(path.name[6:])
    assert everything(data) == everything_by_tarfile(data)


@pytest.mark.root
def test_gnu_tar_devices_and_attributes(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    os.mknod(tmp_path / "disk", 0o60600, os.makedev(259, 70_000))
    (tmp_path / "f").touch()
    os.chown(tmp_path / "f", 70_000, 3_000_000_000)
    os.setxattr(tmp_path / "f", "user.any", b"\0=\n\xff")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(tmp_path / "f", "security.capability", capability)
    data = gnu_tar(tmp_path, "--format=pax", "--xattrs", "--xattrs-include=*")
    assert everything(data) == everything_by_tarfile(data)
    found = {e.name: e for e in TarReader(io.BytesIO(data))}
    assert found[b"./f"].xattrs == {b"user.any": b"\0=\n\xff", b"security.capability": capability}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_tarfile(form: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as archive:
        for number, name in enumerate(["a", "b\udcff", "ü" * 40, "p" * 90 + "/" + "q" * 90]):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.mode = 3 * number, 10**9 + number, number * 100_000, 0o7777
            archive.addfile(info, io.BytesIO(b"abc" * number))
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("kind" + kind.decode())
            info.type, info.linkname = kind, "a" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info)
    assert everything(stream.getvalue()) == everything_by_tarfile(stream.getvalue())


def test_numbers_beyond_octal() -> None:
    data = header(size=base256(0), uid=base256(1 << 31, 8), gid=b"  1750 \0", mtime=base256(-5)) + END
    (entry,) = entries(data)
    assert (entry.uid, entry.gid, entry.mtime_ns) == (1 << 31, 0o1750, -5_000_000_000)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"-0.0000000001", -1),
        (b"1700000000.123456789999", 1_700_000_000_123_456_789),
        (b"7.", 7_000_000_000),
    ],
)
def test_times_of_pax(text: bytes, nanoseconds: int) -> None:
    (entry,) = entries(pax({b"mtime": text, b"atime": b"2"}) + header() + END)
    assert (entry.mtime_ns, entry.atime_ns) == (nanoseconds, 2_000_000_000)


def test_pax_overrides_and_takes_back() -> None:
    data = pax(
        [
            (b"path", b"first"),
            (b"path", b"\xff/second"),
            (b"uid", b"4000000000"),
            (b"gid", b""),
            (b"size", b"5"),
            (b"SCHILY.xattr.user.empty", b""),
            (b"comment", b"none"),
        ]
    )
    (entry,) = entries(data + header(gid=7, size=0) + padded(b"12345") + END)
    assert (entry.name, entry.uid, entry.gid, entry.size) == (b"\xff/second", 4_000_000_000, 7, 5)
    assert entry.xattrs == {b"user.empty": b""}


def test_the_last_extended_header_counts_as_with_go() -> None:
    (entry,) = entries(pax({b"path": b"one", b"uid": b"5"}) + pax({b"path": b"two"}) + header() + END)
    assert (entry.name, entry.uid) == (b"two", 0)


def test_global_headers_and_volume_labels_are_passed_over() -> None:
    data = pax({b"path": b"global", b"comment": b"f" * 5000}, b"g") + header(b"Label", b"V") + header(b"name") + END
    assert [e.name for e in entries(data)] == [b"name"]


def test_gnu_long_names() -> None:
    data = b"".join(
        header(b"././@LongLink", kind, len(text), magic=b"ustar  \0") + padded(text)
        for kind, text in ((b"L", b"n" * 700 + b"\0junk"), (b"K", b"t" * 600 + b"\0"))
    )
    (entry,) = entries(data + header(b"short", b"2", target=b"other", magic=b"ustar  \0") + END)
    assert (entry.name, entry.target) == (b"n" * 700, b"t" * 600)


def test_prefixes() -> None:
    star = header(b"n", prefix=b"p" * 130, extra={476: b"00000000001\0", 508: b"tar\0"})
    gnu_times = header(b"n", magic=b"ustar  \0", prefix=b"00000000001\x0000000000002\0")
    old_go = header(b"n", magic=b"ustar  \0", prefix=b"some/prefix")
    v7 = header(b"n", magic=b"", prefix=b"not/used")
    data = header(b"n", prefix=b"p" * 155) + star + gnu_times + old_go + v7 + END
    names = [e.name for e in entries(data)]
    assert names == [b"p" * 155 + b"/n", b"p" * 130 + b"/n", b"n", b"some/prefix/n", b"n"]


def test_kinds_that_old_programs_wrote() -> None:
    data = header(b"dir/", b"\0", magic=b"") + header(b"file", b"\0") + header(b"contiguous", b"7") + END
    assert [e.kind for e in entries(data)] == [DIRECTORY, FILE, FILE]


def test_links_and_directories_have_no_data_whatever_their_size_says() -> None:
    data = hardlink(b"h", b"file", size=9000) + symlink(b"s", b"t", size=700) + directory(b"d", size=600)
    assert [e.name for e in entries(data + member(b"file", b"x") + END)] == [b"h", b"s", b"d", b"file"]


def test_signed_checksums() -> None:
    block = bytearray(header(b"caf\xe9"))
    block[148:156] = b" " * 8
    total = sum(b - 256 if b & 0x80 else b for b in block)
    block[148:156] = b"%06o\0 " % total
    assert entries(bytes(block) + END)[0].name == b"caf\xe9"


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(1024) + b"anything after the end mark"])
def test_ends_that_are_accepted(end: bytes) -> None:
    reader = TarReader(io.BytesIO(member(b"f", b"data") + end))
    assert [e.name for e in reader] == [b"f"]
    reader.drain()
    assert reader.offset == 1024 + len(end)


def test_nothing_is_an_empty_archive() -> None:
    assert entries(b"") == []


# What is refused


GOOD = member(b"first", b"data") + pax({b"path": b"sec/ond"}) + member(b"x", b"y" * 3000) + directory(b"last") + END


@pytest.mark.thorough
def test_every_truncation_is_told_or_ends_between_entries() -> None:
    last = len(GOOD) - 1536
    # Also with the last byte of a file's data, before what fills up its last block.
    boundaries = {0, 512 + 4, 1024, last + 3000 - 3072, last, last + 512, last + 1024}
    for length in {*boundaries, *range(0, len(GOOD) + 1, 7)}:
        if length in boundaries or length >= len(GOOD) - 512:
            everything(GOOD[:length])
            continue
        with pytest.raises(InvalidParameter, match="unexpected EOF"):
            everything(GOOD[:length])


def test_an_end_without_the_padding_of_the_last_file_is_an_end() -> None:
    """As `umoci insert` writes a layer, and as Go reads it."""
    (entry,) = everything(member(b"f", b"x" * 700)[: 512 + 700])
    assert entry[0] == b"f"
    with pytest.raises(InvalidParameter, match="unexpected EOF"):
        everything(member(b"f", b"x" * 700)[: 512 + 699])


def test_a_truncated_file_is_named_with_its_place() -> None:
    with pytest.raises(
        InvalidParameter, match=r'unexpected EOF \(entry "sec/ond" at byte 1024, read up to byte 3072\)'
    ):
        everything(GOOD[:3072])


def mutated(at: int, value: bytes) -> bytes:
    block = bytearray(header(size=1))
    block[at : at + len(value)] = value
    return summed(block) + padded(b"x") + END


OLD_SPARSE = {386: base256(0) + base256(512), 483: base256(1 << 20)}

REFUSED: dict[str, tuple[bytes, str]] = {
    "garbage": (b"hello world" * 100, "invalid tar header"),
    "short garbage": (b"hello", "unexpected EOF"),
    "checksum": (header()[:-1] + b"x" + END, "wrong checksum"),
    "lone zero block": (bytes(512) + header() + END, "lone block"),
    "negative size": (mutated(124, base256(-512)), "a size of -512"),
    "huge size": (mutated(124, base256(1 << 80)), "out of range"),
    "endless size": (mutated(124, base256((1 << 62) - 1)), "unexpected EOF"),
    "negative octal": (mutated(124, b"-0000001000\0"), "no octal number"),
    "octal of 9": (mutated(108, b"0000009\0"), "no octal number"),
    "underscored octal": (mutated(108, b"1_0\0\0\0\0\0"), "no octal number"),
    "uid that means none": (mutated(108, base256((1 << 32) - 1, 8)), "out of range"),
    "negative uid": (mutated(108, base256(-1, 8)), "out of range"),
    "unknown kind": (header(kind=b"Z") + END, "unhandled tar header type 90"),
    "multi-volume": (header(kind=b"M") + END, "unhandled tar header type 77"),
    "pax: no length": (header(kind=b"x", size=7) + padded(b"path=a\n") + header() + END, "malformed pax"),
    "pax: length 0": (header(kind=b"x", size=9) + padded(b"0 path=a\n") + header() + END, "malformed pax"),
    "pax: negative length": (header(kind=b"x", size=9) + padded(b"-9 path=a") + header() + END, "malformed pax"),
    "pax: length of itself": (header(kind=b"x", size=2) + padded(b"2 ") + header() + END, "malformed pax"),
    "pax: too long": (header(kind=b"x", size=10) + padded(b"99 path=a\n") + header() + END, "malformed pax"),
    "pax: huge length": (header(kind=b"x", size=30) + padded(b"9" * 19 + b" path=a\n") + END, "malformed pax"),
    "pax: no newline": (header(kind=b"x", size=9) + padded(b"9 path=ab") + header() + END, "malformed pax"),
    "pax: no equals": (header(kind=b"x", size=7) + padded(b"7 path\n") + header() + END, "malformed pax"),
    "pax: size of words": (pax({b"size": b"many"}) + header() + END, "no number"),
    "pax: negative size": (pax({b"size": b"-1"}) + header() + END, "no number"),
    "pax: huge size": (pax({b"size": b"9" * 18 + b"99"}) + header() + END, "no number"),
    "pax: time of words": (pax({b"mtime": b"1.x"}) + header() + END, "no number"),
    "pax: uid too large": (pax({b"uid": b"4294967295"}) + header() + END, "out of range"),
    "pax: NUL in path": (pax({b"path": b"a\0b"}) + header() + END, "a NUL"),
    "pax: NUL in linkpath": (pax({b"linkpath": b"a\0b"}) + header(kind=b"2") + END, "a NUL"),
    "pax: for nothing": (pax({b"path": b"a"}) + END, "unexpected EOF after an extended header"),
    "sparse: overlapping": (
        pax({b"GNU.sparse.map": b"0,5,3,5", b"GNU.sparse.size": b"10"}) + member(b"f", b"0123456789") + END,
        "sparse map",
    ),
    "sparse: beyond the end": (
        pax({b"GNU.sparse.map": b"8,5", b"GNU.sparse.size": b"10"}) + member(b"f", b"01234") + END,
        "sparse map",
    ),
    "sparse: missing data": (
        pax({b"GNU.sparse.map": b"0,5", b"GNU.sparse.size": b"10"}) + member(b"f", b"012") + END,
        "sparse map of 5 bytes for 3",
    ),
    "sparse: odd": (
        pax({b"GNU.sparse.map": b"0,5,6", b"GNU.sparse.size": b"10"}) + member(b"f", b"01234") + END,
        "sparse",
    ),
    "sparse: words": (pax({b"GNU.sparse.map": b"0,x", b"GNU.sparse.size": b"10"}) + member(b"f") + END, "no number"),
    "sparse: version": (
        pax({b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0", b"GNU.sparse.size": b"1"}) + member(b"f") + END,
        "unknown sparse format",
    ),
    "sparse: NUL in its name": (
        pax({b"GNU.sparse.map": b"0,0", b"GNU.sparse.size": b"0", b"GNU.sparse.name": b"a\0"}) + member(b"f") + END,
        "a NUL",
    ),
    "sparse: negative offset": (
        header(kind=b"S", size=512, extra={386: base256(-512) + base256(512), 483: base256(1 << 20)})
        + bytes(512)
        + END,
        "sparse map",
    ),
    "sparse: table that does not end": (
        header(kind=b"S", size=512, extra={**OLD_SPARSE, 482: b"\1"}),
        "unexpected EOF",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    data, words = REFUSED[case]
    with pytest.raises(InvalidParameter) as caught:
        everything(data)
    assert words in str(caught.value)
    assert "at byte" in str(caught.value)


def sparse_1_0(map_text: bytes, realsize: bytes = b"1000000") -> bytes:
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": realsize}
    return pax(records) + member(b"f", map_text) + END


@pytest.mark.parametrize(
    "map_text",
    [
        b"",
        b"1\n",
        padded(b"1\n0\n"),
        padded(b"9" * 40),
        b"7" * 4096,
        padded(b"-1\n"),
        padded(b"3\n0\n1\n" + b"2\n" * 9),
    ],
)
def test_sparse_maps_in_the_data_that_are_refused(map_text: bytes) -> None:
    with pytest.raises(InvalidParameter):
        everything(sparse_1_0(map_text))


def test_an_empty_sparse_map_in_the_data() -> None:
    assert everything(sparse_1_0(padded(b"0\n"), b"70000"))[0][-1] == bytes(70_000)


def test_limits_of_extended_headers_and_regions() -> None:
    limits = Limits(extended_header=4096, sparse_regions=3)
    with pytest.raises(InvalidParameter, match="extended header of 5"):
        entries(pax({b"path": b"n" * 5000}) + header() + END, limits)
    with pytest.raises(InvalidParameter, match="extended header of 5000"):
        entries(header(b"L", b"L", 5000) + padded(b"n" * 5000) + header() + END, limits)
    regions = b",".join(b"%d,1" % (2 * n) for n in range(4))
    with pytest.raises(InvalidParameter, match="4 regions"):
        entries(pax({b"GNU.sparse.map": regions, b"GNU.sparse.size": b"9"}) + member(b"f", b"1234") + END, limits)
    with pytest.raises(InvalidParameter, match="99999999 regions"):
        entries(sparse_1_0(padded(b"99999999\n")), limits)


class Endless:
    """An archive that repeats one piece for ever; ends after `limit` bytes."""

    def __init__(self, piece: bytes, limit: int) -> None:
        self._piece = piece * (1 + (1 << 20) // len(piece))
        self._period = len(piece)
        self._left = limit
        self._at = 0

    def read(self, size: int, /) -> bytes:
        size = min(size, 1 << 18, self._left)
        data = self._piece[self._at : self._at + size]
        self._at = (self._at + len(data)) % self._period
        self._left -= len(data)
        return data


def long_file() -> bytes:
    return header(size=base256(1 << 50))


ENDLESS: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "extended headers without an entry": (pax({b"path": b"n" * 100_000}), bytes),
    "global headers": (pax({b"comment": b"n" * 100_000}, b"g"), bytes),
    "long names": (header(b"L", b"L", 90_000) + padded(b"n" * 90_000), bytes),
    "one file": (b"\1" * 512, long_file),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_memory_stays_flat(case: str) -> None:
    piece, start = ENDLESS[case]

    class Source:
        first = start()
        rest = Endless(piece, 3 << 20)

        def read(self, size: int, /) -> bytes:
            data, self.first = self.first, b""
            return data or self.rest.read(size)

    reader = TarReader(Source())
    tracemalloc.start()
    try:
        for _ in reader:
            for _ in reader.chunks():
                pass
    except InvalidParameter:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 << 20


def test_records_are_written_with_their_own_length() -> None:
    """The test's own helper, which must not be wrong in the way that the reader could be."""
    for size in (1, 2, 3, 90, 91, 92, 93, 94, 985, 986, 987, 990, 991, 992):
        text = record(b"k", b"v" * size)
        assert int(text.split(b" ")[0]) == len(text)
