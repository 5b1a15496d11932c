"""What an image has at the place of an empty volume gets into the volume: all of it, once, and nothing of the host's."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from sampan.steps.trace import Trace
from sampan.store.copyup import FILLED, FILLING, CopyUp

from support.archives import fingerprint
from support.imagestore import archive, disk
from support.roots import BASE, Root, small_root

pytestmark = pytest.mark.root

Import = Callable[..., str]


@pytest.fixture
def volumes(root: Root) -> Iterator[Root]:
    """The root; volumes that a test makes go with it."""
    yield root
    root.remove_containers()
    with root.engine() as engine:
        for volume in engine.volumes.list():
            volume.remove()


@pytest.fixture
def made(volumes: Root) -> Iterator[Import]:
    """Imports an image of these files, with a Dockerfile's instructions; gone after the test."""
    names: list[str] = []

    def build(files: Mapping[str, bytes | None] | bytes, *changes: str) -> str:
        name = f"copyup-{len(names)}"
        data = files if isinstance(files, bytes) else archive(files)
        flags = [word for change in (*changes, 'CMD ["x"]') for word in ("-c", change)]
        volumes.cli("import", *flags, "-", name, input=data).ok()
        names.append(name)
        return name

    yield build
    volumes.remove_containers()
    volumes.cli("rmi", "-f", *names).ok()


def content(root: Root, name: str) -> Path:
    return root.root / f"volumes/{name}/_data"


def listing(root: Root, name: str) -> list[str]:
    return sorted(os.listdir(content(root, name)))


# The copy itself


@pytest.fixture
def place() -> Iterator[Path]:
    path = BASE / f"copyup-{os.getpid()}"
    (path / "volume/_data").mkdir(parents=True)
    (path / "source").mkdir()
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


def copy(place: Path, subpath: str = "", mounted: bool = False) -> bool:
    fd = os.open(place / "source", os.O_RDONLY)
    try:
        return CopyUp(str(place / "volume/_data"), mounted, Trace()).fill(fd, subpath)
    finally:
        os.close(fd)


