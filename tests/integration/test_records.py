"""Records, names and locks on a real disk, with threads and processes that want the same thing. Needs no root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.oci import lifecycle
from sampan.steps.trace import Event, Trace
from sampan.store import locks, states
from sampan.store.layout import ContainerPaths, Layout
from sampan.store.names import random_name
from sampan.store.record import SCHEMA, Record, check_name, new_id
from sampan.store.records import Records

from support.patience import patience

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    made.make(Trace())
    return made


@pytest.fixture
def records(layout: Layout) -> Records:
    return Records(layout, Trace())


def blank(container_id: str, name: str) -> Record:
    return Record(SCHEMA, container_id, name, "2026-01-01T00:00:00Z", "", "", (), "vfs", "sh", (), {}, {})


def make(records: Records, name: str = "", container_id: str = "") -> Record:
    container_id = container_id or new_id()
    creation = records.begin(container_id, name, durable=False)
    record = blank(container_id, creation.name)
    creation.commit(record, {"hosts": b"127.0.0.1\tlocalhost\n"}).release()
    return record


def lose_power(layout: Layout, *names: str) -> Records:
    """The claims of these names did not come to the disk before the machine went down. What a process of the next boot has."""
    for name in names:
        os.unlink(layout.name(name))
    Path(layout.whole_names).write_text("another boot")
    return Records(layout, Trace())


def test_a_name_whose_claim_went_with_the_power_is_still_its_containers(layout: Layout, records: Records) -> None:
    a, b = make(records, "one"), make(records, "two")
    assert lose_power(layout, "one", "two").get("one").id == a.id
    # All of them are back by that, and for who never looks at the disk for them again too.
    assert dict(records.names()) == {"one": a.id, "two": b.id}
    with pytest.raises(Conflict, match='name "/two" is already in use'):
        lose_power(layout, "two").begin(new_id(), "two", durable=True)
    later = lose_power(layout, "one")
    with later.lock(b.id) as lock, pytest.raises(Conflict, match='name "/one" is already in use'):
        later.rename(lock, "one")
    assert records.get("one").id == a.id


def test_a_claim_without_its_bytes_is_as_one_that_is_not_there(layout: Layout, records: Records) -> None:
    a = make(records, "one")
    after = lose_power(layout)
    Path(layout.name("one")).write_bytes(b"")
    assert after.get("one").id == a.id
    assert Path(layout.name("one")).read_text() == a.id


def test_what_is_claimed_for_another_one_after_the_power_came_back_stays_his(layout: Layout, records: Records) -> None:
    """A removal that did not come to the disk: of two with one name the one has it whose claim is there."""
    old, new = make(records, "old"), make(records, "mine")
    record = json.loads(Path(layout.container(old.id).record).read_text())
    Path(layout.container(old.id).record).write_text(json.dumps({**record, "name": "mine"}))
    after = lose_power(layout)
    with pytest.raises(NotFound):
        after.get("nobody")
    assert after.get("mine").id == new.id


def test_names_are_looked_through_once_in_a_boot(layout: Layout, records: Records) -> None:
    make(records, "one")
    os.unlink(layout.name("one"))
    # Nothing but a power cut takes a claim, so nobody looks for one in between: this would cost each lookup of an unknown name.
    with pytest.raises(NotFound):
        records.get("one")
    with pytest.raises(NotFound):
        Records(layout, Trace()).get("one")


def remove(records: Records, record: Record) -> None:
    with records.lock(record.id) as lock:
        paths = records.begin_removal(lock)
        records.release_name(record.name, record.id)
        records.finish_removal(paths)


def everything(layout: Layout) -> list[str]:
    return sorted(
        str(p.relative_to(layout.root)) for d in ("containers", "names") for p in Path(layout.root, d).rglob("*")
    )


def test_directories_are_private_and_made_once(layout: Layout) -> None:
    assert os.stat(layout.root).st_mode & 0o777 == 0o700
    for path in (layout.containers, layout.layers, layout.content, layout.names):
        assert os.stat(path).st_mode & 0o777 == 0o700
    events: list[Event] = []
    layout.make(Trace(events.append))
    assert events == []


def test_found_by_id_by_name_and_by_the_beginning_of_an_id(records: Records) -> None:
    record = make(records, "box")
    for reference in (record.id, "box", "/box", record.id[:12], record.id[:3]):
        assert records.get(reference) == record


@pytest.mark.parametrize("reference", ["nosuch", "../box", "a/b", ".hidden", "box\0", "ü", "0" * 64, "x" * 300])
def test_what_is_not_there(records: Records, reference: str) -> None:
    make(records, "box")
    with pytest.raises(NotFound) as caught:
        records.get(reference)
    assert str(caught.value) == f"No such container: {reference}"


def test_an_empty_reference(records: Records) -> None:
    with pytest.raises(InvalidParameter, match='invalid name or ID supplied: ""'):
        records.get("")


def test_a_beginning_that_fits_two(records: Records) -> None:
    make(records, "one", "ab12" + "0" * 60)
    make(records, "two", "ab13" + "0" * 60)
    with pytest.raises(InvalidParameter, match="Multiple IDs found with provided prefix: ab1"):
        records.get("ab1")
    assert records.get("ab13").name == "two"


def test_a_name_comes_before_the_beginning_of_an_id(records: Records) -> None:
    make(records, "one", "ab12" + "0" * 60)
    named = make(records, "ab12")
    assert records.get("ab12") == named


def test_a_name_that_is_taken(records: Records) -> None:
    record = make(records, "box")
    with pytest.raises(Conflict) as caught:
        make(records, "box")
    assert str(caught.value) == (
        f'Conflict. The container name "/box" is already in use by container "{record.id}". You have to remove '
        "(or rename) that container to be able to reuse that name."
    )


def test_a_removed_container_leaves_nothing_and_gives_its_name_back(records: Records, layout: Layout) -> None:
    before = everything(layout)
    remove(records, make(records, "box"))
    assert everything(layout) == before
    make(records, "box")


@pytest.mark.parametrize("name", ["a", "-box", "_box", ".box", "bo x", "bo/x", "böx", "", "x" * 256])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed"):
        check_name(name)


def test_random_names_get_a_number_when_the_plain_ones_are_taken() -> None:
    assert random_name(lambda name: True).count("_") == 1
    assert random_name(lambda name: name[-1].isdigit())[-1].isdigit()


def test_short_ids_never_pass_for_numbers() -> None:
    assert not any(new_id()[:12].isdigit() for _ in range(2000))


def test_a_container_being_made_is_not_seen_but_its_name_is_taken(records: Records, layout: Layout) -> None:
    container_id = new_id()
    creation = records.begin(container_id, "box", durable=True)
    assert records.ids() == []
    with pytest.raises(NotFound):
        records.get("box")
    with pytest.raises(Conflict):
        records.begin(new_id(), "box", durable=True)
    creation.commit(blank(container_id, "box"), {}).release()
    assert records.get("box").id == container_id


def test_an_unfinished_create_is_left_alone_while_its_command_lives(records: Records, layout: Layout) -> None:
    creation = records.begin(new_id(), "box", durable=False)
    (paths,) = records.leftovers()
    assert records.adopt(paths) is None
    creation.release()  # as the kernel does when the command is killed
    lock = records.adopt(paths)
    assert lock is not None
    records.finish_removal(paths)
    lock.release()
    records.release_stale_names()
    assert everything(layout) == []


@pytest.mark.parametrize("place", ["creating", "removing"])
def test_an_unfinished_directory_without_anything_in_it_goes_at_once(
    records: Records, layout: Layout, place: str
) -> None:
    """A create that was killed before its lock, or a remove that is about to take its last step.

    A lock file that was made here would be in the way of that step.
    """
    paths = getattr(layout, place)(new_id())
    os.mkdir(paths.directory)
    assert records.adopt(paths) is None
    assert not os.path.exists(paths.directory)


def test_stale_names_are_taken_over(records: Records, layout: Layout) -> None:
    for name, owner in (("gone", new_id()), ("torn", ""), (".tmp-1-2", "x")):
        Path(layout.name(name)).write_text(owner)
    make(records, "gone")
    records.release_stale_names()
    assert os.listdir(layout.names) == ["gone"]


def test_a_claim_that_the_record_does_not_confirm_is_stale(records: Records, layout: Layout) -> None:
    record = make(records, "box")
    Path(layout.name("other")).write_text(record.id)
    with pytest.raises(NotFound):
        records.get("other")
    assert make(records, "other").name == "other"


def test_a_torn_record_is_shown_as_broken(records: Records, layout: Layout) -> None:
    record = make(records, "box")
    Path(layout.container(record.id).record).write_bytes(b'{"schema": 1, "id"')
    found = records.get(record.id)
    assert found.broken
    assert found.name == record.id[:12]


def test_the_lock_of_a_container_that_is_gone(records: Records) -> None:
    record = make(records)
    remove(records, record)
    with pytest.raises(NotFound):
        records.lock(record.id)


def test_who_waits_for_the_lock_of_a_container_that_goes_is_told_so(records: Records) -> None:
    record = make(records)
    lock = records.lock(record.id)
    found: list[Exception] = []

    def wait() -> None:
        try:
            records.lock(record.id).release()
        except NotFound as e:
            found.append(e)

    waiter = threading.Thread(target=wait)
    waiter.start()
    paths = records.begin_removal(lock)
    records.finish_removal(paths)
    lock.release()
    waiter.join(patience(60))
    assert len(found) == 1


def test_a_lock_that_is_held_names_its_holder(records: Records, layout: Layout) -> None:
    record = make(records)
    with records.lock(record.id), pytest.raises(Conflict, match=f"process {os.getpid()} is changing it"):
        locks.RecordLock.acquire(layout.container(record.id), 0.05)


def test_a_killed_holder_holds_nothing(records: Records, layout: Layout) -> None:
    record = make(records)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sampan.store.layout import Layout\nfrom sampan.store.locks import RecordLock\n"
        "lock = RecordLock.acquire(Layout(sys.argv[2], sys.argv[3]).container(sys.argv[4]))\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(SRC), layout.root, layout.run_root, record.id]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert locks.RecordLock.attempt(layout.container(record.id)) is None
        holder.kill()
        holder.wait()
    records.lock(record.id).release()


def test_threads_that_want_one_name_get_it_once(records: Records) -> None:
    won: list[str] = []
    lost: list[Exception] = []

    def want() -> None:
        try:
            won.append(make(records, "box").id)
        except Conflict as e:
            lost.append(e)

    threads = [threading.Thread(target=want) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 11
    assert records.get("box").id == won[0]


def test_creates_and_removes_beside_listings(records: Records, layout: Layout) -> None:
    """Readers see whole containers or none, and never a name of another one."""
    stop = threading.Event()
    seen: list[Exception | str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                for container_id in records.ids():
                    record = records.try_read(container_id)
                    if record is not None and record.broken:
                        seen.append(record.broken)
            except Exception as e:
                seen.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(60):
        remove(records, make(records, "box"))
    stop.set()
    reader.join()
    assert seen == []


# The files of a start


def test_a_start_that_finds_no_room_leaves_no_trace(records: Records, layout: Layout) -> None:
    paths = layout.container(make(records).id)
    os.mkdir(paths.start(1).directory)
    Path(paths.start(1).exit).write_text("{}")
    os.symlink("/nonexistent/x", f"{paths.starts}/2")  # the rename fails: ENOTDIR
    with pytest.raises(NotADirectoryError):
        states.begin_start(paths, 2, Trace())
    assert sorted(os.listdir(paths.starts)) == ["1", "2"]


def test_a_record_is_changed_as_a_whole(records: Records, layout: Layout) -> None:
    record = make(records, "box")
    seen: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = records.read(record.id)
            seen.append(found.broken or str(len(found.image_ref)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(50):
            for length in (20_000, 10):
                with records.lock(record.id) as lock:
                    records.change(lock, record.replace(image_ref="x" * length))
    finally:
        done.set()
        reader.join()
    assert set(seen) <= {"0", "10", "20000"}
    assert records.read(record.id).image_ref == "x" * 10
    assert [n for n in os.listdir(layout.container(record.id).directory) if n.startswith(".tmp")] == []


def test_what_is_gone_is_not_changed(records: Records) -> None:
    record = make(records, "box")
    with records.lock(record.id) as lock:
        records.finish_removal(records.begin_removal(lock))
        with pytest.raises(NotFound):
            records.change(lock, record)


def test_another_name(records: Records, layout: Layout) -> None:
    record, other = make(records, "box"), make(records, "other")
    with records.lock(record.id) as lock:
        with pytest.raises(Conflict, match=f'"/other" is already in use by container "{other.id}"'):
            records.rename(lock, "/other")
        with pytest.raises(InvalidParameter, match=r"Invalid container name \(/a b\)"):
            records.rename(lock, "/a b")
        assert records.rename(lock, "/new") == record.replace(name="new")
    assert records.get("new").id == record.id
    with pytest.raises(NotFound):
        records.get("box")
    assert sorted(os.listdir(layout.names)) == ["new", "other"]
    make(records, "box")


def test_a_name_that_cannot_be_written_down_stays_free(records: Records, layout: Layout) -> None:
    record = make(records, "box")

    def refuse(event: Event) -> None:
        if event.text.startswith("write record") and not event.finished:
            raise OSError(28, "No space left on device")

    with records.lock(record.id) as lock, pytest.raises(OSError, match="No space"):
        Records(layout, Trace(refuse)).rename(lock, "new")
    assert records.get("box") == record
    assert os.listdir(layout.names) == ["box"]


def test_many_want_one_name(records: Records, layout: Layout) -> None:
    made = [make(records) for _ in range(8)]
    won: list[str] = []

    def rename(record: Record) -> None:
        with records.lock(record.id) as lock:
            try:
                won.append(records.rename(lock, "prize").id)
            except Conflict:
                pass

    threads = [threading.Thread(target=rename, args=(record,)) for record in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [records.get("prize").id] == won
    assert len(os.listdir(layout.names)) == 8


def test_the_exit_file_has_its_space_before_anything_runs(records: Records, layout: Layout) -> None:
    paths = layout.container(make(records).id)
    start = states.begin_start(paths, 1, Trace())
    assert os.stat(start.reserved_exit).st_blocks * 512 >= 4096
    ended = states.write_exit(start, 255, "", False, Trace())
    assert not os.path.exists(start.reserved_exit)
    assert states.read_json(start.exit) == ended
    assert states.observe(paths).status == lifecycle.EXITED


def test_old_starts_are_forgotten_but_the_last_that_ran(records: Records, layout: Layout) -> None:
    paths = layout.container(make(records).id)
    for number, failed in ((1, False), (2, False), (3, True), (4, True)):
        states.write_exit(states.begin_start(paths, number, Trace()), 0, "", failed, Trace())
    states.forget_old_starts(paths, 4, Trace())
    assert sorted(os.listdir(paths.starts)) == ["2", "4"]
    assert states.earlier_success(paths, 4) == 2


def test_the_intent_to_stop_is_written_once(records: Records, layout: Layout) -> None:
    paths = layout.container(make(records).id)
    start = states.begin_start(paths, 1, Trace())
    states.write_stopping(start, 15, Trace())
    states.write_stopping(start, 9, Trace())
    assert json.loads(Path(start.stopping).read_text())["signal"] == 15
    # What only means something to the program takes nothing back; a restart and a stop replace each other.
    states.write_stopping(start, 1, Trace(), final=False)
    intent = states.observe(paths, holding=True).intent
    assert intent is not None
    assert (intent["signal"], intent["final"], intent["again"]) == (15, True, False)
    states.write_stopping(start, 10, Trace(), again=True)
    states.write_stopping(start, 9, Trace())
    intent = states.observe(paths, holding=True).intent
    assert intent is not None
    assert (intent["signal"], intent["again"]) == (9, False)


def test_a_start_says_from_the_first_moment_whether_a_policy_made_it(records: Records, layout: Layout) -> None:
    paths = layout.container(make(records).id)
    due = {"count": 3, "delay": 0.4}
    first = states.begin_start(paths, 1, Trace())
    states.write_exit(first, 5, "", False, Trace(), due)
    seen = states.observe(paths)
    assert (seen.status, seen.restart["count"], states.restarts(paths, seen)) == (lifecycle.RESTARTING, 3, 3)
    killed = Path(paths.draft().directory)
    killed.mkdir()
    (killed / "restarted").write_text("{}")
    states.begin_start(paths, 2, Trace(), seen.restart)
    assert states.restarts(paths, states.observe(paths)) == 3
    assert sorted(os.listdir(paths.starts)) == ["1", "2"]


def test_a_restart_that_was_cancelled_or_outlived_by_a_reboot_is_none(records: Records, layout: Layout) -> None:
    paths = layout.container(make(records).id)
    start = states.begin_start(paths, 1, Trace())
    states.write_exit(start, 5, "", False, Trace(), {"count": 1, "delay": 0.1})
    ended = json.loads(Path(start.exit).read_text())
    states.write_stopping(start, 1, Trace(), final=False)
    assert states.observe(paths).orphaned
    states.write_stopping(start, 15, Trace())
    assert states.observe(paths).status == lifecycle.EXITED
    states.write_stopping(start, 15, Trace(), again=True)
    assert states.observe(paths).orphaned
    Path(start.exit).write_text(json.dumps({**ended, "restart": {**ended["restart"], "boot": "another"}}))
    assert states.observe(paths).status == lifecycle.EXITED


def test_lost_or_starting_is_a_question_of_the_record_lock(records: Records, layout: Layout) -> None:
    record = make(records)
    paths = layout.container(record.id)
    with records.lock(record.id):
        states.begin_start(paths, 1, Trace())
        assert states.observe(paths).status == lifecycle.STARTING
        assert states.observe(paths, holding=True).status == lifecycle.LOST
    assert states.observe(paths).status == lifecycle.LOST


@pytest.mark.parametrize("place", ["/dev/null", "/proc/sampan"])
def test_a_root_that_cannot_be_is_told_in_one_line(place: str, tmp_path: Path) -> None:
    with pytest.raises(System, match=rf"^mkdir {place}: .*: choose another place with --root and --run-root$"):
        Layout(place, str(tmp_path)).make(Trace())


def test_adopting_never_keeps_a_remover_from_its_last_step(layout: Layout) -> None:
    """Between the adopter's look at the lock file and its taking it, the remover may have removed it."""
    records = Records(layout, Trace())
    for number in range(400):
        paths = layout.removing(f"{number:064x}")
        os.mkdir(paths.directory)
        Path(paths.record_lock).touch()
        errors: list[BaseException] = []

        def remove(paths: ContainerPaths = paths, errors: list[BaseException] = errors) -> None:
            try:
                records.finish_removal(paths)
            except OSError as e:
                errors.append(e)

        remover = threading.Thread(target=remove)
        remover.start()
        lock = records.adopt(paths)
        remover.join()
        if lock is not None:
            lock.release()
        assert errors == []
        assert not os.path.exists(paths.directory)


