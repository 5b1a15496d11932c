"""`cp` by Docker's rules: what goes where, which links are followed, whose the files are, and in Docker's words.

The tables are what `docker cp` (28.2 with a daemon of 20.10) did with the same files. Where ours differs on purpose, a test says so.
"""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.engine.archive import go_mode
from sampan.engine.containers import Container

from support.command import Command, Result
from support.patience import eventually
from support.roots import Root

pytestmark = [pytest.mark.root]

SETUP = (
    "rm -rf /d /n /dir /file /flink /dang /dl /ff /nn /run/* /suid /new /nowhere /again; mkdir -p /d/e /n/deep /dir; echo a >/d/e/a; ln -s e /d/l; echo f >/file; chown 5:6 /file; ln -s /file /flink; ln -s /nowhere /dang;"
    "ln -s /d/e /dl; ln -s ../file /n/rel; echo x >/dir/x; mkfifo /ff; mknod /nn c 1 3; mkdir -p /run/r; rm -rf /var/run; ln -s /run /var/run;"
    "echo suid >/suid; chmod 4755 /suid; touch /ready"
)


@pytest.fixture(scope="module")
def running(session_root: Root) -> Iterator[Container]:
    """A running container with files and links of all kinds."""
    with session_root.engine() as engine:
        box = engine.containers.create("base", ["sh", "-c", f"{SETUP}; sleep 1000"], name="box", network="none")
        box.start()
        eventually(lambda: box.exec(["test", "-e", "/ready"]).exit_code == 0)
        yield box
        box.remove(force=True)


@pytest.fixture
def box(running: Container) -> Container:
    """The same for tests that only look, or have what they make at places of their own."""
    return running


@pytest.fixture
def fresh(running: Container) -> Container:
    """The same with its files as they were."""
    running.exec(["sh", "-c", SETUP])
    return running


