"""-v, --mount, --tmpfs, VOLUME and --volumes-from on real containers: every option, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import host
from support.command import Command
from support.patience import eventually
from support.roots import BASE, Root

pytestmark = pytest.mark.root


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the host on a real file system, with a file in it."""
    path = BASE / f"place-{os.getpid()}"
    (path / "dir").mkdir(parents=True)
    (path / "dir/file").write_text("host\n")
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def volumes(root: Root) -> Iterator[Root]:
    """The root; volumes that a test makes go with it."""
    yield root
    root.remove_containers()
    with root.engine() as engine:
        for volume in engine.volumes.list():
            volume.remove()


def sh(cli: Command, script: str, *flags: str, image: str = "base") -> str:
    """What a script prints in a container with these flags."""
    return cli("run", "--rm", *flags, image, "sh", "-c", script).ok().out


def refused(cli: Command, *flags: str, code: int = 125) -> str:
    """What the command says to flags that it refuses."""
    result = cli("run", "--rm", *flags, "base", "true")
    assert result.code == code, f"{result}"
    assert result.out == ""
    return result.err


def inspect(cli: Command, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("inspect", name).ok().out)[0]
    return found


# Binds


def test_a_directory_and_a_file_hide_what_is_below_and_give_it_back(cli: Command, place: Path) -> None:
    (place / "passwd").write_text("me\n")
    flags = ("-v", f"{place}/dir:/bin/x", "-v", f"{place}/passwd:/etc/passwd")
    assert sh(cli, "cat /etc/passwd /bin/x/file; echo box > /bin/x/made", *flags) == "me\nhost\n"
    assert (place / "dir/made").read_text() == "box\n"
    assert "root" in sh(cli, "cat /etc/passwd")
    assert sh(cli, "ls /etc", "-v", f"{place}/dir:/etc").split() == ["file", "hostname", "hosts", "made", "resolv.conf"]
    assert "passwd" in sh(cli, "ls /etc")


def test_over_one_of_dockers_files_the_users_wins(cli: Command, place: Path) -> None:
    (place / "hosts").write_text("mine\n")
    assert sh(cli, "cat /etc/hosts", "-v", f"{place}/hosts:/etc/hosts") == "mine\n"
    assert (place / "hosts").read_text() == "mine\n"


def test_missing_sources(cli: Command, place: Path) -> None:
    old = os.umask(0o077)
    try:
        assert sh(cli, "ls /x", "-v", f"{place}/a/b:/x") == ""
    finally:
        os.umask(old)
    for path in (place / "a", place / "a/b"):
        assert path.stat().st_mode & 0o7777 == 0o755
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)
    text = refused(cli, "--mount", f"type=bind,src={place}/no,dst=/x")
    assert f'invalid mount config for type "bind": bind source path does not exist: {place}/no' in text
    assert not (place / "no").exists()
    sh(cli, "ls /x", "--mount", f"type=bind,src={place}/no,dst=/x,bind-create-src")
    assert (place / "no").is_dir()


def test_a_source_below_a_file_cannot_be_made(cli: Command, place: Path) -> None:
    text = refused(cli, "-v", f"{place}/dir/file/x:/x")
    assert f"error while creating mount source path '{place}/dir/file/x': mkdir {place}/dir/file" in text


def test_a_relative_source_is_a_directory_of_the_caller(cli: Command, place: Path) -> None:
    for flags in (("-v", "./dir:/x"), ("--mount", "type=bind,src=./dir,dst=/x")):
        assert cli("run", "--rm", *flags, "base", "cat", "/x/file", cwd=str(place)).ok().out == "host\n"
    assert 'includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed' in (
        refused(cli, "-v", "dir/x:/x")
    )


def test_a_file_over_a_directory_and_the_reverse(cli: Command, place: Path) -> None:
    cli("create", "--name", "box", "-v", f"{place}/dir/file:/home", "base", "true").ok()
    cli("create", "--name", "box2", "-v", f"{place}/dir:/etc/passwd", "base", "true").ok()
    for name in ("box", "box2"):
        result = cli("start", "-a", name)
        assert result.code == 1
        assert "are you trying to mount a directory onto a file (or vice-versa)?" in result.err
    assert os.listdir(place / "dir") == ["file"]


