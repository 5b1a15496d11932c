"""Attacks on copying between containers and the host, each named after the advisory of the engine that had it.

The races are run twice: against the engine as it is, which must not lose, and against one that is weakened in the very place
that the advisory is about, which must: so the attack is known to work. How it is weakened is the fixture of the test:

- `resolved_first`: a path is resolved to one without links, and that is opened by name (FollowSymlinkInScope, as it was)
- `by_name`: what was made is given its mode by its name
- `following`: a directory is entered through a link

`pytest -m long tests/security` has the same with a thousand rounds and more.
"""

from __future__ import annotations

import ctypes
import io
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.container import Container
from sampan.errors import SampanError
from sampan.kernel import paths, tree
from sampan.kernel.files import by_descriptor
from sampan.store import copyin

from support import archives, host
from support.archives import fingerprint
from support.patience import eventually
from support.roots import BASE, Root

pytestmark = [pytest.mark.root, pytest.mark.patience(600)]

SECRET = b"a secret of the host"
SHORT, LONG = 60, 1500
"""Rounds of a race. The weakened engine loses one within the first twenty or so on an idle machine."""
ROUNDS = [SHORT, pytest.param(LONG, marks=pytest.mark.long)]
WEAKENED_ROUNDS = 3000

# Two names of a directory change places as fast as a process can (renameat2, RENAME_EXCHANGE).
EXCHANGE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
first, second = (os.fsencode(f"{sys.argv[1]}/{name}") for name in sys.argv[2:4])
while True:
    libc.renameat2(-100, first, -100, second, 2)
"""

# A link takes the place of a name again and again.
REPLACE = """
import os, sys
place, name, target = sys.argv[1:4]
while True:
    os.symlink(target, f"{place}/.link")
    os.rename(f"{place}/.link", f"{place}/{name}")
"""


@pytest.fixture
def canary() -> Iterator[Path]:
    """A directory of the host that no container has anything to do with."""
    path = BASE / f"canary-{os.getpid()}"
    path.mkdir(parents=True)
    (path / "secret").write_bytes(SECRET)
    os.chmod(path / "secret", 0o600)
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def box(engine: sampan.Engine, root: Root) -> Container:
    """A running container that the attacker has."""
    container = engine.containers.create("base", ["sleep", "1000"], name="box", network="none")
    container.start()
    return container


def inside(container: Container) -> Path:
    """The container's files as its own processes see them: where the attacker works."""
    return Path(f"/proc/{container.inspect()['State']['Pid']}/root")


