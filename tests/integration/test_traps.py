"""Faults that other engines had, one by one: what an image or a container does to get out, and that it does not.

Named after the advisory where there is one; P1 to P4 are those that an engine in Python has of its own.

Each was seen to fail where the engine was weakened, in a copy of it, in the very place that the fault is about:

- P1: `launcher._read_only` opens the directory and mounts nothing. Without `set_dumpable(False)` in shim/monitor.py the joining
  process of an exec can be looked into (`from_inside[False]`, CVE-2016-9962)
- P2: shim/stages.py and shim/monitor.py do not seal, and `ChangeDirectory.run` asks for a codec (`"a".encode("idna")`)
- P4: `ResetProcess.run` closes nothing, and `Context.put` makes its descriptors inheritable
- CVE-2024-21626: `ChangeDirectory.run` is `os.chdir`, without the look at getcwd(3), and `MakeWorkingDirectory.run` does nothing
- CVE-2019-16884: `attach_filesystem` takes /proc and /sys for places like any other
- CVE-2025-31133: `MaskPath._null` follows links and takes what it finds
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from sampan.errors import StartFailed
from sampan.runtime import sealed
from sampan.steps.base import Context, StepError
from sampan.steps.mounts import MaskPath

from support.box import Boxes
from support.boxes import box, children, directory, image, refused
from support.child import in_child
from support.patience import eventually, patience
from support.traps import descriptors, engine_files, script

__all__ = ["box", "directory", "image"]

pytestmark = [pytest.mark.root]

TESTS = Path(__file__).parents[1]


# P1: the interpreter behind /proc/self/exe (CVE-2019-5736)


def checksums() -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in engine_files()]


def test_p1_a_script_whose_interpreter_is_proc_self_exe(box: Boxes, image: Path) -> None:
    before = checksums()
    script(image / "bin/evil", "#!/proc/self/exe\nopen('/escaped', 'w')\n")
    one = box("/bin/evil", rootfs=image)
    try:
        one.run()
    except StartFailed:
        pass  # it depends on the libraries that the image has whether the host's interpreter starts in it
    other = box("sleep", "60", rootfs=image)
    other.start().close()
    try:
        other.exec("/bin/evil")
    except StartFailed:
        pass
    assert checksums() == before


def test_p1_nothing_that_a_shim_is_executed_from_can_be_written_through_it(box: Boxes) -> None:
    """With all of root's privileges on the host, while it runs and after it has ended.

    Shown by a change of modes: to open it for writing fails for the same reason, but only where nobody else runs Python.
    """
    one = box("sleep", "60")
    one.start().close()
    opened = [os.open(f"/proc/{one.monitor}/exe", os.O_RDONLY)]
    if sealed.library_directory():
        for name in os.listdir(f"/proc/{one.monitor}/map_files"):
            path = f"/proc/{one.monitor}/map_files/{name}"
            if "libpython" in os.readlink(path):
                opened.append(os.open(path, os.O_RDONLY))
        assert len(opened) > 1
    try:
        for _ in range(2):
            for fd in opened:
                assert os.fstatvfs(fd).f_flag & os.ST_RDONLY
                with pytest.raises(OSError) as caught:
                    os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(os.fstat(fd).st_mode))
                assert caught.value.errno == errno.EROFS
                with pytest.raises(OSError):
                    os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
            one.kill()
    finally:
        for fd in opened:
            os.close(fd)


# A program that is being executed somewhere cannot be opened for writing, whoever asks: its mode, which stays what it is, can be set.
ATTACK = """
overwrite() {
  true >> $1 || chmod 755 $1  # not `:`, whose failed redirection would end the shell
}
attack() {
  {
    # Of what is open, for the process may have executed something else since.
    link=$(readlink /proc/self/fd/9)
    case $link in
      */python*|*tini*|*docker-init*) ;;
      *) return ;;
    esac
    echo "$link" >> /saw
    overwrite /proc/self/fd/9 && echo "$link" >> /hit
    { sleep 0.3; overwrite /proc/self/fd/9 && echo "$link later" >> /hit; }
  } 9< $1/exe
}
: >> /saw
while :; do
  for process in /proc/[0-9]*; do
    attack $process &
  done
  wait
