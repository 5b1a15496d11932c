"""The content store: whole blobs or none, verified whenever they are used, by any number of writers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter, NotFound, System
from sampan.oci.image import OCI_MANIFEST, Descriptor
from sampan.steps.trace import Event, Trace
from sampan.store.content import ContentStore
from sampan.store.images import ImageNames, NameRecord, StoreLock

DATA = b"some content\n" * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def store(tmp_path: Path, events: list[Event]) -> ContentStore:
    for name in ("sha256", "ingest"):
        (tmp_path / name).mkdir()
    return ContentStore(str(tmp_path), Trace(events.append))


def left(store: ContentStore) -> list[str]:
    return sorted(os.listdir(f"{store.directory}/sha256") + os.listdir(f"{store.directory}/ingest"))


def test_a_blob_is_named_by_its_bytes(store: ContentStore, events: list[Event]) -> None:
    with store.writer() as ingest:
        for start in range(0, len(DATA), 100):
            ingest.write(DATA[start : start + 100])
        assert store.list() == []
        assert ingest.commit(DIGEST) == (DIGEST, len(DATA))
    assert left(store) == [DIGEST.removeprefix("sha256:")]
    assert store.list() == [DIGEST]
    assert store.exists(DIGEST)
    assert store.size(DIGEST) == len(DATA)
    assert store.read(DIGEST, 1 << 20) == DATA
    assert oct(os.stat(store.path(DIGEST)).st_mode & 0o777) == "0o600"
    # Named only when its bytes are on the disk.
    texts = [e.text.split()[0:2] for e in events if e.finished]
    assert texts == [["make", "ingest"], ["sync", "blob"], ["name", "blob"]]


def test_what_is_not_committed_is_gone(store: ContentStore) -> None:
    with store.writer() as ingest:
        ingest.write(DATA)
    assert left(store) == []
    with pytest.raises(ValueError, match="closed"):
        ingest.write(DATA)
    with pytest.raises(ValueError, match="closed"):
        ingest.commit()


def test_a_wrong_digest_leaves_nothing(store: ContentStore) -> None:
    with store.writer() as ingest:
        ingest.write(DATA + b"x")
        with pytest.raises(InvalidParameter, match=f"expected {DIGEST}"):
            ingest.commit(DIGEST)
    assert left(store) == []


def test_a_blob_that_was_changed_is_not_used(store: ContentStore) -> None:
    store.add(DATA)
    Path(store.path(DIGEST)).write_bytes(b"X" + DATA[1:])
    with pytest.raises(InvalidParameter, match="unexpected digest"):
        store.read(DIGEST, 1 << 20)
    with store.open_verified(DIGEST) as blob:
        assert blob.read(10) == b"Xome conte"
        with pytest.raises(InvalidParameter, match="unexpected digest"):
            blob.drain()
    # And it is whole again when it comes in again.
    store.add(DATA)
    assert store.read(DIGEST, 1 << 20) == DATA


def test_a_verified_blob_is_read_in_any_pieces(store: ContentStore) -> None:
    store.add(DATA)
    with store.open_verified(DIGEST) as blob:
        assert blob.read(0) == b""
        assert blob.read(3) + blob.read(-1) == DATA
        assert blob.read(1) == blob.read() == b""
    with store.open_verified(DIGEST) as blob:
        blob.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        blob.read(1)


def test_a_blob_that_is_too_large_or_absent_is_told(store: ContentStore) -> None:
    store.add(DATA)
    with pytest.raises(InvalidParameter, match="File too large"):
        store.read(DIGEST, len(DATA) - 1)
    store.delete(DIGEST)
    store.delete(DIGEST)
    for use in (lambda: store.read(DIGEST, 1), lambda: store.open_verified(DIGEST), lambda: store.size(DIGEST)):
        with pytest.raises(NotFound, match=f"content {DIGEST} is not in the store"):
            use()


@pytest.mark.parametrize("name", ["../../../etc/passwd", "sha256:..", "sha256:" + "/" * 64, "sha512:" + "a" * 128])
def test_no_name_leads_out_of_the_store(store: ContentStore, name: str) -> None:
    with pytest.raises(InvalidParameter):
        store.path(name)


def test_what_a_killed_writer_left_is_collected_and_a_living_ones_is_not(store: ContentStore) -> None:
    with store.writer() as living:
        living.write(b"living")
        Path(f"{store.directory}/ingest/dead").write_bytes(b"dead")
        assert store.collect_ingests() == 1
        assert store.collect_ingests() == 0
        digest, _ = living.commit()
    assert store.list() == [digest]


WRITER = """
import sys
from sampan.steps.trace import Trace
from sampan.store.content import ContentStore
store = ContentStore(sys.argv[1], Trace())
for _ in range(50):
    with store.writer() as ingest:
        ingest.write(b"some content\\n" * 1000)
        digest, _ = ingest.commit()
    assert store.read(digest, 1 << 20) == b"some content\\n" * 1000
"""


def test_processes_that_write_the_same_do_not_disturb_each_other(store: ContentStore) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITER, store.directory]) for _ in range(3)]
    while any(process.poll() is None for process in running):
        store.collect_ingests()
    assert [process.returncode for process in running] == [0, 0, 0]
    assert left(store) == [DIGEST.removeprefix("sha256:")]


# Names

RECORD = NameRecord("docker.io/library/a:b", Descriptor(OCI_MANIFEST, DIGEST, 7), DIGEST, "2026-01-01T00:00:00Z")


@pytest.fixture
def names(tmp_path: Path) -> ImageNames:
    (tmp_path / "images").mkdir()
    return ImageNames(str(tmp_path / "images"), Trace())


def test_a_name_is_kept_and_forgotten(names: ImageNames) -> None:
    assert names.get(RECORD.reference) is None
    names.set(RECORD)
    names.set(RECORD.replace(reference=DIGEST))
    assert names.get(RECORD.reference) == RECORD
    assert not RECORD.is_image
    assert [r.reference for r in names.list() if r.is_image] == [DIGEST]
    assert len(names.list()) == 2
    names.delete(RECORD.reference)
    names.delete(RECORD.reference)
    assert names.get(RECORD.reference) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        RECORD.to_bytes()[:-5],
        RECORD.replace(image="x").to_bytes(),
        RECORD.replace(reference="y").to_bytes(),
        RECORD.to_bytes() + b" " * 70000,
    ],
)
def test_a_damaged_record_says_where_it_is(names: ImageNames, data: bytes) -> None:
    Path(names.path(RECORD.reference)).write_bytes(data)
    with pytest.raises(System, match=f"image record {names.path(RECORD.reference)} is damaged .* remove the file"):
        names.get(RECORD.reference)


def test_what_a_killed_tag_left_is_no_name(names: ImageNames) -> None:
    Path(f"{names.directory}/.tmp-1-abc").write_bytes(b"{")
    assert names.list() == []
    assert names.collect() == 1
    assert os.listdir(names.directory) == []


def test_the_lock_is_shared_by_those_who_add_and_not_by_who_deletes(tmp_path: Path) -> None:
    lock = StoreLock(str(tmp_path / "lock"))
    with lock.shared(), lock.shared():
        assert lock.exclusive_now() is None
    with lock.exclusive():
        assert lock.exclusive_now() is None
    alone = lock.exclusive_now()
    assert alone is not None
    alone.release()
    with lock.making("base"), lock.exclusive():
        assert sorted(os.listdir(tmp_path)) == ["lock", "making-base.lock"]
