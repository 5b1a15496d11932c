"""Faults that other runtimes had, tried on `sampan-oci` by a bundle: what an image or a container does to get out, and that it does not.

Named after the advisory where there is one; P1 to P4 are those that a runtime in Python has of its own. What an engine does
with images of its own is in tests/integration/test_traps.py.

Each was seen to fail where the runtime was weakened, in a copy of it, in the very place that the fault is about:

- P1: `launcher._read_only` opens the directory and mounts nothing; for a container without CAP_SYS_PTRACE and for CVE-2016-9962
  shim/ociboot.py does not call `set_dumpable(False)`, and `JoinCgroups` leaves its descriptors open
- P2: shim/ociboot.py does not seal, and `ChangeDirectory.run` asks for a codec (`"a".encode("idna")`)
- P4: `ResetProcess.run` closes nothing, and `Context.put` makes its descriptors inheritable; for hooks steps/hooks.py closes nothing
- CVE-2024-21626: `ChangeDirectory.run` is `os.chdir`, without the look at getcwd(3), and `MakeWorkingDirectory.run` does nothing
- CVE-2019-19921: `attach_filesystem` takes /proc and /sys for places like any other
- CVE-2019-16884, CVE-2025-52881: sysctls are written below the container's /proc after its mounts, without a look at what kind of file
  it is, and `_check_proc` does nothing
- CVE-2025-31133: `MaskPath._null` follows links and takes what it finds, and `MakeDevice` does so with what is there
- CVE-2025-52565: `AttachConsole` follows links
- CVE-2021-30465, CVE-2024-45310: `mount_point` resolves the path in the root to one without links, waits 10 ms, and then makes and
  opens what has that name below the root's own path
- CVE-2026-41579: `mount_point` and `MakeDevice` open the name below the root's own path as it is
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.runtime import sealed

from support.conformance.mountinfo import parse
from support.conformance.runtime import Container, Containers
from support.conformance.terminal import ConsoleSocket
from support.patience import patience

pytestmark = [pytest.mark.root]

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.chmod(path, 0o755)


def snapshot(directory: Path) -> list[tuple[str, int, int, str]]:
    """Everything below it: name, mode, time, content."""
    return sorted(
        (str(p), p.lstat().st_mode, p.lstat().st_mtime_ns, p.read_text() if p.is_file() and not p.is_symlink() else "")
        for p in [directory, *directory.rglob("*")]
    )


@pytest.fixture
def canary(directory: Path) -> Iterator[Path]:
    """A directory of the host that nothing may be written to, made in, or mounted on."""
    path = directory / "canary"
    (path / "sub").mkdir(parents=True)
    for name in ("null", "console", "file", "sub/file"):
        (path / name).write_text("the host's")
    before = snapshot(path)
    yield path
    assert snapshot(path) == before
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


@contextlib.contextmanager
def flipping(first: Path, second: Path) -> Iterator[None]:
    """The two names change places all the time (renameat2 with RENAME_EXCHANGE): now a directory, now a link."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    stop = threading.Event()
    turns = 0

    def flip() -> None:
        nonlocal turns
        while not stop.is_set():
            assert libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
            turns += 1

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert turns > 100, "it was hardly raced"


# P1: the interpreter behind /proc/self/exe (CVE-2019-5736)


def checksums() -> list[str]:
    """Of what the runtime is executed from: the interpreter, and its shared library if it is a stub."""
    files = [Path(os.path.realpath(sys._base_executable))]  # type: ignore[attr-defined]
    library = sealed.library_directory()
    if library:
        files += [path for path in Path(library).glob("libpython*.so*") if path.is_file()]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


# A program that is being executed somewhere cannot be opened for writing, whoever asks: its mode, which stays what it is, can be set.
OVERWRITE = """
for process in /proc/[0-9]* /proc/self; do
  # Of what is open, for the process may have executed something else since.
  {
    link=$(readlink /proc/self/fd/9)
    case $link in
      *python*)
        echo "$link" >> /tmp/saw
        { true >> /proc/self/fd/9 || chmod 755 /proc/self/fd/9; } && echo "$link" >> /tmp/hit ;;
    esac
  } 9< $process/exe
done 2> /dev/null
"""


