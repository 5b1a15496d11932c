"""`import`: an archive becomes an image, whatever it is packed with; a bad one leaves nothing."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from sampan.errors import InvalidParameter, System
from sampan.oci.digest import of_bytes
from sampan.steps.trace import Event
from sampan.store.vfs import VfsSnapshotter

from support.imagestore import Store, archive, disk

TAR = archive({"bin": None, "bin/sh": b"#!", "odd\udcff": b"x" * 5000, "empty": b""})

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def imported(store: Store, data: bytes, *args: str, **options: object) -> str:
    return store.images.import_(io.BytesIO(data), *args, **options)  # type: ignore[arg-type]


def test_an_archive_becomes_an_image_of_one_layer(store: Store) -> None:
    image_id = imported(store, TAR, "debian:12", ['CMD ["sh"]', "ENV A=1"], "why", "linux/arm64")
    shown = store.images.inspect("debian:12")
    assert shown["Id"] == image_id
    assert shown["RepoTags"] == ["debian:12"]
    assert shown["Comment"] == "why"
    assert (shown["Architecture"], shown["Os"]) == ("arm64", "linux")
    assert (shown["Config"]["Cmd"], shown["Config"]["Env"]) == (["sh"], ["A=1"])
    assert shown["RootFS"] == {"Type": "layers", "Layers": [of_bytes(TAR)]}
    assert shown["Size"] == 5002
    image = store.images.resolve("debian:12")
    assert image.layers == (of_bytes(TAR),)
    assert image.document["history"] == [{"created": shown["Created"], "comment": "why"}]
    diff = Path(store.layout.layers) / image.layers[0].removeprefix("sha256:") / "diff"
    assert (diff / "odd\udcff").read_bytes() == b"x" * 5000
    # The blob is the plain archive, so that its digest is the layer's diff id.
    assert store.content.read(of_bytes(TAR), 1 << 20) == TAR
    assert store.files() == store.reachable()


def test_nothing_needs_to_be_said(store: Store) -> None:
    image_id = imported(store, TAR)
    shown = store.images.inspect(image_id)
    assert (shown["RepoTags"], shown["RepoDigests"], shown["Comment"]) == ([], [], "Imported from -")
    assert shown["Config"]["Cmd"] is None
    assert [item["Id"] for item in store.images.list(dangling=True)] == [image_id]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress, bytes])
def test_packed_archives_have_the_same_layer(store: Store, pack: object) -> None:
    imported(store, pack(TAR), "a")  # type: ignore[operator]
    assert store.images.resolve("a").diff_ids == (of_bytes(TAR),)
    assert store.files() == store.reachable()


def test_what_comes_behind_the_end_mark_belongs_to_the_layer(store: Store) -> None:
    data = TAR + bytes(20 * 512) + b"behind"
    imported(store, data, "a")
    assert store.images.resolve("a").diff_ids == (of_bytes(data),)


def test_an_empty_archive_is_an_empty_layer(store: Store) -> None:
    # As dockerd has it.
    assert store.images.inspect(imported(store, b""))["Size"] == 0
    assert store.images.inspect(imported(store, bytes(1024)))["Size"] == 0


def test_a_pipe_is_read_to_its_end(store: Store) -> None:
    class Slow(io.RawIOBase):
        """Gives a few bytes at a time, as a pipe may."""

        def __init__(self) -> None:
            self.left = TAR

        def read(self, size: int = -1) -> bytes:
            data, self.left = self.left[: min(size, 7)], self.left[min(size, 7) :]
            return data

    store.images.import_(Slow(), "slow")  # type: ignore[arg-type]
    assert store.images.resolve("slow").diff_ids == (of_bytes(TAR),)


BIG = archive({f"f{i}": os.urandom(3000) for i in range(20)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BIG[: len(BIG) // 2], "(?i)error processing tar file.*unexpected EOF"),
        (BIG[:100], "(?i)error processing tar file.*unexpected EOF"),
        (b"hello\n", "(?i)error processing tar file.*unexpected EOF"),
        (gzip.compress(BIG)[:-9], "(?i)error processing tar file.*unexpected EOF"),
        (zstandard.compress(BIG)[:-9], "(?i)error processing tar file.*unexpected EOF"),
        (gzip.compress(BIG)[:-8] + b"\0" * 8, "(?i)error processing tar file"),
        (gzip.compress(BIG[: len(BIG) // 2]), "(?i)error processing tar file.*unexpected EOF"),
        (BIG[:3584] + b"\xff" * 512 + BIG[4096:], "(?i)error processing tar file"),
        (archive({"a/../../etc/x": b""}), "(?i)error processing tar file"),
    ],
)
def test_a_bad_archive_leaves_nothing(store: Store, data: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        imported(store, data, "bad")
    assert store.files() == []
    assert store.images.find("bad") is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("Foo",), "invalid reference format: repository name (library/Foo) must be lowercase"),
        (("a b",), "invalid reference format"),
        (("a@sha256:" + "a" * 64,), "cannot import digest reference"),
        (("a", ["RUN x"]), "RUN is not a valid change command"),
        (
            ("a", [], "", "a/b/c/d"),
            '"a/b/c/d": cannot parse platform specifier: use os/architecture[/variant], as in linux/amd64',
        ),
        (
            ("a", [], "", "a b/c"),
            '"a b" is an invalid component of "a b/c": platform specifier component must match '
            '"^[A-Za-z0-9_.-]+$": use os/architecture[/variant], as in linux/amd64',
        ),
        (("a", [], "", "plan9/amd64"), "operating system is not supported"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_read(store: Store, args: tuple[str], message: str) -> None:
    stream = io.BytesIO(TAR)
    with pytest.raises(InvalidParameter) as error:
        store.images.import_(stream, *args)
    assert str(error.value) == message
    assert stream.tell() == 0
    assert store.files() == []


def test_a_name_moves_to_the_new_image_and_the_old_one_stays(store: Store) -> None:
    first = imported(store, TAR, "a")
    second = imported(store, BIG, "a")
    assert store.images.resolve("a").id == second
    assert {item["Id"]: item["RepoTags"] for item in store.images.list()} == {first: [], second: ["a:latest"]}


def test_a_stream_that_fails_leaves_nothing(store: Store) -> None:
    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self.stream = io.BytesIO(BIG)

        def read(self, size: int = -1) -> bytes:
            if self.stream.tell() > len(BIG) // 2:
                raise OSError(5, "Input/output error")
            return self.stream.read(min(size, 1000))

    with pytest.raises(System, match=r"(?i)error processing tar file.*input/output error"):
        store.images.import_(Broken(), "a")  # type: ignore[arg-type]
    assert store.files() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    with disk(tmp_path / "disk", "3m") as place:
        yield place


def _fill(ballast: Path, leave: int = 0) -> None:
    """Use up what is free on a disk, but for `leave` bytes."""
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() - leave))


@pytest.mark.parametrize("size", [2_000_000, 4_000_000])
def test_a_full_disk_is_told_and_leaves_nothing(small_disk: Path, size: int) -> None:
    """It fills up while the layer is written, in the second file or in the first."""
    store = Store(small_disk)
    with pytest.raises(System, match="no space left on device"):
        imported(store, archive({"a": b"a" * size, "b": b"b" * size}), "a")
    assert store.files() == []
    imported(store, archive({"a": b"a" * 100_000}), "a")
    assert store.files() == store.reachable()


def test_a_name_that_does_not_fit_on_the_disk_is_not_given(small_disk: Path) -> None:
    store = Store(small_disk)
    imported(store, archive({"a": b"a"}), "a")
    _fill(small_disk / "ballast")
    before = store.files()
    with pytest.raises(System, match=r"^write .*: no space left on device"):
        store.images.tag("a", "b")
    assert store.files() == before
    # And a removal needs no space.
    store.images.remove("a")
    assert store.files() == []


@pytest.mark.parametrize("pages", range(12))
def test_a_disk_that_is_full_somewhere_near_the_end_leaves_nothing(small_disk: Path, pages: int) -> None:
    """The archive has been read, and then the layer's record, a document, a name or nothing at all does not fit."""
    store = Store(small_disk)
    ballast = small_disk / "ballast"

    class Filling(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            if not found and not ballast.exists():
                _fill(ballast, leave=pages * 4096)
            return found

    stream = Filling(archive({"a": b"a" * 1000}))
    if pages < 4:
        with pytest.raises(System, match="no space left on device"):
            store.images.import_(stream, "a")
        assert store.files() == []
    elif _fits(lambda: store.images.import_(stream, "a")):
        assert store.files() == store.reachable() != []
    else:
        assert store.files() == []


def _fits(action: Callable[[], object]) -> bool:
    try:
        action()
    except System:
        return False
    return True


def test_many_at_once_end_in_one_store_that_holds_together(store: Store) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(5):
                imported(Store(store.directory), TAR, name, [f"LABEL by={name}"])
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for _ in range(10):
        store.images.collect()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {tag for item in store.images.list() for tag in item["RepoTags"]} == {"a:latest", "b:latest", "c:latest"}
    assert store.files() == store.reachable()


@pytest.mark.parametrize("when", ["rename", "sync directory"])
def test_a_layer_that_is_joined_may_be_collected_before_and_after(tmp_path: Path, when: str) -> None:
    """Its directory is there without its files, as a pull or a cache leaves it, and goes while they are put there."""
    removals: list[str] = []
    layer = ""

    def collect(event: Event) -> None:
        if layer and not removals and event.text.startswith(when) and event.text.endswith(layer):
            removals.append(event.text)
            shutil.rmtree(layer.removesuffix("/diff"))

    store = Store(tmp_path, collect)
    imported(store, TAR, "a")
    (chain_id,) = store.snapshots.layers()
    place = f"{store.layout.layers}/{chain_id.removeprefix('sha256:')}"
    shutil.rmtree(f"{place}/diff")
    layer = f"{place}/diff" if when == "rename" else place
    imported(store, TAR, "b")
    assert len(removals) == 1
    assert store.images.resolve("b").diff_ids == (of_bytes(TAR),)
    assert store.files() == store.reachable()


def test_an_import_and_a_removal_of_the_same_layer_do_not_meet(store: Store) -> None:
    """The layer may be collected between its unpacking and its naming: then it is unpacked again from its blob."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def churn() -> None:
        try:
            while not stop.is_set():
                imported(Store(store.directory), TAR, "churn")
                store.images.remove("churn")
        except BaseException as e:
            failures.append(e)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for i in range(10):
            imported(store, TAR, "kept", [f"LABEL i={i}"])
            image = store.images.resolve("kept")
            assert all(store.snapshots.has(chain_id) for chain_id in image.layers)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    store.images.collect()
    assert store.files() == store.reachable()


def test_the_archive_may_be_larger_than_memory_would_like(store: Store) -> None:
    """What is held is a few chunks: measured by what the allocator was asked for at most."""
    import tracemalloc

    class Zeros(io.RawIOBase):
        """A tar of one file of 256 MiB that exists nowhere."""

        def __init__(self) -> None:
            entry = tarfile.TarInfo("zeros")
            entry.size = 256 << 20
            self.head = entry.tobuf()
            self.left = entry.size + 1024

        def read(self, size: int = -1) -> bytes:
            if self.head:
                data, self.head = self.head[:size], self.head[size:]
                return data
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    tracemalloc.start()
    try:
        store.images.import_(Zeros(), "zeros")  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert store.images.inspect("zeros")["Size"] == 256 << 20


def test_plain_copies_are_served_alike(tmp_path: Path) -> None:
    store = Store(tmp_path, kind=VfsSnapshotter)
    imported(store, TAR, "a")
    image = store.images.resolve("a")
    assert store.images.inspect("a")["GraphDriver"]["Name"] == "vfs"
    assert store.images.list()[0]["Size"] == 5002
    store.snapshots.remove_layer(image.layers[0])
    assert store.images.ensure_unpacked(image) == image.layers
    assert store.images.remove("a")[-1] == {"Deleted": image.layers[0]}
    assert store.files() == []
