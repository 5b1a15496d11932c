"""Which devices the processes of a group may open and make, by every cgroup driver, on the real kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.kernel.cgroup import DeviceRule, Limits

from support.groups import Group, driver, exits_with_error_of, make

__all__ = ["driver", "make"]

pytestmark = [pytest.mark.root, pytest.mark.core]

DENY_ALL = DeviceRule(False, "a")
ANY_NODE = (DeviceRule(True, "c", access="m"), DeviceRule(True, "b", access="m"))


@pytest.fixture
def node(tmp_path: Path) -> Callable[[int, int], str]:
    def node(major: int, minor: int) -> str:
        path = tmp_path / f"{major}-{minor}"
        os.mknod(path, 0o20666, os.makedev(major, minor))
        return str(path)

    return node


def opening(path: str, flags: int) -> Callable[[], None]:
    return exits_with_error_of(lambda: os.open(path, flags))


def test_only_allowed_devices_open(make: Callable[..., Group], node: Callable[[int, int], str]) -> None:
    group = make(Limits(devices=(DENY_ALL, *ANY_NODE, DeviceRule(True, "c", 1, 3))))
    assert group.outcome(opening(node(1, 3), os.O_RDWR)) == 0
    assert group.outcome(opening(node(1, 5), os.O_RDONLY)) == errno.EPERM


def test_without_rules_devices_are_left_alone(make: Callable[..., Group], node: Callable[[int, int], str]) -> None:
    assert make().outcome(opening(node(1, 5), os.O_RDWR)) == 0


def test_devices_can_be_made_that_cannot_be_opened(make: Callable[..., Group], tmp_path: Path) -> None:
    group = make(Limits(devices=(DENY_ALL, *ANY_NODE)))
    for kind in (0o20600, 0o60600):
        path = str(tmp_path / oct(kind))
        assert group.outcome(exits_with_error_of(lambda: os.mknod(path, kind, os.makedev(1, 1)))) == 0  # noqa: B023
        assert group.outcome(opening(path, os.O_RDONLY)) == errno.EPERM


def test_making_a_device_can_be_forbidden(make: Callable[..., Group], tmp_path: Path) -> None:
    group = make(Limits(devices=(DENY_ALL, DeviceRule(True, "c", 1, 3, "rw"))))
    make_node = exits_with_error_of(lambda: os.mknod(tmp_path / "n", 0o20600, os.makedev(1, 3)))
    assert group.outcome(make_node) == errno.EPERM


def test_each_access_by_itself(make: Callable[..., Group], node: Callable[[int, int], str]) -> None:
    group = make(Limits(devices=(DENY_ALL, DeviceRule(True, "c", 1, 3, "r"), DeviceRule(True, "c", 1, 5, "w"))))
    null, zero = node(1, 3), node(1, 5)
    assert group.outcome(opening(null, os.O_RDONLY)) == 0
    assert group.outcome(opening(null, os.O_WRONLY)) == errno.EPERM
    assert group.outcome(opening(null, os.O_RDWR)) == errno.EPERM
    assert group.outcome(opening(zero, os.O_WRONLY)) == 0
    assert group.outcome(opening(zero, os.O_RDWR)) == errno.EPERM


def test_wildcards(make: Callable[..., Group], node: Callable[[int, int], str]) -> None:
    group = make(Limits(devices=(DENY_ALL, DeviceRule(True, "c", 1), DeviceRule(True, "c", 1, 3, "r"))))
    assert group.outcome(opening(node(1, 3), os.O_RDWR)) == 0
    assert group.outcome(opening(node(1, 5), os.O_RDWR)) == 0
    assert group.outcome(opening(node(5, 2), os.O_RDWR)) == errno.EPERM


def test_the_last_rule_decides(make: Callable[..., Group], node: Callable[[int, int], str]) -> None:
    null, zero = node(1, 3), node(1, 5)
    group = make(
        Limits(devices=(DENY_ALL, DeviceRule(True, "c", 1, 3), DeviceRule(False, "c", 1, 3, "w"))),
    )
    assert group.outcome(opening(null, os.O_RDONLY)) == 0
    assert group.outcome(opening(null, os.O_WRONLY)) == errno.EPERM
    group = make(Limits(devices=(DENY_ALL, DeviceRule(True, "a"), DeviceRule(False, "c", 1, 5))))
    assert group.outcome(opening(null, os.O_RDWR)) == 0
    assert group.outcome(opening(zero, os.O_RDONLY)) == errno.EPERM
