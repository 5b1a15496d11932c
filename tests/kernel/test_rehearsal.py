"""What a zygote rehearses is done, and nobody else sees it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sampan.kernel import namespaces
from sampan.kernel.libc import KernelError, kernel_version
from sampan.shim import rehearsal

from support.child import in_child

pytestmark = pytest.mark.root


def surroundings() -> tuple[list[str], ...]:
    """What this process has open, what it sees mounted, where it is, and what it may do."""
    status = Path("/proc/self/status").read_text().splitlines()
    return (
        sorted(os.listdir("/proc/self/fd")),
        Path("/proc/self/mountinfo").read_text().splitlines(),
        sorted(os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")),
        [line for line in status if line.startswith(("Cap", "Uid", "Gid", "Groups", "Umask"))],
        [os.getcwd(), Path("/proc/self/cgroup").read_text()],
    )


def test_it_leaves_nothing_behind() -> None:
    def inside() -> tuple[list[str], tuple[list[str], ...], tuple[list[str], ...]]:
        namespaces.private_mounts()  # on the machine's other tests mount something meanwhile
        before = surroundings()
        failed = rehearsal.rehearse()
        failed += rehearsal.rehearse_monitor(2)
        return failed, before, surroundings()

    failed, before, after = in_child(inside)
    assert after == before
    if kernel_version() >= (6, 15):
        assert failed == [], "what fails is not rehearsed"


def test_where_nothing_can_be_attached_to_what_is_detached_it_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on kernels before 6.15: whoever rehearses goes on, whatever a step misses that one before it should have left."""

    def refuse(mount_fd: int, target_fd: int, target: str = "") -> None:
        raise KernelError(errno.EINVAL, "move_mount", target)

    monkeypatch.setattr("sampan.kernel.mount.move_mount", refuse)
    failed = in_child(lambda: (rehearsal.rehearse(), rehearsal.rehearse_monitor(1)))
    assert any("mknod" in line for line in failed[0])
    assert failed[1] == []