@pytest.fixture
def cli(session_root: Root) -> Command:
    return session_root.cli


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with files to copy and places to copy to."""
    for name in ("src/sub", "out/dir", "out/file"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "one").write_text("z\n")
    os.chown(tmp_path / "one", 1000, 1001)
    (tmp_path / "src/f").write_text("hi\n")
    (tmp_path / "src/sub/y").write_text("y\n")
    (tmp_path / "out/f").write_text("old\n")
    for link, target in {
        "src/lnk": "f",
        "src/up": "../../../etc/passwd",
        "dl": "src",
        "dn": "nonex",
        "ol": "one",
        "out/fl": "f",
        "out/dl": "dir",
        "out/dang": "gone",
    }.items():
        (tmp_path / link).symlink_to(target)
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(top: Path) -> dict[str, str]:
    """What is below a directory: "d", "l TARGET" or the content."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = f"l {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "d"
        else:
            found[name] = path.read_text().strip() if path.is_file() else "?"
    return found


def inside(box: Container, *paths: str) -> dict[str, str]:
    """The same of a container's paths."""
    script = 'for p in $(find "$@" | sort); do [ -h $p ] && echo $p l $(readlink $p) || { [ -d $p ] && echo $p d || echo $p $(cat $p); }; done'
    found = box.exec(["sh", "-c", script, "sh", *paths])
    assert found.exit_code == 0, found
    lines = str(found.stdout).splitlines()
    return dict(line.split(" ", 1) for line in lines)


def entries(archive: bytes) -> list[tuple[str, str]]:
    """The names of an archive, each with its type flag."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(f"{m.name}/" if m.isdir() and m.name != "/" else m.name, m.type.decode()) for m in tar]


def told(result: Result) -> str:
    """The message of a copy that was refused."""
    assert result.code == 1, f"{result}"
    return result.err.strip().removeprefix("Error: ")


# Out


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/d", [("d/", "5"), ("d/e/", "5"), ("d/e/a", "0"), ("d/l", "2")]),
        ("d/", [("d/", "5"), ("d/e/", "5"), ("d/e/a", "0"), ("d/l", "2")]),
        ("/d/.", [("./", "5"), ("./e/", "5"), ("./e/a", "0"), ("./l", "2")]),
        ("/d/l", [("l", "2")]),
        ("/d/l/", [("l/", "5"), ("l/a", "0")]),
        ("/d/l/.", [("./", "5"), ("./a", "0")]),
        ("/file", [("file", "0")]),
        ("/flink", [("flink", "2")]),
        ("/dang", [("dang", "2")]),
        ("/ff", [("ff", "6")]),
        ("/nn", [("nn", "3")]),
        ("/var/run/r", [("r/", "5")]),
        ("/n/deep/../rel", [("rel", "2")]),
    ],
)
def test_a_stream_has_the_names_that_docker_gives(
    cli: Command, box: Container, path: str, names: list[tuple[str, str]]
) -> None:
    found = entries(cli("cp", f"box:{path}", "-").ok().out_bytes)
    assert [(name.rstrip("/") or ".", kind) for name, kind in found] == [(n.rstrip("/"), kind) for n, kind in names]


def test_the_root_as_a_stream(cli: Command, box: Container) -> None:
    """Its names begin with a slash, which Docker's command line counts on. What the kernel makes up is left out, and /dev."""
    names = dict(entries(cli("cp", "box:/", "-").ok().out_bytes))
    assert {"/", "/d/e/a", "/proc/", "/dev/", "/sys/", "/etc/hosts"} <= set(names)
    assert not [name for name in names if name.startswith(("/proc/", "/dev/", "/sys/")) and name.count("/") > 2]
    assert not [name for name in names if name in ("/proc/self", "/dev/null")]


@pytest.mark.parametrize(
    ("flags", "path", "target", "expected"),
    [
        ("", "/d", "out", {"d": "d", "d/e": "d", "d/e/a": "a", "d/l": "l e"}),
        ("", "/d", "out/", {"d": "d", "d/e": "d", "d/e/a": "a", "d/l": "l e"}),
        ("", "/d", "out/new", {"new": "d", "new/e": "d", "new/e/a": "a", "new/l": "l e"}),
        ("", "/d", "out/new/", {"new": "d", "new/e": "d", "new/e/a": "a", "new/l": "l e"}),
        ("", "/d", "out/dl", {"dir/d": "d", "dir/d/e": "d", "dir/d/e/a": "a", "dir/d/l": "l e"}),
        ("", "/d", "out/dang", {"gone": "d", "gone/e": "d", "gone/e/a": "a", "gone/l": "l e"}),
        ("", "/d/.", "out", {"e": "d", "e/a": "a", "l": "l e"}),
        ("", "/d/.", "out/new", {"new": "d", "new/e": "d", "new/e/a": "a", "new/l": "l e"}),
        ("", "/d/l/", "out", {"l": "d", "l/a": "a"}),
        ("", "/file", "out/dir", {"dir/file": "f"}),
        ("", "/file", "out/new", {"new": "f"}),
        ("", "/file", "out/f", {"f": "f"}),
        ("", "/file", "out/fl", {"f": "f"}),
        ("", "/file", "out/dang", {"gone": "f"}),
        ("", "/flink", "out", {"flink": "l /file"}),
        ("-L", "/flink", "out", {"flink": "f"}),
        ("-L", "/flink", "out/new", {"new": "f"}),
        ("-L", "/d/l", "out", {"l": "d", "l/a": "a"}),
        ("-L", "/n/rel", "out", {"rel": "f"}),
        ("", "/dang", "out", {"dang": "l /nowhere"}),
        ("", "/ff", "out", {"ff": "?"}),
    ],
)
def test_what_comes_out_where(
    cli: Command, box: Container, here: Path, flags: str, path: str, target: str, expected: dict[str, str]
) -> None:
    before = tree(here / "out")
    cli("cp", *flags.split(), f"box:{path}", target, cwd=str(here)).ok()
    assert {k: v for k, v in tree(here / "out").items() if before.get(k) != v} == expected


@pytest.mark.parametrize(
    ("flags", "path", "target", "message"),
    [
        ("", "/nope", "out", "Could not find the file /nope in container box"),
        ("-L", "/dang", "out", "Could not find the file /nowhere in container box"),
        ("", "/file/", "out", "lstat /file/: not a directory"),
        ("", "/file/.", "out", "lstat /file/.: not a directory"),
        ("", "/d", "out/f", "cannot copy directory"),
        ("", "/d/.", "out/fl", "cannot copy directory"),
        ("", "/file", "out/new/", "no such directory"),
        ("", "/file", "no/x", 'invalid output path: directory "{here}/no" does not exist'),
        ("", "/d", "no/x", 'invalid output path: directory "{here}/no" does not exist'),
        ("", "/file", "out/f/", "stat {here}/out/f/: not a directory"),
        ("", "/file", "/dev/null", 'invalid output path: "/dev/null" must be a directory or a regular file: got a device'),
        ("", "/file", "out", 'error processing tar file: cannot overwrite directory "{here}/out/file" with non-directory "{here}/out"'),
        ("", "", "out", "bad parameter: path cannot be empty"),
    ],
)  # fmt: skip
def test_what_does_not_come_out(
    cli: Command, box: Container, here: Path, flags: str, path: str, target: str, message: str
) -> None:
    before = tree(here)
    assert told(cli("cp", *flags.split(), f"box:{path}", target, cwd=str(here))) == message.format(here=here)
    assert tree(here) == before


def test_what_comes_out_is_the_callers_and_cannot_become_another(cli: Command, box: Container, here: Path) -> None:
    """Docker keeps set-id bits and gives the file to the caller: a container's program would be root's. Ours does not."""
    cli("cp", "box:/suid", "out/suid").ok()
    cli("cp", "box:/file", "out/mine").ok()
    status = os.stat("out/suid")
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, 0)
    assert (os.stat("out/mine").st_uid, os.stat("out/mine").st_gid) == (0, 0)


