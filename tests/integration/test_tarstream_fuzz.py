"""Archives that nobody thought of: damaged ones are read or refused, and what is written is read back."""

from __future__ import annotations

import io
import tarfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.store.tarstream import DIRECTORY, FILE, HARDLINK, SYMLINK, Limits, TarEntry, TarReader
from sampan.store.tarwriter import TarWriter

from support.archives import END, base256, directory, header, member, padded, pax, summed, symlink

BOUNDED = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

SEED = b"".join(
    (
        directory(b"dir/"),
        member(b"dir/file", b"content" * 100),
        pax({b"path": b"long" * 50, b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"v"}),
        member(b"short", b"x"),
        header(b"L", b"L", 120, magic=b"ustar  \0") + padded(b"n" * 120),
        symlink(b"link", b"target"),
        pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9000"}),
        member(b"sparse", padded(b"1\n4096\n5\n") + b"01234"),
        header(b"old", b"S", 512, extra={386: base256(512) + base256(512), 483: base256(4096)}) + bytes(512),
        END,
    )
)
HEADERS = [at for at in range(0, len(SEED), 512) if SEED[at + 257 : at + 262] == b"ustar"]


def read_all(data: bytes) -> int:
    """Read everything; only InvalidParameter may come out, and the work is bounded by the archive's length."""
    reader = TarReader(io.BytesIO(data), Limits(sparse_regions=1000))
    count = 0
    try:
        for entry in reader:
            count += 1
            assert entry.size >= 0
            assert b"\0" not in entry.name
            at = 0
            for position, piece in reader.chunks():
                assert position >= at
                at = position + len(piece)
            assert at <= entry.size
    except InvalidParameter:
        return -1
    return count


@BOUNDED
@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    read_all(data)


@BOUNDED
@given(st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(SEED)))
def test_damaged_bytes(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(SEED)
    for at, value in changes:
        data[at] = value
    read_all(bytes(data))
    read_all(bytes(data[:length]))


@BOUNDED
@given(st.sampled_from(HEADERS), st.integers(0, 499), st.binary(min_size=1, max_size=12))
def test_headers_with_any_field_and_a_right_checksum(at: int, field: int, value: bytes) -> None:
    block = bytearray(SEED[at : at + 512])
    block[field : field + len(value)] = value
    read_all(SEED[:at] + summed(block[:512]) + SEED[at + 512 :])


SPARSE = ("map", "size", "realsize", "major", "minor", "name", "offset", "numbytes", "numblocks")
KEYS = st.sampled_from(
    [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.x"]
    + [b"GNU.sparse." + key.encode() for key in SPARSE]
)
VALUES = st.one_of(
    st.binary(max_size=30),
    st.integers(-10, 1 << 70).map(lambda n: b"%d" % n),
    st.lists(st.integers(0, 20), max_size=6).map(lambda ns: b",".join(b"%d" % n for n in ns)),
    st.sampled_from([b"0", b"1", b"10", b"0,5", b"0,10", b"2,8"]),
)


@BOUNDED
@given(st.lists(st.tuples(KEYS, VALUES), max_size=8), st.binary(max_size=40))
def test_any_extended_header(records: list[tuple[bytes, bytes]], data: bytes) -> None:
    read_all(pax(records) + member(b"file", data) + END)


@BOUNDED
@given(st.binary(max_size=700))
def test_any_sparse_map_before_the_data(text: bytes) -> None:
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"100000"}
    read_all(pax(records) + member(b"file", text) + END)


NAMES = st.one_of(
    st.binary(min_size=1, max_size=12), st.text(min_size=1, max_size=200).map(lambda t: t.encode("utf-8", "replace"))
).filter(lambda n: b"\0" not in n and n.strip(b"/") != b"")
TARGETS = NAMES
XATTRS = st.dictionaries(NAMES.filter(lambda n: b"=" not in n), st.binary(max_size=40), max_size=3)
NUMBERS = st.one_of(st.integers(0, 70_000), st.integers(0, (1 << 32) - 2))
TIMES = st.one_of(st.just(0), st.integers(-(10**18), 10**20))


@BOUNDED
@given(NAMES, st.integers(0, 0o7777), NUMBERS, NUMBERS, TIMES, XATTRS, st.binary(max_size=1300), TARGETS, st.randoms())
def test_what_is_written_is_read_back(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    xattrs: dict[bytes, bytes],
    data: bytes,
    target: bytes,
    rnd: object,
) -> None:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    written = [
        (TarEntry(name, FILE, mode, uid, gid, len(data), mtime, xattrs=xattrs), data),
        (TarEntry(name.rstrip(b"/") or b"d", DIRECTORY, mode, uid, gid, 0, mtime), b""),
        (TarEntry(name, SYMLINK, mode, uid, gid, 0, mtime, target), b""),
        (TarEntry(name, HARDLINK, mode, uid, gid, 0, mtime, target), b""),
    ]
    for entry, content in written:
        writer.add(entry, content)
    writer.close()
    reader = TarReader(io.BytesIO(sink.getvalue()))
    for (entry, content), found in zip(written, reader, strict=True):
        assert found.name == entry.name + (b"/" if entry.kind == DIRECTORY else b"")
        assert (found.kind, found.mode, found.uid, found.gid, found.mtime_ns, found.target, found.xattrs) == (
            (entry.kind, mode, uid, gid, mtime, entry.target, entry.xattrs)
        )
        assert b"".join(bytes(piece) for _, piece in reader.chunks()) == content
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue()), errors="surrogateescape") as archive:
        names = [member.name.encode("utf-8", "surrogateescape").rstrip(b"/") for member in archive]
    assert names == [entry.name.rstrip(b"/") for entry, _ in written]
