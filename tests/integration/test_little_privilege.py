"""Where not much is allowed: no cgroups, read-only ones, no CAP_SYS_ADMIN, a user namespace. What works, and what is said of the rest."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.kernel import namespaces

from support.command import SAMPAN, Command, Result
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

NO_CGROUPS = "umount -l /sys/fs/cgroup"
READ_ONLY = "for m in $(grep -o ' /sys/fs/cgroup[^ ]*' /proc/self/mountinfo); do mount -o remount,bind,ro $m; done"
REASONS = {NO_CGROUPS: "no cgroup hierarchy is mounted", READ_ONLY: "cgroups cannot be made in /sys/fs/cgroup"}


class Place:
    """The command in a mount namespace where something was done before."""

    def __init__(self, root: Root, before: str) -> None:
        self._command = Command({}, "/usr/bin/unshare")
        self._before = before
        self._flags = root.cli.before
        self._environment = root.cli.environment

    def __call__(self, *args: str, timeout: float = 60) -> Result:
        line = shlex.join([SAMPAN, *self._flags, *args])
        return self._command("-m", "sh", "-c", f"{self._before}; exec {line}", env=self._environment, timeout=timeout)


@pytest.fixture(params=[NO_CGROUPS, READ_ONLY], ids=["no-cgroups", "read-only-cgroups"])
def place(root: Root, request: pytest.FixtureRequest) -> Place:
    return Place(root, request.param)


@pytest.fixture
def reason(request: pytest.FixtureRequest) -> str:
    return REASONS[request.node.callspec.params["place"]]


@pytest.mark.core
def test_a_container_runs_and_one_line_says_what_it_lacks(place: Place, reason: str) -> None:
    done = place("run", "--rm", "--network", "none", "base", "echo", "hello").ok()
    assert done.out == "hello\n"
    (line,) = done.err.splitlines()
    assert line.startswith(f"WARNING: {reason}")
    assert line.endswith("The container runs without limits, cannot be paused, and its use is not counted.")


def test_flags_that_need_cgroups_fail_with_the_reason(place: Place, reason: str) -> None:
    for flags, words in (
        (["-m", "64m"], "limits (memory) cannot be set: "),
        (["--cpus", "1", "--pids-limit", "9"], "limits (pids, quota) cannot be set: "),
        (["--pid", "host"], "--pid host cannot be had: "),
        (["--cap-add", "ALL"], "--cap-add ALL cannot be had, "),
        (["--device-cgroup-rule", "c 1:3 r"], "--device-cgroup-rule cannot be had: "),
    ):
        done = place("run", "--name", "never", *flags, "base", "true")
        assert (done.code, done.out) == (125, ""), done
        assert words in done.err, done
        assert reason in done.err, done
    assert place("ps", "-aq").ok().out == ""


def test_the_rest_of_a_life(place: Place, reason: str) -> None:
    place("run", "-d", "--name", "box", "base", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done").ok()
    assert place("exec", "box", "echo", "in").ok().out == "in\n"
    paused = place("pause", "box")
    assert paused.code == 1
    assert f"cannot be paused: {reason}" in paused.err
    listed = place("top", "box")
    assert listed.code == 1
    assert reason in listed.err
    place("stats", "--no-stream", "box").ok()
    place("stop", "box").ok()
    assert place("inspect", "-f", "{{.State.ExitCode}}", "box").ok().out == "7\n"
    place("rm", "box").ok()
    assert f"No limits, no pause, no stats: {reason}" in str(place("info").ok())


def test_no_device_is_made_and_none_of_the_image_opened(place: Place, root: Root) -> None:
    # Nothing judges who opens a device there: CAP_MKNOD is gone, and the nodes that a layer brings are dead.
    root.cli("run", "--name", "maker", "base", "mknod", "-m", "666", "/evil", "c", "1", "5").ok()
    root.cli("commit", "maker", "evil").ok()
    assert root.cli("run", "--rm", "evil", "head", "-c", "1", "/evil").ok().out == "\0"
    opened = place("run", "--rm", "evil", "head", "-c", "1", "/evil")
    assert opened.code == 1
    assert "Permission denied" in opened.err
    made = place("run", "--rm", "base", "mknod", "/x", "c", "1", "5")
    assert made.code == 1
    assert "Operation not permitted" in made.err
    assert place("run", "--rm", "base", "head", "-c", "1", "/dev/zero").ok().out == "\0"
    root.cli("rm", "maker").ok()
    root.cli("rmi", "evil").ok()


def test_a_lost_container_is_ended_by_its_init(place: Place) -> None:
    """The program has changed its user, which clears PDEATHSIG, so that it survives its monitor; no cgroup lists what is left."""
    place("run", "-d", "--name", "box", "-u", "1000", "base", "sh", "-c", "sleep 1000 & exec sleep 1000").ok()
    state = json.loads(place("inspect", "-f", "{{json .State}}", "box").ok().out)
    monitor = next(
        int(line.split()[1])
        for line in Path(f"/proc/{state['Pid']}/status").read_text().splitlines()
        if line.startswith("PPid")
    )
    os.kill(monitor, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{monitor}").exists(), what="the monitor's end")
    assert "Exited (255)" in place("ps", "-a").ok().out
    eventually(lambda: not Path(f"/proc/{state['Pid']}").exists(), what="it is reaped by whoever has it now")
    place("rm", "box").ok()


def test_without_cap_sys_admin_it_is_said_and_nothing_is_left(root: Root) -> None:
    line = shlex.join([SAMPAN, *root.cli.before])
    drop = Command(root.cli.environment, "/usr/sbin/capsh", ("--drop=cap_sys_admin", "--", "-c"))
    done = drop(f"{line} run --name never base true")
    assert done.code == 125
    assert "mounting needs CAP_SYS_ADMIN" in done.err
    assert "Traceback" not in done.err
    # What needs no privilege of the kernel's goes on working.
    for verb in ("ps -a", "images", "info", "version", "system df"):
        drop(f"{line} {verb}").ok()
    assert drop(f"{line} ps -aq").ok().out == ""


def in_user_namespace(function: Callable[[], int], ids: str = "0 0 65536") -> int:
    """The exit code of a child with a user and a mount namespace of its own, its ids mapped by `ids`."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1])
        code = 99
        try:
            assert ctypes.CDLL(None).unshare(namespaces.CLONE_NEWUSER | namespaces.FLAGS["mount"]) == 0
            os.write(ready[1], b".")
            os.read(go[0], 1)
            code = function()
        finally:
            os._exit(code)
    os.close(ready[1])
    try:
        assert os.read(ready[0], 1) == b"."
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text(ids)
    finally:
        for fd in (ready[0], *go):
            os.close(fd)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("network", ["none", "host"])
def test_in_a_user_namespace(new_root: Root, network: str) -> None:
    """Devices are bound, for none can be made; layers are copied, for an overlay's marks cannot be written."""

    def body() -> int:
        shell = "cat /proc/self/uid_map; head -c 1 /dev/zero | wc -c; echo x > /file; touch /sys/x 2> /dev/null || echo sealed"
        done = new_root.cli("run", "--rm", "--network", network, "base", "sh", "-c", shell).ok()
        assert done.out.split() == ["0", "0", "65536", "1", "sealed"], done
        assert "vfs" in new_root.cli("info", "-f", "{{.Driver}}").ok().out
        done = new_root.cli("run", "--rm", "--network", network, "-u", "70000", "base", "true")
        assert done.code != 0, done
        assert "map more of them" in done.err, done
        return 0

    assert in_user_namespace(body) == 0