def test_an_archive_copy_out_keeps_owners_and_bits(cli: Command, box: Container, here: Path) -> None:
    """What the help of Docker's -a says, and its command line does not do."""
    cli("cp", "-a", "box:/file", "out/theirs").ok()
    cli("cp", "-a", "box:/suid", "out/suid").ok()
    assert (os.stat("out/theirs").st_uid, os.stat("out/theirs").st_gid) == (5, 6)
    assert stat.S_IMODE(os.stat("out/suid").st_mode) == 0o4755


# In


@pytest.mark.parametrize(
    ("flags", "source", "path", "expected"),
    [
        ("", "one", "/dir", {"/dir/one": "z"}),
        ("", "one", "dir/", {"/dir/one": "z"}),
        ("", "one", "/dir/new", {"/dir/new": "z"}),
        ("", "one", "/dir/x", {"/dir/x": "z"}),
        ("", "one", "/flink", {"/file": "z"}),
        ("", "one", "/dang", {"/nowhere": "z"}),
        ("", "one", "/dl", {"/d/e/one": "z"}),
        ("", "one", "/dl/", {"/d/e/one": "z"}),
        ("", "one", "/dl/q", {"/d/e/q": "z"}),
        ("", "one", "/var/run", {"/run/one": "z"}),
        ("", "one", "/var/run/x", {"/run/x": "z"}),
        ("", "src/.", "/dir", {"/dir/f": "hi", "/dir/lnk": "l f", "/dir/sub": "d", "/dir/sub/y": "y", "/dir/up": "l ../../../etc/passwd"}),
        ("", "src", "/dir", {"/dir/src": "d", "/dir/src/f": "hi", "/dir/src/lnk": "l f", "/dir/src/sub": "d", "/dir/src/sub/y": "y", "/dir/src/up": "l ../../../etc/passwd"}),
        ("", "src/sub", "/dir/new", {"/dir/new": "d", "/dir/new/y": "y"}),
        ("", "src/sub/.", "/dir/new/", {"/dir/new": "d", "/dir/new/y": "y"}),
        ("", "dl", "/dir", {"/dir/dl": "l src"}),
        ("", "dl/sub/", "/dir", {"/dir/sub": "d", "/dir/sub/y": "y"}),
        ("-L", "ol", "/dir", {"/dir/ol": "z"}),
        ("", "dn", "/dir", {"/dir/dn": "l nonex"}),
        ("", "./one", "/dir", {"/dir/one": "z"}),
        ("", "src/sub/y", "/dir/../dir/y", {"/dir/y": "y"}),
    ],
)  # fmt: skip
def test_what_goes_in_where(
    cli: Command, fresh: Container, here: Path, flags: str, source: str, path: str, expected: dict[str, str]
) -> None:
    places = ("/dir", "/d", "/file", "/run", "/n")
    before = inside(fresh, *places)
    cli("cp", *flags.split(), source, f"box:{path}", cwd=str(here)).ok()
    places += ("/nowhere",) if "/nowhere" in expected else ()
    assert {k: v for k, v in inside(fresh, *places).items() if before.get(k) != v} == expected


