"""The command line that callers of runtimes use: what is beyond the specification's operations. `exec` has a file of its own."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from support.conformance.runtime import Containers, Runtime, cgroup2
from support.conformance.terminal import ConsoleSocket
from support.patience import eventually

pytestmark = [pytest.mark.root]

MIB = 1 << 20


# create


def test_x1_the_pid_file(oci: Containers) -> None:
    """create --pid-file. It has the number of the process and nothing else, and is whole when it appears."""
    one = oci()
    one.create().ok()
    assert one.pid_file.read_text() == str(one.state()["pid"])


def test_x2_no_pid_file_for_what_failed(oci: Containers) -> None:
    """create --pid-file. There is none when the container was not created."""
    one = oci()
    one.mount("/data", "no-such-file-system", "none")
    one.create().fails()
    assert not one.pid_file.exists()


def test_x3_the_console_socket(oci: Containers) -> None:
    """create --console-socket. One descriptor comes over it, the master of the terminal, and what is written to it is read."""
    one = oci("sh", "-c", "read line; echo got $line; tty")
    one.process["terminal"] = True
    with ConsoleSocket(one) as console:
        one.create("--console-socket", console.path).ok()
        master = console.accept()
        one.start().ok()
        os.write(master, b"hello\n")
        text = console.read()
        one.wait()
    assert "got hello" in text


def test_x4_a_terminal_without_a_console_socket(oci: Containers) -> None:
    """create. A terminal that nobody would have the other side of is refused."""
    one = oci()
    one.process["terminal"] = True
    one.never_created("(?i)console|terminal")


def test_x5_a_console_socket_without_a_terminal(oci: Containers) -> None:
    """create --console-socket. Refused where the process has no terminal."""
    one = oci()
    with ConsoleSocket(one) as console:
        one.create("--console-socket", console.path).fails()


def handing(fd: int, *numbers: int) -> Any:
    """In the runtime's process, before it is executed: `fd` as each of these numbers."""

    def hand() -> None:
        for number in numbers:
            os.dup2(fd, number, inheritable=True)

    return hand


def test_x6_preserved_descriptors(oci: Containers) -> None:
    """create --preserve-fds. So many descriptors after the standard streams are kept, and no more."""
    read, write = os.pipe()
    try:
        one = oci("sh", "-c", "echo three >&3; echo four >&4; (echo five >&5) 2> /dev/null; true")
        one.create("--preserve-fds", "2", pass_fds=(3, 4, 5), preexec=handing(write, 3, 4, 5)).ok()
        one.start().ok()
        one.wait()
        assert os.read(read, 100) == b"three\nfour\n"
    finally:
        os.close(read)
        os.close(write)


def test_x7_listen_fds(oci: Containers) -> None:
    """create. Descriptors that a supervisor passes by LISTEN_FDS are kept, and the process is told of them."""
    read, write = os.pipe()
    try:
        one = oci("sh", "-c", "echo to $LISTEN_FDS for $LISTEN_PID >&3")
        # They are for the process whose number is in LISTEN_PID: the runtime's.
        through = ("/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh")
        options: dict[str, Any] = {"pass_fds": (3,), "env": {"LISTEN_FDS": "1"}, "through": through}
        one.create(preexec=handing(write, 3), **options).ok()
        os.close(write)
        one.start().ok()
        one.wait()
        assert os.read(read, 100) == b"to 1 for 1\n"
    finally:
        os.close(read)


def test_x8_no_pivot(oci: Containers) -> None:
    """create --no-pivot. The root is the container's all the same."""
    one = oci("ls", "/bin/probe")
    assert one.run("--no-pivot").ok().out == "/bin/probe\n"


@pytest.mark.parametrize("option", [[], ["--no-new-keyring"]])
def test_x9_the_session_keyring(oci: Containers, option: list[str]) -> None:
    """create --no-new-keyring. Without it the container has a session keyring of its own."""
    keyring = oci().report(*option)["keyring"]
    ours = _keyring()
    assert (keyring == ours) == bool(option)


def _keyring() -> int:
    number = 250 if platform.machine() == "x86_64" else 219
    return int(ctypes.CDLL(None).syscall(number, 0, -3, 0))


def test_x10_the_current_directory_is_the_bundle(oci: Containers) -> None:
    """create. Without --bundle it is the current directory."""
    one = oci("true")
    one.write_config()
    one._in_front(("create", "--pid-file", str(one.pid_file), one.id), None, cwd=one.bundle).ok()
    assert one.state()["bundle"] == str(one.bundle)


