"""What containers, commands and kills do to the layers and parts of each snapshotter."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.kernel import mount
from sampan.oci.image import chain_ids
from sampan.steps.trace import Event

from support.archives import (
    END,
    directory,
    fingerprint,
    member,
    opaque,
    symlink,
    whiteout,
)
from support.snapshots import BASE, BELOW, ID, KINDS, Store, mounted, store, tree, without

__all__ = ["store"]

pytestmark = pytest.mark.root


# The init layer


def test_what_every_container_finds(store: Store) -> None:
    with store.container(member(b"etc/passwd", b"root"), directory(b"etc", mode=0o711, mtime=8)) as top:
        for name in ("dev/pts", "dev/shm", "proc", "sys"):
            assert stat.S_IMODE((top / name).stat().st_mode) == 0o755
        for name in (".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console"):
            assert (top / name).stat().st_size == 0
            assert stat.S_IMODE((top / name).stat().st_mode) == 0o755
        assert os.readlink(top / "etc/mtab") == "/proc/mounts"
        assert (top / "etc/passwd").read_text() == "root"
        assert stat.S_IMODE((top / "etc").stat().st_mode) == 0o711


def test_the_init_layer_against_hostile_images(store: Store, tmp_path: Path) -> None:
    """CVE-2026-41579 and its kind: every name that it writes is a link out, or of another kind, in the image."""
    outside = tmp_path / "outside"
    (outside / "shm").mkdir(parents=True)
    (outside / "hosts").write_text("host")
    before = fingerprint(outside)
    out = os.fsencode(outside)
    image = (
        symlink(b"etc", out)
        + symlink(b"dev", b"../../../../../../.." + out)
        + symlink(b"proc", out)
        + member(b"sys", b"a file")
        + symlink(b".dockerenv", out + b"/hosts")
    )
    with store.container(image) as top:
        assert set(os.listdir(top / "etc")) == {"hosts", "hostname", "resolv.conf", "mtab"}
        assert (top / "dev/shm").is_dir()
        assert not (top / "dev").is_symlink()
        assert not (top / "proc").is_symlink()
        assert (top / "sys").is_dir()
        assert (top / ".dockerenv").stat().st_size == 0
    assert fingerprint(outside) == before


def test_directories_where_files_belong_stay_as_with_docker(store: Store) -> None:
    image = member(b"etc/hosts/inside", b"x") + directory(b".dockerenv") + symlink(b"etc/mtab", b"/elsewhere")
    with store.container(image) as top:
        assert (top / "etc/hosts/inside").read_text() == "x"
        assert (top / ".dockerenv").is_dir()
        assert os.readlink(top / "etc/mtab") == "/proc/mounts"


_ETC = directory(b"etc", mode=0o701, uid=4, mtime=8) + member(b"etc/passwd", b"root") + directory(b"dev", mode=0o711)


@pytest.mark.parametrize(
    ("layers", "made"),
    [
        ([_ETC, member(b"x", b"1"), directory(b"d") + member(b"d/etc", b"2")], 1),
        ([member(b"x", b"1"), member(b"y", b"2")], 1),
        ([_ETC, member(b"x", b"1"), member(b"etc/shadow", b"s"), member(b"y", b"2")], 2),
        ([_ETC, whiteout(b"etc"), member(b"x", b"1")], 2),
        ([_ETC, opaque(b""), member(b"x", b"1")], 2),
        ([_ETC, whiteout(b"etc") + symlink(b"etc", b"/d"), directory(b"d")], 2),
        ([_ETC, member(b".dockerenv", b"x"), directory(b"sys", mode=0o700), directory(b"proc")], 4),
        ([directory(b"./", mode=0o750) + _ETC, directory(b"./", mode=0o710, uid=3) + member(b"x", b"1")], 1),
    ],
    ids=["plain", "without any", "a name", "deleted", "covered", "a link", "each", "root"],
)
def test_an_init_layer_serves_all_layers_that_leave_its_names_alone(
    tmp_path: Path, layers: list[bytes], made: int
) -> None:
    """Also where a name in it is deleted, covered or another thing above: what a container finds is what a copy of everything has."""
    shown = {}
    for kind in KINDS:
        store = Store(tmp_path / kind, kind)
        for number in range(1, len(layers) + 1):
            with store.container(*layers[:number]) as top:
                shown[kind, number] = {str(path.relative_to(top)): _seen(path.lstat()) for path in top.rglob("?*")}
                shown[kind, number]["/"] = _seen(top.stat())
                assert os.readlink(top / "etc/mtab") == "/proc/mounts"
        assert store.leftovers() == []
    for number in range(1, len(layers) + 1):
        assert shown["overlay", number] == shown["vfs", number]
    assert sum(path.is_dir() and not path.is_symlink() for path in (tmp_path / "overlay/layers").glob("*/init")) == made


def _seen(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def test_an_init_layer_that_went_with_its_layer_is_made_again(tmp_path: Path) -> None:
    """A cache that keeps the upper layers of a build lets go of the lower ones, which the next build brings back."""
    store = Store(tmp_path, "overlay")
    archives = (_ETC, member(b"x", b"1"), member(b"y", b"2"))
    with store.container(*archives):
        lowest = store.image(*archives)[0]
        link = next(path for path in store.layers.glob("*/init") if path.is_symlink())
    store.snapshotter.remove_layer(lowest)
    assert not link.exists()
    chain = store.image(*archives)
    store.snapshotter.create(ID, chain)
    assert all(os.path.isdir(place) and not os.path.islink(place) for place in store.snapshotter.root(ID, chain).lower)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        (top / "etc/hosts").write_text("changed")
        (top / "etc/passwd").unlink()
    changes = {(os.fsdecode(one.path), one.kind) for one in store.snapshotter.changes(ID, chain)}
    assert changes == {("etc", 0), ("etc/hosts", 0), ("etc/passwd", 2)}
    store.snapshotter.remove(ID)
    # What is damaged is exchanged below the link, and neither that nor what it leads to goes.
    assert (
        store.snapshotter.examine(chain, io.BytesIO(archives[-1] + END), store.snapshotter.info(chain[-1]).diff_id)
        == ""
    )
    with store.container(*archives) as top:
        assert (top / "etc/hosts").stat().st_size == 0


# Containers


def test_containers_share_layers_and_change_nothing_of_them(store: Store) -> None:
    chain = store.image(BASE, member(b"top", b"t"))
    snapshotter = store.snapshotter
    snapshotter.create(ID, chain)
    snapshotter.create("other", chain)
    before = fingerprint(store.layers)
    with mounted(snapshotter.root(ID, chain)) as top:
        (top / "d/one").write_text("changed")
        (top / "file").unlink()
        (top / "new").write_text("12345")
        (top / "d/sub/three").unlink()
    with mounted(snapshotter.root("other", chain)) as top:
        assert tree(top) == BELOW | {"top": "t"}
    assert fingerprint(store.layers) == before
    assert snapshotter.containers() == [ID, "other"]
    with mounted(snapshotter.root(ID, chain)) as top:
        assert tree(top) == without("file", "d/sub/three") | {"d/one": "changed", "new": "12345", "top": "t"}
    for container in (ID, "other"):
        snapshotter.remove(container)
    assert snapshotter.containers() == []
    assert os.listdir(store.parts) == []


def test_usage_counts_files_once(store: Store) -> None:
    chain = store.image(directory(b"etc"))
    store.snapshotter.create(ID, chain)
    before = store.snapshotter.usage(ID)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        (top / "a").write_bytes(bytes(1000))
        os.link(top / "a", top / "b")
        (top / "d").mkdir()
        (top / "d/c").write_bytes(bytes(10))
    assert store.snapshotter.usage(ID) - before == 1010
    store.snapshotter.remove(ID)
    with pytest.raises(NotFound):
        store.snapshotter.usage(ID)


def test_remove_is_idempotent_and_takes_deep_trees(store: Store) -> None:
    chain = store.image(b"")
    store.snapshotter.create(ID, chain)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        fd = os.open(top, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
    assert store.snapshotter.usage(ID) >= 0
    store.snapshotter.remove(ID)
    store.snapshotter.remove(ID)
    assert os.listdir(store.parts) == []


def test_a_second_create_of_the_same_container(store: Store) -> None:
    chain = store.image(BASE)
    store.snapshotter.create(ID, chain)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        (top / "mine").write_text("1")
    with pytest.raises(Conflict):
        store.snapshotter.create(ID, chain)
    with mounted(store.snapshotter.root(ID, chain)) as top:
        assert (top / "mine").read_text() == "1"
    store.snapshotter.remove(ID)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".tmp-x"])
def test_container_ids_that_are_no_names(store: Store, name: str) -> None:
    for call in (store.snapshotter.usage, store.snapshotter.remove, lambda n: store.snapshotter.create(n, [])):
        with pytest.raises(InvalidParameter):
            call(name)


# Layers as things


def test_a_noted_layer_is_known_and_unpacked_later(store: Store) -> None:
    chain = store.image(BASE)
    upper = member(b"x", b"123") + END
    before = store.snapshotter.unpack(chain, io.BytesIO(upper))
    store.snapshotter.remove_layer(before.chain_id)
    store.snapshotter.note(before)
    store.snapshotter.note(before)
    assert store.snapshotter.info(before.chain_id) == before
    assert not store.snapshotter.has(before.chain_id)
    assert before.chain_id in store.snapshotter.layers()
    with pytest.raises(NotFound, match="layer does not exist"):
        store.snapshotter.create(ID, [*chain, before.chain_id])
    assert store.snapshotter.unpack(chain, io.BytesIO(upper), before.diff_id) == before
    store.snapshotter.note(before)
    assert store.snapshotter.has(before.chain_id)
    assert store.leftovers() == []
    with store.container(BASE, member(b"x", b"123")) as root:
        assert (root / "x").read_bytes() == b"123"


def test_layers_come_and_go(store: Store) -> None:
    chain = store.image(BASE, member(b"x"))
    assert store.snapshotter.layers() == sorted(chain)
    assert store.snapshotter.has(chain[1])
    store.snapshotter.remove_layer(chain[1])
    store.snapshotter.remove_layer(chain[1])
    assert not store.snapshotter.has(chain[1])
    assert store.snapshotter.layers() == [chain[0]]
    with pytest.raises(NotFound):
        store.snapshotter.info(chain[1])
    with pytest.raises(NotFound, match="layer does not exist"):
        store.snapshotter.create(ID, chain)
    with pytest.raises(NotFound):
        store.snapshotter.unpack(chain, io.BytesIO(END))
    for name in ("sha256:../../etc", "sha512:" + "0" * 128, "x"):
        with pytest.raises(InvalidParameter):
            store.snapshotter.has(name)


def test_a_layer_that_is_there_is_not_read_again(store: Store) -> None:
    archive = BASE + END
    digest = "sha256:" + hashlib.sha256(archive).hexdigest()
    first = store.snapshotter.unpack((), io.BytesIO(archive), digest)
    before = fingerprint(store.layers)
    stream = io.BytesIO(archive)
    assert store.snapshotter.unpack((), stream, digest) == first
    assert stream.tell() == 0
    assert store.snapshotter.unpack((), io.BytesIO(archive)) == first
    after = fingerprint(store.layers)
    assert {n: s for n, s in after.items() if n} == {n: s for n, s in before.items() if n}


def test_chain_ids_are_those_of_the_specification(store: Store) -> None:
    archives = [BASE, member(b"x"), member(b"y")]
    digests = ["sha256:" + hashlib.sha256(a + END).hexdigest() for a in archives]
    assert tuple(store.image(*archives)) == chain_ids(digests)


def test_a_wrong_digest_leaves_nothing(store: Store) -> None:
    with pytest.raises(InvalidParameter, match="invalid diffID: expected"):
        store.snapshotter.unpack((), io.BytesIO(BASE + END), "sha256:" + "0" * 64)
    assert os.listdir(store.layers) == []


@pytest.mark.parametrize("archive", [BASE[:-100], b"garbage" * 1000, gzip.compress(BASE)[:-20], BASE + member(b"../x")])
def test_a_bad_archive_leaves_nothing(store: Store, archive: bytes) -> None:
    with pytest.raises(InvalidParameter, match="error processing tar file"):
        store.snapshotter.unpack((), io.BytesIO(archive))
    assert os.listdir(store.layers) == []


def test_errors_of_the_stream_come_through_and_leave_nothing(store: Store) -> None:
    class Broken:
        def read(self, _size: int, /) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        store.snapshotter.unpack((), Broken())
    assert os.listdir(store.layers) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing(kind: str) -> None:
    fd = mount.new_filesystem("tmpfs", [("size", "400k")])
    try:
        store = Store(Path(f"/proc/self/fd/{fd}/."), kind)
        with pytest.raises(System, match=r'entry "big" at byte \d+: no space left on device'):
            store.image(member(b"small", b"x") + member(b"big", bytes(1 << 20)))
        assert os.listdir(store.layers) == []
        chain = store.image(member(b"small", b"x"))
        store.snapshotter.create(ID, chain)
        store.snapshotter.remove(ID)
    finally:
        os.close(fd)


# Two at once, and killed ones


def test_two_threads_unpack_the_same(store: Store) -> None:
    archive = b"".join(member(b"f%d" % n, b"x" * 100) for n in range(300)) + END
    results: list[object] = []

    def unpack() -> None:
        results.append(store.snapshotter.unpack((), io.BytesIO(archive)))

    threads = [threading.Thread(target=unpack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert len(store.snapshotter.layers()) == 1


def test_garbage_collection_spares_what_is_at_work(store: Store) -> None:
    archive = member(b"a", b"1") + member(b"b", b"2") + END
    collector = Store(store.layers.parent, store.snapshotter.name)

    class Slow:
        """Collects garbage, as another process would, in the middle of the archive."""

        left = archive

        def read(self, _size: int, /) -> bytes:
            piece, self.left = self.left[:1000], self.left[1000:]
            collector.snapshotter.collect_garbage()
            return piece

    info = store.snapshotter.unpack((), Slow())
    assert store.snapshotter.has(info.chain_id)


def everything(store: Store) -> None:
    """All that changes the disk, once."""
    chain = store.image(BASE, member(b"x", b"1"))
    store.snapshotter.create(ID, chain)
    store.snapshotter.create("second", chain)
    store.snapshotter.remove(ID)
    store.snapshotter.remove("second")
    store.snapshotter.remove_layer(chain[1])


def run_and_die(top: Path, kind: str, step: int) -> None:
    """Do everything in a process that kills itself before or after the n-th event."""
    events = 0

    def observer(_event: Event) -> None:
        nonlocal events
        if events == step:
            os.kill(os.getpid(), signal.SIGKILL)
        events += 1

    child = os.fork()
    if child == 0:
        try:
            everything(Store(top, kind, observer))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_step(kind: str, tmp_path: Path) -> None:
    """Whatever step a process is killed at: no half layer has a name, and garbage collection leaves no trace."""
    whole = Store(tmp_path / "whole", kind)
    everything(whole)
    steps = 2 * len(whole.trace.events)
    assert steps > 10
    infos = {chain_id: whole.snapshotter.info(chain_id) for chain_id in whole.image(BASE, member(b"x", b"1"))}
    for step in range(steps):
        top = tmp_path / f"killed{step}"
        run_and_die(top, kind, step)
        store = Store(top, kind)
        for chain_id in store.snapshotter.layers():
            assert store.snapshotter.info(chain_id) == infos[chain_id]
        store.snapshotter.collect_garbage()
        assert store.leftovers() == []
        chain = store.image(BASE, member(b"x", b"1"))
        for container in store.snapshotter.containers():
            with mounted(store.snapshotter.root(container, chain)) as path:
                assert tree(path) == BELOW | {"x": "1"}
            store.snapshotter.remove(container)
        store.snapshotter.create(ID, chain)
        with mounted(store.snapshotter.root(ID, chain)) as path:
            assert tree(path) == BELOW | {"x": "1"}
        store.snapshotter.remove(ID)
        assert os.listdir(store.parts) == []