@pytest.mark.parametrize(
    ("flags", "source", "path", "message"),
    [
        ("", "one", "/no/x", "Could not find the file /no in container box"),
        ("", "one", "/no/", "no such directory"),
        ("", "one", "/file/", "no such directory"),
        ("", "one", "/file/x", "extraction point is not a directory"),
        ("", "src", "/file", "cannot copy directory"),
        ("", "src", "/file/", 'error processing tar file: cannot overwrite non-directory "/file" with directory "/"'),
        ("", "src", "/no/x", "Could not find the file /no in container box"),
        ("", "nope", "/d", "lstat {here}/nope: no such file or directory"),
        ("-L", "dn", "/d", "lstat {here}/nonex: no such file or directory"),
        ("", "one/", "/d", "not a directory"),
        ("", "one", "/etc/hosts", "error processing tar file: unlinkat /etc/hosts: device or resource busy"),
        ("", "one", "", "bad parameter: path cannot be empty"),
    ],
)  # fmt: skip
def test_what_does_not_go_in(
    cli: Command, box: Container, here: Path, flags: str, source: str, path: str, message: str
) -> None:
    before = inside(box, "/d", "/file", "/etc/hosts")
    assert told(cli("cp", *flags.split(), source, f"box:{path}", cwd=str(here))) == message.format(here=here)
    assert inside(box, "/d", "/file", "/etc/hosts") == before


def test_a_directory_keeps_a_file_out_and_the_other_way_round(cli: Command, fresh: Container, here: Path) -> None:
    (here / "e").write_text("a file")
    words = 'error processing tar file: cannot overwrite directory "/d/e" with non-directory "/d"'
    assert told(cli("cp", "e", "box:/d")) == words
    (here / "t/e/a").mkdir(parents=True)
    words = 'error processing tar file: cannot overwrite non-directory "/d/e/a" with directory "/d"'
    assert told(cli("cp", "t/e", "box:/d")) == words
    assert inside(fresh, "/d") == {"/d": "d", "/d/e": "d", "/d/e/a": "a", "/d/l": "l e"}