# run


def test_x11_run(oci: Containers) -> None:
    """run. It waits, its exit code is the process's, and nothing is left."""
    one = oci("sh", "-c", "cat; echo out; echo err >&2; exit 7")
    one.write_config()
    result = one.runtime("run", "--bundle", str(one.bundle), one.id, input="in\n")
    assert (result.code, result.out, result.err) == (7, "in\nout\n", "err\n")
    one.runtime("state", one.id).fails()
    assert not one.cgroups_left()


def test_x12_run_of_what_is_killed(oci: Containers) -> None:
    """run. A process that a signal ended: 128 and its number."""
    one = oci("sh", "-c", "kill -KILL $$; sleep 5")
    one.script("sh -c 'kill -9 $$'; exit $?")
    one.write_config()
    assert one.runtime("run", "--bundle", str(one.bundle), one.id).code == 137


def test_x13_run_in_the_background(oci: Containers) -> None:
    """run --detach. It returns when the process runs."""
    one = oci("probe", "hold", "/tmp/signals")
    one.write_config()
    command = ("run", "--detach", "--bundle", str(one.bundle), "--pid-file", str(one.pid_file), one.id)
    one._in_front(command, None).ok()
    assert one.status == "running"
    assert int(one.pid_file.read_text()) == one.state()["pid"]
    one._pid = one.state()["pid"]


