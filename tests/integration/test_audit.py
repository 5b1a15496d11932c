"""`audit`: a container as Docker's defaults make it holds; whatever is opened on purpose is seen; nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from support.command import Command

pytestmark = pytest.mark.root

Audit = Callable[..., dict[str, str]]


@pytest.fixture
def audit(cli: Command) -> Audit:
    def of(*flags: str) -> dict[str, str]:
        """check -> result, of a container with these flags."""
        name = cli("run", "-d", *flags, "base", "sleep", "1000").ok().out.strip()
        before = cli("exec", name, "sh", "-c", "ls -A / /tmp /dev /dev/shm; cat /proc/mounts").ok().out
        done = cli("audit", "--format", "json", name)
        found = {entry["Check"]: entry["Result"] for entry in map(json.loads, done.out.splitlines())}
        assert done.code == int("open" in found.values()), done
        assert cli("exec", name, "sh", "-c", "ls -A / /tmp /dev /dev/shm; cat /proc/mounts").ok().out == before
        return found

    return of


@pytest.mark.core
def test_the_default_container_holds(audit: Audit) -> None:
    found = audit()
    assert len(found) > 35
    assert [check for check, result in found.items() if result == "open"] == []


@pytest.mark.parametrize(
    ("flags", "opened"),
    [
        (["--pid", "host"], {"pid namespace"}),
        (["--network", "host"], {"network namespace"}),
        (["--ipc", "host"], {"ipc namespace"}),
        (["--uts", "host"], {"uts namespace"}),
        (["--cap-add", "SYS_BOOT"], {"dangerous capabilities", "reboot"}),
        (["--cap-add", "SYS_TIME"], {"dangerous capabilities", "host's clock"}),
        (["--cap-add", "DAC_READ_SEARCH"], {"dangerous capabilities", "files by handle"}),
        (["--cap-add", "SYSLOG"], {"dangerous capabilities", "kernel log"}),
        (["--cap-add", "SYS_ADMIN"], {"dangerous capabilities", "mount and unmount", "new mount interface"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_opened_on_purpose_is_seen(audit: Audit, flags: list[str], opened: set[str]) -> None:
    found = audit(*flags)
    assert opened <= {check for check, result in found.items() if result == "open"}


def test_a_privileged_container_is_open_all_over(audit: Audit) -> None:
    found = audit("--privileged")
    opened = {check for check, result in found.items() if result == "open"}
    assert {"/sys is read-only", "kernel parameters", "disks", "cgroup files", "system call filter", "swap"} <= opened
    assert found["own interpreter's file"] == found["breakout of chroot"] == "held"


def test_limits_are_noted(audit: Audit) -> None:
    found = audit("-m", "64m", "--pids-limit", "20")
    assert (found["memory limit"], found["limit of processes"]) == ("held", "held")


def test_a_user_without_privileges(audit: Audit) -> None:
    found = audit("-u", "1000")
    assert [check for check, result in found.items() if result == "open"] == []


def test_an_image_without_any_program(cli: Command) -> None:
    """Nothing of the image is run or loaded for the audit: not even a shell has to be there."""
    import subprocess

    empty = subprocess.run(
        ["tar", "-C", "/var/empty", "-cf", "-", "--files-from", "/dev/null"], capture_output=True, check=False
    )
    cli("import", "-", "empty", input=empty.stdout).ok()
    static = cli("run", "-d", "-v", "/bin/busybox:/busybox:ro", "empty", "/busybox", "sleep", "1000").ok().out.strip()
    cli("audit", static).ok()
    cli("rm", "-f", static).ok()
    cli("rmi", "empty").ok()


def test_one_that_does_not_run_is_refused(cli: Command) -> None:
    cli("create", "--name", "still", "base", "true").ok()
    done = cli("audit", "still")
    assert done.code == 1
    assert "is not running" in done.err
    assert cli("audit", "nobody").code == 1
