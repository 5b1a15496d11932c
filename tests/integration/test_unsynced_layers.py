"""What a build adds and does not sync at once: there for everybody, until the machine goes down without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sampan.errors import NotFound
from sampan.kernel import clock
from sampan.store.content import ContentStore
from sampan.store.tarstream import TarEntry

from support.archives import member
from support.failing import failing
from support.snapshots import Store

if TYPE_CHECKING:
    from sampan.store.layerwriter import Writer

pytestmark = pytest.mark.root

__all__ = ["failing"]

_OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, "overlay")
    yield made
    assert made.leftovers() == []


def _content(top: Path, store: Store) -> ContentStore:
    for name in ("sha256", "ingest"):
        (top / "content" / name).mkdir(parents=True)
    return ContentStore(str(top / "content"), store.trace)


@pytest.fixture
def write(store: Store, tmp_path: Path) -> Callable[[str], str]:
    """Add a layer of one file, as a COPY does; its chain id."""
    content = _content(tmp_path, store)

    def write(text: str) -> str:
        def fill(writer: Writer) -> None:
            entry = TarEntry(b"file", size=len(text))
            writer.add(entry, text.encode())

        with content.writer() as sink:
            return store.snapshotter.write((), sink, 1 << 60, fill, False).chain_id

    return write


def _mark(store: Store, chain_id: str) -> Path:
    return Path(store.snapshotter.layer_path(chain_id)) / "unsynced"


def _reboot(store: Store, chain_id: str) -> None:
    """The machine went down: the name was on the disk, and of the file nothing."""
    mark = _mark(store, chain_id)
    mark.unlink()
    mark.symlink_to(_OTHER_BOOT)
    (mark.parent / "diff/file").write_bytes(b"")


def test_it_is_there_at_once_and_marked_until_it_is_synced(store: Store, write: Callable[[str], str]) -> None:
    chain_id = write("text")
    assert store.snapshotter.has(chain_id)
    assert os.readlink(_mark(store, chain_id)) == clock.boot_id()
    assert store.snapshotter.sync([chain_id]) == store.layers.stat().st_dev
    assert not os.path.lexists(_mark(store, chain_id))
    assert store.snapshotter.has(chain_id)
    # A second time there is nothing to do, nor for what was unpacked.
    assert store.snapshotter.sync([chain_id, *store.image(member(b"x", b"y"))]) == -1


def test_what_the_machine_went_down_with_is_not_there_and_is_made_anew(
    store: Store, write: Callable[[str], str]
) -> None:
    chain_id = write("text")
    store.snapshotter.create("c" * 64, [chain_id])
    store.snapshotter.remove("c" * 64)
    _reboot(store, chain_id)
    assert not store.snapshotter.has(chain_id)
    with pytest.raises(NotFound):
        store.snapshotter.create("d" * 64, [chain_id])
    assert write("text") == chain_id
    assert store.snapshotter.has(chain_id)
    assert not os.path.lexists(_mark(store, chain_id))
    assert (_mark(store, chain_id).parent / "diff/file").read_text() == "text"


def test_it_is_unpacked_anew_as_well(store: Store, write: Callable[[str], str]) -> None:
    (chain_id,) = store.image(member(b"file", b"text"))
    _mark(store, chain_id).symlink_to(_OTHER_BOOT)
    (_mark(store, chain_id).parent / "diff/file").write_bytes(b"")
    assert store.image(member(b"file", b"text")) == [chain_id]
    assert store.snapshotter.has(chain_id)
    assert (_mark(store, chain_id).parent / "diff/file").read_text() == "text"


@pytest.mark.parametrize("done", ["nothing", "moved away", "moved in"])
def test_who_was_killed_while_making_it_anew_keeps_nobody(store: Store, write: Callable[[str], str], done: str) -> None:
    chain_id = write("text")
    _reboot(store, chain_id)
    diff = _mark(store, chain_id).parent / "diff"
    if done != "nothing":
        diff.rename(store.layers.parent / "lost")
    if done == "moved in":
        diff.mkdir()
        (diff / "file").write_text("text")
    assert not store.snapshotter.has(chain_id)
    assert write("text") == chain_id
    assert store.snapshotter.has(chain_id)
    assert (diff / "file").read_text() == "text"


def test_what_could_not_be_synced_is_found_by_nobody(failing: Path, tmp_path: Path) -> None:
    store = Store(failing, "overlay")

    def fill(writer: Writer) -> None:
        data = os.urandom(8 << 20)
        writer.add(TarEntry(b"file", size=len(data)), data)

    with _content(tmp_path, store).writer() as sink:
        chain_id = store.snapshotter.write((), sink, 1 << 60, fill, False).chain_id
    assert store.snapshotter.has(chain_id)
    with pytest.raises(OSError, match="Input/output error"):
        store.snapshotter.sync([chain_id])
    assert not store.snapshotter.has(chain_id)
