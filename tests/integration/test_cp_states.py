"""Copies in every state of a container, inside what is mounted in it, beside what others do with it, and of unusual files."""

from __future__ import annotations

import io
import os
import resource
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.container import Container
from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, System

from support import host
from support.imagestore import archive as archive_of
from support.patience import eventually, patience
from support.roots import Root, small_root

pytestmark = [pytest.mark.root]

SLEEP = ["sleep", "1000"]


def put(container: Container, path: str, **files: bytes) -> None:
    container.put_archive(path, archive_of(files))


def get(container: Container, path: str) -> dict[str, bytes]:
    """The files of a path, by their names in its archive."""
    _, pieces = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def text(container: Container, path: str) -> str:
    (content,) = get(container, path).values()
    return content.decode()


@pytest.fixture
def made(engine: sampan.Engine) -> Iterator[Any]:
    """Makes containers; their volumes go with them."""
    names: set[str] = set()

    def make(**options: Any) -> Container:
        container = engine.containers.create("base", options.pop("command", SLEEP), network="none", **options)
        names.update(m["Name"] for m in container.inspect()["Mounts"] if m["Type"] == "volume")
        return container

    yield make
    for container in engine.containers.list(all=True):
        container.remove(force=True, volumes=True)
    for name in names:
        try:
            engine.volumes.get(name).remove()
        except NotFound:
            continue


# States


@pytest.mark.core
def test_one_that_was_never_started(made: Any, root: Root) -> None:
    box = made()
    before = host.mounts(root.directory)
    put(box, "/root", a=b"1")
    assert get(box, "/root") == {"root/a": b"1"}
    assert host.mounts(root.directory) == before
    box.start()
    assert box.exec(["cat", "/root/a"]).stdout == "1"


def test_one_that_has_ended(made: Any) -> None:
    box = made(command=["sh", "-c", "echo of the run >/root/a"])
    box.start()
    box.wait()
    assert text(box, "/root/a") == "of the run\n"
    put(box, "/root", b=b"2")
    assert sorted(get(box, "/root")) == ["root/a", "root/b"]
    assert "/root/b" in [change["Path"] for change in box.diff()]


@pytest.mark.core
def test_one_that_is_paused(made: Any) -> None:
    box = made()
    box.start()
    box.pause()
    put(box, "/root", a=b"1")
    assert text(box, "/root/a") == "1"
    assert box.status == "paused"
    box.unpause()
    assert box.exec(["cat", "/root/a"]).stdout == "1"


def test_one_that_waits_to_be_restarted(made: Any) -> None:
    box = made(command=["sh", "-c", "exit 1"], restart_policy="always")
    box.start()
    eventually(lambda: box.status == "restarting")
    put(box, "/root", a=b"1")
    assert text(box, "/root/a") == "1"
    # It goes on being restarted.
    count = box.inspect()["RestartCount"]
    eventually(lambda: box.inspect()["RestartCount"] > count, 60)
    box.stop(timeout=0)
    assert text(box, "/root/a") == "1"