def test_x14_run_passes_signals_on(oci: Containers) -> None:
    """run. A signal to the runtime in the foreground is one to the process."""
    one = oci("probe", "hold", "/tmp/signals")
    one.write_config()
    command = ("run", "--bundle", str(one.bundle), one.id)
    with one.runtime.start(*command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        assert "holding" in running.stdout.readline()
        running.terminate()
        assert running.wait(60) == 0
    assert one.signals() == [15]


# kill, delete, pause, resume


def test_x24_kill_all(oci: Containers) -> None:
    """kill --all. The signal is sent to every process of the container."""
    one = oci("sh", "-c", "trap '' TERM; sleep 61 & sleep 62 & echo holding; wait; wait")
    one.up()
    eventually(lambda: len(one.setting("pids", "cgroup.procs").split()) == 3)
    one.runtime("kill", "--all", one.id, "KILL").ok()
    assert one.wait() == -9
    eventually(lambda: not one.setting("pids", "cgroup.procs"))


@pytest.mark.parametrize("given", ["NOSUCH", "0x9", "999", "-1"])
def test_x25_signals_that_are_none(oci: Containers, given: str) -> None:
    """kill. A signal that is none is an error."""
    one = oci().holding()
    one.runtime("kill", one.id, given).fails()
    assert one.status == "running"


def test_x26_kill_without_a_signal(oci: Containers) -> None:
    """kill. Without a signal it is SIGTERM."""
    one = oci().holding()
    one.runtime("kill", one.id).ok()
    assert one.wait() == 0
    assert one.signals() == [15]


@pytest.mark.parametrize("status", ["created", "running", "paused", "stopped"])
def test_x27_delete_by_force(oci: Containers, status: str) -> None:
    """delete --force. A container is deleted whatever its state is."""
    one = oci("probe", "hold")
    one.create().ok()
    if status != "created":
        one.start().ok()
    if status == "paused":
        one.runtime("pause", one.id).ok()
    if status == "stopped":
        one.kill().ok()
        one.wait()
    one.delete("--force").ok()
    one.runtime("state", one.id).fails()
    assert not one.cgroups_left()


def test_x28_delete_of_none_by_force(runtime: Runtime) -> None:
    """delete --force. Of a container that is not there it is no error."""
    runtime("delete", "--force", "no-such-container").ok()


def test_x29_pause_and_resume(oci: Containers) -> None:
    """pause, resume. All processes stand still, `state` says paused, and they go on."""
    one = oci("sh", "-c", "while :; do echo x; sleep 0.05; done")
    one.up()
    eventually(lambda: "x" in one.out)
    one.runtime("pause", one.id).ok()
    assert one.status == "paused"
    before = one.out
    time.sleep(0.4)
    assert one.out == before
    one.runtime("resume", one.id).ok()
    assert one.status == "running"
    eventually(lambda: one.out != before)


@pytest.mark.parametrize("operation", ["pause", "resume"])
@pytest.mark.parametrize("status", ["stopped", "none"])
def test_x30_pause_of_what_does_not_run(oci: Containers, operation: str, status: str) -> None:
    """pause, resume. An error where nothing runs."""
    one = oci("true")
    if status == "stopped":
        one.up()
        one.wait()
    one.runtime(operation, one.id).fails()


def test_x31_kill_of_a_paused_container(oci: Containers) -> None:
    """kill. SIGKILL ends a paused container's process without a resume."""
    one = oci().holding()
    one.runtime("pause", one.id).ok()
    one.kill("KILL").ok()
    assert one.wait(60) == -9


# update

OPTIONS = [
    ("--memory", str(48 * MIB), "memory", "memory.limit_in_bytes", "memory.max", str(48 * MIB)),
    ("--memory-reservation", str(24 * MIB), "memory", "memory.soft_limit_in_bytes", "memory.low", str(24 * MIB)),
    ("--cpu-share", "333", "cpu", "cpu.shares", "", "333"),
    ("--cpu-period", "60000", "cpu", "cpu.cfs_period_us", "", "60000"),
    ("--cpu-quota", "30000", "cpu", "cpu.cfs_quota_us", "", "30000"),
    ("--cpuset-cpus", "0", "cpuset", "cpuset.cpus", "cpuset.cpus", "0"),
    ("--cpuset-mems", "0", "cpuset", "cpuset.mems", "cpuset.mems", "0"),
    ("--pids-limit", "33", "pids", "pids.max", "pids.max", "33"),
    ("--blkio-weight", "200", "blkio", "blkio.bfq.weight", "", "200"),
]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option[0])
def test_x32_update_by_options(oci: Containers, option: tuple[str, ...]) -> None:
    """update. Each option changes its file and no other limit."""
    name, value, controller, v1, v2, wanted = option
    file = v2 if cgroup2() else v1
    if not file:
        pytest.xfail("cgroup v2 has it by another measure")
    one = oci()
    one.linux["resources"]["pids"] = {"limit": 77}
    one.holding()
    one.runtime("update", name, value, one.id).ok()
    assert one.setting(controller, file) == wanted
    if controller != "pids":
        assert one.setting("pids", "pids.max") == "77"


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_x33_update_by_a_document(oci: Containers, how: str) -> None:
    """update --resources. What is in the document is changed, from a file or standard input."""
    one = oci().holding()
    given = json.dumps({"memory": {"limit": 40 * MIB}, "pids": {"limit": 44}})
    (one.bundle / "resources.json").write_text(given)
    source = "-" if how == "stdin" else str(one.bundle / "resources.json")
    one.runtime("update", "--resources", source, one.id, input=given if how == "stdin" else None).ok()
    assert one.setting("pids", "pids.max") == "44"
    assert one.setting("memory", "memory.max" if cgroup2() else "memory.limit_in_bytes") == str(40 * MIB)


def test_x34_an_update_that_cannot_be(oci: Containers) -> None:
    """update. What the kernel does not take is an error, and the limits that there were stay."""
    one = oci()
    one.linux["resources"]["cpu"] = {"cpus": "0"}
    one.holding()
    one.runtime("update", "--cpuset-cpus", "99", one.id).fails()
    assert one.setting("cpuset", "cpuset.cpus") == "0"
    one.runtime("update", "--memory", "lots", one.id).fails()
    one.runtime("update", "--pids-limit", "5", "no-such-container").fails()


# ps, list, events


@pytest.mark.parametrize("form", ["table", "json"])
def test_x35_ps(oci: Containers, form: str) -> None:
    """ps --format. The processes of the container by their numbers outside; as a table with what ps(1) says of them."""
    one = oci("sh", "-c", "sleep 63 & echo holding; wait")
    one.up()
    eventually(lambda: len(one.setting("pids", "cgroup.procs").split()) == 2)
    pids = sorted(map(int, one.setting("pids", "cgroup.procs").split()))
    result = one.runtime("ps", "--format", form, one.id).ok()
    if form == "json":
        assert sorted(json.loads(result.out)) == pids
    else:
        lines = result.out.splitlines()
        column = lines[0].split().index("PID")
        assert sorted(int(line.split()[column]) for line in lines[1:]) == pids
        assert any("sleep 63" in line for line in lines)