done 2> /dev/null
"""


@pytest.mark.patience(240)
def test_p1_a_container_with_ptrace_and_the_hosts_pids_during_fifty_starts_and_execs(box: Boxes, image: Path) -> None:
    """Its files are opened for writing at once, and again when their process has ended and they are busy no more.

    Only processes that have to do with us are attacked: others run beside the tests. Among them are commands that shims of
    other tests execute when nobody waits for a container's end; who has become one since it was found is left alone.
    """
    before = checksums()
    attack = ATTACK.replace(
        "in /proc/[0-9]*;", "in $(pidof sampan-shim sleep docker-init | sed 's,[0-9]*,/proc/&,g') /proc/self;"
    )
    still = "read name < $1/comm && case $name in sampan-shim|sleep|docker-init) ;; *) return ;; esac"
    attack = attack.replace("  {\n", f"  {{\n    {still}\n", 1)
    script(image / "attack", attack)
    attacker = box("sh", "/attack", rootfs=image, host={"PidMode": "host", "CapAdd": ["CAP_SYS_PTRACE"]})
    attacker.start().close()
    target = box("sleep", "600")
    target.start().close()
    for number in range(50):
        one = box("sleep", "600", init=str(engine_files()[-1]) if number % 2 else "")
        one.start().close()
        target.exec("true")
        one.kill()
    attacker.kill()
    saw = (attacker.upper / "saw").read_text()
    assert "/python" in saw, "it has seen our interpreter"
    assert not (attacker.upper / "hit").exists(), (attacker.upper / "hit").read_text()
    assert checksums() == before


@pytest.mark.parametrize("privileged", [False, True])
def test_p1_an_attack_on_every_exec_from_inside(box: Boxes, image: Path, privileged: bool) -> None:
    before = checksums()
    script(image / "attack", ATTACK)
    host = {"CapAdd": ["CAP_SYS_PTRACE"]} if privileged else {}
    one = box("sh", "/attack", rootfs=image, host=host)
    one.start().close()
    for _ in range(50):
        one.exec("true")
    one.kill()
    if not privileged:
        # Without the capability a joining process cannot even be looked into.
        assert "python" not in (one.upper / "saw").read_text()
    assert not (one.upper / "hit").exists(), (one.upper / "hit").read_text()
    assert checksums() == before


# P2: nothing of the image is loaded (CVE-2019-14271, CVE-2026-41567)


TRAP = "import os\nos.close(os.open('/trapped', os.O_CREAT | os.O_WRONLY))\n"
TRACED = """
import sys
from pathlib import Path
from support.box import Box
directory, rootfs = map(Path, sys.argv[1:])
box = Box(directory, rootfs, "sleep", "60", config={"User": "user:team", "Env": ["PYTHONPATH=/", "PYTHONHOME=/"]},
          host={"GroupAdd": ["shared"]})