def test_one_whose_monitor_was_killed(made: Any) -> None:
    box = made()
    box.start()
    put(box, "/root", a=b"1")
    state = box.inspect()["State"]
    monitor = int(Path(f"/proc/{state['Pid']}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, 9)
    eventually(lambda: not os.path.exists(f"/proc/{monitor}"))
    assert text(box, "/root/a") == "1"
    assert box.inspect()["State"]["ExitCode"] == 255


def test_one_whose_record_cannot_be_read(made: Any, root: Root) -> None:
    box = made()
    Path(f"{root.root}/containers/{box.id}/record.json").write_text("{")
    result = root.cli("cp", f"{box.id}:/etc", "-")
    assert (result.code, "which is Dead" in result.err) == (1, True)


def test_a_program_that_has_changed_its_root(made: Any) -> None:
    """The container's files are those of its image and its mounts, wherever its program has put itself."""
    jail = "mkdir -p /jail/bin /jail/etc; cp /bin/busybox /jail/bin; exec chroot /jail /bin/busybox sleep 1000"
    box = made(command=["sh", "-c", jail])
    box.start()
    seen = Path(f"/proc/{box.inspect()['State']['Pid']}/root")
    eventually(lambda: (seen / "bin/busybox").exists() and not (seen / "etc/passwd").exists())
    assert box.stat_path("/jail/bin/busybox").size > 0
    put(box, "/etc", mark=b"1")
    assert box.exec(["cat", "/etc/mark"]).stdout == "1"


# Mounts


@pytest.mark.core
@pytest.mark.parametrize("running", [True, False])
def test_volumes_and_binds(made: Any, engine: sampan.Engine, tmp_path: Path, running: bool) -> None:
    (tmp_path / "bind").mkdir()
    (tmp_path / "sub/deep").mkdir(parents=True)
    volumes = ["vol:/v", f"{tmp_path}/bind:/b", f"{tmp_path}/sub:/v/inner", f"{tmp_path}/missing:/m"]
    box = made(volumes=volumes)
    if running:
        box.start()
    for path, place in (("/v", None), ("/b", tmp_path / "bind"), ("/v/inner/deep", tmp_path / "sub/deep"), ("/m", tmp_path / "missing")):  # fmt: skip
        put(box, path, a=path.encode())
        assert text(box, f"{path}/a") == path
        place = place or Path(engine.volumes.get("vol").path)
        assert (place / "a").read_text() == path
    # A whole tree has them in it.
    assert get(box, "/v") == {"v/a": b"/v", "v/inner/deep/a": b"/v/inner/deep"}
    put(box, "/", **{"v/b": b"through", "b/b": b"the root"})
    assert (tmp_path / "bind/b").read_text() == "the root"


@pytest.mark.parametrize("running", [True, False])
def test_a_volume_that_is_mounted_when_it_is_used(made: Any, root: Root, tmp_path: Path, running: bool) -> None:
    """A volume with options of the driver: it is mounted for the copy, and not a moment longer than others need it."""
    (tmp_path / "device").mkdir()
    root.cli("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}/device", "opt").ok()
    box = made(volumes=["opt:/v"])
    if running:
        box.start()
    before = host.mounts(root.directory)
    put(box, "/v", a=b"1")
    assert text(box, "/v/a") == "1"
    assert (tmp_path / "device/a").read_text() == "1"
    assert host.mounts(root.directory) == before
    box.remove(force=True)
    assert not host.mounts(f"{root.directory}/root/volumes")


def test_a_tmpfs_of_one_that_runs(made: Any) -> None:
    box = made(tmpfs={"/t": ""}, read_only=True)
    box.start()
    put(box, "/t", a=b"1")
    assert box.exec(["cat", "/t/a"]).stdout == "1"
    assert get(box, "/t") == {"t/a": b"1"}


def test_an_image_that_is_mounted(made: Any) -> None:
    for start in (False, True):
        box = made(mounts=[{"Type": "image", "Source": "base", "Target": "/i"}])
        if start:
            box.start()
        assert get(box, "/i/etc/passwd") == {"passwd": get(box, "/etc/passwd")["passwd"]}
        with pytest.raises(InvalidParameter, match="mounted volume is marked read-only"):
            put(box, "/i", a=b"1")
        box.remove(force=True)


@pytest.mark.parametrize("running", [True, False])
def test_read_only(made: Any, tmp_path: Path, running: bool) -> None:
    box = made(read_only=True, volumes=["writable:/w", f"{tmp_path}:/r:ro"])
    if running:
        box.start()
    with pytest.raises(InvalidParameter, match=r"^container rootfs is marked read-only$"):
        put(box, "/root", a=b"1")
    with pytest.raises(InvalidParameter, match=r"^mounted volume is marked read-only$"):
        put(box, "/r", a=b"1")
    put(box, "/w", a=b"1")
    assert text(box, "/w/a") == "1"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("running", [True, False])
def test_what_is_mounted_stays(made: Any, engine: sampan.Engine, running: bool) -> None:
    """The kernel removes a name that something is mounted on in another mount namespace, and the mount with it: so we ask first."""
    box = made(volumes=["vol:/a/v"])
    if running:
        box.start()
    put(box, "/a/v", kept=b"1")
    files = {"/etc": {"hosts": b"x"}, "/a": {"v": b"x"}, "/": {"a": b"x"}}
    for path, content in files.items():
        with pytest.raises(System, match=r"unlinkat .*: device or resource busy"):
            put(box, path, **content)
    assert get(box, "/a/v") == {"v/kept": b"1"}
    assert "localhost" in text(box, "/etc/hosts")
    if running:
        assert "localhost" in box.exec(["cat", "/etc/hosts"]).stdout
        assert box.exec(["cat", "/a/v/kept"]).stdout == "1"


def test_dockers_own_files(made: Any) -> None:
    box = made(hostname="named")
    assert text(box, "/etc/hostname") == "named\n"
    box.start()
    assert text(box, "/etc/hostname") == "named\n"
    assert "localhost" in text(box, "/etc/hosts")


def test_what_the_kernel_makes_up(made: Any) -> None:
    """Docker has an empty /proc there. A file's size is what can be read of it, which its inode does not say."""
    box = made()
    box.start()
    assert text(box, "/proc/1/cmdline") == "sleep\x001000\x00"
    assert "Name:\tsleep" in text(box, "/proc/1/status")
    assert text(box, "/sys/kernel/mm/transparent_hugepage/enabled").endswith("\n")
    assert box.stat_path("/dev/null").shown()["mode"] >> 26 & 1
    # A link of /proc is a link, and leads nowhere.
    assert box.stat_path("/proc/1/root").is_link
    with pytest.raises(SampanError):
        box.get_archive("/proc/1/root/etc/passwd")
    with pytest.raises(SampanError):
        put(box, "/proc/sys/kernel", hostname=b"x")
    assert {m.partition("/")[0] for m in get(box, "/etc")} == {"etc"}
    assert not [name for name in get(box, "/") if name.startswith(("/proc/", "/sys/", "proc/", "sys/"))]


# Files


def test_hard_links_and_xattrs_of_a_tree(made: Any, tmp_path: Path) -> None:
    source, back = tmp_path / "tree", tmp_path / "back"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("same")
    os.link(source / "a", source / "sub/b")
    os.setxattr(source / "a", "user.note", b"kept")
    box = made()
    for start in (False, True):
        if start:
            box.start()
        box.copy_in(str(source), f"/tree{start}")
        box.copy_out(f"/tree{start}", str(back))
        one, other = os.stat(back / "a"), os.stat(back / "sub/b")
        assert (one.st_ino, one.st_nlink) == (other.st_ino, 2)
        assert os.getxattr(back / "sub/b", "user.note") == b"kept"
        subprocess.run(["rm", "-r", back], check=True)


def test_names_of_all_bytes(made: Any, tmp_path: Path) -> None:
    names = [b"\xff\xfe", "ünïcode".encode(), b"new\nline", b"-dash", b"x" * 255, b" "]
    (tmp_path / "tree").mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path / "tree") + b"/" + name)).write_bytes(name)
    box = made()
    box.copy_in(str(tmp_path / "tree"), "/tree")
    box.copy_out("/tree", str(tmp_path / "back"))
    assert sorted(os.listdir(os.fsencode(tmp_path / "back"))) == sorted(names)
    box.copy_out("/tree/" + os.fsdecode(names[0]), str(tmp_path / "one"))
    assert (tmp_path / "one").read_bytes() == names[0]


