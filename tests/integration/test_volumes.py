"""Volumes as the engine keeps them: the verbs, the driver's options, and what is done to them from outside."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import sampan
from sampan.errors import Conflict, InvalidParameter, NotFound, System

from support import host
from support.disk import du
from support.imagestore import disk
from support.patience import patience
from support.roots import Root

pytestmark = pytest.mark.root

NAMES = 'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'


@pytest.fixture
def volumes(new_root: Root) -> Path:
    """Where they are on disk."""
    with new_root.engine():
        return new_root.root / "volumes"


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            file.write(b"x" * 4096)


def mounted(path: Path) -> list[str]:
    return [mount for mount in host.mounts(path) if mount.startswith(f"{path}|")]


# The verbs


def test_create_inspect_list_and_remove(new_root: Root) -> None:
    cli = new_root.cli
    assert cli("volume", "create", "data", "--label", "a=1", "--label", "b").ok().out == "data\n"
    (shown,) = json.loads(cli("volume", "inspect", "data").ok().out)
    assert list(shown) == ["CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"]
    assert shown["Labels"] == {"a": "1", "b": ""}
    assert (shown["Driver"], shown["Name"], shown["Options"], shown["Scope"]) == ("local", "data", None, "local")
    place = Path(shown["Mountpoint"])
    assert place == new_root.root / "volumes/data/_data"
    assert place.stat().st_mode & 0o7777 == 0o755
    # The generic verb finds it too, and so does the one with a type.
    assert json.loads(cli("inspect", "data").ok().out) == [shown]
    assert json.loads(cli("inspect", "--type", "volume", "data").ok().out) == [shown]

    cli("volume", "create", "data10").ok()
    cli("volume", "create", "data9").ok()
    assert cli("volume", "ls").ok().out == (
        "DRIVER    VOLUME NAME\nlocal     data\nlocal     data9\nlocal     data10\n"
    )
    for name in ("zeta", "alpha1", "data-x", "data09", "beta"):
        cli("volume", "create", name).ok()
    # As Docker sorts: numbers by their value, and before everything else.
    assert cli("volume", "ls", "-q").ok().out.split() == [
        "alpha1", "beta", "data", "data9", "data09", "data10", "data-x", "zeta",
    ]  # fmt: skip
    for name in ("zeta", "alpha1", "data-x", "data09", "beta"):
        cli("volume", "rm", name).ok()
    assert cli("volume", "ls", "-q", "-f", "name=9$").ok().out == "data9\n"
    assert cli("volume", "ls", "-q", "--filter", "label=a=1").ok().out == "data\n"
    assert cli("volume", "ls", "-q", "--filter", "driver=other").ok().out == ""
    assert cli("volume", "ls", "-q", "--filter", "dangling=false").ok().out == ""
    assert cli("volume", "ls", "--format", '{{.Name}}:{{.Label "a"}}', "-f", "label=a").ok().out == "data:1\n"
    line = json.loads(cli("volume", "ls", "--format", "json", "-f", "label=a").ok().out)
    assert (line["Name"], line["Labels"], line["Size"]) == ("data", "a=1,b=", "N/A")

    (place / "file").write_text("x")
    assert cli("volume", "rm", "data", "data9", "data10").ok().out == "data\ndata9\ndata10\n"
    assert os.listdir(new_root.root / "volumes") == []


def test_what_is_refused(new_root: Root) -> None:
    cli = new_root.cli
    for args, message in (
        (("a",), "create a: volume name is too short, names should be at least two alphanumeric characters"),
        (("..",), f'create ..: ".." includes invalid characters for a local volume name, {NAMES}'),
        (("../x",), f'create ../x: "../x" includes invalid characters for a local volume name, {NAMES}'),
        (("_data",), f'create _data: "_data" includes invalid characters for a local volume name, {NAMES}'),
        ((".mounted",), f'create .mounted: ".mounted" includes invalid characters for a local volume name, {NAMES}'),
        (("-d", "foo", "ab"), 'create ab: error looking up volume plugin foo: plugin "foo" not found'),
        (("-o", "foo=bar", "ab"), 'create ab: invalid option: "foo"'),
        (("-o", "type=tmpfs", "ab"), 'create ab: missing required option: "device"'),
        (("-o", "size=1g", "ab"), "create ab: quota size requested but no quota support"),
    ):
        done = cli("volume", "create", *args)
        assert (done.code, done.out, done.err) == (1, "", f"Error: {message}\n")
    assert cli("volume", "ls", "-q").ok().out == ""
    done = cli("volume", "ls", "-f", "foo=1")
    assert (done.code, done.err) == (1, "Error: invalid filter 'foo'\n")
    done = cli("volume", "ls", "-f", "foo")
    assert done.code == 125
    assert done.err.startswith(
        'invalid argument "foo" for "-f, --filter" flag: bad format of filter (expected name=value)\n'
    )
    done = cli("volume", "inspect", "nix")
    assert (done.code, done.out, done.err) == (1, "[]\n", "Error: get nix: no such volume\n")
    # Names that are none reach no path.
    for name in ("..", "../root", "", "a/b", "."):
        done = cli("volume", "rm", name)
        assert (done.code, done.err) == (1, f"Error: get {name}: no such volume\n")


def test_several_are_removed_of_which_one_is_missing(new_root: Root) -> None:
    cli = new_root.cli
    cli("volume", "create", "one").ok()
    cli("volume", "create", "two").ok()
    done = cli("volume", "rm", "one", "nix", "two")
    assert (done.code, done.out, done.err) == (1, "one\ntwo\n", "Error: get nix: no such volume\n")
    assert cli("volume", "rm", "-f", "nix").ok().out == "nix\n"


def test_an_existing_name_gives_the_same_volume(new_root: Root) -> None:
    with new_root.engine() as engine:
        first = engine.volumes.create("data", labels={"a": "1"})
        again = engine.volumes.create("data", driver_opts={"type": "tmpfs", "device": "tmpfs"}, labels={"a": "2"})
        assert again.attrs == first.attrs
        with pytest.raises(
            NotFound, match=r'^create data: error looking up volume plugin foo: plugin "foo" not found$'
        ):
            engine.volumes.create("data", driver="foo")
        assert engine.volumes.get("data").labels == {"a": "1"}


def test_an_anonymous_one(new_root: Root) -> None:
    cli = new_root.cli
    name = cli("volume", "create").ok().out.strip()
    assert len(name) == 64
    assert int(name, 16)
    (shown,) = json.loads(cli("volume", "inspect", name).ok().out)
    assert shown["Labels"] == {"com.docker.volume.anonymous": ""}


def test_prune(new_root: Root) -> None:
    cli = new_root.cli
    question = "Are you sure you want to continue? [y/N] "
    anonymous = cli("volume", "create", "--label", "keep").ok().out.strip()
    with new_root.engine() as engine:
        (Path(engine.volumes.get(anonymous).path) / "file").write_bytes(b"x" * 12345)
    for name in ("one", "two"):
        cli("volume", "create", name).ok()
    freed = du([new_root.root / "volumes" / anonymous])
    some = "WARNING! This will remove anonymous local volumes not used by at least one container.\n"
    everything = "WARNING! This will remove all local volumes not used by at least one container.\n"
    for answer in ("n\n", "", "yes\n"):
        assert cli("volume", "prune", input=answer).ok().out == some + question
    assert cli("volume", "prune", "-f", "--filter", "label!=keep").ok().out == "Total reclaimed space: 0B\n"
    assert cli("volume", "prune", input="y\n").ok().out == (
        f"{some}{question}Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: {freed / 1000:.4g}kB\n"
    )
    assert cli("volume", "ls", "-q").ok().out == "one\ntwo\n"
    empty = du(new_root.root / "volumes" / name for name in ("one", "two"))
    assert cli("volume", "prune", "-a", input="Y\n").ok().out == (
        f"{everything}{question}Deleted Volumes:\none\ntwo\n\nTotal reclaimed space: {empty / 1000:.4g}kB\n"
    )
    cli("volume", "create", "three").ok()
    assert "three" in cli("volume", "prune", "-f", "--filter", "all=true").ok().out
    done = cli("volume", "prune", "-a", "--filter", "all=1")
    assert (done.code, done.err) == (
        1,
        "conflicting options: cannot specify both --all and --filter all=1\n",
    )


# Options of the driver, without a container: what a start does


def test_a_mounted_volume_is_released_when_nobody_uses_it(new_root: Root, volumes: Path) -> None:
    with new_root.engine() as engine:
        engine.volumes.create("data", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid,mode=0700"})
        assert engine.volumes.mount("data")
        engine.volumes.mount("data")  # a second container: there is one mount still
        (mount,) = mounted(volumes / "data/_data")
        assert "tmpfs" in mount
        assert "size=1024k" in mount
        status = os.statvfs(volumes / "data/_data")
        assert status.f_blocks * status.f_frsize == 1 << 20
        assert status.f_flag & os.ST_NOSUID
        engine.volumes.release(["data", "data"])
        assert mounted(volumes / "data/_data") == []
        assert not engine.volumes.mount(engine.volumes.create("plain").name)


def test_a_bind_keeps_its_flags(new_root: Root, volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs")
    with new_root.engine() as engine:
        engine.volumes.create(
            "data", driver_opts={"type": "none", "device": str(tmp_path), "o": "bind,ro,noexec,defaults"}
        )
        engine.volumes.mount("data")
        try:
            flags = os.statvfs(volumes / "data/_data").f_flag
            assert flags & os.ST_RDONLY
            assert flags & os.ST_NOEXEC
            assert not os.statvfs(tmp_path).f_flag & os.ST_RDONLY
            assert (volumes / "data/_data/file").read_text() == "theirs"
        finally:
            engine.volumes.release(["data"])
        # What was mounted is not what is deleted.
        engine.volumes.mount("data")
        engine.volumes.get("data").remove()
    assert (tmp_path / "file").read_text() == "theirs"
    assert os.listdir(volumes) in ([], [".mounted"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"type": "none", "device": "/nowhere/at/all", "o": "bind"},
            "mount /nowhere/at/all:{path}, flags: 0x1000: no such file or directory",
        ),
        ({"type": "nofs", "device": "x"}, "mount x:{path}: no such device"),
        (
            {"type": "tmpfs", "device": "tmpfs", "o": "size=much"},
            "mount tmpfs:{path}, data: size=much: invalid argument",
        ),
        ({"type": "tmpfs", "device": ""}, "missing device in volume options"),
    ],
)
def test_a_mount_that_fails(new_root: Root, volumes: Path, options: dict[str, str], message: str) -> None:
    path = volumes / "data/_data"
    with new_root.engine() as engine:
        engine.volumes.create("data", driver_opts=options)
        with pytest.raises(System) as caught:
            engine.volumes.mount("data")
        expected = f"error while mounting volume '{path}': failed to mount local volume: {message.format(path=path)}"
        assert str(caught.value) == expected
    assert mounted(path) == []
    assert os.listdir(volumes / ".mounted") == []


def test_a_name_of_nfs_that_has_no_address(new_root: Root) -> None:
    with new_root.engine() as engine:
        engine.volumes.create("data", driver_opts={"type": "nfs", "device": ":/srv", "o": "addr=nobody.invalid,rw"})
        with pytest.raises(System, match=r"error resolving passed in network volume address: lookup nobody.invalid: "):
            engine.volumes.mount("data")


# Attacks


def test_a_hundred_processes_create_the_same_name(new_root: Root, volumes: Path) -> None:
    processes = [
        new_root.cli.start("volume", "create", "data", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(100)
    ]
    for process in processes:
        out, err = process.communicate(timeout=patience(100))
        assert (process.returncode, out, err) == (0, b"data\n", b"")
    assert os.listdir(volumes) == ["data"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 99, "name": "data"}', "\0" * 10])
def test_a_damaged_volume_is_told_and_goes_by_force(new_root: Root, volumes: Path, text: str) -> None:
    cli = new_root.cli
    cli("volume", "create", "data").ok()
    cli("volume", "create", "good").ok()
    (volumes / "data/volume.json").write_text(text)
    for verb in ("inspect", "rm", "create"):
        done = cli("volume", verb, "data")
        assert done.code == 1
        assert "volume data is damaged" in done.err
        assert "volume rm -f data" in done.err
    done = cli("volume", "ls").ok()
    assert "data" in done.out
    assert "volume data is damaged" in done.err
    # Nobody knows whether it was anonymous: prune is not what takes it.
    assert "data\n" not in cli("volume", "prune", "-af").ok().out
    assert cli("volume", "rm", "-f", "data").ok().out == "data\n"
    assert os.listdir(volumes) == []


def test_data_that_was_replaced_by_a_link(new_root: Root, volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("the host's")
    with new_root.engine() as engine:
        engine.volumes.create("data", driver_opts={"type": "tmpfs", "device": "tmpfs"})
        (volumes / "data/_data").rmdir()
        (volumes / "data/_data").symlink_to(tmp_path)
        with pytest.raises(System, match="_data: not a directory"):
            engine.volumes.mount("data")
        with pytest.raises(System, match="is damaged"):
            engine.volumes.create("data")
        assert mounted(tmp_path) == []
        engine.volumes.remove("data", force=True)
    assert (tmp_path / "file").read_text() == "the host's"
    assert os.listdir(volumes) in ([], [".mounted"])


def test_what_somebody_mounted_in_a_volume_is_not_deleted(new_root: Root, volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs")
    with new_root.engine() as engine:
        engine.volumes.create("data")
        inside = volumes / "data/_data/inside"
        inside.mkdir()
        subprocess.run(["mount", "--bind", tmp_path, inside], check=True)
        try:
            with pytest.raises(Conflict, match=f"something is mounted on {inside}"):
                engine.volumes.remove("data", force=True)
            assert engine.volumes.list()[0].name == "data"
        finally:
            subprocess.run(["umount", inside], check=True)
        engine.volumes.remove("data")
    assert (tmp_path / "file").read_text() == "theirs"


def test_a_full_disk_leaves_nothing(test_directory: str, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "256k") as place:
        engine = sampan.Engine(str(place / "root"), str(place / "run"))
        engine.volumes.create("before")
        fill(place / "filler")
        with pytest.raises(System, match=r"no space left on device"):
            engine.volumes.create("data")
        assert os.listdir(place / "root/volumes") == ["before"]
        # On a full disk things can still be removed.
        engine.volumes.remove("before")
        assert os.listdir(place / "root/volumes") == []


def test_a_volume_of_many_files_is_removed_while_others_are_made(new_root: Root, volumes: Path) -> None:
    with new_root.engine() as engine:
        path = Path(engine.volumes.create("data").path)
        for d in range(20):
            (path / f"d{d}").mkdir()
            for f in range(1000):
                os.close(os.open(path / f"d{d}/{f}", os.O_CREAT | os.O_WRONLY))
        remover = new_root.cli.start("volume", "rm", "data", stdout=subprocess.DEVNULL)
        for i in range(5):
            engine.volumes.create(f"other{i}").remove()
        assert remover.wait(patience(60)) == 0
    assert os.listdir(volumes) == []


def test_the_library(new_root: Root) -> None:
    with new_root.engine() as engine:
        volume = engine.volumes.create("data", labels={"a": "1"})
        assert (volume.id, volume.name, volume.driver) == ("data", "data", "local")
        assert [v.name for v in engine.volumes.list({"label": "a", "dangling": True})] == ["data"]
        assert volume.inspect() == volume.attrs
        with pytest.raises(InvalidParameter, match="invalid filter 'x'"):
            engine.volumes.list({"x": "y"})
        volume.remove()
        with pytest.raises(NotFound, match=r"^get data: no such volume$"):
            volume.inspect()
        with pytest.raises(NotFound):
            volume.remove()
        volume.remove(force=True)
