"""The file that modules are imported from: what is in it counts only as long as it is what would be imported without it."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

from sampan.bundling import lean

pytestmark = pytest.mark.thorough

SRC = Path(__file__).parents[2] / "src/sampan"

SCRIPT = """
import sys
sys.path.insert(0, {path!r})
from sampan import bundle
bundle.use()
from sampan.room import one, two
bundle.keep()
print(one.VALUE, two.VALUE, *(type(m.__spec__.loader).__name__ if not isinstance(m.__spec__.loader, type) else "Bundle" for m in (one, two)))
assert one.__file__ == {path!r} + "/sampan/room/one.py", one.__file__
assert one.__package__ == "sampan.room"
"""


class Package:
    """A package that has the module and a room of two more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.room = path / "sampan/room"
        self.room.mkdir(parents=True)
        for file in ("bundle.py", "bundling.py"):
            shutil.copy(SRC / file, path / "sampan")
        for file in ("__init__.py", "room/__init__.py"):
            (path / "sampan" / file).write_text("")
        self.write("one", 1)
        self.write("two", 2)

    def write(self, name: str, value: int) -> None:
        (self.room / f"{name}.py").write_text(f"VALUE = {value}\n")

    def file(self) -> Path:
        (found,) = (self.path / "sampan/__pycache__").glob("*.bundle")
        return found

    def run(self, *flags: str) -> list[str]:
        script = SCRIPT.format(path=str(self.path))
        done = subprocess.run([sys.executable, "-I", "-S", *flags, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


FROM_FILES = ["1", "2", "SourceFileLoader", "SourceFileLoader"]
FROM_BUNDLE = ["1", "2", "Bundle", "Bundle"]


def test_the_second_start_imports_from_the_file(package: Package) -> None:
    assert package.run() == FROM_FILES
    assert package.run() == FROM_BUNDLE


def test_a_changed_source_counts_at_once_and_the_file_is_made_anew(package: Package) -> None:
    package.run()
    package.write("one", 9)  # as long as before, and in the same second: by its nanoseconds it is another
    # Python's own cache goes by seconds: it is the one thing that could be wrong here.
    (cached,) = (package.room / "__pycache__").glob("one.*")
    cached.unlink()
    assert package.run() == ["9", "2", "SourceFileLoader", "Bundle"]
    assert package.run() == ["9", "2", "Bundle", "Bundle"]


def test_a_module_that_is_gone_is_not_found(package: Package) -> None:
    package.run()
    (package.room / "two.py").unlink()
    with pytest.raises(AssertionError, match="ImportError"):
        package.run()


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 5000])
def test_a_broken_file_is_none(package: Package, damage: bytes) -> None:
    package.run()
    file = package.file()
    file.write_bytes(damage)
    assert package.run() == FROM_FILES
    assert package.run() == FROM_BUNDLE


def test_a_file_that_was_cut_is_none(package: Package) -> None:
    package.run()
    file = package.file()
    whole = file.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert package.run()[:2] == ["1", "2"]


def test_byte_code_that_goes_by_the_source_s_hash_is_left_to_python(package: Package) -> None:
    for name in ("one", "two"):
        py_compile.compile(
            str(package.room / f"{name}.py"), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )
    assert package.run() == FROM_FILES
    made = package.file().stat()
    assert package.run() == FROM_FILES
    assert package.file().stat().st_ino == made.st_ino, "made anew though nothing had changed"


def test_nothing_is_written_where_nothing_is_to_be_written(package: Package) -> None:
    package.run("-B")
    assert not list(package.path.rglob("*.bundle"))
    package.run("-O")
    assert not list(package.path.rglob("*.bundle"))


TOGETHER = """
import sys
sys.path.insert(0, {path!r})
from sampan import bundle
bundle.use()
bundle.together("purpose")
at_once = sorted(name for name in sys.modules if name.startswith("sampan.room"))
from sampan.room import one, two
import sampan.room
assert sampan.room.one is one, "a module is an attribute of its package"
assert sampan.room.__path__ == [{path!r} + "/sampan/room"], sampan.room.__path__
assert one.__file__ == {path!r} + "/sampan/room/one.py", one.__file__
assert (one.__package__, sampan.room.__package__, one.__spec__.parent) == ("sampan.room",) * 3
bundle.keep(learn={learn})
print(one.VALUE, two.VALUE, len(at_once))
"""


def together(package: Package, learn: bool = True) -> list[int]:
    """The values of both modules, and how many were there at once."""
    script = TOGETHER.format(path=str(package.path), learn=learn)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_what_a_purpose_imports_comes_at_once_when_it_was_seen_once(package: Package) -> None:
    (package.room / "one.py").write_text("from sampan.room.two import VALUE as other\nVALUE = other - 1\n")
    assert together(package) == [1, 2, 0], "the file is made"
    assert together(package, learn=False) == [1, 2, 0], "a command that failed teaches nothing"
    assert together(package) == [1, 2, 0], "it is learned"
    assert together(package) == [1, 2, 3], "the package, and both modules"
    assert package.run() == FROM_BUNDLE, "another purpose imports as ever"


