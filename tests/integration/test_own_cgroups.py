"""`--security-opt writable-cgroups`: a container that makes groups of its own, and what others do with it then."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import host
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

UNIFIED = (host.CGROUPS / "cgroup.controllers").exists()
OWN = "/sys/fs/cgroup" if UNIFIED else "/sys/fs/cgroup/pids"
"""Where the container sees its group."""


@pytest.mark.core
@pytest.mark.parametrize(
    ("flags", "written"),
    [
        ((), False),
        (("--security-opt", "writable-cgroups=true"), True),
        (("--security-opt", "writable-cgroups=false"), False),
        (("--privileged",), True),
        (("--privileged", "--security-opt", "writable-cgroups=0"), False),
    ],
)
def test_who_may_make_groups(root: Root, flags: tuple[str, ...], written: bool) -> None:
    made = root.cli("run", "--rm", *flags, "base", "mkdir", f"{OWN}/below")
    assert (made.code == 0) == written
    assert written or "Read-only file system" in made.err


@pytest.mark.core
def test_the_option_changes_nothing_else(root: Root) -> None:
    made = root.cli(
        "run", "--rm", "--security-opt", "writable-cgroups=true", "base", "sh", "-c",
        "touch /sys/x; mount -t tmpfs x /mnt; grep CapEff /proc/self/status; cat /proc/self/status | grep Seccomp:",
    )  # fmt: skip
    assert made.err.count("Read-only file system") == 1
    assert "ermission denied" in made.err or "not permitted" in made.err
    assert "CapEff:\t00000000a80425fb" in made.out
    assert "Seccomp:\t2" in made.out


@pytest.mark.parametrize("text", ["writable-cgroups", "writable-cgroups=perhaps", "writable-cgroups="])
def test_other_values_are_refused(root: Root, text: str) -> None:
    failed = root.cli("create", "--security-opt", text, "base", "true")
    assert failed.code in (1, 125)
    assert "--security-opt" in failed.err
    assert text in failed.err


@pytest.mark.cgroup2
def test_an_exec_goes_beside_an_init_that_has_left_the_top(root: Root) -> None:
    """As systemd does: a group whose controllers are given to groups below it takes no process."""
    script = (
        "mkdir /sys/fs/cgroup/init; echo 1 > /sys/fs/cgroup/init/cgroup.procs; "
        "echo +pids > /sys/fs/cgroup/cgroup.subtree_control || exit 1; echo ready; exec sleep 1000"
    )
    flags = ("--security-opt", "writable-cgroups=true", "--health-cmd", "true", "--health-interval", "1s")
    root.cli("run", "-d", "--name", "box", *flags, "base", "sh", "-c", script).ok()
    eventually(lambda: "ready" in root.cli("logs", "box").out)
    assert root.cli("exec", "box", "cat", "/proc/self/cgroup").ok().out == "0::/init\n"
    root.cli("stop", "-t", "0", "box").ok()


@pytest.mark.cgroup2
@pytest.mark.parametrize(("user", "owner"), [("0", 0), ("1000:1000", 1000), ("nobody", 65534)])
def test_the_group_belongs_to_the_user_of_the_process(root: Root, user: str, owner: int) -> None:
    """Who may then make groups in it and go there; what limits the container is root's (cgroup-v2.rst, "Delegation")."""
    flags = ("--security-opt", "writable-cgroups=true", "-u", user)
    script = "mkdir /sys/fs/cgroup/a && echo $$ > /sys/fs/cgroup/a/cgroup.procs && exec sleep 1000"
    name = root.cli("run", "-d", *flags, "base", "sh", "-c", script).ok().out.strip()
    group = host.CGROUPS / root.cgroup_parent / name
    eventually(lambda: (group / "a/cgroup.procs").exists() and (group / "a/cgroup.procs").read_text())
    named = {line for line in Path("/sys/kernel/cgroup/delegate").read_text().split() if (group / line).exists()}
    assert group.stat().st_uid == owner
    for path in group.iterdir():
        if path.is_file():
            assert path.stat().st_uid == (owner if path.name in named else 0), path
    root.cli("rm", "-f", name).ok()
    assert not group.exists()


@pytest.mark.cgroup2
def test_a_group_that_cannot_be_written_to_is_not_given_away(root: Root) -> None:
    name = root.cli("run", "-d", "-u", "1000", "base", "sleep", "1000").ok().out.strip()
    assert (host.CGROUPS / root.cgroup_parent / name).stat().st_uid == 0