@pytest.mark.parametrize("execs", [pytest.param(5, id="short"), pytest.param(50, id="long", marks=pytest.mark.long)])
@pytest.mark.parametrize("capable", [False, True])
def test_p1_an_attack_on_every_exec(oci: Containers, capable: bool, execs: int) -> None:
    before = checksums()
    one = oci()
    script(one.rootfs / "attack", f"#!/bin/sh\necho ready\nwhile :; do\n{OVERWRITE}\ndone\n")
    one.process["args"] = ["sh", "/attack"]
    if capable:
        one.capabilities("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
    one.up()
    for _ in range(execs):
        one.exec("true").ok()
    one.kill().ok()
    one.wait()
    assert not (one.rootfs / "tmp/hit").exists(), (one.rootfs / "tmp/hit").read_text()
    if not capable:
        assert not (one.rootfs / "tmp/saw").exists(), "a process that joins cannot be looked into"
    assert checksums() == before


def test_p1_a_script_whose_interpreter_is_proc_self_exe(oci: Containers) -> None:
    before = checksums()
    one = oci("/bin/evil")
    script(one.rootfs / "bin/evil", "#!/proc/self/exe\nopen('/tmp/escaped', 'w').write('x')\n")
    result = one.create()
    if result.code == 0 and one.start().code == 0:
        one.wait()
    other = oci().holding()
    script(other.rootfs / "bin/evil", "#!/proc/self/exe\nopen('/tmp/escaped', 'w').write('x')\n")
    other.exec("/bin/evil")
    assert checksums() == before
    assert not (one.rootfs / "tmp/escaped").exists(), "our interpreter was there to run it"
    assert not (other.rootfs / "tmp/escaped").exists()


def test_p1_a_hook_in_the_container(oci: Containers) -> None:
    """A startContainer hook is a program of the image, executed before the process: it finds no interpreter either."""
    before = checksums()
    one = oci("true")
    script(one.rootfs / "attack", f"#!/bin/sh\n{OVERWRITE}\n")
    one.config["hooks"] = {"startContainer": [{"path": "/attack", "env": ["PATH=/bin"]}]}
    one.create()
    one.start()
    assert not (one.rootfs / "tmp/hit").exists()
    assert checksums() == before


# P2: nothing of the image is loaded (CVE-2019-14271)


def test_p2_nothing_of_the_image_is_opened_or_executed(oci: Containers, directory: Path) -> None:
    one = oci("probe", "report")
    trap = "import os\nos.close(os.open('/tmp/trapped', os.O_CREAT | os.O_WRONLY))\n"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = sysconfig.get_path("stdlib").lstrip("/")  # where the runtime's interpreter looks
    for place in ("", own, f"usr/lib/python{version}", f"usr/local/lib/python{version}"):
        for name in ("encodings/__init__.py", "encodings/idna.py", "sitecustomize.py", "os.py", "pwd.py", "codecs.py"):
            script(one.rootfs / place / name, trap)
    for name in ("libnss_files.so.2", "libnss_dns.so.2", "libc.so.6", "libpython3.so", "libgcc_s.so.1"):
        script(one.rootfs / "lib/x86_64-linux-gnu" / name, "no library at all")
        script(one.rootfs / "lib" / name, "no library at all")
    one.process["env"] += ["PYTHONPATH=/", "PYTHONHOME=/", "LD_PRELOAD=/lib/libc.so.6", "LC_ALL=xx_XX"]
    one.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    one.write_config()
    traces = directory / "strace"
    traces.mkdir()
    calls = "trace=%file,openat2,open_tree,execveat,pivot_root,mmap"
    before = ("strace", "-ff", "-qq", "-y", "-e", calls, "-o", str(traces / "pid"))
    command = (
        *before,
        one.runtime.program,
        "--root",
        str(one.runtime.root),
        "run",
        "--bundle",
        str(one.bundle),
        one.id,
    )
    ran = subprocess.run(command, capture_output=True, text=True, timeout=patience(100), stdin=subprocess.DEVNULL)
    assert ran.returncode == 0, ran.stderr
    assert not (one.rootfs / "tmp/trapped").exists()
    lines = [path.read_text(errors="replace").splitlines() for path in traces.iterdir()]
    init = next(each for each in lines if any(line.startswith("pivot_root(") for line in each))
    pivoted = next(n for n, line in enumerate(init) if line.startswith("pivot_root("))
    began = next(
        n for n, line in enumerate(init) if "probe" in line and line.startswith("exec") and line.endswith(" = 0")
    )
    inside = init[pivoted + 1 : began]
    opened = [
        m.group(1) for line in inside if (m := re.match(r'open\w*\([^"]*"([^"]+)"', line)) and " = -1" not in line
    ]
    assert [path for path in opened if path.endswith((".py", ".pyc", ".so")) or ".so." in path] == []
    assert not [line for line in inside if line.startswith("mmap(") and "</" in line], "no file is mapped"
    executed = {m.group(1) for line in inside if (m := re.match(r'exec\w+\([^"]*"([^"]+)"', line))}
    assert {os.path.basename(path) for path in executed} <= {"probe"}


# P4: descriptors, and CVE-2016-9962: what a process that joins has open


def test_p4_an_exec_has_three_descriptors(oci: Containers) -> None:
    one = oci().holding()
    held = [os.dup(1) for _ in range(3)]
    try:
        assert sorted(one.exec("probe", "report", pass_fds=tuple(held)).json()["fds"]) == ["0", "1", "2"]
    finally:
        for fd in held:
            os.close(fd)


def test_p4_with_a_terminal(oci: Containers) -> None:
    one = oci()
    with ConsoleSocket(one) as console:
        assert sorted(console.report()["fds"]) == ["0", "1", "2"]


def test_p4_a_hook_has_three_descriptors(oci: Containers) -> None:
    for kind in ("createRuntime", "createContainer", "startContainer"):
        one = oci("true")
        place = "/tmp" if kind == "startContainer" else str(one.bundle)
        proc = f"{one.rootfs}/proc" if kind == "createContainer" else "/proc"
        look = f"for fd in {proc}/self/fd/*; do readlink $fd; done > {place}/fds; true"
        one.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", look], "env": ["PATH=/bin:/usr/bin"]}]}
        one.run().ok()
        text = ((one.rootfs / "tmp" if kind == "startContainer" else one.bundle) / "fds").read_text()
        # Its input, output and error; the file that is written, and what the glob is read with and is no more.
        assert len(text.split("\n")) <= 5, f"{kind}: {text}"
        assert not [line for line in text.split() if line.startswith("/") and str(one.runtime.root) in line]


def test_cve_2016_9962_a_process_that_joins_cannot_be_looked_into(oci: Containers) -> None:
    one = oci()
    look = """
    echo ready
    while :; do
      for process in /proc/[0-9]*; do
        [ "$process" = /proc/1 ] || [ "$process" = "/proc/$$" ] || ls -l $process/fd $process/cwd $process/root
      done
    done 2> /dev/null | grep -e ' -> /' >> /tmp/seen
    """
    one.script(look)
    one.up()
    for _ in range(20):
        one.exec("true").ok()
    one.kill().ok()
    one.wait()
    seen = {line.rpartition(" -> ")[2] for line in (one.rootfs / "tmp/seen").read_text().split("\n")[:-1]}
    seen -= {str(one.bundle / name) for name in ("out", "err")}  # its own streams
    # What the programs of the container have open themselves: its root, and what is looked at and written here.
    assert not [path for path in seen - {"/", "/dev/null", "/tmp/seen"} if not path.startswith("/proc/")]


# CVE-2024-21626: a working directory behind a descriptor of the host


@pytest.mark.parametrize("number", range(3, 20))
def test_cve_2024_21626_no_working_directory_through_a_descriptor(oci: Containers, number: int) -> None:
    one = oci()
    one.process["cwd"] = f"/proc/self/fd/{number}"
    one.refused()


def test_cve_2024_21626_nor_for_an_exec(oci: Containers) -> None:
    one = oci().holding()
    for cwd in (
        *(f"/proc/self/fd/{number}" for number in range(3, 16)),
        "/proc/1/root",
        "/proc/1/cwd",
        "/proc/self/cwd",
    ):
        result = one.runtime("exec", "--cwd", cwd, one.id, "sh", "-c", "ls /; ls ../../../..")
        if result.code == 0:
            assert "config.json" not in result.out
            assert "probe" not in result.out.split("\n")[0]
            assert set(result.out.split()) <= set(os.listdir(one.rootfs)), f"{cwd}: it is not the container's root"


def test_cve_2024_21626_nor_through_a_link_of_the_image(oci: Containers) -> None:
    for number in range(3, 12):
        one = oci()
        (one.rootfs / "link").symlink_to(f"/proc/self/fd/{number}")
        one.process["cwd"] = "/link"
        one.refused()


# CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc and /sys are what they seem


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/elsewhere", "elsewhere", "/nonexistent", "../../../../../../tmp"])
def test_cve_2019_19921_proc_and_sys_are_no_links(oci: Containers, name: str, target: str) -> None:
    one = oci()
    (one.rootfs / name).rmdir()
    (one.rootfs / "elsewhere").mkdir()
    (one.rootfs / name).symlink_to(target)
    one.refused()


def test_cve_2019_16884_a_volume_over_proc(oci: Containers, directory: Path) -> None:
    """What is written to /proc on the way (sysctl) does not land in a directory that looks like it."""
    fake = directory / "fake"
    (fake / "sys/net/core").mkdir(parents=True)
    (fake / "sys/net/core/somaxconn").write_text("1")
    one = oci("true")
    one.linux["sysctl"] = {"net.core.somaxconn": "123"}
    one.mount("/proc", None, str(fake), "bind")
    result = one.create()
    assert (fake / "sys/net/core/somaxconn").read_text() == "1"
    if result.code == 0:
        assert sysctl_of(one, "net/core/somaxconn") == "123"


def sysctl_of(one: Container, name: str) -> str:
    """A setting of the container's network, by the host's own /proc."""
    enter = ["nsenter", f"--net=/proc/{one.pid}/ns/net", "cat", f"/proc/sys/{name}"]
    return subprocess.run(enter, capture_output=True, text=True, check=True).stdout.strip()


def test_cve_2025_52881_a_mount_over_a_part_of_proc(oci: Containers, directory: Path) -> None:
    fake = directory / "fake"
    (fake / "core").mkdir(parents=True)
    (fake / "core/somaxconn").write_text("1")
    one = oci("true")
    one.linux["sysctl"] = {"net.core.somaxconn": "123"}
    one.mount("/proc/sys/net", None, str(fake), "bind")
    result = one.create()
    assert (fake / "core/somaxconn").read_text() == "1"
    if result.code == 0:
        assert sysctl_of(one, "net/core/somaxconn") == "123"


# CVE-2025-31133, CVE-2025-52565, CVE-2026-41579: what is in /dev


def own_dev(one: Container) -> Path:
    """The container has the image's /dev instead of one that the runtime mounts."""
    one.config["mounts"] = [mount for mount in one.config["mounts"] if mount["destination"] != "/dev"]
    return one.rootfs / "dev"


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "{canary}/null", "/etc/passwd", "/nonexistent"])
def test_cve_2025_31133_a_dev_null_that_is_a_link(oci: Containers, canary: Path, target: str) -> None:
    core = Path("/proc/sys/kernel/core_pattern").read_text()
    one = oci("sh", "-c", "cat /etc/secret; probe stat /etc/secret; (echo x > /etc/secret); cat /proc/version")
    (own_dev(one) / "null").symlink_to(target.format(canary=canary))
    (one.rootfs / "etc/secret").write_text("secret")
    one.linux["maskedPaths"] = ["/etc/secret", "/proc/version"]
    one.linux["readonlyPaths"] = ["/proc/sys"]
    if one.create().code == 0 and one.start().code == 0:
        one.wait()
        seen = json.loads(one.out.splitlines()[0])[0]
        assert (seen["kind"], seen["major"], seen["minor"]) == ("c", 1, 3)
        assert "Linux version" not in one.out
    assert "secret" not in one.out.replace("/etc/secret", "")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core
    assert (one.rootfs / "etc/secret").read_text() == "secret"


