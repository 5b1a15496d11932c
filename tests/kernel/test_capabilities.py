"""Capabilities: names and masks, and sets that are what they were set to, also as another program reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sampan.kernel import capabilities, process
from sampan.kernel.capabilities import NAMES, mask, names
from sampan.kernel.libc import by_machine, raw

from support.child import in_child

pytestmark = [pytest.mark.root, pytest.mark.core]

CHOWN, KILL, NET_RAW = mask(["CAP_CHOWN"]), mask(["CAP_KILL"]), mask(["CAP_NET_RAW"])


def test_names_and_masks_are_each_others_inverse() -> None:
    assert mask(NAMES) == (1 << len(NAMES)) - 1
    assert names(mask(["CAP_SYS_ADMIN", "CAP_CHOWN"])) == ["CAP_CHOWN", "CAP_SYS_ADMIN"]
    assert mask(["CAP_CHECKPOINT_RESTORE"]) == 1 << 40
    assert (mask(["CAP_SYS_ADMIN"]), mask(["CAP_SYS_PTRACE"])) == (1 << 21, 1 << 19)
    with pytest.raises(KeyError):
        mask(["CAP_NONSENSE"])


def test_every_capability_of_this_kernel_has_its_name_here() -> None:
    assert capabilities.last() < len(NAMES)
    if shutil.which("capsh"):
        printed = subprocess.run(["capsh", "--print"], capture_output=True, text=True, check=True).stdout
        known = set(printed.lower().replace("=", ",").replace("\n", ",").replace(" ", ",").split(","))
        assert {name.lower() for name in names(capabilities.bounding())} <= known


def test_our_own_sets_as_proc_shows_them() -> None:
    effective, permitted, inheritable = capabilities.get()
    shown = capabilities.process_sets(os.getpid())
    assert (effective, permitted, inheritable) == (shown["CapEff"], shown["CapPrm"], shown["CapInh"])
    assert capabilities.bounding() == shown["CapBnd"]
    assert capabilities.have("CAP_SYS_ADMIN")


def test_sets_are_set_at_once_in_both_halves() -> None:
    def inside() -> dict[str, int]:
        capabilities.set_all(KILL, KILL | NET_RAW | 1 << 39, 0)
        return capabilities.process_sets(os.getpid())

    shown = in_child(inside)
    assert (shown["CapEff"], shown["CapPrm"], shown["CapInh"]) == (KILL, KILL | NET_RAW | 1 << 39, 0)


def test_the_bounding_set_keeps_what_is_named() -> None:
    def inside() -> tuple[int, str]:
        capabilities.drop_bounding(CHOWN | KILL)
        # root's next program has no more than that.
        status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return capabilities.bounding(), status

    bounding, status = in_child(inside)
    assert bounding == CHOWN | KILL
    assert f"CapEff:\t{CHOWN | KILL:016x}" in status
    assert f"CapPrm:\t{CHOWN | KILL:016x}" in status


def test_an_empty_bounding_set_leaves_root_nothing() -> None:
    def inside() -> int:
        capabilities.drop_bounding(0)
        return subprocess.run(["chown", "1:1", "/proc/self/fd"], capture_output=True).returncode

    assert in_child(inside) != 0


def test_ambient_and_inheritable_are_empty_after_they_were_not() -> None:
    def inside() -> list[dict[str, int]]:
        effective, permitted, _ = capabilities.get()
        capabilities.set_all(effective, permitted, KILL)
        raw(by_machine(157, 167), "prctl(PR_CAP_AMBIENT_RAISE)", "", 47, 2, NAMES.index("CAP_KILL"), 0, 0)
        sets = [capabilities.process_sets(os.getpid())]
        capabilities.clear_ambient()
        capabilities.set_all(effective, permitted, 0)
        return [*sets, capabilities.process_sets(os.getpid())]

    before, after = in_child(inside)
    assert (before["CapInh"], before["CapAmb"]) == (KILL, KILL)
    assert (after["CapInh"], after["CapAmb"]) == (0, 0)


def test_permitted_capabilities_outlive_a_change_of_user_only_if_asked_for() -> None:
    def inside(keep: bool) -> dict[str, int]:
        process.keep_capabilities(keep)
        process.set_credentials(1000, 1000, [])
        return capabilities.process_sets(os.getpid())

    assert in_child(lambda: inside(True))["CapPrm"] == capabilities.get()[1]
    assert in_child(lambda: inside(False))["CapPrm"] == 0
    assert in_child(lambda: inside(True))["CapEff"] == 0


def test_a_process_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        capabilities.process_sets(2**22 + 1)
    assert Path("/proc/self").exists()
