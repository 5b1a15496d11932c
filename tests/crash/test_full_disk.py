"""A root without a byte or a name left: what ends containers and gives the room back works, for it is how a user gets it back."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.box import directory_for_tests
from support.command import Command
from support.imagestore import disk
from support.patience import eventually
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]

RUN = ("run", "-d", "--network", "none")
SLEEP = ("base", "sleep", "1000")


@pytest.fixture
def small() -> Iterator[Root]:
    """A root on a file system of 48 MiB of its own; its run root is not there."""
    directory = directory_for_tests()
    with disk(directory / "disk", "48M") as place:
        made = Root(directory / "root")
        made.root.symlink_to(place / "root")
        (place / "root").mkdir(mode=0o700)
        before = made.state()
        made.cli("run", "--rm", "--network", "none", "base", "true").ok()
        yield made
        (place / "filled").unlink(missing_ok=True)
        before.check()
        made.delete()
    shutil.rmtree(directory)


def fill(root: Root) -> None:
    """Take the last byte, and see that there is none."""
    place = Path(os.readlink(root.root)).parent / "filled"
    with place.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    with pytest.raises(OSError, match="No space left") as told:
        (place.parent / "more").write_bytes(b"x")
    assert told.value.errno == errno.ENOSPC
    (place.parent / "more").unlink(missing_ok=True)


def run(root: Root, name: str, *args: str) -> None:
    root.cli(*RUN, "--name", name, *args).ok()


@pytest.mark.parametrize("policy", ["no", "always"])
def test_rm_f_of_one_that_runs(small: Root, policy: str) -> None:
    run(small, "box", "--restart", policy, "-v", "/data", *SLEEP)
    fill(small)
    small.cli("rm", "-fv", "box").ok()
    assert small.cli("ps", "-aq").ok().out == ""
    assert small.cli("volume", "ls", "-q").ok().out == ""


def test_stop_kill_and_restart_keep_their_promises(small: Root) -> None:
    script = "trap 'exit 5' TERM; while :; do sleep 0.05; done"
    for name in ("stopped", "killed"):
        run(small, name, "--restart", "always", "base", "sh", "-c", f"echo up; {script}")
        eventually(lambda name=name: small.cli("logs", name).ok().out == "up\n")
    fill(small)
    small.cli("stop", "stopped").ok()
    small.cli("kill", "killed").ok()
    show = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
    assert small.cli("inspect", "-f", show, "stopped").ok().out == "exited 5 0\n"
    assert small.cli("inspect", "-f", show, "killed").ok().out == "exited 137 0\n"
    refused = small.cli("start", "stopped")
    assert refused.code == 1
    assert "no space left on device" in refused.err.lower()
    assert small.cli("inspect", "-f", show, "stopped").ok().out == "exited 5 0\n"
    small.cli("rm", "stopped", "killed").ok()


def test_a_second_thought_is_written_over_the_first(small: Root) -> None:
    """kill says that it may restart, stop that it must not: the first has taken the reserved blocks."""
    script = "trap 'echo heard' HUP; echo up; while :; do sleep 0.05; done"
    run(small, "box", "--restart", "always", "--stop-signal", "KILL", "base", "sh", "-c", script)
    eventually(lambda: small.cli("logs", "box").ok().out == "up\n")
    small.cli("kill", "-s", "HUP", "box").ok()
    fill(small)
    small.cli("stop", "-t", "0", "box").ok()
    assert small.cli("inspect", "-f", "{{.State.Status}}", "box").ok().out == "exited\n"
    small.cli("rm", "box").ok()


def test_one_that_has_filled_the_disk_by_itself(small: Root) -> None:
    # And its log has been cut off in the middle of a line.
    script = "cat /dev/zero > /full; while :; do echo talking; sleep 0.02; done"
    run(small, "box", "--health-cmd", "true", "--health-interval", "30ms", "base", "sh", "-c", script)
    eventually(lambda: "No space left" in small.cli("logs", "box").out or small.cli("exec", "box", "df", "/").out)
    eventually(lambda: os.statvfs(small.root).f_bavail == 0, what="it is full")
    small.cli("rm", "-f", "box").ok()
    assert os.statvfs(small.root).f_bavail > 1000
    run(small, "box", *SLEEP)
    small.cli("rm", "-f", "box").ok()


def test_a_lost_one(small: Root) -> None:
    run(small, "box", "--restart", "always", *SLEEP)
    main = int(small.cli("inspect", "-f", "{{.State.Pid}}", "box").ok().out)
    monitor = int(Path(f"/proc/{main}/stat").read_text().rpartition(")")[2].split()[1])
    fill(small)
    os.kill(monitor, 9)
    eventually(lambda: not Path(f"/proc/{monitor}").exists())
    small.cli("rm", "-f", "box").ok()


def test_one_that_never_ran_and_what_takes_room_besides(small: Root, cli: Command) -> None:
    run(small, "ended", "base", "true")
    small.cli("wait", "ended").ok()
    small.cli("create", "--name", "made", "--network", "none", *SLEEP).ok()
    small.cli("volume", "create", "unused").ok()
    small.cli("tag", "base", "other").ok()
    fill(small)
    for args in (
        ("rm", "ended"), ("rm", "-f", "made"), ("volume", "rm", "unused"), ("rmi", "other"), ("ps", "-a"),
        ("container", "prune", "-f"), ("system", "df"), ("rmi", "-f", "base"), ("system", "prune", "-af"),
    ):  # fmt: skip
        small.cli(*args).ok()
    assert small.cli("images", "-q").ok().out == ""


def test_no_name_is_left(small: Root) -> None:
    """Inodes: files without a byte cannot be made either."""
    place = Path(os.readlink(small.root)).parent
    run(small, "box", "--restart", "always", *SLEEP)
    subprocess.run(["mount", "-o", f"remount,nr_inodes={used_names(place) + 1}", place], check=True)
    (place / "more").touch()
    with pytest.raises(OSError, match="No space left"):
        (place / "another").touch()
    small.cli("stop", "-t", "0", "box").ok()
    small.cli("rm", "-f", "box").ok()
    (place / "more").unlink()


def used_names(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_files - status.f_ffree