def tree(source: Path) -> None:
    """One of each kind."""
    (source / "sub/deep").mkdir(parents=True)
    (source / "sub/deep/file").write_text("deep")
    (source / "setuid").write_text("x")
    os.chown(source / "setuid", 12, 34)
    os.chmod(source / "setuid", 0o4751)
    os.link(source / "setuid", source / "sub/hard")
    os.symlink("/etc/passwd", source / "link")
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    os.setxattr(source / "sub", "user.colour", b"red")
    with (source / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x")
    os.utime(source / "sub/deep/file", ns=(1, 2))
    os.chown(source, 56, 78)
    os.chmod(source, 0o1770)
    os.utime(source, ns=(3, 4))


def looks(top: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        extra = os.readlink(path) if path.is_symlink() else path.read_bytes()[:9] if path.is_file() else ""
        kind = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns)
        links = status.st_nlink if path.is_file() else 0
        names = os.listxattr(path, follow_symlinks=False)
        found[str(path.relative_to(top))] = (*kind, links, extra, names)
    return found


@pytest.mark.parametrize("mounted", [False, True])
def test_everything_is_as_it_was(place: Path, mounted: bool) -> None:
    tree(place / "source")
    before = looks(place / "source")
    assert copy(place, mounted=mounted)
    assert looks(place / "volume/_data") == before
    assert (place / "volume/_data/sparse").stat().st_blocks * 512 < 4 << 20
    assert sorted(os.listdir(place / "volume")) == [".copy.lock", "_data"]


def test_a_volume_with_content_is_left_alone(place: Path) -> None:
    (place / "source/file").write_text("image")
    (place / "volume/_data/mine").write_text("mine")
    before = fingerprint(place / "volume/_data")
    assert not copy(place)
    assert fingerprint(place / "volume/_data") == before


def test_into_a_directory_of_the_volume_and_through_no_link_out_of_it(place: Path) -> None:
    (place / "source/file").write_text("image")
    (place / "volume/_data/sub").mkdir()
    (place / "canary").mkdir()
    os.symlink("../../canary", place / "volume/_data/out")
    os.symlink(place / "canary", place / "volume/_data/absolute")
    assert copy(place, "sub")
    assert not copy(place, "out")
    assert not copy(place, "absolute")
    assert not copy(place, "nowhere")
    assert os.listdir(place / "volume/_data/sub") == ["file"]
    assert os.listdir(place / "canary") == []


def test_what_a_container_writes_while_it_is_completed_stays(place: Path) -> None:
    """CVE-2020-1726: the image's content over that of the volume."""
    (place / "source/file").write_text("image")
    (place / "source/other").write_text("image")

    def meanwhile(event: object) -> None:
        if "rename" in str(getattr(event, "text", "")):
            (place / "volume/_data/file").write_text("container")

    fd = os.open(place / "source", os.O_RDONLY)
    CopyUp(str(place / "volume/_data"), False, Trace(meanwhile)).fill(fd)
    os.close(fd)
    assert (place / "volume/_data/file").read_text() == "container"
    assert (place / "volume/_data/other").read_text() == "image"


def test_a_full_disk_leaves_an_empty_volume(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a").write_bytes(b"x" * 1000)
    (tmp_path / "source/big").write_bytes(b"x" * (2 << 20))
    with disk(tmp_path / "disk", "1m") as small:
        (small / "_data").mkdir()
        fd = os.open(tmp_path / "source", os.O_RDONLY)
        with pytest.raises(OSError, match="No space left") as caught:
            CopyUp(str(small / "_data"), False, Trace()).fill(fd)
        os.close(fd)
        assert caught.value.errno == errno.ENOSPC
        assert sorted(os.listdir(small)) == [".copy.lock", "_data"]
        assert os.listdir(small / "_data") == []


def test_two_at_once_copy_once(place: Path) -> None:
    for number in range(200):
        (place / f"source/{number}").write_text("x" * number)
    outcomes: list[bool] = []
    threads = [threading.Thread(target=lambda: outcomes.append(copy(place))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, False, False, True]
    assert looks(place / "volume/_data") == looks(place / "source")
    assert not {FILLING, FILLED} & set(os.listdir(place / "volume"))


# Images


def test_the_volumes_of_an_image(volumes: Root, made: Import) -> None:
    image = made({"data": None, "data/file": b"image\n", "etc": None}, "VOLUME /data /made/new")
    volumes.cli("create", "--name", "box", image).ok()
    volumes.cli("create", "--name", "box2", "-v", "vol:/data", image).ok()
    volumes.cli("create", "--name", "box3", "-v", "no:/data:nocopy", "--tmpfs", "/made/new", image).ok()
    with volumes.engine() as engine:
        found = {m["Destination"]: m for m in engine.containers.get("box").inspect()["Mounts"]}
        assert sorted(found) == ["/data", "/made/new"]
        assert found["/data"]["Mode"] == ""
        assert [m["Destination"] for m in engine.containers.get("box3").inspect()["Mounts"]] == ["/data"]
    assert listing(volumes, found["/data"]["Name"]) == ["file"]
    assert listing(volumes, found["/made/new"]["Name"]) == []
    assert (listing(volumes, "vol"), listing(volumes, "no")) == (["file"], [])


def test_a_path_that_leads_out_of_the_image(volumes: Root, made: Import) -> None:
    """CVE-2022-23648 and CVE-2024-9341: a VOLUME of dots, and one through links, copied files of the host."""
    host_file = BASE / f"secret-{os.getpid()}"
    host_file.mkdir()
    try:
        (host_file / "secret").write_text("secret")
        up = "../" * 30 + str(host_file)[1:]
        image = made(
            links({"absolute": str(host_file), "relative": up, "chain": "relative", "inside": "/etc"}),
            f"VOLUME /absolute /relative /chain /../../inside /../{up}",
        )
        volumes.cli("create", "--name", "box", image).ok()
        with volumes.engine() as engine:
            found = {m["Destination"]: m["Name"] for m in engine.containers.get("box").inspect()["Mounts"]}
        assert sorted(found) == sorted(["/absolute", "/relative", "/chain", "/inside", str(host_file)])
        assert listing(volumes, found.pop("/inside")) == ["hostname", "hosts", "mtab", "own", "resolv.conf"]
        assert [listing(volumes, name) for name in found.values()] == [[]] * 4
    finally:
        subprocess.run(["rm", "-rf", host_file], check=True)


def links(targets: Mapping[str, str]) -> bytes:
    """A tar of symbolic links, and of /etc/own."""
    import io
    import tarfile

    data = io.BytesIO(archive({"etc": None, "etc/own": b""}))
    with tarfile.open(fileobj=data, mode="a") as tar:
        for name, target in targets.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return data.getvalue()


def test_a_volume_over_a_file_and_over_the_root(volumes: Root, made: Import) -> None:
    before = volumes.state()
    for image, text in (
        (made({"file": b""}, "VOLUME /file"), "cannot mount volume over existing file, file exists /file"),
        (made({"file": b""}, "VOLUME /.."), "invalid specification: destination can't be '/'"),
    ):
        result = volumes.cli("create", image)
        assert result.code == 1
        assert text in result.err
    before.check()
    with volumes.engine() as engine:
        assert engine.volumes.list() == []


def test_a_full_disk_in_the_middle_of_a_create(tmp_path: Path) -> None:
    with small_root(tmp_path / "disk", "24m") as root:
        files: dict[str, bytes | None] = {"data": None, "data/a": b"x", "data/big": os.urandom(7 << 20)}
        root.cli("import", "-c", 'CMD ["x"]', "-", "big", input=archive(files)).ok()
        before = root.state()
        result = root.cli("create", "-v", "vol:/data", "-v", "/data2", "-v", "full:/x", "big")
        result.ok()
        root.remove_containers()
        result = root.cli("create", "-v", "/anon", "-v", "vol2:/data", "big")
        assert result.code == 1
        assert "failed to populate volume vol2 from /data of the image: no space left on device" in result.err
        before.check()
        with root.engine() as engine:
            assert {v.name for v in engine.volumes.list() if len(v.name) < 64} >= {"vol", "vol2"}
            assert not [v for v in engine.volumes.list() if "/anon" in v.path]
        assert sorted(os.listdir(content(root, "vol2").parent)) == [".copy.lock", "_data", "volume.json"]
        assert listing(root, "vol2") == []