TWO_PURPOSES = """
import sys
sys.path.insert(0, {path!r})
from sampan import bundle
bundle.use()
def loaded():
    return sorted(name.rpartition(".")[2] for name in sys.modules if name.startswith("sampan.room."))
bundle.together("command")
print("at once:", *loaded())
from sampan.room import one
bundle.together("verb")
print("then:", *loaded())
from sampan.room import two
bundle.keep()
"""


def test_a_command_and_its_verb_are_two_purposes_each_with_what_it_imported_itself(package: Package) -> None:
    def run() -> str:
        script = TWO_PURPOSES.format(path=str(package.path))
        done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run() == "at once:\nthen: one\n", "the file is made"
    assert run() == "at once:\nthen: one\n", "it is learned"
    for _ in range(2):
        assert run() == "at once: one\nthen: one two\n"
    assert together(package)[2] == 0, "a purpose that was not seen yet"


def test_a_change_counts_for_what_comes_at_once_too(package: Package) -> None:
    for _ in range(3):
        together(package)
    package.write("two", 7)
    (cached,) = (package.room / "__pycache__").glob("two.*")
    cached.unlink()
    assert together(package) == [1, 7, 0]
    assert together(package) == [1, 7, 0]
    assert together(package) == [1, 7, 3]
    whole = package.file().read_bytes()
    for damaged in (whole[:-5], whole[:-200] + b"x" * 200):
        package.file().write_bytes(damaged)
        assert together(package)[:2] == [1, 7], "what is damaged is where the piece is"
    (package.room / "two.py").unlink()
    with pytest.raises(AssertionError, match="ImportError"):
        together(package)


def test_many_at_once_leave_one_whole_file(package: Package) -> None:
    script = SCRIPT.format(path=str(package.path))
    started = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", script], stdout=subprocess.DEVNULL) for _ in range(6)
    ]
    assert [p.wait() for p in started] == [0] * 6
    package.run()
    assert package.run() == FROM_BUNDLE
    assert [
        name
        for name in os.listdir(package.path / "sampan/__pycache__")
        if "bundle" in name and not name.endswith((".bundle", ".pyc"))
    ] == []


FAULTY = '''"""Of the module."""

class Thing:
    """Of the class."""

    def fail(self, number: int) -> str:
        """Of the function."""
        try:
            return "text"[number]
        except IndexError as e:
            raise LookupError(
                "none such"
            ) from e

def word() -> str:
    return "first constant"

def words() -> list[str]:
    return ["first" for _ in range(1)]
'''

FAULT = """
import sys
sys.setprofile(lambda *_: None)  # Python makes an array of each code's lines then, and the table must fit it
sys.path.insert(0, {path!r})
from sampan import bundle
bundle.use()
bundle.together("purpose")
from sampan.room import faulty
lines = any(line for _, _, line in faulty.word.__code__.co_lines())
bundle.keep()
print(faulty.__doc__, faulty.Thing.__doc__, faulty.Thing.fail.__doc__, faulty.word(), faulty.words(), lines, sep="|", flush=True)
faulty.Thing().fail(9)
"""


def test_code_that_comes_at_once_has_no_lines_and_a_fault_in_it_is_told_with_them(package: Package) -> None:
    (package.room / "faulty.py").write_text(FAULTY)

    def run() -> tuple[list[str], str]:
        script = FAULT.format(path=str(package.path))
        done = subprocess.run([sys.executable, "-I", "-S", "-X", "utf8", "-c", script], capture_output=True, text=True)
        assert done.returncode == 1
        # From Python 3.13 on the marks below a line come from the table that is not there.
        told = [line for line in done.stderr.splitlines() if line.strip("^~ ")]
        return done.stdout.strip().split("|"), "\n".join(told)

    said, told = run()
    assert said == ["Of the module.", "Of the class.", "Of the function.", "first constant", "['first']", "True"]
    assert "line 9, in fail" in told
    assert "line 11, in fail" in told
    run()
    lean, the_same = run()
    assert [lean[i] for i in (0, 1, 3, 4)] == [said[i] for i in (0, 1, 3, 4)], "only what nobody sees is left out"
    assert lean[-1] == "False", "without its lines"
    for line in (
        "line 9, in fail",
        'return "text"[number]',
        "line 11, in fail",
        "raise LookupError(",
        "direct cause",
        "none such",
    ):
        assert line in the_same, the_same


def test_a_table_without_lines_is_as_long_as_its_code() -> None:
    for path in sorted(SRC.glob("*/*.py"))[::9]:
        pending = [(code, lean(code)) for code in [compile(path.read_text(), str(path), "exec")]]
        while pending:
            whole, left = pending.pop()
            assert left.co_code == whole.co_code
            assert [(p[0], p[1]) for p in left.co_positions()] == [(None, None)] * (len(whole.co_code) // 2)
            assert [end for _, end, _ in left.co_lines()][-1] == len(whole.co_code)
            nested = zip(whole.co_consts, left.co_consts, strict=True)
            pending += [(a, b) for a, b in nested if isinstance(a, CodeType)]