@pytest.fixture
def attack() -> Iterator[Callable[..., None]]:
    """Starts one of the programs above, which goes on until the end of the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(program: str, *arguments: str | Path) -> None:
        running.append(subprocess.Popen([sys.executable, "-S", "-c", program, *arguments]))
        watched = os.path.join(*arguments[:2])
        before = os.lstat(watched).st_ino if os.path.lexists(watched) else 0
        eventually(lambda: os.path.lexists(watched) and os.lstat(watched).st_ino != before)

    yield start
    for process in running:
        process.kill()
        process.wait()


def tar(**files: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


# How the engine is weakened


def _open_resolved(root_fd: int, path: str | bytes, flags: int, mode: int = 0, **_: Any) -> int:
    """What FollowSymlinkInScope and an open by the path that it gave came to: the kernel follows what is a link by then."""
    resolved = paths.resolve_in_root(root_fd, path)
    return os.open(by_descriptor(root_fd) + b"/" + resolved, flags | os.O_CLOEXEC, mode)


def _makedirs_resolved(root_fd: int, path: str | bytes, mode: int = 0o755, *_: Any) -> int:
    resolved = paths.resolve_in_root(root_fd, path)
    os.makedirs(by_descriptor(root_fd) + b"/" + resolved, mode, exist_ok=True)
    return os.open(by_descriptor(root_fd) + b"/" + resolved, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@pytest.fixture
def resolved_first(monkeypatch: pytest.MonkeyPatch) -> None:
    strong = paths.open_in_root
    # The walk that finds links is as it was: it was never what was wrong.
    monkeypatch.setattr(paths, "_link_target", lambda fd, path: _target_by(strong, fd, path))
    for module in (paths, copyin):
        monkeypatch.setattr(module, "open_in_root", _open_resolved)
        monkeypatch.setattr(module, "makedirs_in_root", _makedirs_resolved)


def _target_by(strong: Callable[..., int], root_fd: int, path: bytes) -> bytes | None:
    try:
        fd = strong(root_fd, path, os.O_PATH, nofollow_last=True, no_symlinks=True)
    except OSError:
        return None
    try:
        return os.readlink(b"", dir_fd=fd)
    except OSError:
        return None
    finally:
        os.close(fd)


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(_self: Any, parent: int, base: bytes, entry: Any, _kind: int, _device: int = 0) -> None:
        os.chmod(base, entry.mode, dir_fd=parent)

    monkeypatch.setattr(copyin.CopyIn, "_finish", finish)


@pytest.fixture
def following(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_DIRECTORY", tree._DIRECTORY & ~os.O_NOFOLLOW)


# CVE-2018-15664: a directory on the way becomes a link between the look and the use


def copies_through(container: Container, canary: Path, rounds: int) -> str:
    """Copy both ways through a directory that is exchanged with a link to the canary; what got out, "" for nothing."""
    before = fingerprint(canary)
    for number in range(rounds):
        try:
            container.put_archive("/tmp/way", tar(mark=b"x"))
        except SampanError:
            pass  # a link to what the container does not have
        if fingerprint(canary) != before:
            return f"round {number}: written to the host"
        try:
            with container.get_archive("/tmp/way/secret")[1] as pieces:
                if SECRET in b"".join(pieces):
                    return f"round {number}: read from the host"
        except SampanError:
            pass
    return ""


def prepare_way(container: Container, canary: Path) -> Path:
    place = inside(container) / "tmp"
    (place / "way").mkdir()
    (place / "way/secret").write_text("the container's own")
    os.symlink(canary, place / "link")
    return place


@pytest.mark.parametrize("rounds", ROUNDS)
def test_cve_2018_15664(box: Container, canary: Path, attack: Callable[..., None], rounds: int) -> None:
    """A process of the container exchanges a directory with a link to a directory of the host, in a loop, while files are copied
    into and out of that directory. An engine that first resolves the path and then opens what it found opens the link."""
    attack(EXCHANGE, prepare_way(box, canary), "way", "link")
    assert copies_through(box, canary, rounds) == ""


def test_cve_2018_15664_weakened(
    box: Container, canary: Path, attack: Callable[..., None], resolved_first: None
) -> None:
    attack(EXCHANGE, prepare_way(box, canary), "way", "link")
    assert "the host" in copies_through(box, canary, WEAKENED_ROUNDS)


# CVE-2019-10152: the same while a tree is read


def reads_of(container: Container, rounds: int) -> str:
    for number in range(rounds):
        try:
            with container.get_archive("/tmp/top")[1] as pieces:
                if SECRET in b"".join(pieces):
                    return f"round {number}: read from the host"
        except SampanError:
            pass
    return ""


def prepare_tree(container: Container, canary: Path) -> Path:
    place = inside(container) / "tmp/top"
    (place / "way/deeper").mkdir(parents=True)
    (place / "way/secret").write_text("the container's own")
    os.symlink(canary, place / "zlink")
    return place


@pytest.mark.parametrize("rounds", ROUNDS)
def test_cve_2019_10152(box: Container, canary: Path, attack: Callable[..., None], rounds: int) -> None:
    """A directory inside of the tree that is copied out is exchanged with a link to the host while the copy walks through it.
    An engine that walks by names enters the link and takes the host's files along."""
    attack(EXCHANGE, prepare_tree(box, canary), "way", "zlink")
    assert reads_of(box, rounds) == ""


def test_cve_2019_10152_weakened(box: Container, canary: Path, attack: Callable[..., None], following: None) -> None:
    attack(EXCHANGE, prepare_tree(box, canary), "way", "zlink")
    assert reads_of(box, WEAKENED_ROUNDS)


# CVE-2021-41089: a mode or an owner that an archive says is given to a file of the host


def modes_given(container: Container, canary: Path, rounds: int) -> str:
    pipe = archives.member(b"node", mode=0o777, uid=7, gid=7, kind=b"6") + bytes(1024)
    before = fingerprint(canary)
    for number in range(rounds):
        try:
            container.put_archive("/tmp", pipe)
        except SampanError:
            pass  # "somebody has put something else there"
        if fingerprint(canary) != before:
            return f"round {number}: a file of the host was changed"
    return ""


@pytest.mark.parametrize("rounds", ROUNDS)
def test_cve_2021_41089(box: Container, canary: Path, attack: Callable[..., None], rounds: int) -> None:
    """A named pipe is copied in, and in the moment between its making and the setting of its mode the container puts a link to a
    file of the host in its place. chmod(2) by that name changes the mode of the host's file."""
    attack(REPLACE, inside(box) / "tmp", "node", canary / "secret")
    assert modes_given(box, canary, rounds) == ""


