"""The json-file log read back: from its end, across torn lines, bytes that are not text."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sampan.engine import logs


def line(text: str, stream: str = "stdout") -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": "2026-01-01T00:00:00Z"}).encode() + b"\n"


@given(st.lists(st.integers(0, 70000), max_size=8), st.integers(0, 12), st.booleans())
def test_the_last_lines_are_found_from_the_end(lengths: list[int], count: int, newline_at_the_end: bool) -> None:
    content = b"\n".join(b"x" * length for length in lengths) + (b"\n" if newline_at_the_end and lengths else b"")
    fd = os.memfd_create("log")
    try:
        os.write(fd, content)
        found = content[logs._tail_offset(fd, count) :]
    finally:
        os.close(fd)
    lines = content.splitlines(keepends=True)
    assert found == b"".join(lines[len(lines) - min(count, len(lines)) :])


def test_an_entry() -> None:
    entry = logs.parse_line(line("hällo\n", "stderr"))
    assert entry == logs.LogEntry("2026-01-01T00:00:00Z", "stderr", "hällo\n".encode())


def test_what_is_no_entry_is_left_out() -> None:
    for torn in (b"", b"{", b"[]", b"null", b'{"log":1,"stream":"stdout","time":""}', b'{"log":"a"}', b"\xff\xfe"):
        assert logs.parse_line(torn) is None


def test_an_entry_behind_a_torn_one_is_found() -> None:
    torn = line("lost")[:-20]
    entry = logs.parse_line(torn + line("kept"))
    assert entry is not None
    assert entry.data == b"kept"


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_none(data: bytes) -> None:
    entry = logs.parse_line(data)
    assert entry is None or isinstance(entry.data, bytes)


def test_reading_without_following_ends_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("one\n") + line("two\n") + b'{"log":"half')
    fd = os.open(path, os.O_RDONLY)
    try:
        assert [e.data for e in logs._follow(fd, None)] == [b"one\n", b"two\n"]
    finally:
        os.close(fd)