box.start()
box.exec("true").ok()
box.close()
"""


def booby_trap(image: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = sysconfig.get_path("stdlib").lstrip("/")  # where the engine's interpreter looks
    for place in ("", own, f"usr/lib/python{version}", f"usr/local/lib/python{version}", f"lib/python{version}"):
        for name in ("encodings/__init__.py", "encodings/idna.py", "sitecustomize.py", "os.py", "pwd.py", "codecs.py"):
            script(image / place / name, TRAP)
    for name in ("libnss_files.so.2", "libnss_compat.so.2", "libnss_dns.so.2", "libc.so.6", "libpython3.so"):
        script(image / "lib/x86_64-linux-gnu" / name, "no library at all")
        script(image / "lib" / name, "no library at all")
    for name in ("gzip", "xz", "unpigz", "zstd", "ldconfig"):
        (image / "bin" / name).unlink(missing_ok=True)
        script(image / "bin" / name, "#!/bin/sh\ntouch /trapped\n")
    (image / "etc/nsswitch.conf").write_text("passwd: files dns\ngroup: files dns\n")


def test_p2_no_file_of_the_image_is_opened_or_executed_but_those_that_it_is_there_for(
    image: Path, directory: Path
) -> None:
    booby_trap(image)
    logs = directory / "strace"  # a file for each process, so that no line is in two pieces
    logs.mkdir()
    calls = "trace=%file,openat2,open_tree,execveat,pivot_root,clone,clone3,mmap"
    subprocess.run(
        ["strace", "-ff", "-qq", "-y", "-e", calls, "-o", logs / "pid", sys.executable, "-c", TRACED, directory, image],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=True,
        timeout=patience(120),
    )
    traces = [path.read_text(errors="replace").splitlines() for path in logs.iterdir()]
    shutil.rmtree(logs)
    init = next(lines for lines in traces if any(line.startswith('pivot_root(".", ".")') for line in lines))
    pivoted = next(n for n, line in enumerate(init) if line.startswith("pivot_root("))
    # Before the root is changed: every path of the image is resolved below its root, never by a plain open.
    plain = _opened([line for line in init[:pivoted] if line.startswith("openat(AT_FDCWD")])
    assert not [path for path in plain if path.startswith(str(image))]
    resolved = [line for line in init[:pivoted] if line.startswith("openat2(")]
    assert resolved
    assert all("RESOLVE_IN_ROOT" in line and "RESOLVE_NO_MAGICLINKS" in line for line in resolved)
    # After it, and all along in the process of an exec: the user's databases and the working directory, no more.
    joined = next(
        lines for lines in traces if lines is not init and any('execve("/bin/true"' in line for line in lines)
    )
    for name, lines, first in (("sleep", init[pivoted:], []), ("true", joined, ["/"])):
        began = next(n for n, line in enumerate(lines) if line.startswith("execve(") and line.endswith(" = 0"))
        before = lines[:began]
        assert _opened(before) == [*first, "/etc/passwd", "/etc/group", "/"]
        assert not [line for line in before if line.startswith("mmap(") and "</" in line], "no file is mapped"
        places = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin")
        executed = [m.group(1) for line in before if (m := re.match(r'exec\w+\("([^"]*)"', line))]
        assert executed == [f"{place}/{name}" for place in places]


def _opened(lines: list[str]) -> list[str]:
    """The paths that are opened, in their order."""
    return [m.group(1) for line in lines if (m := re.match(r'open\w*\([^"]*"([^"]*)"', line))]


def test_p2_the_traps_do_not_go_off_in_a_start_or_an_exec(box: Boxes, image: Path) -> None:
    booby_trap(image)
    one = box("sleep", "60", rootfs=image, config={"User": "user"}, host={"GroupAdd": ["team"]})
    one.start().close()
    assert one.exec("id", "-u", user={"username": "nobody", "additionalGroups": ["team"]}).ok() == b"65534\n"
    with pytest.raises(StartFailed):
        one.exec("nosuch")
    one.kill()
    assert not (one.upper / "trapped").exists()


# P4: descriptors


def test_p4_a_program_has_three_descriptors(box: Boxes) -> None:
    inherited = [os.dup2(1, number, inheritable=True) for number in (3, 60, 600) if not _is_open(number)]
    try:
        one = box("sleep", "60")
        one.start().close()
        joined = one.exec_start("sleep", "60")
        with_terminal = one.exec_start("sleep", "60", tty=True)
        pids = children(one.monitor)
        assert len(pids) == 3
        for pid in pids:
            assert sorted(descriptors(pid)) == [0, 1, 2]
        joined.close()
        with_terminal.close()
        assert not [target for target in descriptors(one.monitor).values() if target == os.readlink("/proc/self/fd/1")]
    finally:
        for fd in inherited:
            os.close(fd)


def _is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def test_p4_with_an_init_as_well(box: Boxes) -> None:
    one = box("sleep", "60", init=str(engine_files()[-1]))
    one.start().close()
    eventually(lambda: len(children(one.init)) == 1)
    for pid in (one.init, *children(one.init)):
        assert sorted(descriptors(pid)) == [0, 1, 2]


# CVE-2024-21626: a working directory behind a descriptor of the host


def test_cve_2024_21626_no_working_directory_through_a_descriptor(box: Boxes) -> None:
    for number in (*range(3, 24), *range(24, 65, 8)):
        message = refused(box, "true", config={"WorkingDir": f"/proc/self/fd/{number}"})
        assert "working directory" in message or "/proc/self/fd" in message


def test_cve_2024_21626_nor_for_an_exec(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    for number in range(3, 65):
        with pytest.raises(StartFailed, match="chdir to cwd"):
            one.exec("pwd", cwd=f"/proc/self/fd/{number}")
    for magic in ("/proc/self/cwd", "/proc/1/root", "/proc/1/cwd", "/proc/1/fd/0", "/proc/self/fd/5/../../.."):
        with pytest.raises(StartFailed, match="chdir to cwd"):
            one.exec("pwd", cwd=magic)


def test_cve_2024_21626_nor_through_a_link_of_the_image(box: Boxes, image: Path) -> None:
    for number in range(3, 12):
        (image / f"link{number}").symlink_to(f"/proc/self/fd/{number}")
    for number in range(3, 12):
        refused(box, "true", rootfs=image, config={"WorkingDir": f"/link{number}"})


# links and mounts


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/elsewhere", "elsewhere", "/nonexistent", "/proc/self", "../../../../../../tmp"])
def test_cve_2019_16884_proc_and_sys_are_no_links(box: Boxes, image: Path, name: str, target: str) -> None:
    (image / name).rmdir()
    (image / "elsewhere").mkdir()
    (image / name).symlink_to(target)
    refused(box, "true", rootfs=image)


def test_cve_2019_16884_what_is_mounted_is_the_kernels(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    mounts = Path(f"/proc/{one.init}/mountinfo").read_text()
    for path, kind in (
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/dev", "tmpfs"),
    ):
        line = next(line for line in mounts.splitlines() if line.split()[4] == path)
        assert line.split(" - ")[1].split()[0] == kind
        assert line.split()[3] == "/", "its root and no directory of it"


def snapshot(directory: Path) -> list[tuple[str, int, int]]:
    return sorted((str(p), p.lstat().st_mode, p.lstat().st_mtime_ns) for p in directory.rglob("*"))


@pytest.mark.parametrize("target", ["/canary", "/../../../../../../{host}", "{host}"])
def test_cve_2026_41579_a_dev_that_is_a_link_leads_nowhere_on_the_host(
    box: Boxes, image: Path, directory: Path, target: str
) -> None:
    canary = directory / "canary"
    (canary / "sub").mkdir(parents=True)
    (canary / "null").write_text("host's")
    before = snapshot(canary)
    (image / "dev").rmdir()
    (image / "dev").symlink_to(target.format(host=str(canary).lstrip("/") if target.startswith("/..") else canary))
    try:
        box("sh", "-c", "echo x > /dev/null; ls /dev", rootfs=image).run()
    except StartFailed:
        pass  # refusing is as good
    assert snapshot(canary) == before
    shutil.rmtree(canary)


def test_cve_2025_31133_masks_are_made_of_the_null_device_and_nothing_else(image: Path) -> None:
    """The image's own /dev is covered by a tmpfs; a step that found something else in its place refuses."""
    for make in (
        lambda path: path.symlink_to("/proc/sys/kernel/core_pattern"),
        lambda path: path.write_text("a file"),
        lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 8)),
        lambda path: path.mkdir(),
    ):
        null = image / "dev/null"
        make(null)

        def inside() -> str:
            ctx = Context()
            ctx.put("root", os.open(image, os.O_PATH | os.O_DIRECTORY))
            try:
                MaskPath("/etc/passwd").run(ctx)
            except (StepError, OSError) as e:
                return str(e)
            return "masked"

        assert in_child(inside) != "masked"
        assert (image / "etc/passwd").read_text().startswith("root:")
        if null.is_dir():
            null.rmdir()
        else:
            null.unlink()