@pytest.mark.core
def test_read_only(cli: Command, place: Path) -> None:
    for flags in (("-v", f"{place}/dir:/x:ro"), ("--mount", f"type=bind,src={place}/dir,dst=/x,readonly")):
        assert "Read-only" in sh(cli, "touch /x/y 2>&1 || true", *flags)
    assert "Read-only" in sh(cli, "touch /y 2>&1 || true; touch /x/y", "--read-only", "-v", f"{place}/dir:/x")
    assert (place / "dir/y").exists()


@pytest.fixture
def submount(place: Path) -> Iterator[Path]:
    """A tmpfs below the directory."""
    sub = place / "dir/sub"
    sub.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "sampan-test", sub], check=True)
    (sub / "below").write_text("")
    yield sub
    subprocess.run(["umount", sub], check=True)


@pytest.mark.parametrize(
    ("options", "visible", "writable"),
    [
        ("readonly", True, False),
        ("readonly,bind-recursive=enabled", True, False),
        ("readonly,bind-recursive=writable", True, True),
        ("readonly,bind-recursive=readonly,bind-propagation=rprivate", True, False),
        ("bind-recursive=disabled", False, False),
        ("bind-nonrecursive", False, False),
    ],
)
def test_mounts_below_a_bind(cli: Command, submount: Path, options: str, visible: bool, writable: bool) -> None:
    flag = f"type=bind,src={submount.parent},dst=/x,{options}"
    script = "test -e /x/sub/below && echo visible; touch /x/sub/made 2>/dev/null && echo writable"
    found = sh(cli, f"{script}; true", "--mount", flag).split()
    assert ("visible" in found) == visible
    if visible:
        assert ("writable" in found) == writable
        assert (submount / "made").exists() == writable


# Propagation


@pytest.fixture
def shared(place: Path) -> Iterator[Path]:
    """A shared mount of its own on the host."""
    path = place / "shared"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "sampan-test", path], check=True)
    subprocess.run(["mount", "--make-shared", path], check=True)
    (path / "in").mkdir()
    (path / "out").mkdir()
    yield path
    while subprocess.run(["umount", "-R", path], check=False).returncode:
        subprocess.run(["mountpoint", path], check=True)


@pytest.mark.core
def test_a_mount_made_in_the_container_shows_up_on_the_host_and_the_reverse(cli: Command, shared: Path) -> None:
    flags = ("--cap-add", "SYS_ADMIN", "-v", f"{shared}:/x:rshared")
    cli("run", "-d", "--name", "box", *flags, "base", "sleep", "1000").ok()
    cli("exec", "box", "sh", "-c", "mount -t tmpfs t /x/in && touch /x/in/inner").ok()
    assert (shared / "in/inner").exists()
    subprocess.run(["mount", "-t", "tmpfs", "sampan-test", shared / "out"], check=True)
    (shared / "out/outer").write_text("")
    cli("exec", "box", "ls", "/x/out/outer").ok()
    assert inspect(cli, "box")["Mounts"][0]["Propagation"] == "rshared"


@pytest.mark.parametrize(("mode", "reaches"), [("rslave", True), ("slave", True), ("rprivate", False), ("", False)])
def test_from_the_host_only_or_not_at_all(cli: Command, shared: Path, mode: str, reaches: bool) -> None:
    flags = ("--cap-add", "SYS_ADMIN", "-v", f"{shared}:/x" + (f":{mode}" if mode else ""))
    cli("run", "-d", "--name", "box", *flags, "base", "sleep", "1000").ok()
    cli("exec", "box", "sh", "-c", "mount -t tmpfs t /x/in && touch /x/in/inner").ok()
    assert not (shared / "in/inner").exists()
    subprocess.run(["mount", "-t", "tmpfs", "sampan-test", shared / "out"], check=True)
    (shared / "out/outer").write_text("")
    assert (cli("exec", "box", "ls", "/x/out/outer").code == 0) == reaches


def test_a_source_that_is_not_shared(cli: Command, place: Path) -> None:
    path = place / "private"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "sampan-test", path], check=True)
    subprocess.run(["mount", "--make-private", path], check=True)
    try:
        text = refused(cli, "-v", f"{path}:/x:rshared")
        assert f"path {path} is mounted on {path} but it is not a shared mount" in text
        text = refused(cli, "--mount", f"type=bind,src={path},dst=/x,bind-propagation=rslave")
        assert f"path {path} is mounted on {path} but it is not a shared or slave mount" in text
    finally:
        subprocess.run(["umount", path], check=True)