def test_x36_list(oci: Containers) -> None:
    """list. Every container of the state directory, as a table, as JSON, by ids alone."""
    one, two = oci("true"), oci("probe", "hold")
    one.up()
    one.wait()
    two.config["annotations"] = {"a": "b"}
    two.up()
    quiet = two.runtime("list", "--quiet").ok().out.split()
    assert sorted(quiet) == sorted([one.id, two.id])
    entries = {entry["id"]: entry for entry in two.runtime("list", "--format", "json").json()}
    assert entries[one.id]["status"] == "stopped"
    assert entries[two.id]["status"] == "running"
    assert entries[two.id]["pid"] == two.pid
    assert entries[two.id]["bundle"] == str(two.bundle)
    assert {"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"} <= set(entries[two.id])
    assert entries[two.id]["annotations"] == {"a": "b"}
    lines = two.runtime("list").ok().out.splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert len(lines) == 3


def test_x37_list_of_none(runtime: Runtime) -> None:
    """list. Without a container, and without a state directory, it is empty and no error."""
    assert runtime("list", "--quiet").ok().out == ""
    assert runtime("list", "--format", "json").ok().out.strip() in ("null", "[]")


def test_x38_events(oci: Containers) -> None:
    """events --stats. One document with what the control groups count."""
    one = oci()
    one.linux["resources"]["pids"] = {"limit": 44}
    one.linux["resources"]["memory"] = {"limit": 64 * MIB}
    one.holding()
    document = one.runtime("events", "--stats", one.id).json()
    assert (document["type"], document["id"]) == ("stats", one.id)
    data = document["data"]
    assert data["pids"] == {"current": 1, "limit": 44}
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["memory"]["usage"]["usage"] > 0
    assert data["cpu"]["usage"]["total"] > 0
    assert "blkio" in data


