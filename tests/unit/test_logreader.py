"""Logs read back: records cut and read, last lines found from the end, across files, pieces of lines and torn ends."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.engine import logfiles, logformats, logs
from sampan.engine.logformats import JsonLines, LocalRecords, LogEntry
from sampan.shim.locallog import LocalFile
from sampan.shim.logs import JsonFile, Log
from sampan.shim.protocol import LogPlan


def line(text: str, stream: str = "stdout") -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": "2026-01-01T00:00:00Z"}).encode() + b"\n"


def made(driver: str, path: Path, size: int = 0, files: int = 1) -> Log:
    return (LocalFile if driver == "local" else JsonFile)(LogPlan(driver, str(path), size, files))


def read(driver: str, path: Path, tail: int | None = None) -> list[LogEntry]:
    told: list[str] = []
    reader = logs._Reader(str(path), logformats.of_driver(driver), logs.Wanted(tail=tail), told.append)
    try:
        return list(reader.run(None))
    finally:
        reader.close()
        assert not told


def lines_of(entries: list[LogEntry]) -> list[tuple[str, bytes]]:
    """Whole lines, in the order of their last pieces; one that was never ended has a last piece too."""
    open_lines: dict[str, tuple[int, bytes]] = {}
    found = []
    for at, entry in enumerate(entries):
        text = open_lines.pop(entry.stream, (0, b""))[1] + entry.data
        if entry.partial:
            open_lines[entry.stream] = (at, text)
        else:
            found.append((at, entry.stream, text))
    found += [(at, stream, text) for stream, (at, text) in open_lines.items()]
    return [(stream, text) for _, stream, text in sorted(found)]


DRIVERS = pytest.mark.parametrize("driver", ["json-file", "local"])
STREAMS = st.sampled_from(["stdout", "stderr"])
LENGTHS = st.sampled_from([0, 9, 16_379, 16_381, 16_382, 20_000, 40_000])
SAID = st.lists(st.tuples(STREAMS, LENGTHS, st.booleans()), max_size=8)


@DRIVERS
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=SAID, size=st.sampled_from([0, 30_000, 100_000]), tail=st.integers(0, 8))
def test_the_last_lines_are_those_of_the_whole(
    tmp_path: Path, driver: str, said: list[tuple[str, int, bool]], size: int, tail: int
) -> None:
    for file in tmp_path.iterdir():
        file.unlink()
    path = tmp_path / "log"
    log = made(driver, path, size, 50)
    for number, (stream, length, ends) in enumerate(said):
        log.write(stream, b"%d " % number + b"x" * length + (b"\n" if ends else b""))
    log.close()
    whole = lines_of(read(driver, path))
    last = lines_of(read(driver, path, tail))
    assert last == whole[len(whole) - min(tail, len(whole)) :]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=3000).map(lambda b: b * 20), max_size=6))
def test_the_driver_local_keeps_every_byte(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    log = made("local", path)
    for piece in pieces:
        log.write("stdout", piece)
    log.close()
    assert b"".join(e.data for e in read("local", path)) == b"".join(pieces)


@DRIVERS
@pytest.mark.parametrize("cut", [1, 3, 4, 9, 20])
def test_a_torn_end_is_no_entry_and_a_later_run_goes_on_behind_it(tmp_path: Path, driver: str, cut: int) -> None:
    path = tmp_path / "log"
    log = made(driver, path)
    log.write("stdout", b"one\ntwo\nthree\n")
    log.close()
    os.truncate(path, path.stat().st_size - cut)
    # Of a JSON object whose newline alone is missing everything is there.
    kept = [b"one\n", b"two\n"] + ([b"three\n"] if driver == "json-file" and cut == 1 else [])
    assert [e.data for e in read(driver, path)] == kept
    assert [e.data for e in read(driver, path, 1)] == kept[-1:]
    log = made(driver, path)
    log.write("stdout", b"four\n")
    log.close()
    after = [e.data for e in read(driver, path)]
    assert after[:2] == [b"one\n", b"two\n"]
    assert after[-1] == b"four\n"


def test_an_entry() -> None:
    entry = JsonLines().parse(line("hällo\n", "stderr"))
    assert entry == LogEntry("2026-01-01T00:00:00Z", "stderr", "hällo\n".encode())


def test_what_is_no_entry_is_left_out() -> None:
    for torn in (b"", b"{", b"[]", b"null", b'{"log":1,"stream":"stdout","time":""}', b'{"log":"a"}', b"\xff\xfe"):
        assert JsonLines().parse(torn) is None


WHOLE = st.builds(lambda text, stream: line(text, stream)[:-1], st.text(max_size=20), STREAMS)
TORN = st.builds(lambda record, cut: record[: cut % len(record)], WHOLE, st.integers(0, 200))
RECORDS = st.lists(
    st.one_of(WHOLE, TORN, st.builds(bytes.__add__, TORN, WHOLE), st.binary(max_size=9), st.just(b"{}")), max_size=9
)


@given(RECORDS)
def test_many_records_at_once_are_what_each_is_alone(records: list[bytes]) -> None:
    for form in (JsonLines(), LocalRecords()):
        assert list(form.parse_all(records)) == [entry for record in records if (entry := form.parse(record))]


def test_an_entry_behind_a_torn_one_is_found() -> None:
    torn = line("lost")[:-20]
    entry = JsonLines().parse(torn + line("kept"))
    assert entry is not None
    assert entry.data == b"kept"


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_none(data: bytes) -> None:
    for form in (JsonLines(), LocalRecords()):
        entry = form.parse(data)
        assert entry is None or isinstance(entry.data, bytes)
        assert b"".join(form.split(data)[-1:]) in data


@DRIVERS
@given(st.binary(max_size=600))
def test_any_file_can_be_read_from_both_ends(driver: str, data: bytes) -> None:
    fd = os.memfd_create("log")
    try:
        os.write(fd, data)
        for offset, record in logformats.of_driver(driver).backwards(fd):
            assert record in data[offset:]
    finally:
        os.close(fd)


def test_files_are_read_in_their_order_with_gaps_and_compressed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("newest\n"))
    (tmp_path / "log.1").write_bytes(line("one\n"))
    (tmp_path / "log.1.gz").write_bytes(b"not whole yet")
    (tmp_path / "log.3.gz").write_bytes(gzip.compress(line("three\n")))
    (tmp_path / "log.10").write_bytes(line("ten\n"))
    (tmp_path / "log.gz.tmp").write_bytes(b"half")
    (tmp_path / "log.x").write_bytes(line("no\n"))
    assert [e.data for e in read("json-file", path)] == [b"ten\n", b"three\n", b"one\n", b"newest\n"]
    assert [e.data for e in read("json-file", path, 3)] == [b"three\n", b"one\n", b"newest\n"]
    path.unlink()
    assert [e.data for e in read("json-file", path)] == [b"ten\n", b"three\n", b"one\n"]


def test_a_file_is_found_again_when_it_was_renamed_or_compressed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("old\n"))
    (file,) = logfiles.open_files(str(path))
    assert logfiles.newer_than(str(path), file) == []
    path.rename(tmp_path / "log.1")
    path.write_bytes(line("new\n"))
    newer = logfiles.newer_than(str(path), file)
    assert newer is not None
    assert [os.pread(f.descriptor(), 100, 0) for f in newer] == [line("new\n")]
    logfiles.close(newer)
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(line("old\n")))
    (tmp_path / "log.1").unlink()
    newer = logfiles.newer_than(str(path), file)
    assert newer is not None
    assert len(newer) == 1
    logfiles.close(newer)
    (tmp_path / "log.1.gz").unlink()
    assert logfiles.newer_than(str(path), file) is None
    file.close()


def test_files_opened_in_the_middle_of_rotations(tmp_path: Path) -> None:
    """Renamed one by one: none is opened twice, and none is missing between two others."""
    path = str(tmp_path / "log")
    rotating = subprocess.Popen([sys.executable, "-c", ROTATE, path])
    try:
        while not os.path.exists(f"{path}.4"):
            time.sleep(0.001)
        for _ in range(200):
            files = logfiles.open_files(path)
            numbers = [int(os.read(file.descriptor(), 20)) for file in files if os.fstat(file.descriptor()).st_size]
            logfiles.close(files)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
    finally:
        rotating.kill()
        rotating.wait()


ROTATE = """
import os, sys, time
path, turn = sys.argv[1], 0
while True:
    turn += 1
    for number in range(4, 0, -1):
        try:
            os.rename(f"{path}.{number}" if number else path, f"{path}.{number + 1}")
        except FileNotFoundError:
            pass
        time.sleep(0.0002)
    if turn > 1:
        os.rename(path, f"{path}.1")
    with open(path, "x") as file:
        file.write(str(turn))
    time.sleep(0.004)
"""
