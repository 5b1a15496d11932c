"""The json-file log: one record a line, in Docker's pieces, nothing lost and no character cut."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.engine import logformats, logs
from sampan.shim.locallog import LocalFile
from sampan.shim.logs import PARTIAL, JsonFile, Log
from sampan.shim.protocol import LogPlan


def records(path: Path) -> list[tuple[str, str]]:
    return [(r["stream"], r["log"]) for r in map(json.loads, path.read_text("utf-8").splitlines())]


def logged(path: Path, *pieces: bytes) -> list[str]:
    log = JsonFile(LogPlan("json-file", str(path)))
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
    log = JsonFile(LogPlan("json-file", str(path)))
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
    log = JsonFile(LogPlan("json-file", str(path)))
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
    log = JsonFile(LogPlan("json-file", str(path)))
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
    log = JsonFile(LogPlan("json-file", "/dev/full"))
    log.write("stdout", b"a\nb\n")
    assert log.lost["lines"] == 2
    log.close()


def test_half_a_record_on_a_disk_that_fills_up_is_taken_back(path: Path) -> None:
    """The limit on a file's size stands for the disk: a write up to it is partial, the next one fails."""
    log = JsonFile(LogPlan("json-file", str(path)))
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
    assert log.lost["lines"] == 10


def plan(path: Path, size: int, files: int) -> LogPlan:
    return LogPlan("json-file", str(path), size, files)


def all_records(path: Path, files: int) -> list[str]:
    names = [path.with_name(f"{path.name}.{n}") for n in range(files - 1, 0, -1)] + [path]
    return [text for name in names if name.exists() for _, text in records(name)]


@pytest.mark.thorough
@pytest.mark.parametrize("files", [1, 2, 3, 5])
def test_no_file_is_larger_than_its_bound_and_the_newest_lines_are_kept(path: Path, files: int) -> None:
    log = JsonFile(plan(path, 1000, files))
    for n in range(500):
        log.write("stdout", b"".join(b"line %d\n" % (n * 7 + k) for k in range(7)))
    log.close()
    sizes = [file.stat().st_size for file in path.parent.iterdir()]
    assert len(sizes) == files
    assert max(sizes) <= 1000
    kept = all_records(path, files)
    assert kept == [f"line {n}\n" for n in range(3500 - len(kept), 3500)]
    assert sum(sizes) > 900 * (files - 1)


def test_a_record_that_is_longer_than_a_file_gets_one_of_its_own(path: Path) -> None:
    log = JsonFile(plan(path, 100, 4))
    log.write("stdout", b"a\n" + b"x" * 500 + b"\nb\n")
    log.close()
    assert all_records(path, 4) == ["a\n", "x" * 500 + "\n", "b\n"]
    assert len(list(path.parent.iterdir())) == 3


def test_a_file_that_is_being_read_can_be_read_to_its_end(path: Path) -> None:
    log = JsonFile(plan(path, 300, 1))
    log.write("stdout", b"first\n")
    with path.open() as reader:
        log.write("stdout", b"x\n" * 50)
        assert json.loads(reader.readline())["log"] == "first\n"
    log.close()


def test_parts_of_a_line_have_the_time_at_which_it_began(path: Path) -> None:
    log = JsonFile(plan(path, 0, 1))
    for _ in range(5):
        log.write("stdout", b"x" * 10_000)
        time.sleep(0.002)
    log.write("stdout", b"\nnext\n")
    log.close()
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert len({r["time"] for r in found[:-1]}) == 1
    assert len(found) == 5
    assert found[-1]["time"] > found[0]["time"]


def test_attributes_stand_between_stream_and_time(path: Path) -> None:
    log = JsonFile(LogPlan("json-file", str(path), extra='{"a":"b"}'))
    log.write("stdout", b"x\n")
    log.close()
    assert re.fullmatch(r'\{"log":"x\\n","stream":"stdout","attrs":\{"a":"b"\},"time":"[^"]*"\}\n', path.read_text())


@pytest.mark.thorough
@pytest.mark.parametrize("driver", [JsonFile, LocalFile])
@pytest.mark.parametrize("files", [1, 2, 4])
def test_killed_at_any_step_of_a_rotation(tmp_path: Path, driver: type[Log], files: int) -> None:
    """A writer is killed before its n-th look at the disk, for every n; another goes on. No line is there twice, none
    of those kept is missing, and there are never more files than there may be."""
    name = "local" if driver is LocalFile else "json-file"
    step = 0
    while True:
        step += 1
        directory = tmp_path / str(step)
        directory.mkdir()
        path = directory / "log"
        log_plan = LogPlan(name, str(path), 400, files)
        killed = _write_and_be_killed(driver, log_plan, step)
        log = driver(log_plan)
        for n in range(100, 120):
            log.write("stdout", b"line %d\n" % n)
        log.close()
        reader = logs._Reader(str(path), logformats.of_driver(name), logs.Wanted(), lambda _: None)
        kept = [int(entry.data.split()[1]) for entry in reader.run(None)]
        reader.close()
        before, after = [n for n in kept if n < 100], [n for n in kept if n >= 100]
        assert kept == before + after
        assert before == list(range(before[0], before[-1] + 1)) if before else True
        assert after == list(range(after[0], 120))
        assert len(list(directory.iterdir())) <= files
        if not killed:
            break
    assert step > 10


def _write_and_be_killed(driver: type[Log], log_plan: LogPlan, step: int) -> bool:
    pid = os.fork()
    if pid == 0:
        seen = 0

        def count(event: str, _: object) -> None:
            nonlocal seen
            if event in ("open", "os.rename", "os.remove"):
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        log = driver(log_plan)
        sys.addaudithook(count)
        for n in range(48):
            log.write("stdout", b"line %d\n" % n)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def test_a_full_disk_is_told_at_once_and_when_it_is_over(path: Path) -> None:
    log = JsonFile(plan(path, 0, 1))
    told: list[int] = []
    log.tell_loss = lambda: told.append(log.lost["lines"])
    log.write("stdout", b"before\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        for _ in range(5):
            log.write("stdout", b"lost\n" * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write("stdout", b"after\n")
    log.close()
    assert told == [10, 50]
    assert log.lost["error"] == f"write {path}: file too large"
