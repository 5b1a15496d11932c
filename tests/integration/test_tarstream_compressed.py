"""Compressed archives: recognised by their first bytes, read without running ahead, cut ones refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from sampan.errors import InvalidParameter
from sampan.store.decompress import decompress

FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
DATA = b"".join(b"line %d\n" % n for n in range(40_000)) + os.urandom(70_000) + bytes(300_000)


class Dribble:
    """A pipe that gives at most `step` bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._stream = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._step))


def plain(data: bytes, step: int = 1 << 20, size: int = 1 << 18) -> bytes:
    stream = decompress(Dribble(data, step))
    parts: list[bytes] = []
    while part := stream.read(size):
        assert len(part) <= size
        parts.append(part)
    assert stream.read(size) == b""
    return b"".join(parts)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("step", "size"), [(1 << 20, 1 << 18), (1000, 1 << 18), (1 << 20, 999)])
def test_formats(name: str, step: int, size: int) -> None:
    assert plain(FORMATS[name](DATA), step, size) == DATA


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x1f", b"short", DATA, b"BZhello.txt" + bytes(600), b"P*M\x19" + bytes(600)]
)
def test_plain_bytes_pass(data: bytes) -> None:
    assert plain(data, 3 if len(data) < 10 else 5000) == data


@pytest.mark.parametrize("name", FORMATS)
def test_members_one_after_the_other(name: str) -> None:
    compress = FORMATS[name]
    assert plain(compress(b"one") + compress(b"") + compress(b"two" * 1000) + bytes(100)) == b"one" + b"two" * 1000


def test_zstd_skippable_frames() -> None:
    """zstd:chunked layers and pzstd write them, also in front."""
    skippable = b"\x50\x2a\x4d\x18\x08\0\0\0whatever"
    frame = FORMATS["zstd"](b"data")
    assert plain(skippable + frame + skippable + frame) == b"datadata"


@pytest.mark.parametrize("name", FORMATS)
def test_an_end_in_the_middle_is_told(name: str) -> None:
    data = FORMATS[name](DATA)
    for length in (20, len(data) // 2, len(data) - 5, len(data) - 1):
        with pytest.raises(InvalidParameter, match=f"{name}: unexpected EOF"):
            plain(data[:length])


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_told(name: str) -> None:
    data = bytearray(FORMATS[name](DATA))
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    with pytest.raises(InvalidParameter, match=name):
        plain(bytes(data))
    with pytest.raises(InvalidParameter, match=name):
        plain(FORMATS[name](b"data") + b"something else")


@pytest.mark.parametrize(
    ("name", "megabytes", "bound"), [("gzip", 24, 3), ("bzip2", 24, 12), ("xz", 24, 12), ("zstd", 72, 36)]
)
def test_bombs_stay_small_in_memory(name: str, megabytes: int, bound: int) -> None:
    """Many zeros. zstd takes its input in pieces, and one of them can be 16 MiB of output."""
    bomb = FORMATS[name](bytes(megabytes << 20))
    assert len(bomb) < (megabytes << 20) // 500
    tracemalloc.start()
    try:
        stream = decompress(io.BytesIO(bomb))
        read = 0
        while part := stream.read(1 << 18):
            read += len(part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == megabytes << 20
    assert peak < bound << 20


def test_without_zstandard_the_package_is_named() -> None:
    """In a fresh interpreter whose import of it fails."""
    code = (
        "import sys, io; sys.modules['zstandard'] = None\n"
        "from sampan.store.decompress import decompress\n"
        "from sampan.errors import Unavailable\n"
        "try: decompress(io.BytesIO(bytes.fromhex('28b52ffd00000000')))\n"
        "except Unavailable as e: print(e)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install zstandard" in result.stdout