def test_devices_and_pipes(made: Any, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree/pipe", 0o640)
    os.mknod(tmp_path / "tree/null", stat.S_IFCHR | 0o622, os.makedev(1, 3))
    os.chown(tmp_path / "tree/null", 7, 8)
    os.symlink("nowhere", tmp_path / "tree/link")
    os.lchown(tmp_path / "tree/link", 7, 8)
    os.chmod(tmp_path / "tree/null", 0o622)
    box = made()
    box.start()
    box.copy_in(str(tmp_path / "tree"), "/tree")
    shown = box.exec(["stat", "-c", "%n %F %a %u:%g", "/tree/pipe", "/tree/null", "/tree/link"]).stdout.splitlines()
    assert [line.removeprefix("/tree/") for line in shown] == [
        "pipe fifo 640 0:0",
        "null character special file 622 7:8",
        "link symbolic link 777 7:8",
    ]
    box.copy_out("/tree", str(tmp_path / "back"), archive=True)
    assert os.stat(tmp_path / "back/null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO(os.stat(tmp_path / "back/pipe").st_mode)


def test_holes(made: Any, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    box = made()
    copied = box.copy_in(str(tmp_path / "sparse"), "/root/sparse")
    assert copied.size < 1 << 20
    box.copy_out("/root/sparse", str(tmp_path / "back"))
    status = os.stat(tmp_path / "back")
    assert (status.st_size, status.st_blocks * 512 < 1 << 20) == (1 << 30, True)
    with (tmp_path / "back").open("rb") as file:
        file.seek(1 << 29)
        assert file.read(7) == b"middle\0"


def peak_of(function: Any) -> int:
    """MiB that a forked process came to hold at most in doing something."""
    reading, writing = os.pipe()
    if not os.fork():
        os.close(reading)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            function()
            os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        finally:
            os._exit(0)
    os.close(writing)
    answer = os.read(reading, 64)
    os.close(reading)
    os.wait()
    return int(answer) >> 10


@pytest.mark.parametrize("size", [200 << 20, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_memory_is_flat(made: Any, root: Root, tmp_path: Path, size: int) -> None:
    with (tmp_path / "big").open("wb") as file:
        piece = os.urandom(1 << 20)
        for _ in range(size >> 20):
            file.write(piece)
    box = made()

    def both_ways() -> None:
        with root.engine() as engine:
            container = engine.containers.get(box.id)
            container.copy_in(f"{tmp_path}/big", "/root/big")
            container.copy_out("/root/big", f"{tmp_path}/back")

    assert peak_of(both_ways) < 48
    subprocess.run(["cmp", tmp_path / "big", tmp_path / "back"], check=True)


# Beside others


def test_a_copy_keeps_a_stopped_one_from_being_started(made: Any) -> None:
    """Its root file system is mounted for the copy, and must not be mounted twice."""
    box = made()
    _, pieces = box.get_archive("/etc")
    next(pieces)
    began = time.monotonic()
    with pytest.raises(Conflict, match="is in use"):
        box.start()
    assert time.monotonic() - began >= 9
    pieces.close()
    box.start()


def test_a_copy_goes_on_when_its_container_ends(made: Any) -> None:
    """With its volumes: they are the namespace's, which the copy keeps."""
    box = made(volumes=["vol:/v"])
    box.start()
    put(box, "/v", **{f"f{n}": bytes(1 << 18) for n in range(8)})
    _, pieces = box.get_archive("/v")
    data = next(pieces)
    box.stop(timeout=0)
    data += b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len([m for m in tar if m.isfile()]) == 8


def test_a_copy_gives_way_to_the_next_start(made: Any) -> None:
    box = made()
    box.start()
    put(box, "/root", **{f"f{n}": bytes(1 << 18) for n in range(8)})
    _, pieces = box.get_archive("/root")
    next(pieces)
    began = time.monotonic()
    starter = threading.Thread(target=lambda: box.restart(timeout=0))
    starter.start()
    eventually(lambda: box.inspect()["State"]["Status"] != "running")
    time.sleep(0.5)
    next(pieces)  # for a moment it goes on
    time.sleep(3.5)
    with pytest.raises(Conflict, match="was started again while its files were copied"):
        b"".join(pieces)
    starter.join()
    assert time.monotonic() - began < 10
    assert box.status == "running"


@pytest.mark.long
def test_a_copy_that_stands_still_keeps_no_start(made: Any, root: Root) -> None:
    """A client that is suspended in the middle of a copy: a restart waits for it for a while, and goes ahead."""
    box = made()
    box.start()
    put(box, "/root", big=bytes(1 << 22))
    client = root.cli.start("cp", f"{box.name}:/root", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout is not None
    client.stdout.read(1 << 16)
    began = time.monotonic()
    box.restart(timeout=0)
    assert time.monotonic() - began < patience(14)
    _, err = client.communicate(timeout=patience(30))
    assert client.returncode == 1
    assert b"was started again" in err


def test_a_copy_of_one_that_is_removed(made: Any) -> None:
    box = made()
    box.start()
    put(box, "/root", **{f"f{n}": bytes(1 << 18) for n in range(8)})
    _, pieces = box.get_archive("/root")
    next(pieces)
    box.remove(force=True)
    with pytest.raises((NotFound, System)):
        b"".join(pieces)
    with pytest.raises(NotFound, match="No such container"):
        box.get_archive("/root")


def test_a_stream_that_nobody_reads_to_its_end(made: Any) -> None:
    box = made()
    _, pieces = box.get_archive("/")
    next(pieces)
    del pieces
    box.start()


@pytest.mark.patience(300)
def test_fifty_at_once_beside_start_and_stop(made: Any, root: Root, tmp_path: Path) -> None:
    """Each copy is whole, or was refused in plain words; at the end nothing is mounted, and no lock is held."""
    box = made()
    mounts = host.mounts(root.directory)
    (tmp_path / "in").write_bytes(b"x" * 100_000)
    done: list[str] = []
    wrong: list[str] = []
    over = threading.Event()

    def copy(number: int) -> None:
        try:
            with root.engine() as engine:
                container = engine.containers.get(box.id)
                if number % 2:
                    container.copy_in(f"{tmp_path}/in", f"/root/{number}")
                    container.copy_out(f"/root/{number}", f"{tmp_path}/out-{number}")
                    assert (tmp_path / f"out-{number}").stat().st_size == 100_000
                else:
                    assert text(container, "/etc/hostname").strip() == box.id[:12]
            done.append("ok")
        except Conflict as e:
            done.append(str(e))
        except BaseException as e:
            wrong.append(f"{type(e).__name__}: {e}")

    def life() -> None:
        while not over.is_set():
            for verb in (box.start, lambda: box.stop(timeout=0)):
                try:
                    verb()
                except SampanError:
                    continue  # the other copies have it at the moment

    living = threading.Thread(target=life)
    living.start()
    copies = [threading.Thread(target=copy, args=(n,)) for n in range(50)]
    for thread in copies:
        thread.start()
    for thread in copies:
        thread.join()
    over.set()
    living.join()
    assert not wrong
    assert len(done) == 50
    assert done.count("ok") >= 45, done
    eventually(lambda: box.status in ("running", "exited"))
    if box.status == "running":
        box.stop(timeout=0)
    assert host.mounts(root.directory) == mounts
    box.start()


def test_a_disk_that_is_full(test_directory: str) -> None:
    with small_root(Path(test_directory) / "small-cp", "96m") as root, root.engine() as engine:
        for start in (False, True):
            box = engine.containers.create("base", SLEEP, network="none")
            if start:
                box.start()
            with pytest.raises(System, match="error processing tar file: write /root/big: no space left on device"):
                put(box, "/root", small=b"1", big=bytes(200 << 20))
            assert get(box, "/root") == {"root/small": b"1"}, "no half file is left"
            box.remove(force=True)


def test_a_full_disk_of_the_callers(made: Any, tmp_path: Path) -> None:
    from support.imagestore import disk

    box = made()
    put(box, "/root", small=b"1", zbig=bytes(4 << 20))
    with disk(tmp_path / "small", "1m") as place:
        with pytest.raises(System, match="no space left on device"):
            box.copy_out("/root", str(place))
        assert sorted(os.listdir(place / "root")) == ["small"]


def test_a_process_that_is_killed_in_the_middle(made: Any, root: Root) -> None:
    """kill -9 of a copy out of and into one that does not run: no mount and no lock is left, and no more than the file's own."""
    box = made()
    put(box, "/root", big=bytes(1 << 24))
    mounts = host.mounts(root.directory)
    out = root.cli.start("cp", f"{box.name}:/root", "-", stdout=subprocess.PIPE)
    assert out.stdout is not None
    out.stdout.read(1 << 16)
    into = root.cli.start("cp", "-", f"{box.name}:/tmp", stdin=subprocess.PIPE)  # waits for the lock
    out.kill()
    out.communicate()
    assert into.stdin is not None
    into.stdin.write(archive_of({"half": bytes(1 << 22)})[: 1 << 21])
    into.stdin.flush()
    holder = Path(f"{root.root}/containers/{box.id}/record.lock")
    eventually(lambda: holder.read_text().strip() == str(into.pid))
    time.sleep(0.3)
    into.kill()
    into.communicate()
    assert host.mounts(root.directory) == mounts
    assert set(get(box, "/tmp")) <= {"tmp/half"}
    box.start()
    assert box.exec(["ls", "/root"]).stdout == "big\n"