def test_a_socket_cannot_be_copied(cli: Command, fresh: Container, here: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("src/sock")
        assert told(cli("cp", "src/sock", "box:/d")) == f"{here}/src/sock: sockets cannot be copied"
        cli("cp", "src", "box:/new").ok()  # of a directory it is left out, as with Docker
    assert "/new/sock" not in inside(fresh, "/new")


# Owners


def owner(cli: Command, path: str, container: str = "box") -> str:
    return cli("exec", container, "stat", "-c", "%u:%g", path).ok().out.strip()


def test_owners_are_kept_as_numbers(cli: Command, fresh: Container, here: Path) -> None:
    """With and without -a, as Docker does for a container without a user of its own (its help says that they become root's)."""
    for flags in ([], ["-a"]):
        cli("cp", *flags, "one", "box:/d/one").ok()
        assert owner(cli, "/d/one") == "1000:1001"


def test_an_archive_copy_in_belongs_to_the_containers_user(cli: Command, here: Path) -> None:
    """Docker asks the host's passwd for the user, and refuses numbers; here it is the container's own."""
    for user, ids in (("1234:5678", "1234:5678"), ("1234", "1234:0"), ("nobody", "65534:65534")):
        cli("run", "-d", "--network", "none", "--name", "other", "--user", user, "base", "sleep", "1000").ok()
        cli("cp", "one", "other:/theirs").ok()
        cli("cp", "-a", "one", "other:/ours").ok()
        assert (owner(cli, "/theirs", "other"), owner(cli, "/ours", "other")) == ("1000:1001", ids)
        cli("rm", "-f", "other").ok()


def test_a_user_that_is_not_there(cli: Command, here: Path) -> None:
    cli("create", "--network", "none", "--name", "other", "--user", "nosuch", "base", "true").ok()
    words = "unable to find user nosuch: no matching entries in passwd file"
    assert told(cli("cp", "-a", "one", "other:/x")) == words
    cli("cp", "one", "other:/x").ok()
    cli("rm", "other").ok()


def test_modes_and_times_go_in(cli: Command, fresh: Container, here: Path) -> None:
    os.chmod("one", 0o4755)
    os.utime("one", (1_000_000_000, 1_000_000_000))
    os.chmod("src/sub", 0o1700)
    os.utime("src/sub", (1_100_000_000, 1_100_000_000))
    cli("cp", "one", "box:/d").ok()
    cli("cp", "src", "box:/d").ok()
    found = cli("exec", "box", "stat", "-c", "%a %Y", "/d/one", "/d/src/sub").ok().out.split()
    assert found == ["4755", "1000000000", "1700", "1100000000"]


# Streams


def archive_of(*names: str) -> bytes:
    return subprocess.run(["tar", "-c", *names], capture_output=True, check=True).stdout


def test_a_stream_in(cli: Command, fresh: Container, here: Path) -> None:
    cli("cp", "-", "box:/dl", input=archive_of("one", "src/sub")).ok()
    assert inside(fresh, "/d/e") == {"/d/e": "d", "/d/e/a": "a", "/d/e/one": "z", "/d/e/src": "d", "/d/e/src/sub": "d", "/d/e/src/sub/y": "y"}  # fmt: skip


@pytest.mark.parametrize("path", ["/file", "/nope", "/flink", "/dang"])
def test_a_stream_goes_into_a_directory_only(cli: Command, fresh: Container, here: Path, path: str) -> None:
    words = f'destination "box:{path}" must be a directory'
    assert told(cli("cp", "-", f"box:{path}", input=archive_of("one"))) == words


@pytest.mark.parametrize("flag", ["-z", "-j", "-J"])
def test_a_compressed_stream(cli: Command, fresh: Container, here: Path, flag: str) -> None:
    data = subprocess.run(["tar", "-c", flag, "one"], capture_output=True, check=True).stdout
    cli("cp", "-", "box:/d", input=data).ok()
    assert inside(fresh, "/d/one") == {"/d/one": "z"}


def test_a_stream_that_is_none(cli: Command, fresh: Container, here: Path) -> None:
    assert told(cli("cp", "-", "box:/d", input="nonsense")).startswith("error processing tar file: unexpected EOF")
    cli("cp", "-", "box:/d", input="").ok()  # as Docker


def test_a_stream_that_is_cut(cli: Command, fresh: Container, here: Path) -> None:
    (here / "big").write_bytes(os.urandom(1 << 20))
    data = archive_of("one", "big")
    words = told(cli("cp", "-", "box:/dir", input=data[: len(data) // 2]))
    assert words.startswith("error processing tar file: unexpected EOF")
    assert inside(fresh, "/dir") == {"/dir": "d", "/dir/one": "z", "/dir/x": "x"}  # nothing of the half file


def test_a_stream_out_and_in_again(cli: Command, fresh: Container, here: Path) -> None:
    data = cli("cp", "box:/d/.", "-").ok().out_bytes
    cli("exec", "box", "mkdir", "/again").ok()
    cli("cp", "-", "box:/again", input=data).ok()
    assert inside(fresh, "/again") == {"/again": "d", "/again/e": "d", "/again/e/a": "a", "/again/l": "l e"}


# The command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("one", "one"), "must specify at least one container source"),
        (("-", "-"), "must specify at least one container source"),
        ((":/d", "."), "must specify at least one container source"),
        (("box:/a", "box:/b"), "copying between containers is not supported"),
        (("box:/a", ""), "destination can not be empty"),
        (("", "box:/a"), "source can not be empty"),
        (("nobox:/d", "."), "No such container: nobox"),
        (("one", "nobox:/d"), "No such container: nobox"),
    ],
)
def test_words_that_say_nothing(cli: Command, here: Path, words: tuple[str, str], message: str) -> None:
    assert told(cli("cp", *words)) == message


def test_a_path_with_a_colon(cli: Command, fresh: Container, here: Path) -> None:
    (here / "a:b").write_text("colon")
    cli("cp", "./a:b", "box:/d/one:two").ok()
    cli("cp", f"{here}/a:b", "box:/d/three").ok()
    cli("cp", "box:/d/one:two", "./c:d").ok()
    assert (here / "c:d").read_text() == "colon"
    assert inside(fresh, "/d/three") == {"/d/three": "colon"}


def test_what_is_told_on_a_terminal(session_root: Root, fresh: Container, here: Path) -> None:
    (here / "big").write_bytes(bytes(3_000_000))
    for words, line in (
        (("one", "box:/d/one"), "Successfully copied 2.05kB to box:/d/one"),
        (("big", "box:/d/big"), "Successfully copied 3MB to box:/d/big"),
        (("box:/file", "out/f"), f"Successfully copied 2.05kB to {here}/out/f"),
        (("box:/file", "out/dir/"), f"Successfully copied 2.05kB to {here}/out/dir/"),
        (("-q", "box:/file", "out/f"), ""),
        (("box:/nope", "out/f"), "Error: Could not find the file /nope in container box"),
    ):
        with session_root.terminal("cp", *words) as terminal:
            terminal.wait()
            assert terminal.output.decode().replace("\r\n", "\n") == (f"{line}\n" if line else ""), words


def test_what_is_told_without_a_terminal(cli: Command, fresh: Container, here: Path) -> None:
    assert cli("cp", "one", "box:/d").ok().err == ""
    assert cli("cp", "--quiet=false", "one", "box:/d").ok().err == "Successfully copied 2.05kB to box:/d\n"
    told_size = cli("cp", "--quiet=false", "-", "box:/d", input=archive_of("one")).ok().err
    assert told_size == "Successfully copied 10.2kB to box:/d\n"  # Docker says 0B


def test_container_cp_is_the_same(cli: Command, fresh: Container, here: Path) -> None:
    cli("container", "cp", "one", "box:/d/one").ok()
    assert entries(cli("container", "cp", "box:/d/one", "-").ok().out_bytes) == [("one", "0")]


# What a path is


def test_a_path_is_described_as_by_the_api(session_root: Root, box: Container) -> None:
    with session_root.engine() as engine:
        container = engine.containers.get("box")
        shown = {path: container.stat_path(path).shown() for path in ("/file", "/flink", "/d/l", "/dang", "/", "/d/.", "/d/l/", "/nn", "/suid", "n/rel")}  # fmt: skip
    kept = {path: (s["name"], s["mode"], s["linkTarget"]) for path, s in shown.items()}
    assert kept == {
        "/file": ("file", 0o644, ""),
        "/flink": ("flink", 134218239, "/file"),
        "/d/l": ("l", 134218239, "/d/e"),
        "/dang": ("dang", 134218239, "/nowhere"),
        "/": ("/", 2147484141, ""),
        "/d/.": (".", 2147484141, ""),
        "/d/l/": ("l", 2147484141, ""),
        "/nn": ("nn", 1 << 26 | 1 << 21 | 0o644, ""),
        "/suid": ("suid", 1 << 23 | 0o755, ""),
        "n/rel": ("rel", 134218239, "/file"),
    }
    assert shown["/file"]["size"] == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", shown["/file"]["mtime"])


def test_go_modes() -> None:
    assert go_mode(stat.S_IFREG | 0o644) == 420
    assert go_mode(stat.S_IFDIR | 0o1777) == 1 << 31 | 1 << 20 | 0o777
    assert go_mode(stat.S_IFSOCK | 0o2755) == 1 << 24 | 1 << 22 | 0o755
    assert go_mode(stat.S_IFIFO | 0o600) == 1 << 25 | 0o600
    assert go_mode(stat.S_IFBLK | 0o600) == 1 << 26 | 0o600


def test_events_of_copies(cli: Command, fresh: Container, here: Path) -> None:
    cli("cp", "one", "box:/d").ok()
    cli("cp", "box:/file", "out/f").ok()
    shown = cli("events", "--since", "0", "--until", "0s", "--filter", "container=box", "--format", "{{.Action}}").ok()
    assert shown.out.split()[-2:] == ["extract-to-dir", "archive-path"]