def test_cve_2021_41089_weakened(box: Container, canary: Path, attack: Callable[..., None], by_name: None) -> None:
    attack(REPLACE, inside(box) / "tmp", "node", canary / "secret")
    assert modes_given(box, canary, WEAKENED_ROUNDS)


@pytest.mark.parametrize("running", [True, False])
def test_cve_2021_41089_without_a_race(box: Container, canary: Path, running: bool) -> None:
    """An archive has a link to a file of the host, and then an entry of the same name, or a hard link to it, with another mode."""
    if not running:
        box.stop(timeout=0)
    before = fingerprint(canary)
    secret = os.fsencode(canary / "secret")
    for entries in (
        archives.symlink(b"l", secret) + archives.member(b"l", b"x", mode=0o777),
        archives.symlink(b"l", secret, mode=0o777, uid=7, gid=7),
        archives.symlink(b"l", secret) + archives.hardlink(b"h", b"l", mode=0o777) + archives.member(b"h", b"x", mode=0o777),
        archives.symlink(b"d", os.fsencode(canary)) + archives.directory(b"d", 0o777) + archives.member(b"d/secret", b"x"),
        archives.hardlink(b"h", secret, mode=0o777),
        archives.hardlink(b"h", b"../" * 9 + secret[1:], mode=0o777),
    ):  # fmt: skip
        try:
            box.put_archive("/tmp", entries + bytes(1024))
        except SampanError:
            pass
        assert fingerprint(canary) == before


# CVE-2026-42306, GHSA-vp62-88p7-qqf5: the place where a volume is mounted for the copy is exchanged with a link


@pytest.fixture
def with_volumes(engine: sampan.Engine, canary: Path) -> Iterator[Container]:
    """One that does not run, with a mount below a directory of a volume that another container has, too."""
    volume = engine.volumes.create("shared")
    data = Path(volume.path)
    (data / "way").mkdir()
    os.symlink("/" + "../" * 20 + str(canary)[1:], data / "link")
    (canary.parent / f"{canary.name}-bound").mkdir()
    bound = canary.parent / f"{canary.name}-bound"
    yield engine.containers.create(
        "base", ["sleep", "9"], name="victim", network="none", volumes=["shared:/v", f"{bound}:/v/way/new/deep"]
    )
    for container in engine.containers.list(all=True):
        container.remove(force=True)
    bound.rmdir()
    # What the weakened engine has mounted ended with its namespace; what it made is the test's to take away.
    engine.volumes.get("shared").remove()


def archives_beside(container: Container, canary: Path, rounds: int) -> str:
    before = fingerprint(canary)
    mounts = host.mounts(canary)
    for number in range(rounds):
        for operation in (
            lambda: container.put_archive("/v", tar(mark=b"x")),
            lambda: container.stat_path("/v/way"),
        ):
            try:
                operation()
            except SampanError:
                pass
            if fingerprint(canary) != before:
                return f"round {number}: something was made on the host"
            if host.mounts(canary) != mounts:
                return f"round {number}: something was mounted on the host"
        subprocess.run(["rm", "-rf", f"{_volume(container)}/way/new", f"{_volume(container)}/link/new"], check=False)
    return ""


def _volume(container: Container) -> str:
    return next(m["Source"] for m in container.inspect()["Mounts"] if m["Type"] == "volume")


@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_cve_2026_42306(with_volumes: Container, canary: Path, attack: Callable[..., None], rounds: int) -> None:
    """HEAD and PUT archive mount the container's volumes where a link may have come between the look at the place and the mount:
    directories are made, and volumes mounted, elsewhere on the host. The exchange is done by another container with the volume."""
    attack(EXCHANGE, Path(_volume(with_volumes)), "way", "link")
    assert archives_beside(with_volumes, canary, rounds) == ""


def test_ghsa_vp62_88p7_qqf5_weakened(
    with_volumes: Container, canary: Path, attack: Callable[..., None], resolved_first: None
) -> None:
    attack(EXCHANGE, Path(_volume(with_volumes)), "way", "link")
    assert "the host" in archives_beside(with_volumes, canary, WEAKENED_ROUNDS)


def test_ghsa_vp62_88p7_qqf5_and_links_of_an_image(engine: sampan.Engine, root: Root) -> None:
    """The mend of that advisory refused absolute links, and with them every image that has /var/run -> /run."""
    box = engine.containers.create("base", ["sh", "-c", "rm -rf /var/run; mkdir -p /run /var; ln -s /run /var/run; echo 1 >/run/pid; sleep 1000"], network="none")  # fmt: skip
    box.start()
    eventually(lambda: box.exec(["test", "-e", "/run/pid"]).exit_code == 0)
    for stop in (lambda: None, lambda: box.stop(timeout=0)):
        stop()
        box.put_archive("/var/run", tar(mark=b"x"))
        assert box.stat_path("/var/run/mark").size == 1
        assert b"".join(box.get_archive("/var/run/mark")[1])