# match-user


def test_the_callers_files_belong_to_the_containers_user(cli: Command, place: Path) -> None:
    os.chown(place / "dir", 1234, 1235)
    os.chown(place / "dir/file", 1234, 1235)
    script = "id -u; stat -c %u:%g /w/file; echo made > /w/made"
    result = cli(
        *("run", "--rm", "-u", "1000:1001", "-v", f"{place}/dir:/w:match-user", "base", "sh", "-c", script),
        env={"SUDO_UID": "1234", "SUDO_GID": "1235"},
    )
    assert result.ok().out == "1000\n1000:1001\n"
    made = (place / "dir/made").stat()
    assert (made.st_uid, made.st_gid) == (1234, 1235)


def test_match_user_where_the_file_system_cannot(cli: Command) -> None:
    text = refused(cli, "-u", "1000", "-v", "/proc/sys:/w:match-user")
    assert "match-user: /proc/sys cannot be id-mapped" in text


# tmpfs, images


def test_tmpfs(cli: Command) -> None:
    flag = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1750"
    out = sh(cli, "stat -c %a /t; grep ' /t ' /proc/mounts", "--mount", flag)
    assert out.startswith("1750\n")
    assert "size=1024k" in out
    assert "noexec" in out
    assert "Read-only" in sh(cli, "touch /t/x 2>&1; true", "--mount", "type=tmpfs,dst=/t,ro")
    assert "field Source must not be specified" in refused(cli, "--mount", "type=tmpfs,src=x,dst=/t")


def test_an_image_is_mounted_read_only(cli: Command, debian_image: str) -> None:
    flags = ("--mount", f"type=image,src={debian_image},dst=/i")
    assert "Read-only" in sh(cli, "cat /i/etc/debian_version >/dev/null && touch /i/x 2>&1; true", *flags)
    flags = ("--mount", f"type=image,src={debian_image},dst=/i,image-subpath=etc")
    assert sh(cli, "test -e /i/debian_version && echo there", *flags) == "there\n"
    cli("create", "--name", "box", *flags, "base").ok()
    result = cli("rmi", debian_image)
    assert result.code == 1
    assert "is using its referenced image" in result.err
    text = refused(cli, "--mount", f"type=image,src={debian_image},dst=/i,image-subpath=no/such", code=127)
    assert "cannot access path the image/no/such: no such file or directory" in text
    assert "No such image" in refused(cli, "--mount", "type=image,src=no-such-image,dst=/i")


# Volumes


def test_a_named_volume_is_made_filled_once_and_kept(volumes: Root) -> None:
    cli = volumes.cli
    assert "passwd" in sh(cli, "ls /etc; rm /etc/group; echo mine > /etc/passwd", "-v", "vol:/etc")
    assert sh(cli, "cat /etc/passwd; ls /etc/group 2>/dev/null || true", "-v", "vol:/etc") == "mine\n"
    assert sh(cli, "ls /x", "-v", "vol:/x:ro").split().count("passwd") == 1
    assert sh(cli, "ls /etc", "-v", "empty:/etc:nocopy").split() == ["hostname", "hosts", "resolv.conf"]


def test_an_anonymous_volume_goes_with_the_container_and_stays_between_its_starts(volumes: Root) -> None:
    cli = volumes.cli
    cli("create", "--name", "box", "-v", "/data", "base", "sh", "-c", "cat /data/x; echo again >> /data/x").ok()
    mount = inspect(cli, "box")["Mounts"][0]
    assert (len(mount["Name"]), mount["Driver"], mount["Type"]) == (64, "local", "volume")
    cli("start", "-a", "box")
    assert cli("start", "-a", "box").ok().out == "again\n"
    with volumes.engine() as engine:
        assert engine.volumes.get(mount["Name"]).labels == {"com.docker.volume.anonymous": ""}
        cli("rm", "-v", "box").ok()
        assert engine.volumes.list() == []


def test_labels_driver_and_options_of_a_volume(volumes: Root) -> None:
    cli = volumes.cli
    flag = "type=volume,src=vol,dst=/v,volume-label=a=b,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-nocopy"
    assert "tmpfs" in sh(cli, "grep ' /v ' /proc/mounts", "--mount", flag)
    with volumes.engine() as engine:
        found = engine.volumes.get("vol")
        assert (found.labels, found.options) == ({"a": "b"}, {"type": "tmpfs", "device": "tmpfs"})
    text = refused(cli, "--mount", "type=volume,src=other,dst=/v,volume-driver=nosuch")
    assert 'plugin "nosuch" not found' in text
    assert 'plugin "nosuch" not found' in refused(cli, "--volume-driver", "nosuch", "-v", "other:/v")