def test_x39_events_go_on(oci: Containers) -> None:
    """events --interval. A document again and again, and the end when the container is deleted."""
    one = oci().holding()
    command = ("events", "--interval", "100ms", one.id)
    with one.runtime.start(*command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        for _ in range(3):
            assert json.loads(running.stdout.readline())["type"] == "stats"
        one.kill().ok()
        one.wait()
        one.delete().ok()
        running.communicate(timeout=10)


# Global options, spec, features, others


def test_x40_errors_in_the_log(oci: Containers) -> None:
    """--log, --log-format json. An error is in the log as a document with level, msg and time, and on standard error."""
    one = oci()
    log = one.bundle / "log.json"
    result = one.runtime("state", "no-such-container", globals=("--log", str(log), "--log-format", "json")).fails()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    errors = [entry for entry in entries if entry["level"] == "error"]
    assert errors
    assert "does not exist" in errors[-1]["msg"]
    assert "time" in errors[-1]
    assert "does not exist" in result.err


def test_x41_errors_in_a_log_of_text(oci: Containers) -> None:
    """--log. As text: time, level and msg of a line."""
    one = oci()
    log = one.bundle / "log"
    one.runtime("state", "no-such-container", globals=("--log", str(log))).fails()
    assert re.search(r'time=\S+ level=error msg="?.*does not exist', log.read_text())


def test_x42_an_error_of_create_in_the_log(oci: Containers) -> None:
    """--log-format json. What failed in the container's first process is told there too, which is where engines read it."""
    one = oci()
    one.process["args"] = ["/no/such/program"]
    log = one.bundle / "log.json"
    result = one.create(globals=("--log", str(log), "--log-format", "json"))
    if result.code == 0:
        one.runtime("start", one.id, globals=("--log", str(log), "--log-format", "json")).fails()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    text = " ".join(entry["msg"] for entry in entries if entry["level"] == "error")
    assert "/no/such/program" in text
    assert "no such file or directory" in text


def test_x43_a_log_format_of_no_kind(runtime: Runtime) -> None:
    """--log-format. One that is none is an error."""
    runtime("list", globals=("--log-format", "yaml")).fails()


def test_x44_spec(runtime: Runtime, directory: Path) -> None:
    """spec. A `config.json` that can be run, and is not written over one that is there."""
    place = directory / "new"
    place.mkdir()
    runtime("spec", cwd=place).ok()
    config = json.loads((place / "config.json").read_text())
    assert config["root"]["path"] == "rootfs"
    assert config["process"]["args"] == ["sh"]
    assert {entry["type"] for entry in config["linux"]["namespaces"]} >= {"pid", "network", "ipc", "uts", "mount"}
    runtime("spec", cwd=place).fails()


def test_x45_the_container_of_spec(oci: Containers) -> None:
    """spec. What it writes is a configuration that the runtime takes."""
    one = oci()
    (one.bundle / "config.json").unlink(missing_ok=True)
    one.runtime("spec", "--bundle", str(one.bundle)).ok()
    one.config = json.loads((one.bundle / "config.json").read_text())
    one.process.update(terminal=False, args=["probe", "report"])
    one.linux["cgroupsPath"] = one.cgroup
    one.process.pop("rlimits", None)
    assert one.report()["pid"] == 1


def test_x46_version(runtime: Runtime) -> None:
    """--version. The name and version, and the specification's, each on a line."""
    lines = runtime("--version").ok().out.splitlines()
    assert re.match(r"\S+ version \d+\.\d+", lines[0])
    assert any(re.match(r"spec: 1\.\d+\.\d+", line) for line in lines)


@pytest.mark.parametrize("command", ["nonsense", "--nonsense", ""])
def test_x47_commands_that_are_none(runtime: Runtime, command: str) -> None:
    """Usage. What is no command is no success."""
    result = runtime(*([command] if command else []))
    if command:
        assert result.code != 0
    assert (result.out + result.err).strip()


@pytest.mark.parametrize("command", ["create", "start", "state", "kill", "delete", "exec", "run", "update", "events"])
def test_x48_help(runtime: Runtime, command: str) -> None:
    """Usage. `COMMAND --help` tells how it is used."""
    assert command in runtime(command, "--help").ok().out


@pytest.mark.parametrize("command", ["create", "start", "state", "delete", "pause", "ps"])
def test_x49_an_option_that_is_none(runtime: Runtime, command: str) -> None:
    """Usage. An option that nobody knows is an error, not something that is ignored."""
    runtime(command, "--no-such-option", "x").fails()


def test_x50_too_many_words(oci: Containers) -> None:
    """Usage. A second word where one container is named is an error."""
    one = oci()
    one.create().ok()
    for operation in ("state", "start", "pause"):
        one.runtime(operation, one.id, "another").fails()
    assert one.status == "created"


def test_x51_several_state_directories(oci: Containers, directory: Path) -> None:
    """--root. Containers of one state directory are not seen from another."""
    one = oci()
    one.create().ok()
    other = Runtime(one.runtime.program, directory / "elsewhere")
    other("state", one.id).fails()
    assert other("list", "--quiet").ok().out == ""


def test_x52_ten_at_once(oci: Containers) -> None:
    """Operations. Ten containers are created, started and deleted beside each other."""
    ones = [oci("true") for _ in range(10)]
    for one in ones:
        one.write_config()
    running = [one.runtime.start("run", "--bundle", str(one.bundle), one.id, stdin=subprocess.DEVNULL) for one in ones]
    assert [process.wait(60) for process in running] == [0] * 10
    assert ones[0].runtime("list", "--quiet").ok().out == ""


def test_x53_the_same_id_at_once(oci: Containers) -> None:
    """Operations. Of eight that create the same container at the same time one succeeds."""
    ones = [oci("probe", "hold") for _ in range(8)]
    for one in ones:
        one.write_config()
    running = []
    for one in ones:
        with (one.bundle / "said").open("w") as said:
            command = ("create", "--bundle", str(one.bundle), "--pid-file", str(one.pid_file), "contested")
            running.append(one.runtime.start(*command, stdin=subprocess.DEVNULL, stdout=said, stderr=said))
    codes = [process.wait(60) for process in running]
    state = ones[0].runtime("state", "contested")
    ones[0].runtime("delete", "--force", "contested")
    assert codes.count(0) == 1
    assert state.json()["bundle"] == str(ones[codes.index(0)].bundle)


def test_x54_real_time_signals_by_name(oci: Containers) -> None:
    """kill. Signals of real time by their names, as other programs that send signals have them."""
    one = oci().holding()
    one.kill("SIGRTMIN+3").ok()
    eventually(lambda: one.signals() == [37])


def test_x55_checkpoint(oci: Containers) -> None:
    """checkpoint. Without CRIU it is refused in so many words, and the container goes on."""
    one = oci().holding()
    one.runtime("checkpoint", "--image-path", str(one.bundle / "image"), one.id).fails("(?i)criu|checkpoint")
    assert one.status == "running"
