"""The json-file log: one record a line, in Docker's pieces, nothing lost and no character cut."""

from __future__ import annotations

import json
import os
import re
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.shim.logs import PARTIAL, JsonFile


def records(path: Path) -> list[tuple[str, str]]:
    return [(r["stream"], r["log"]) for r in map(json.loads, path.read_text("utf-8").splitlines())]


def logged(path: Path, *pieces: bytes) -> list[str]:
    log = JsonFile(str(path))
    for piece in pieces:
        log.write("stdout", piece)
    log.close()
    return [text for _, text in records(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_record_has_dockers_keys_in_dockers_order_and_its_time(path: Path) -> None:
    logged(path, b"hello\n")
    line = path.read_text()
    assert re.fullmatch(
        r'\{"log":"hello\\n","stream":"stdout","time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"\}\n', line
    )


def test_many_lines_in_one_read(path: Path) -> None:
    assert logged(path, b"a\nb\n\nc\n") == ["a\n", "b\n", "\n", "c\n"]


def test_a_line_in_many_reads_is_one_record_when_it_is_whole(path: Path) -> None:
    log = JsonFile(str(path))
    log.write("stdout", b"one ")
    log.write("stdout", b"two")
    assert path.read_bytes() == b""
    log.write("stdout", b" three\nfour")
    assert records(path) == [("stdout", "one two three\n")]
    log.close()
    assert records(path) == [("stdout", "one two three\n"), ("stdout", "four")]


def test_the_last_line_without_a_newline_is_written_at_the_streams_end(path: Path) -> None:
    assert logged(path, b"a\nlast") == ["a\n", "last"]
    assert logged(path.with_name("other"), b"") == []


def test_streams_do_not_mix(path: Path) -> None:
    log = JsonFile(str(path))
    log.write("stdout", b"o1")
    log.write("stderr", b"e1\ne2")
    log.end("stdout")
    log.write("stderr", b"!\n")
    log.close()
    assert records(path) == [("stderr", "e1\n"), ("stdout", "o1"), ("stderr", "e2!\n")]


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (PARTIAL - 1, [PARTIAL]),
        (PARTIAL, [PARTIAL, 1]),
        (PARTIAL + 1, [PARTIAL, 2]),
        (2 * PARTIAL, [PARTIAL, PARTIAL, 1]),
        (2 * PARTIAL + 5, [PARTIAL, PARTIAL, 6]),
    ],
)
def test_a_long_line_is_written_in_parts_and_only_the_last_has_the_newline(
    path: Path, size: int, sizes: list[int]
) -> None:
    whole = logged(path, b"x" * size + b"\n")
    assert [len(part) for part in whole] == sizes
    assert [part.endswith("\n") for part in whole] == [False] * (len(sizes) - 1) + [True]
    in_pieces = logged(
        path.with_name("pieces"), *(b"x" * 1000 for _ in range(size // 1000)), b"x" * (size % 1000), b"\n"
    )
    assert "".join(in_pieces) == "".join(whole)


def test_a_line_without_an_end_is_written_while_it_comes(path: Path) -> None:
    log = JsonFile(str(path))
    for _ in range(40):
        log.write("stdout", b"y" * 1000)
    assert [len(text) for _, text in records(path)] == [PARTIAL, PARTIAL]
    log.close()
    assert sum(len(text) for _, text in records(path)) == 40_000


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("shift", range(5))
def test_no_character_is_cut_in_two(path: Path, character: str, shift: int) -> None:
    text = "a" * shift + character * PARTIAL
    parts = logged(path, text.encode() + b"\n")
    assert "".join(parts) == text + "\n"
    assert "�" not in "".join(parts)
    assert all(PARTIAL - 4 < len(part.encode()) <= PARTIAL for part in parts[:-1])


def test_what_is_not_utf8_is_replaced_as_docker_does(path: Path) -> None:
    assert logged(path, b"\xff\xfe ok \xc3\n") == ["�� ok �\n"]
    # Nothing but continuation bytes: there is no boundary to find.
    assert "".join(logged(path.with_name("bad"), b"\x80" * (PARTIAL + 10) + b"\n")) == "�" * (PARTIAL + 10) + "\n"


def test_control_characters_and_quotes_are_escaped(path: Path) -> None:
    text = 'a"b\\c\td\x00e\x1b[0mf\x7f</script>  \r\n'
    assert logged(path, text.encode()) == [text]
    assert path.read_bytes().count(b"\n") == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400).map(lambda b: b * 150), cuts=st.lists(st.integers(1, 60_000), max_size=6))
def test_however_it_arrives_it_is_all_there(path: Path, data: bytes, cuts: list[int]) -> None:
    path.unlink(missing_ok=True)
    pieces = []
    rest = data
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    text = "".join(logged(path, *pieces, rest))
    if data.isascii():
        assert text == data.decode()
    else:
        assert text.count("\n") == data.count(b"\n")


def test_it_appends_to_what_is_there(path: Path) -> None:
    assert logged(path, b"first\n") == ["first\n"]
    assert logged(path, b"second\n") == ["first\n", "second\n"]
    assert os.stat(path).st_mode & 0o137 == 0


def test_a_full_disk_loses_records_and_spoils_none() -> None:
    log = JsonFile("/dev/full")
    log.write("stdout", b"a\nb\n")
    assert log.lost == 2
    log.close()


def test_half_a_record_on_a_disk_that_fills_up_is_taken_back(path: Path) -> None:
    """The limit on a file's size stands for the disk: a write up to it is partial, the next one fails."""
    log = JsonFile(str(path))
    log.write("stdout", b"before\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:
        log.write("stdout", b"lost\n" * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write("stdout", b"after\n")
    log.close()
    assert records(path) == [("stdout", "before\n"), ("stdout", "after\n")]
    assert log.lost == 10