# CVE-2019-14271, CVE-2026-41567: code of the container is loaded or executed by the engine

TRAPS = (
    "lib/x86_64-linux-gnu/libnss_files.so.2",
    "lib/libnss_dns.so.2",
    "usr/lib/libnss_compat.so.2",
    "etc/nsswitch.conf",
)
PROGRAMS = ("gzip", "unpigz", "pigz", "xz", "bzip2", "zstd", "tar")
MODULES = ("encodings/__init__.py", "encodings/cp437.py", "lzma.py", "pwd.py", "os.py", "sampan/__init__.py")


def trapped(container: Container, canary: Path) -> None:
    """Programs, libraries and modules in every place of the container where somebody might look for one."""
    top = inside(container)
    script = f"#!/bin/sh\ntouch {canary}/executed\ntouch /executed\ncat\n"
    for directory in ("bin", "usr/bin", "usr/local/bin", "sbin"):
        (top / directory).mkdir(parents=True, exist_ok=True)
        for program in PROGRAMS:
            (top / directory / program).unlink(missing_ok=True)
            (top / directory / program).write_text(script)
            os.chmod(top / directory / program, 0o755)
    for library in TRAPS:
        (top / library).parent.mkdir(parents=True, exist_ok=True)
        (top / library).write_bytes(b"\x7fELF nonsense")
    for place in ("", "usr/lib/python3.11", sys.prefix.lstrip("/") + "/lib/python3.11", str(Path(sampan.__file__).parents[1]).lstrip("/")):  # fmt: skip
        for module in MODULES:
            path = top / place / module
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"open('{canary}/loaded', 'w')\n")


def traced(root: Root, tmp_path: Path, *arguments: str, input: bytes = b"") -> list[str]:
    """The files that the command opens and executes, by strace(1)."""
    log = tmp_path / "strace"
    command = ["strace", "-f", "-o", str(log), "-e", "trace=execve,execveat,open,openat,openat2", "-y", "-s", "400"]
    done = subprocess.run([*command, root.cli.program, *root.cli.before, *arguments], input=input, env=root.cli.environment, capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return log.read_text(errors="replace").splitlines()


@pytest.mark.parametrize("running", [True, False])
def test_cve_2019_14271(box: Container, root: Root, canary: Path, tmp_path: Path, running: bool) -> None:
    """The engine's helper changes its root to the container's and then looks up a user name, for which the C library loads
    libnss_*.so out of the container: with the host's privileges. So with what an interpreter loads late."""
    trapped(box, canary)
    if not running:
        box.stop(timeout=0)
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 4321, 4321)
    for arguments in (
        ("cp", "-a", "box:/etc/passwd", str(tmp_path / "out")),
        ("cp", "-a", str(tmp_path / "f"), "box:/tmp"),
    ):
        calls = traced(root, tmp_path, *arguments)
        executed = [line for line in calls if "exec" in line and " = 0" in line]
        # env and the command's own interpreter: nothing of the container, and no helper.
        assert len(executed) <= 2, executed
        below = [line for line in calls if "openat2(" in line or ("openat(" in line and "AT_FDCWD" not in line)]
        assert not [line for line in below if any(trap in line for trap in ("libnss", '.py"', "nsswitch", "/bin/"))], (
            below
        )
    assert os.listdir(canary) == ["secret"]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("flag", ["-z", "-J", "-j"])
def test_cve_2026_41567(box: Container, root: Root, canary: Path, tmp_path: Path, flag: str, running: bool) -> None:
    """PUT of a compressed archive makes the engine execute `unpigz`, `xz` or `gzip`, found by a PATH that leads into the
    container. Here nothing is executed: it is unpacked in the process."""
    trapped(box, canary)
    if not running:
        box.stop(timeout=0)
    (tmp_path / "f").write_text("x")
    data = subprocess.run(["tar", "-c", flag, "-C", tmp_path, "f"], capture_output=True, check=True).stdout
    calls = traced(root, tmp_path, "cp", "-", "box:/tmp", input=data)
    assert len([line for line in calls if "exec" in line and " = 0" in line]) <= 2
    assert box.stat_path("/tmp/f").size == 1
    assert os.listdir(canary) == ["secret"]
    with pytest.raises(SampanError):
        box.stat_path("/executed")


