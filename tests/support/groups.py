"""Control groups with real processes in them, for tests of the drivers and of what stands on them.

A test module takes `make`, with the `driver` of each version that this machine has, by importing them, and names them in its `__all__`.
"""

from __future__ import annotations

import itertools
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.errors import Unavailable
from sampan.kernel import cgroup, devicefilter, process
from sampan.kernel.cgroup import CgroupDriver, Limits

from support.patience import eventually, patience

_numbers = itertools.count(1)


class Group:
    """One group below a parent of this test run, made as a start makes it."""

    def __init__(self, driver: CgroupDriver, limits: Limits | None = None) -> None:
        self.driver = driver
        self.name = f"sampan-test-{os.getpid()}/{next(_numbers)}"
        self._started: list[int] = []
        for path in driver.directories(self.name):
            cgroup.make_directory(path)
        self.set(limits or Limits())

    def set(self, limits: Limits) -> None:
        for write in (*self.driver.prepare(self.name), *self.driver.limits(self.name, limits)):
            cgroup.apply(write)
        directory = self.driver.device_program(self.name)
        if directory and limits.devices:
            devicefilter.attach(directory, limits.devices)

    def run(self, program: Callable[[], object]) -> int:
        """Start a process that calls `program` in the group; its pid, once it is there.

        It exits with 0, or 1 after an exception.
        """
        directory = self.driver.clone_directory(self.name)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY) if directory else -1
        there, arrived = os.pipe()
        try:
            pid = process.clone3(0, fd)
            if pid == 0:
                self._child(program, arrived)
        finally:
            os.close(arrived)
            if fd >= 0:
                os.close(fd)
        self._started.append(pid)
        with open(there, "rb") as pipe:
            assert pipe.read(1) == b"x", "the process could not join the group"
        return pid

    def _child(self, program: Callable[[], object], arrived: int) -> None:
        status = 1
        try:
            for path in self.driver.join_files(self.name):
                Path(path).write_text("0")
            os.write(arrived, b"x")
            os.close(arrived)
            program()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def outcome(self, program: Callable[[], object]) -> int:
        """Run it to its end: the exit status, or minus the signal."""
        pid = self.run(program)
        self._started.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def wait_for(self, count: int) -> None:
        """Until that many processes are in the group."""
        eventually(lambda: len(self.processes()) >= count, what=f"{count} processes in {self.name}")

    def processes(self) -> list[int]:
        return sorted(self.driver.processes(self.name))

    def kill(self) -> None:
        self.driver.kill(self.name, patience(20))

    def path(self, controller: str) -> Path:
        """The group's directory in the hierarchy of a controller."""
        for hierarchy in self.driver.hierarchies(self.name):
            if controller in hierarchy.name.split(",") or not hierarchy.name:
                return Path(hierarchy.directory)
        raise LookupError(f"no hierarchy has {controller}")

    def read(self, controller: str, knob: str) -> str:
        return (self.path(controller) / knob).read_text().strip()

    def delete(self) -> None:
        """Take all of it away, and the parent when this was its last group."""
        self.kill()
        self.driver.remove(self.name, patience(5))
        for pid in self._started:
            os.waitpid(pid, 0)
        left = [h.directory for h in self.driver.hierarchies(self.name) if os.path.exists(h.directory)]
        assert not left, left
        for hierarchy in self.driver.hierarchies(os.path.dirname(self.name)):
            try:
                os.rmdir(hierarchy.directory)
            except OSError:
                pass  # another group of this run is in it


def versions() -> list[str]:
    try:
        here = cgroup.detect().version
    except Unavailable:
        return ["v2"]  # the fixture fails with the reason
    return ["v1", "hybrid"] if here == "hybrid" else [here]


@pytest.fixture(params=versions())
def driver(request: pytest.FixtureRequest) -> CgroupDriver:
    return cgroup.by_version(request.param)


@pytest.fixture
def make(driver: CgroupDriver) -> Iterator[Callable[..., Group]]:
    made: list[Group] = []

    def make(limits: Limits | None = None) -> Group:
        made.append(Group(driver, limits))
        return made[-1]

    yield make
    for group in made:
        group.delete()


def error_of(action: Callable[[], object]) -> int:
    """The errno that an action gives, 0 for none."""
    try:
        action()
    except OSError as e:
        return e.errno or -1
    return 0


def exits_with_error_of(action: Callable[[], object]) -> Callable[[], None]:
    return lambda: os._exit(error_of(action))
