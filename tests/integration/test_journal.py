"""The journal of events: many who write, rotation while it is read, writers that die, a full disk, a clock that jumps."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.eventreader import EventReader, EventStream
from sampan.engine.events import Events
from sampan.kernel import inotify
from sampan.kernel.inotify import DirectoryWatch
from sampan.steps.trace import Trace
from sampan.store.journal import Journal, Tail
from sampan.store.layout import Layout
from sampan.store.records import Records

from support.patience import eventually, patience

WRITER = """
import sys
from sampan.engine.events import Events
from sampan.steps.trace import Trace
path, name, count, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
events = Events("/", path, limit, Trace(), lambda line: sys.exit(line))
sys.stdin.read(1)
for i in range(count):
    events.emit("container", "start", f"{name}-{i}", {"name": "n" * (i % 300)})
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def writer(path: Path, name: str, count: int, limit: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count), str(limit)], stdin=subprocess.PIPE
    )


def events(path: Path, limit: int = 1 << 20, notes: list[str] | None = None) -> Events:
    return Events("/", str(path), limit, Trace(), ([] if notes is None else notes).append)


def no_records(path: Path) -> Records:
    """Of a root without containers: nobody waits here for an end to be seen."""
    return Records(Layout(str(path.parent / "root"), str(path.parent / "run")), Trace())


def stream(path: Path, **options: Any) -> EventStream:
    return EventReader(Journal(str(path)), no_records(path)).open(**options)


def test_twenty_processes_at_once_lose_nothing(path: Path) -> None:
    processes = [writer(path, f"w{n}", 200, 16 << 20) for n in range(20)]
    for process in processes:
        process.communicate(b"g", timeout=patience(60))
    assert [process.returncode for process in processes] == [0] * 20
    found = Journal(str(path)).read()
    assert len(found) == 20 * 200
    assert {entry.id for entry in found} == {f"w{n}-{i}" for n in range(20) for i in range(200)}
    assert all(entry.attributes == {"name": "n" * (int(entry.id.split("-")[1]) % 300)} for entry in found)
    assert [entry.time for entry in found] == sorted(entry.time for entry in found)


def test_a_reader_loses_nothing_over_a_rotation(path: Path) -> None:
    """Forty rotations: one that falls a whole file behind would miss some, so the writer waits for it."""
    log = events(path, limit=64 << 10)
    with Journal(str(path)).follow(backlog=False) as tail:
        found: list[str] = []
        for at in range(0, 10_000, 100):
            for i in range(at, at + 100):
                log.emit("container", "start", f"c{i}", {"name": "x" * 200})
            found += [entry.id for entry in tail.take()]
    assert found == [f"c{i}" for i in range(10_000)]
    assert path.stat().st_size <= 64 << 10


def test_a_reader_beside_writers_loses_nothing_over_a_rotation(path: Path) -> None:
    """One rotation in the middle of eight writers, and a reader that is woken by them."""
    count = 300
    total = 8 * count
    with stream(path, until=time.time() + patience(60)) as reading:
        processes = [writer(path, f"w{n}", count, 400 << 10) for n in range(8)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"g")
            process.stdin.close()
        found = [next(reading)["Actor"]["ID"] for _ in range(total)]
        for process in processes:
            assert process.wait(patience(60)) == 0
    assert os.path.exists(f"{path}.1")
    assert set(found) == {f"w{n}-{i}" for n in range(8) for i in range(count)}


def test_a_killed_writer_leaves_whole_lines_only(path: Path) -> None:
    processes = [writer(path, f"w{n}", 100_000, 1 << 30) for n in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"g")
        process.stdin.flush()
    eventually(lambda: path.exists() and path.stat().st_size > 1 << 18)
    for process in processes:
        process.kill()
        process.communicate()
    found = Journal(str(path)).read()
    for n in range(4):
        # Each one's events are there from the first to some last one, and none is half there.
        own = [int(entry.id.split("-")[1]) for entry in found if entry.id.startswith(f"w{n}-")]
        assert sorted(own) == list(range(len(own)))
    events(path).emit("image", "tag", "after")
    assert Journal(str(path)).read()[-1].id == "after"


@pytest.mark.root
def test_a_full_disk_is_told_once_and_fails_nothing(disk: Path) -> None:
    notes: list[str] = []
    path = disk / "journal"
    log = events(path, notes=notes)
    log.emit("volume", "create", "before")
    filler = disk / "filler"
    _fill(filler)
    for i in range(50):
        log.emit("volume", "create", f"v{i}", {"driver": "x" * 200})
    assert notes == [f"WARNING: events are not recorded: {path}: no space left on device"]
    filler.unlink()
    log.emit("volume", "create", "after")
    found = [entry.id for entry in Journal(str(path)).read()]
    assert (found[0], found[-1]) == ("before", "after")
    assert len(found) < 52


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def _fill(path: Path) -> None:
    with path.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), b"x" * 4096)
        except OSError:
            pass