# CVE-2026-17106: an archive's links let it write outside


def hostile(canary: Path) -> dict[str, bytes]:
    """Archives that want to write into the canary, or somewhere above the directory that they are put into."""
    member, link, hard, pax, folder = (
        archives.member,
        archives.symlink,
        archives.hardlink,
        archives.pax,
        archives.directory,
    )
    out, up = os.fsencode(canary), b"../" * 30 + os.fsencode(canary)[1:]
    return {
        "a file through a link": link(b"d", out) + member(b"d/new", b"x"),
        "a file through a relative link": link(b"d", up) + member(b"d/new", b"x"),
        "a file through a link to a link": link(b"e", out) + link(b"d", b"e") + member(b"d/new", b"x"),
        "a file over a link": link(b"f", out + b"/secret") + member(b"f", b"x"),
        "a directory over a link": link(b"d", out) + folder(b"d", 0o777) + member(b"d/new", b"x"),
        "a name above": member(up + b"/new", b"x"),
        "an absolute name": member(out + b"/new", b"x"),
        "a name from above by pax": pax({b"path": up + b"/new"}) + member(b"harmless", b"x"),
        "a hard link to above": hard(b"h", up + b"/secret") + member(b"h", b"x"),
        "a hard link through a link": link(b"d", out) + hard(b"h", b"d/secret"),
        "an absolute hard link": hard(b"h", out + b"/secret"),
        "a link target by pax": pax({b"linkpath": out}) + link(b"d", b"x") + member(b"d/new", b"x"),
        "a parent that a whiteout takes": folder(b"d") + member(b".wh.d") + link(b"d", out) + member(b"d/new", b"x"),
        "an opaque mark": link(b"d", out) + member(b"d/.wh..wh..opq"),
        "a whiteout through a link": link(b"d", out) + member(b"d/.wh.secret"),
        "a NUL": pax({b"path": b"a\0b"}) + member(b"harmless", b"x"),
        "a name of dots": member(b"..", b"x"),
        "a device": member(b"disk", kind=b"4", device=(8, 0)),
        "a name without end": archives.header(b"././@LongLink", size=1 << 32, kind=b"L") + b"x" * 512,
    }  # fmt: skip


@pytest.mark.parametrize("running", [True, False])
def test_cve_2026_17106(box: Container, canary: Path, running: bool) -> None:
    """Put into a container. Links are followed inside its root: what was written is there, and nothing of it is on the host."""
    if not running:
        box.stop(timeout=0)
    before = fingerprint(canary)
    for name, data in hostile(canary).items():
        try:
            box.put_archive("/tmp", data + bytes(1024))
        except SampanError:
            pass  # refused
        assert fingerprint(canary) == before, name
        assert not os.path.lexists("/tmp/new"), name


def test_cve_2026_17106_on_the_way_out(canary: Path, tmp_path: Path) -> None:
    """What a container gives is put below the caller's directory, and no link of it is followed at all."""
    before = fingerprint(canary)
    for number, (name, data) in enumerate(hostile(canary).items()):
        (tmp_path / str(number)).mkdir()
        fd = os.open(tmp_path / str(number), os.O_PATH | os.O_DIRECTORY)
        above = fingerprint(tmp_path, times=False, inodes=False)
        try:
            copyin.CopyIn(fd, os.fsencode(tmp_path / str(number)), copyin.Manner(True, (0, 0), True)).run(
                io.BytesIO(data + bytes(1024))
            )
        except SampanError:
            pass  # refused
        finally:
            os.close(fd)
        assert fingerprint(canary) == before, name
        now = fingerprint(tmp_path, times=False, inodes=False)
        own = b"/%d/" % number
        assert {k: v for k, v in now.items() if not k.startswith(own)} == {
            k: v for k, v in above.items() if not k.startswith(own)
        }, name


def test_a_set_id_program_of_a_container_is_nobodys_on_the_host(box: Container, tmp_path: Path) -> None:
    """A container's root makes a program that is root's and set-id; who copies it out must not have that on the host."""
    program = inside(box) / "tmp/su"
    program.write_text("x")
    os.chmod(program, 0o6755)
    box.copy_out("/tmp/su", str(tmp_path / "su"))
    assert stat.S_IMODE(os.stat(tmp_path / "su").st_mode) == 0o755
    box.copy_out("/tmp", str(tmp_path / "all"))
    assert stat.S_IMODE(os.stat(tmp_path / "all/su").st_mode) == 0o755


def test_renameat2_is_there() -> None:
    """The races are none without it."""
    assert hasattr(ctypes.CDLL(None), "renameat2")