def test_cve_2025_31133_an_image_with_its_own_dev_null_has_the_real_one(box: Boxes, image: Path) -> None:
    (image / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    core_pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    command = "stat -c '%t:%T %F' /dev/null; echo x > /dev/null; cat /proc/timer_list /proc/keys; echo x > /proc/sys/kernel/core_pattern"
    output = box("sh", "-c", command, rootfs=image).run()
    assert output.out == b"1:3 character special file\n"
    assert b"Read-only file system" in output.err
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core_pattern


@pytest.mark.parametrize("target", ["/etc/passwd", "/proc/sysrq-trigger", "pts/0", "/dev/null"])
def test_cve_2025_52565_the_console_is_the_containers_own_terminal(box: Boxes, image: Path, target: str) -> None:
    (image / "dev/console").symlink_to(target)
    one = box("sleep", "60", rootfs=image, config={"Tty": True})
    one.start().close()
    console = os.stat(f"/proc/{one.init}/root/dev/console")
    peer = os.stat(f"/proc/{one.init}/root/dev/pts/0")
    assert (console.st_dev, console.st_ino) == (peer.st_dev, peer.st_ino)
    assert os.major(console.st_rdev) == 136
    assert stat.S_IMODE(os.stat(f"/proc/{one.init}/root/etc/passwd").st_mode) == 0o644


def test_cve_2026_55686_a_working_directory_through_links_is_made_in_the_container(
    box: Boxes, image: Path, directory: Path
) -> None:
    host = directory / "outside"
    host.mkdir()
    (image / "absolute").symlink_to(host)
    (image / "relative").symlink_to("../../../../../../../.." + str(host))
    before = snapshot(host)
    for path in ("/relative/new/deep", "/absolute/new/deep", "/absolute/../outside/new/deep"):
        one = box("pwd", rootfs=image, config={"WorkingDir": path})
        assert one.run().ok().decode().strip() == f"{host}/new/deep"
        assert (one.upper / str(host).lstrip("/") / "new/deep").is_dir()
        assert snapshot(host) == before
    host.rmdir()


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/passwd/sub", "/loop/x", "/dangling-file"])
def test_a_working_directory_that_cannot_be(box: Boxes, image: Path, path: str) -> None:
    (image / "loop").symlink_to("loop")
    (image / "dangling-file").symlink_to("etc/passwd")
    message = refused(box, "true", rootfs=image, config={"WorkingDir": path})
    assert "Cannot mkdir" in message or "working directory" in message