def test_a_clock_that_goes_back_hides_nothing(path: Path) -> None:
    """What was written with a later time stays readable, and what comes live is told whatever its time."""
    log = events(path)
    hour = 3_600_000_000_000
    now = time.time_ns()
    log.emit("volume", "create", "late", when_ns=now - hour)
    log.emit("volume", "create", "early", when_ns=now - 2 * hour)
    log.emit("volume", "create", "later", when_ns=now - hour // 2)
    with stream(path, since="90m", until="1m") as past:
        assert [m["Actor"]["ID"] for m in past] == ["late", "later"]
    with stream(path, since="3h", until="1m") as past:
        assert [m["Actor"]["ID"] for m in past] == ["early", "late", "later"]
    with stream(path, since="1m") as following:
        # The first look at the past is over when the first event of the present comes.
        log.emit("volume", "create", "now")
        assert next(following)["Actor"]["ID"] == "now"
        log.emit("volume", "create", "behind", when_ns=now - 5 * hour)
        assert next(following)["Actor"]["ID"] == "behind"


def test_one_id_alone_is_read(path: Path) -> None:
    log = events(path)
    log.emit("volume", "create", 'a"b')
    log.emit("volume", "create", "other", {"container": 'a"b'})
    log.emit("volume", "create", 'a"')
    assert [entry.id for entry in Journal(str(path)).read(about='a"b')] == ['a"b']
    assert [entry.id for entry in Journal(str(path)).read()] == ['a"b', "other", 'a"']


def test_times_bound_what_is_told(path: Path) -> None:
    log = events(path)
    second = 1_000_000_000
    for i in range(10):
        log.emit("volume", "create", f"v{i}", when_ns=(1_700_000_000 + i) * second)
    with stream(path, since=1_700_000_003, until="1700000005.5") as found:
        assert [m["Actor"]["ID"] for m in found] == ["v3", "v4", "v5"]
    with stream(path, since="2023-11-14T22:13:28Z", until=time.time()) as found:
        assert [m["Actor"]["ID"] for m in found] == ["v8", "v9"]
    with stream(path, until="1700000000.5") as found:
        assert [m["Actor"]["ID"] for m in found] == ["v0"]
    with stream(path, since="0", until=time.time(), filters={"volume": "v7"}) as found:
        assert [m["Actor"]["ID"] for m in found] == ["v7"]


def test_nothing_of_the_past_without_a_time(path: Path) -> None:
    log = events(path)
    log.emit("volume", "create", "past")
    with stream(path) as following:
        log.emit("volume", "create", "now")
        assert next(following)["Actor"]["ID"] == "now"


def test_until_ends_it(path: Path) -> None:
    begun = time.monotonic()
    with stream(path, until=time.time() + 0.3) as following:
        assert list(following) == []
    assert 0.2 < time.monotonic() - begun < patience(10)


def test_another_thread_ends_it(path: Path) -> None:
    following = stream(path)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(following))
    thread.start()
    events(path).emit("volume", "create", "one")
    eventually(lambda: len(found) == 1)
    following.close()
    thread.join(patience(10))
    assert not thread.is_alive()
    assert list(following) == []
    following.close()


def test_a_stream_that_ended_holds_no_descriptor(path: Path) -> None:
    events(path).emit("volume", "create", "one")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with stream(path, since="1h") as following:
            next(following)
    assert os.listdir("/proc/self/fd") == before


def test_a_follower_does_not_look_again_and_again(path: Path) -> None:
    """It sleeps in poll(2) until something is written: no processor time."""
    code = (
        "import sys\nfrom sampan.store.journal import Journal\nfrom sampan.engine.eventreader import EventReader\n"
        "from sampan.steps.trace import Trace\nfrom sampan.store.layout import Layout\nfrom sampan.store.records import Records\n"
        "records = Records(Layout(sys.argv[1] + '.root', sys.argv[1] + '.run'), Trace())\n"
        "print('ready', flush=True)\nnext(EventReader(Journal(sys.argv[1]), records).open())\n"
    )
    reader = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"ready\n"
    eventually(lambda: Path(f"/proc/{reader.pid}/wchan").read_text().startswith(("poll", "do_sys_poll", "do_poll")))

    def switches() -> str:
        return next(s for s in Path(f"/proc/{reader.pid}/status").read_text().splitlines() if s.startswith("volun"))

    before = switches()
    time.sleep(0.5)
    assert switches() == before
    events(path).emit("volume", "create", "one")
    assert reader.wait(patience(10)) == 0
    reader.stdout.close()


@pytest.fixture
def without_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the user had no more inotify instances."""

    def refused(*_args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(inotify, "raw", refused)


@pytest.mark.usefixtures("without_inotify")
def test_it_follows_without_inotify_too(path: Path) -> None:
    with stream(path, until=time.time() + patience(20)) as following:
        timer = threading.Timer(0.2, lambda: events(path).emit("volume", "create", "one"))
        timer.start()
        assert next(following)["Actor"]["ID"] == "one"
        timer.join()


def test_a_watch_of_nothing_is_an_error(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for watch in (lambda path: DirectoryWatch(path), lambda path: Tail(f"{path}/journal", backlog=True, watched=True)):
        with pytest.raises(OSError, match="No such file or directory"):
            watch(str(tmp_path / "none"))
    assert os.listdir("/proc/self/fd") == before


def test_who_hears_signals_waits_for_no_longer_than_a_second(tmp_path: Path) -> None:
    # Python's handler of one that comes between its last step and poll(2) runs when that is over.
    watch = DirectoryWatch(str(tmp_path))
    try:
        assert watch.wait(None) == []
        assert watch.wait(3600) == []
        others = threading.Thread(target=lambda: watch.wait(None), daemon=True)
        others.start()
        others.join(1.5)
        assert others.is_alive(), "a thread that hears none does not wake up for nothing"
        watch.wake()
        others.join()
    finally:
        watch.close()