def test_a_subpath_of_a_volume(volumes: Root, tmp_path: Path) -> None:
    cli = volumes.cli
    sh(cli, "mkdir -p /v/a/b; echo in > /v/a/b/f; ln -s / /v/out; ln -s a/b /v/link", "-v", "vol:/v")
    flag = "type=volume,src=vol,dst=/x,volume-subpath="
    assert sh(cli, "cat /x/f", "--mount", f"{flag}a/b") == "in\n"
    assert sh(cli, "cat /x/f", "--mount", f"{flag}link") == "in\n"
    assert sh(cli, "cat /x", "--mount", f"{flag}a/b/f") == "in\n"
    assert "no such file or directory" in refused(cli, "--mount", f"{flag}nowhere", code=127)
    # A link to / leads to the volume's own root, not to the host's.
    assert sh(cli, "ls /x", "--mount", f"{flag}out").split() == ["a", "link", "out"]
    assert "no such file or directory" in refused(cli, "--mount", f"{flag}out/etc", code=127)
    assert "subpath must be a relative path within the volume" in refused(cli, "--mount", f"{flag}../x")


def test_volumes_from(volumes: Root, place: Path) -> None:
    cli = volumes.cli
    cli("create", "--name", "one", "-v", "vol:/v", "-v", f"{place}/dir:/d:ro", "-v", "/anon", "base").ok()
    assert sh(cli, "cat /d/file; touch /v/x /anon/y; touch /d/z 2>&1 || true", "--volumes-from", "one").startswith(
        "host\n"
    )
    assert "Read-only" in sh(cli, "ls /v /anon; touch /v/q 2>&1 || true", "--volumes-from", "one:ro")
    assert sorted(sh(cli, "ls /v /anon", "--volumes-from", "one").split()) == ["/anon:", "/v:", "x", "y"]
    assert "No such container: nosuch" in refused(cli, "--volumes-from", "nosuch")
    assert "invalid mode: nocopy" in refused(cli, "--volumes-from", "one:nocopy")
    assert "volumes-from specification cannot be an empty string" in refused(cli, "--volumes-from", "")
    # The one who gave them up may go: the volume is still there.
    cli("create", "--name", "two", "--volumes-from", "one", "base", "ls", "/anon").ok()
    cli("rm", "-v", "one").ok()
    assert cli("start", "-a", "two").ok().out == "y\n"


def test_inspect_and_ps_show_them_as_docker_does(volumes: Root, place: Path) -> None:
    cli = volumes.cli
    flags = ("-v", "vol:/v", "-v", f"{place}/dir:/d:ro", "--mount", "type=tmpfs,dst=/t")
    cli("create", "--name", "box", *flags, "base").ok()
    found = inspect(cli, "box")
    assert found["HostConfig"]["Binds"] == ["vol:/v", f"{place}/dir:/d:ro"]
    assert found["HostConfig"]["Mounts"] == [{"Type": "tmpfs", "Target": "/t"}]
    data = str(volumes.root / "volumes/vol/_data")
    assert found["Mounts"] == [
        {
            "Type": "volume",
            "Name": "vol",
            "Source": data,
            "Destination": "/v",
            "Driver": "local",
            "Mode": "z",
            "RW": True,
            "Propagation": "",
        },
        {
            "Type": "bind",
            "Source": f"{place}/dir",
            "Destination": "/d",
            "Mode": "ro",
            "RW": False,
            "Propagation": "rprivate",
        },
        {"Type": "tmpfs", "Source": "", "Destination": "/t", "Mode": "", "RW": True, "Propagation": ""},
    ]
    with volumes.engine() as engine:
        shown = engine.containers.get("box").summary()["Mounts"]
        assert [m["Destination"] for m in shown] == ["/v", "/d", "/t"]