READERS = """
import sys, time; sys.path.insert(0, sys.argv[1])
from sampan.store.locks import acquire_in_turn
print("there", flush=True)
while True:
    with acquire_in_turn(sys.argv[2], 60, True):
        time.sleep(0.02)
"""


def test_readers_that_come_and_go_do_not_keep_a_writer_out(layout: Layout) -> None:
    argv = [sys.executable, "-c", READERS, str(SRC), layout.images_lock]
    readers = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(8)]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"there\n"
        for _ in range(3):
            with locks.acquire_in_turn(layout.images_lock, 20, shared=False):
                pass
        assert all(reader.poll() is None for reader in readers)
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def test_who_holds_a_shared_lock_for_long_keeps_no_reader_out(layout: Layout) -> None:
    outcome: list[object] = []

    def want_it_alone() -> None:
        try:
            locks.acquire_in_turn(layout.images_lock, 3.0, shared=False)
        except BlockingIOError as e:
            outcome.append(e)

    with locks.acquire_in_turn(layout.images_lock, 1, shared=True):
        writer = threading.Thread(target=want_it_alone)
        writer.start()
        for _ in range(3):
            locks.acquire_in_turn(layout.images_lock, 1, shared=True).release()
        writer.join(patience(60))
    assert len(outcome) == 1
    locks.acquire_in_turn(layout.images_lock, 0.1, shared=False).release()