@pytest.mark.parametrize("target", ["{canary}/console", "/proc/sys/kernel/core_pattern", "/etc/target", "/dev/pts/0"])
def test_cve_2025_52565_a_console_that_is_a_link(oci: Containers, canary: Path, target: str) -> None:
    core = Path("/proc/sys/kernel/core_pattern").read_text()
    one = oci("probe", "stat", "/dev/console", "/etc/target")
    (own_dev(one) / "console").symlink_to(target.format(canary=canary))
    (one.rootfs / "etc/target").write_text("the image's")
    one.process["terminal"] = True
    with ConsoleSocket(one) as console:
        if one.create("--console-socket", console.path).code == 0:
            console.accept()
            one.start().ok()
            first, second = json.loads(console.read())
            one.wait()
            assert first.get("kind", "c") == "c"
            assert first.get("major", 136) in range(136, 144)
            assert second["kind"] == "f"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core


@pytest.mark.parametrize("mounted", [True, False])
@pytest.mark.parametrize("form", ["absolute", "upward", "inside"])
def test_cve_2026_41579_a_dev_that_is_a_link(oci: Containers, canary: Path, form: str, mounted: bool) -> None:
    """Without a mount at /dev the devices are made in the image's own."""
    one = oci("sh", "-c", "echo x > /dev/null; ls /dev")
    (one.rootfs / "dev").rmdir()
    targets = {"absolute": str(canary), "upward": "../" * 12 + str(canary).lstrip("/"), "inside": "/tmp"}
    (one.rootfs / "dev").symlink_to(targets[form])
    if not mounted:
        own_dev(one)
    if one.create().code == 0:
        one.start().ok()
        one.wait()