def test_the_library_takes_docker_pys_shapes(volumes: Root, place: Path) -> None:
    with volumes.engine() as engine:
        run = engine.containers.run
        dicts = {f"{place}/dir": {"bind": "/d", "mode": "ro"}, "vol": {"bind": "/v", "mode": "rw"}}
        assert run("base", ["cat", "/d/file"], volumes=dicts, remove=True).stdout == "host\n"
        assert run("base", ["cat", "/d/file"], volumes=[f"{place}/dir:/d"], remove=True).stdout == "host\n"
        mounts = [{"Type": "bind", "Source": f"{place}/dir", "Target": "/d", "ReadOnly": True}]
        assert run("base", ["cat", "/d/file"], mounts=mounts, remove=True).stdout == "host\n"
        engine.containers.create("base", name="one", volumes=["vol:/v"])
        engine.containers.create("base", name="two", volumes_from=["one"], volume_driver="local")
        assert engine.containers.get("two").inspect()["Mounts"][0]["Name"] == "vol"


# Refused


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-v", "ab:b"), "invalid volume specification: 'ab:b': invalid mount config for type \"volume\": invalid mount path: 'b' mount path must be absolute"),
        (("-v", "data"), "invalid mount path: 'data' mount path must be absolute"),
        (("-v", "/x:/"), "invalid specification: destination can't be '/'"),
        (("-v", "/"), "invalid specification: destination can't be '/'"),
        (("-v", "/x:/y:wrong"), "invalid mode: wrong"),
        (("-v", "/x:/y:ro,rw"), "invalid mode: ro,rw"),
        (("-v", "/x:ro"), "invalid volume specification: '/x:ro'"),
        (("-v", "/tmp:/y", "-v", "/var:/y/"), "Duplicate mount point: /y"),
        (("-v", "/tmp:/y", "--mount", "type=tmpfs,dst=/y"), "Duplicate mount point: /y"),
        (("--tmpfs", "/y", "-v", "/tmp:/y"), "Duplicate mount point: /y"),
        (("--mount", "type=bind,src=x,dst=/y"), "invalid mount path: 'x' mount path must be absolute"),
        (("--mount", "type=bind,src=/tmp,dst=y"), "invalid mount path: 'y' mount path must be absolute"),
        (("--mount", "type=volume,src=x"), "field Target must not be empty"),
        (("--mount", "type=volume,dst=/y,ro"), "must not set ReadOnly mode when using anonymous volumes"),
        (("--mount", "type=nosuch,dst=/y"), 'invalid mount config for type "nosuch": mount type unknown'),
        (("--mount", "type=bind,src=/tmp,dst=/y,bind-propagation=x"), "invalid propagation mode: x"),
        (("-v", "/tmp:/proc"), '"/proc" cannot be mounted because it is not of type proc'),
        (("-v", "/etc/passwd:/proc/version"), '"/proc/version" cannot be mounted because it is inside /proc'),
        (("-v", "/tmp:/proc/none"), '"/proc/none" cannot be mounted because it is inside /proc'),
        (("-v", "/etc/passwd:/proc/none"), '"/proc/none" cannot be mounted because it is inside /proc'),
        (("--uts", "host", "--domainname", "x"), "conflicting options: domainname and the UTS mode"),
        (("--uts", "host", "--hostname", "x"), "conflicting options: hostname and the UTS mode"),
    ],
)  # fmt: skip
def test_what_is_refused(cli: Command, flags: tuple[str, ...], text: str) -> None:
    assert text in refused(cli, *flags)


def test_on_the_few_files_of_proc_that_programs_fake(cli: Command, place: Path) -> None:
    assert sh(cli, "cat /proc/uptime", "-v", f"{place}/dir/file:/proc/uptime") == "host\n"


def test_nothing_of_a_volume_is_in_the_writable_layer(volumes: Root) -> None:
    cli = volumes.cli
    cli("run", "--name", "box", "-v", "vol:/new/place", "base", "touch", "/new/place/x").ok()
    upper = Path(inspect(cli, "box")["GraphDriver"]["Data"]["UpperDir"])
    assert os.listdir(upper / "new") == ["place"]
    assert os.listdir(upper / "new/place") == []


def test_the_host_has_no_mount_of_any_of_it(root: Root, cli: Command, place: Path) -> None:
    before = host.mounts(root.directory, place)
    cli("run", "-d", "--name", "box", "-v", f"{place}/dir:/x", "base", "sleep", "1000").ok()
    assert host.mounts(root.directory, place) == before
    cli("rm", "-f", "box").ok()
    eventually(lambda: not host.processes(str(place)), 60, "processes have ended")
