"""What a user gets: from a fresh clone with an empty environment, and from a wheel that needs no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.roots import BASE, Root

PROJECT = Path(__file__).parents[2]
EMPTY = {"PATH": "/usr/bin:/bin", "HOME": "/root"}

pytestmark = [pytest.mark.root, pytest.mark.long]


def run(*args: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        args, cwd=cwd, env={**EMPTY, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{args}: exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    run("git", "-c", f"safe.directory={PROJECT}/.git", "clone", "-q", str(PROJECT), "clone", cwd=tmp_path)
    return tmp_path / "clone"


@pytest.fixture
def store() -> Iterator[Root]:
    made = Root(BASE / f"packaging-{os.getpid()}")
    yield made
    made.delete()


def test_make_run_in_a_fresh_clone(clone: Path, store: Root) -> None:
    out = run("make", "run", cwd=clone, env=store.environment)
    assert out.splitlines()[-1] == "hello"
    assert run("git", "status", "--porcelain", cwd=clone) == ""


def test_the_interpreter_that_is_asked_for_is_the_one_of_the_venv(clone: Path) -> None:
    version = "import sys; print(sys.version, sys.base_prefix)"
    script, python, made = str(clone / "scripts/venv"), str(clone / ".venv/bin/python"), clone / ".venv/pyvenv.cfg"
    run(script, cwd=clone)
    first = made.stat().st_ino
    run(script, cwd=clone)
    run(script, cwd=clone, env={"PYTHON": python})
    assert made.stat().st_ino == first
    # What is none, or not new enough, leaves the one that is there.
    for wrong in ("/bin/false", "python2.7"):
        refused = subprocess.run([script], env={**EMPTY, "PYTHON": wrong}, capture_output=True, text=True)
        assert (refused.returncode, refused.stderr) == (1, f"scripts/venv: {wrong} is not a Python 3.11 or later\n")
    assert made.stat().st_ino == first
    # The one that runs this test: where there are several on the machine, it is another.
    ours = os.path.realpath(sys.executable)
    run(script, cwd=clone, env={"PYTHON": ours})
    assert run(python, "-c", version, cwd=clone) == run(ours, "-c", version, cwd=clone)


def test_make_help_names_every_target_that_a_user_needs(clone: Path) -> None:
    names = [line.split()[0] for line in run("make", cwd=clone).splitlines()]
    wanted = ["help", "run", "test", "test-long", "conformance", "beside-docker", "check", "bench", "soak", "clean"]
    assert names == wanted


def test_a_wheel_is_installed_without_a_compiler_and_runs(clone: Path, tmp_path: Path, store: Root) -> None:
    venv = tmp_path / "venv"
    run("python3", "-m", "venv", str(venv), cwd=tmp_path)
    # A compiler that is called fails.
    run(str(venv / "bin/pip"), "install", "-q", str(clone), cwd=tmp_path, env={"CC": "/bin/false", "CXX": "/bin/false"})
    sampan = str(venv / "bin/sampan")
    assert run(sampan, "run", "--rm", "base", "echo", "hello", cwd=tmp_path, env=store.environment) == "hello\n"
    library = "import sampan; print(sampan.Engine().containers.run('base', ['echo', 'hello']).stdout, end='')"
    assert run(str(venv / "bin/python"), "-c", library, cwd=tmp_path, env=store.environment) == "hello\n"


def test_the_wheel_holds_the_package_and_nothing_else(clone: Path, tmp_path: Path) -> None:
    run("python3", "-m", "venv", "venv", cwd=tmp_path)
    run("venv/bin/pip", "wheel", "-q", "--no-deps", "-w", "wheels", str(clone), cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "sampan/py.typed" in names
    assert [n for n in names if n.endswith(".data/scripts/sampan")]
    assert {n.split("/")[0].split("-")[0] for n in names} == {"sampan"}
    assert [n for n in names if "test" in n.lower()] == []
