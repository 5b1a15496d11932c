"""The command line that callers of runtimes use: `exec`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support import host
from support.conformance.runtime import Container, Containers, cgroup2
from support.conformance.terminal import ConsoleSocket

pytestmark = [pytest.mark.root]


def process(one: Container, *args: str, **more: Any) -> Path:
    """A file with a process for `exec --process`."""
    path = one.bundle / "process.json"
    path.write_text(json.dumps({**one.process, "args": list(args), **more}))
    return path


def test_x15_exec(oci: Containers) -> None:
    """exec. Its streams are the caller's, its exit code is the process's."""
    one = oci().holding()
    result = one.runtime("exec", one.id, "sh", "-c", "cat; echo err >&2; exit 5", input="in")
    assert (result.code, result.out, result.err) == (5, "in", "err\n")


def test_x16_exec_is_in_the_container(oci: Containers) -> None:
    """exec. Its namespaces, root, control group and limits are the container's."""
    one = oci()
    one.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 111, "hard": 222}]
    one.process["user"] = {"uid": 5, "gid": 6}
    one.namespace("cgroup")
    os.chmod(one.rootfs / "tmp", 0o777)
    one.holding()
    report = one.exec("probe", "report").json()
    assert report["namespaces"] == {name: os.readlink(f"/proc/{one.pid}/ns/{name}") for name in report["namespaces"]}
    assert report["cwd"] == "/"
    assert report["pid"] > 1
    assert report["uids"] == [5, 5, 5]
    assert sorted(report["fds"]) == ["0", "1", "2"]


def test_x17_exec_with_a_file(oci: Containers) -> None:
    """exec --process. All of it is as the file says."""
    one = oci().holding()
    path = process(
        one,
        *("probe", "report", "x"),
        env=["A=1", "PATH=/bin"],
        cwd="/tmp",
        user={"uid": 7, "gid": 8, "additionalGids": [9]},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        capabilities={"bounding": ["CAP_KILL"], "permitted": [], "effective": []},
    )
    report = one.runtime("exec", "--process", str(path), one.id).json()
    assert report["args"] == ["probe", "report", "x"]
    assert {"A=1", "PATH=/bin"} <= set(report["env"])
    assert report["cwd"] == "/tmp"
    assert (report["uids"], report["gids"]) == ([7] * 3, [8] * 3)
    assert set(report["groups"]) - {8} == {9}
    assert report["rlimits"]["RLIMIT_NOFILE"] == [50, 60]
    assert "CapBnd:\t0000000000000020\n" in report["status"]


def test_x18_options_of_exec(oci: Containers) -> None:
    """exec --cwd, --env, --user, --additional-gids, --cap. Each changes the container's own."""
    one = oci().holding()
    options = ["--cwd", "/tmp", "--env", "A=1", "--env", "B=2", "--user", "5:6", "--additional-gids", "9"]
    report = one.runtime("exec", *options, one.id, "probe", "report").json()
    assert report["cwd"] == "/tmp"
    assert {"A=1", "B=2"} <= set(report["env"])
    assert (report["uids"], report["gids"]) == ([5] * 3, [6] * 3)
    assert 9 in report["groups"]
    with_capability = one.runtime("exec", "--cap", "CAP_SYS_ADMIN", one.id, "probe", "report").json()
    assert int(re.search(r"CapBnd:\t(\w+)", with_capability["status"])[1], 16) >> 21 & 1  # type: ignore[index]


