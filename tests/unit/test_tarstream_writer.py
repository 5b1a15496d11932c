"""Archives that sampan writes: the same each time, readable by others, and refused before they are wrong."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.store.tarstream import CHARACTER, DIRECTORY, FIFO, SYMLINK, TarEntry
from sampan.store.tarwriter import TarWriter


def written(*entries: tuple[TarEntry, bytes]) -> bytes:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    for entry, data in entries:
        writer.add(entry, data)
    writer.close()
    return sink.getvalue()


def test_plain_entries_are_plain_ustar() -> None:
    data = written((TarEntry(b"etc", DIRECTORY, 0o755), b""), (TarEntry(b"etc/f", size=3, mtime_ns=10**9), b"abc"))
    assert len(data) == 512 + 1024 + 1024
    assert data[:5] == b"etc/\0"
    assert data[512 + 257 : 512 + 265] == b"ustar\x0000"
    assert data[512 + 148 : 512 + 156] == b"%06o\0 " % sum(data[512:1024][:148] + b" " * 8 + data[512:1024][156:])


def test_the_same_entries_give_the_same_bytes() -> None:
    first = TarEntry(b"\xff" * 200, xattrs={b"user.b": b"2", b"user.a": b"1"}, mtime_ns=1)
    second = TarEntry(b"\xff" * 200, xattrs={b"user.a": b"1", b"user.b": b"2"}, mtime_ns=1)
    assert written((first, b"")) == written((second, b""))


def test_gnu_tar_reads_it(tmp_path: Path) -> None:
    """Its listing is compared, because that needs no privileges."""
    data = written(
        (TarEntry(b"d" * 120 + b"/" + b"f" * 90, size=4, uid=12, gid=1 << 22, mode=0o4755), b"data"),
        (TarEntry("ü".encode() * 60, SYMLINK, 0o777, target=b"t" * 130), b""),
        (TarEntry(b"null", CHARACTER, 0o666, major=1, minor=3), b""),
        (TarEntry(b"pipe", FIFO, 0o600, mtime_ns=1_500_000_000), b""),
    )
    (tmp_path / "a.tar").write_bytes(data)
    result = subprocess.run(
        ["tar", "-tvf", tmp_path / "a.tar", "--numeric-owner", "--full-time", "--quoting-style=literal"],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"},
        check=True,
    )
    lines = [line.split(maxsplit=5) for line in result.stdout.decode().splitlines()]
    assert result.stderr == b""
    assert lines[0][:3] == ["-rwsr-xr-x", "12/4194304", "4"]
    assert lines[0][5] == "d" * 120 + "/" + "f" * 90
    assert lines[1][5] == "ü" * 60 + " -> " + "t" * 130
    assert lines[2][:3] == ["crw-rw-rw-", "0/0", "1,3"]
    assert lines[3][3:5] == ["1970-01-01", "00:00:01.5"]


@pytest.mark.parametrize("pieces", [[b"ab"], [b"abc", b"d"], []])
def test_a_file_that_changes_while_it_is_read_is_an_error(pieces: list[bytes]) -> None:
    with pytest.raises(InvalidParameter, match="changed while it was read"):
        TarWriter(io.BytesIO()).add(TarEntry(b"f", size=3), pieces)


def test_data_in_pieces() -> None:
    sink = io.BytesIO()
    TarWriter(sink).add(TarEntry(b"f", size=600), [b"a" * 300, b"b" * 300])
    assert sink.getvalue()[512:1112] == b"a" * 300 + b"b" * 300
    assert len(sink.getvalue()) == 512 + 1024


@pytest.mark.parametrize("name", [b"", b"a\0b"])
def test_names_that_no_archive_holds(name: bytes) -> None:
    with pytest.raises(InvalidParameter):
        TarWriter(io.BytesIO()).add(TarEntry(name))
