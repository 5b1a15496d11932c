"""Fixtures of all tests: roots of their own, checked for what is left in them; time limits; what needs root.

engine, cli, root     one store for the whole session, with the images `base` and `debian:12`; what a test makes of
                      containers is removed and checked for leftovers after it
new_root              an empty store for one test, checked in the same way
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import hypothesis
import pytest

from support import debian, durations
from support.patience import patience
from support.roots import BASE, Root

if TYPE_CHECKING:
    import sampan

    from support.command import Command

_HERE = os.getcwd()

# Properties are tried with the same examples in every run, so that a failure belongs to the change that is tested, and
# without a time limit for making or trying them, which a busy machine breaks. All of them are tried by `make test-long`;
# `make test` and `make check` try a few (--hypothesis-profile).
_UNTIMED = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("full", derandomize=True, deadline=None, suppress_health_check=_UNTIMED)
hypothesis.settings.register_profile(
    "check", derandomize=True, deadline=None, suppress_health_check=_UNTIMED, max_examples=8
)
hypothesis.settings.register_profile(
    "some", derandomize=True, deadline=None, suppress_health_check=_UNTIMED, max_examples=25
)
hypothesis.settings.load_profile("full")


def pytest_configure(config: pytest.Config) -> None:
    # `make check` is over before its garbage matters, and looking for it is a sixth of its time.
    if config.getoption("--hypothesis-profile") == "check":
        gc.disable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What a shim does, it does however it was started: modules with `LAUNCHERS` (`support.boxes`) run with each of these."""
    launchers = getattr(metafunc.module, "LAUNCHERS", None)
    for name in ("box", "boxes"):
        if launchers and name in metafunc.fixturenames:
            metafunc.parametrize(name, launchers, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Not skipped: a run that could not show what it is there to show has failed.
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail("this test needs root (make check runs those that do not)", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail the test that leaves this process in another directory, where the relative paths of later ones lead elsewhere."""
    result = yield
    there = os.readlink("/proc/self/cwd")
    if there != _HERE:
        os.chdir(_HERE)
        pytest.fail(f"the working directory is {there} after this test, and not {_HERE}", pytrace=False)
    return result


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several run at once, the files that take longest come first; each in its own order."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    known = durations.read()
    tests = config.rootpath / "tests"
    kinds: dict[str, set[bool]] = {}
    for item in items:
        kinds.setdefault(str(item.path), set()).add(item.get_closest_marker("long") is not None)
    expected = {
        path: sum(known.get((os.path.relpath(path, tests), kind), 0) for kind in found) for path, found in kinds.items()
    }
    items.sort(key=lambda item: -expected[str(item.path)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End a test that hangs, with its traceback, instead of the whole run. Covers its fixtures too."""
    marker = item.get_closest_marker("patience")
    seconds = marker.args[0] if marker else 600 if item.get_closest_marker("long") else 120

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {patience(seconds):.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    # Again after a minute: the teardown of a test that hung may hang as well.
    signal.setitimer(signal.ITIMER_REAL, patience(seconds), patience(60))
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def test_directory() -> Iterator[str]:
    """A directory of this run on a file system that can hold an overlay's upper directory."""
    path = BASE / f"run-{os.getpid()}"
    path.mkdir(parents=True)
    yield str(path)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture(scope="session")
def session_root(test_directory: str) -> Iterator[Root]:
    """The store that tests share; `base` is made in it at once."""
    made = Root(BASE / f"run-{os.getpid()}" / "shared")
    made.cli("run", "--rm", "--network", "none", "base", "true").ok()
    yield made
    made.delete()


@pytest.fixture(scope="session")
def debian_image(session_root: Root) -> str:
    """The reference of a Debian in the session's store."""
    with debian.debian_tar().open("rb") as tar:
        session_root.cli("import", "-", "debian:12", stdin=tar.fileno(), timeout=300).ok()
    return "debian:12"


@pytest.fixture
def root(session_root: Root) -> Iterator[Root]:
    """The session's store; fails the test that leaves something in it or on the host."""
    session_root.forget_zygotes()
    before = session_root.state()
    yield session_root
    before.check()


@pytest.fixture
def engine(root: Root) -> Iterator[sampan.Engine]:
    """An Engine on the session's store."""
    with root.engine() as made:
        yield made


@pytest.fixture
def cli(root: Root) -> Command:
    """The command on the session's store."""
    return root.cli


@pytest.fixture
def new_root(test_directory: str, request: pytest.FixtureRequest) -> Iterator[Root]:
    """An empty store for this test alone."""
    made = Root(BASE / f"run-{os.getpid()}" / f"new-{len(os.listdir(test_directory))}")
    before = made.state()
    yield made
    if made.root.exists():
        before.check()
    made.delete()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room: podman, dockerd and containerd make sockets far below theirs."""
    with tempfile.TemporaryDirectory(prefix="sampan-", dir="/var/tmp") as name:
        yield Path(name)