def test_x19_exec_in_the_background(oci: Containers) -> None:
    """exec --detach --pid-file. It returns at once, and the file has the process's number."""
    one = oci().holding()
    path = one.bundle / "exec.pid"
    with (one.bundle / "exec.out").open("w") as out:
        command = [
            one.runtime.program,
            "--root",
            str(one.runtime.root),
            "exec",
            "--detach",
            "--pid-file",
            str(path),
            one.id,
        ]
        subprocess.run(
            [*command, "sleep", "60"], check=True, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=30
        )
    pid = int(path.read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{one.pid}/ns/pid")
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_x20_exec_with_a_terminal(oci: Containers) -> None:
    """exec --tty --console-socket. The terminal is sent as with create."""
    one = oci().holding()
    with ConsoleSocket(one) as console:
        pid_file = one.bundle / "exec.pid"
        options = ["--tty", "--detach", "--pid-file", str(pid_file), "--console-socket", console.path]
        command = ["exec", *options, one.id, "probe", "report"]
        with (one.bundle / "exec.out").open("w") as out:
            full = [one.runtime.program, "--root", str(one.runtime.root), *command]
            subprocess.run(full, check=True, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=30)
        console.accept()
        report = json.loads(console.read())
        os.waitpid(int(pid_file.read_text()), 0)
    assert report["terminals"] == [True] * 3
    assert report["tty"].startswith("/dev/pts/")


@pytest.mark.parametrize("status", ["stopped", "none", "paused"])
def test_x21_exec_where_nothing_runs(oci: Containers, status: str) -> None:
    """exec. An error in a container that does not run: a stopped one, none, a paused one."""
    one = oci()
    if status != "none":
        one.holding()
    if status == "stopped":
        one.kill().ok()
        one.wait()
    elif status == "paused":
        one.runtime("pause", one.id).ok()
    result = one.exec("true")
    if status == "paused":
        one.runtime("resume", one.id).ok()
    result.fails()


def test_x22_exec_of_what_is_not_there(oci: Containers) -> None:
    """exec. A program that is not there is an error, and told; the container is not touched."""
    one = oci().holding()
    one.exec("no-such-program").fails("no-such-program")
    one.runtime("exec", one.id).fails()
    assert one.status == "running"


def test_x23_exec_in_a_created_container(oci: Containers) -> None:
    """exec. In a created container a process may be run, as engines do to prepare it."""
    one = oci()
    one.create().ok()
    assert one.exec("echo", "it").out == "it\n"
    assert one.status == "created"


def test_x56_umask_and_oom_score_of_an_exec(oci: Containers) -> None:
    """exec --process. The umask of its user and its score are those of the file."""
    one = oci().holding()
    path = process(one, "probe", "report", user={"uid": 0, "gid": 0, "umask": 0o77}, oomScoreAdj=400)
    report = one.runtime("exec", "--process", str(path), one.id).json()
    assert (report["umask"], report["oom_score_adj"].strip()) == (0o77, "400")


def sub_groups(one: Container, *controllers: str) -> list[Path]:
    """Groups "below" in the container's."""
    groups = [one.group(controller) / "below" for controller in controllers]
    for group in groups:
        group.mkdir(exist_ok=True)
        if "cpuset" in group.parts:
            for knob in ("cpuset.cpus", "cpuset.mems"):
                (group / knob).write_text((group.parent / knob).read_text())
    return groups


def groups_of(one: Container, *options: str) -> dict[str, str]:
    """Where a process goes that `exec` makes: by controller, the path below the container's group."""
    lines = one.runtime("exec", *options, one.id, "cat", "/proc/self/cgroup").ok().out.splitlines()
    found = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path.partition(one.cgroup)[2]
    return found


@pytest.mark.core
def test_x57_an_exec_in_groups_below(oci: Containers) -> None:
    """exec --cgroup. The process is in the group of that name below the container's, in all hierarchies."""
    one = oci().holding()
    controllers = ["pids"] if cgroup2() else [p.name for p in host.CGROUPS.iterdir() if (p / "cgroup.procs").exists()]
    sub_groups(one, *controllers)
    found = groups_of(one, "--cgroup", "below")
    assert {found["" if cgroup2() else controller] for controller in ("pids", "memory", "cpu")} == {"/below"}
    assert set(groups_of(one).values()) == {""}


def test_x58_an_exec_in_a_group_of_one_controller(oci: Containers) -> None:
    """exec --cgroup. With cgroup v1 the controllers are named that it is for."""
    if cgroup2():
        pytest.xfail("cgroup v2 has one hierarchy")
    one = oci().holding()
    sub_groups(one, "pids", "memory")
    found = groups_of(one, "--cgroup", "pids:below")
    assert (found["pids"], found["memory"], found["cpu"]) == ("/below", "", "")
    found = groups_of(one, "--cgroup", "pids,memory:/below")
    assert (found["pids"], found["memory"], found["cpu"]) == ("/below", "/below", "")


@pytest.mark.parametrize("given", ["missing", "pids:missing", "../sibling", "nothing:x"])
def test_x59_groups_that_an_exec_cannot_have(oci: Containers, given: str) -> None:
    """exec --cgroup. A group that is not there, or is not below the container's, is an error."""
    one = oci().holding()
    sibling = one.group("pids").parent / "sibling"
    sibling.mkdir()
    one.runtime("exec", "--cgroup", given, one.id, "true").fails()