# CVE-2021-30465, CVE-2024-45310: races on the targets of mounts. `long` has more turns, or as many as SAMPAN_TEST_TURNS says.

_MANY = int(os.environ.get("SAMPAN_TEST_TURNS", "200"))
TURNS = [
    pytest.param(12, id="short", marks=pytest.mark.patience(300)),
    pytest.param(_MANY, id="long", marks=[pytest.mark.long, pytest.mark.patience(max(1500, _MANY))]),
]


@pytest.fixture
def volume(directory: Path, canary: Path) -> Iterator[Path]:
    """A volume that somebody else writes to: `target` is a directory and a link to the canary by turns."""
    path = directory / "volume"
    (path / "target").mkdir(parents=True)
    (path / "other").symlink_to(canary)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("below", ["", "/sub"])
def test_cve_2021_30465_a_mount_whose_target_is_flipped(
    oci: Containers, volume: Path, canary: Path, turns: int, below: str
) -> None:
    one = oci("true")
    one.mount("/volume", None, str(volume), "rbind")
    one.mount(f"/volume/target{below}", "tmpfs", "mine")
    done = 0
    with flipping(volume / "target", volume / "other"):
        for _ in range(turns):
            one._status = None
            if one.create().code == 0:
                done += 1
                mounts = parse(Path(f"/proc/{one.pid}/mountinfo").read_text())
                # A link of the volume means a place in the container: a mount elsewhere is none that it could see.
                (point,) = (mount.point for mount in mounts if mount.source == "mine")
                assert point.startswith(("/volume/", str(canary))), point
                assert not os.path.ismount(canary)
            one.delete("--force")
    assert done or below == "", "every start was refused: nothing was tried"


