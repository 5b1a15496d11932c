"""The program that executes an interpreter from read-only mounts: its bytes, what it does, and what it does where it cannot."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.runtime import firstexec, sealed

REAL = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
LIBRARY = sealed.library_directory()

pytestmark = pytest.mark.skipif(os.uname().machine != firstexec.MACHINE, reason="the program is one for x86-64")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("firstexec") / "program"
    made.write_bytes(firstexec.program())
    made.chmod(0o755)
    return made


def test_the_bytes_are_those_that_an_assembler_makes(tmp_path: Path) -> None:
    source, made, code = (tmp_path / name for name in ("a.s", "a.o", "code"))
    lines = (line.partition("|")[2] if "|" in line else line for line in firstexec.LISTING.splitlines())
    source.write_text("\n".join(lines) + "\n")
    subprocess.run(["gcc", "-c", "-o", made, source], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, code], check=True)
    assert firstexec.program().endswith(code.read_bytes())
    assert len(firstexec.program()) - len(code.read_bytes()) == 64 + 2 * 56


LOOK = """
import os, sys
flags = os.statvfs("/proc/self/exe").f_flag
library = os.environ.get("LD_LIBRARY_PATH", "")
print(sys.argv[1:], bool(flags & os.ST_RDONLY), bool(library) and bool(os.statvfs(library).f_flag & os.ST_RDONLY), os.environ.get("KEPT"))
fd = os.open("/proc/self/exe", os.O_RDONLY)
try:
    os.chmod(fd, os.fstat(fd).st_mode & 0o7777)
    print("written to")
except OSError as e:
    print(e.errno)
"""


def look(program: Path, *arguments: str, library: str = LIBRARY, directory: str = "", **more: object) -> str:
    words = [str(program), directory or str(REAL.parent), REAL.name, library, sys.executable, "-I", "-S", "-c", LOOK]
    environment = {"KEPT": "kept", "PATH": "/bin"}
    done = subprocess.run([*words, *arguments], env=environment, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.root
def test_the_interpreter_cannot_be_written_to_through_its_process(program: Path) -> None:
    expected = f"['a', '', 'b c'] True {bool(LIBRARY)} kept\n{errno.EROFS}\n"
    assert look(program, "a", "", "b c") == expected


@pytest.mark.root
def test_descriptors_with_two_digits(program: Path) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    try:
        assert f"[] True {bool(LIBRARY)} kept" in look(program, pass_fds=fds)
    finally:
        for fd in fds:
            os.close(fd)


def unprivileged() -> None:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


@pytest.mark.root
def test_what_may_not_be_mounted_is_executed_all_the_same(program: Path) -> None:
    # From a directory that everybody may enter: the tests' own is root's.
    copied = Path(f"/tmp/firstexec-{os.getpid()}")
    copied.write_bytes(program.read_bytes())
    copied.chmod(0o755)
    try:
        words = [str(copied), "/bin", "echo", "", "/bin/echo", "as ever"]
        done = subprocess.run(words, preexec_fn=unprivileged, capture_output=True, text=True)
    finally:
        copied.unlink()
    assert (done.returncode, done.stdout) == (0, "as ever\n")


def test_a_directory_that_is_not_there(program: Path) -> None:
    assert look(program, directory="/nowhere").startswith("[] False False kept\n")


def test_a_library_that_is_not_there(program: Path) -> None:
    assert look(program, library="/nowhere").startswith("[] False False kept\n")


@pytest.mark.parametrize("arguments", [[], ["/bin"], ["/bin", "true", ""], ["/bin", "true", "", "/nowhere"]])
def test_too_little_to_execute(program: Path, arguments: list[str]) -> None:
    assert subprocess.run([str(program), *arguments]).returncode in (127, 0)
