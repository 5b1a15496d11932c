"""Fixtures of tests that drive a runtime by its command line: a directory, the probe, containers that are taken away again."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.conformance import bundle, table
from support.conformance.runtime import Containers, Runtime, become_subreaper
from support.roots import BASE

OURS = str(Path(sys.executable).parent / table.OURS)


@pytest.fixture(scope="session")
def suite_directory() -> Iterator[Path]:
    BASE.mkdir(parents=True, exist_ok=True)
    # A new one for each who asks: two folders of tests have this fixture, and may be run by one process.
    path = Path(tempfile.mkdtemp(prefix="conformance-", dir=BASE))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def tools(suite_directory: Path) -> Path:
    """The probe and busybox, to be linked into every root."""
    return bundle.make_tools(suite_directory / "tools")


@pytest.fixture
def directory(suite_directory: Path) -> Iterator[Path]:
    """Of one test: its bundles are in there, and its runtime's state."""
    path = suite_directory / f"test-{len(os.listdir(suite_directory))}"
    path.mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def runtime(runtime_program: str, directory: Path) -> Runtime:
    program = shutil.which(runtime_program)
    assert program, f"{runtime_program}: no such program"
    return Runtime(program, directory)


@pytest.fixture
def oci(runtime: Runtime, directory: Path, tools: Path) -> Iterator[Containers]:
    """Makes containers of the runtime; what a test leaves of them, or the runtime does, fails it."""
    made = Containers(runtime, directory, tools)
    become_subreaper(True)
    try:
        yield made
        made.close()
    finally:
        become_subreaper(False)