@pytest.mark.parametrize("turns", TURNS)
def test_cve_2024_45310_targets_that_are_made(oci: Containers, volume: Path, canary: Path, turns: int) -> None:
    """The canary's fixture finds what was made there."""
    one = oci("true")
    (one.bundle / "file").touch()
    one.mount("/volume", None, str(volume), "rbind")
    one.mount("/volume/target/new/directory", "tmpfs", "mine")
    one.mount("/volume/target/newer/file", None, str(one.bundle / "file"), "bind")
    with flipping(volume / "target", volume / "other"):
        for _ in range(turns):
            one._status = None
            one.create()
            one.delete("--force")
            for made in ("new", "newer"):
                for name in ("target", "other"):
                    if not (volume / name).is_symlink():
                        shutil.rmtree(volume / name / made, ignore_errors=True)


# CVE-2021-43784: a map that overflows what it is sent in


@pytest.mark.parametrize("count", [341, 5000, 60_000])
def test_cve_2021_43784_a_map_of_many_lines(oci: Containers, count: int) -> None:
    one = oci()
    one.in_user_namespace()
    lines = [{"containerID": n, "hostID": 100_000 + 2 * n, "size": 1} for n in range(count)]
    one.linux["uidMappings"] = lines
    one.refused()
    assert not one.cgroups_left()


# CVE-2022-29162: capabilities that are inherited


def test_cve_2022_29162_nothing_is_inheritable_that_was_not_asked_for(oci: Containers) -> None:
    for uid in (0, 1000):
        one = oci()
        one.process["user"] = {"uid": uid, "gid": uid}
        one.holding()
        for report in (one.exec("probe", "report").json(),):
            assert re.search(r"CapInh:\t0+\n", report["status"])
            assert re.search(r"CapAmb:\t0+\n", report["status"])


# The state of the runtime is root's alone.


def test_state_is_roots_alone(oci: Containers) -> None:
    one = oci().holding()
    for path in [one.runtime.root, *one.runtime.root.rglob("*")]:
        status = path.lstat()
        assert status.st_uid == 0
        # Directories may be gone through: the first process of a user namespace has to come by. Who may not write to a
        # socket cannot connect to it.
        allowed = 0o711 if stat.S_ISDIR(status.st_mode) else 0o755 if stat.S_ISSOCK(status.st_mode) else 0o600
        assert not stat.S_IMODE(status.st_mode) & ~allowed, f"{path} {oct(status.st_mode)}"


def test_no_socket_is_abstract(oci: Containers) -> None:
    """CVE-2020-15257: a container in the host's network finds none of ours."""
    one = oci()
    one.without_namespace("network")
    one.config["mounts"] = [mount for mount in one.config["mounts"] if mount["destination"] != "/sys"]
    before = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@" in line.split()[-1]}
    one.create().ok()
    after = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@" in line.split()[-1]}
    assert not [name for name in after - before if "sampan" in name or one.id in name]
