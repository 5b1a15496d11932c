"""Other processes in a running container: many at once, those that leave something behind, those whose container ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sampan.errors import Conflict, StartFailed, System
from sampan.runtime.handle import STDOUT, Attachment

from support.box import Box, Boxes, collect
from support.boxes import BOTH_LAUNCHERS, box, children, directory
from support.patience import eventually, patience

__all__ = ["box", "directory"]

pytestmark = pytest.mark.root
LAUNCHERS = BOTH_LAUNCHERS


def descriptors(pid: int) -> list[str]:
    return sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))


def kinds_of_descriptors(pid: int) -> list[str]:
    """Without the numbers of pipes and sockets."""
    return sorted(name.split(":")[0] for name in descriptors(pid))


def idle(box: Box) -> list[str]:
    """The monitor's descriptors when it serves nobody."""

    def steady() -> list[str]:
        before = kinds_of_descriptors(box.monitor)
        time.sleep(0.05)
        return before if kinds_of_descriptors(box.monitor) == before else []

    box.exec("true")
    return eventually(steady)


@pytest.mark.core
def test_streams_and_exit_code_of_an_exec(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    output = one.exec("sh", "-c", "cat; echo err >&2; exit 9", input=b"given")
    assert (output.out, output.err, output.code) == (b"given", b"err\n", 9)
    assert output.exit == {"exit_code": 9}
    assert one.logged() == "", "what an exec says is not in the container's log"


@pytest.mark.core
@pytest.mark.parametrize("alone", [True, False])
def test_an_exec_is_in_the_containers_namespaces_cgroups_and_root(box: Boxes, alone: bool) -> None:
    one = box("sleep", "60")
    one.start().close()
    script = (
        "for n in mnt pid net ipc uts cgroup time; do readlink /proc/$$/ns/$n; done; cat /proc/self/cgroup; hostname"
    )
    own = one.exec("sh", "-c", script, alone=alone).ok().decode().splitlines()
    spaces = [os.readlink(f"/proc/{one.init}/ns/{n}") for n in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time")]
    assert own[:7] == spaces
    assert own[-1] == "box"
    inits = one.exec("cat", "/proc/1/cgroup").ok().decode().splitlines()
    assert own[7:-1] == inits


def test_the_process_object_is_the_execs_own(box: Boxes) -> None:
    one = box("sleep", "60", config={"User": "1000", "Env": ["A=container"]})
    one.start().close()
    script = "id -u; id -G; pwd; echo $A$HOME; grep CapBnd /proc/self/status; grep NoNewPrivs /proc/self/status"
    lines = one.exec(
        "sh",
        "-c",
        script,
        user={"username": "nobody:team", "additionalGroups": ["shared"]},
        cwd="/tmp",
        env=["A=exec", "PATH=/bin"],
        capabilities={"bounding": ["CAP_KILL"], "effective": [], "permitted": []},
        noNewPrivileges=True,
    )
    assert lines.ok().decode().splitlines() == [
        "65534",
        "2000 3000",
        "/tmp",
        "exec/",
        "CapBnd:\t0000000000000020",
        "NoNewPrivs:\t1",
    ]


def test_a_hundred_at_once(box: Boxes) -> None:
    """More than a thousand descriptors would be open if each kept more than it needs."""
    one = box("sleep", "60")
    one.start().close()
    kept = idle(one)
    running = [
        one.exec_start("sh", "-c", f"read x; echo $x {number}; exit {number}", stdin=True) for number in range(100)
    ]
    assert len(children(one.monitor)) == 101
    assert {os.readlink(f"/proc/{one.monitor}/ns/{name}") for name in ("mnt", "pid", "net")} == {
        os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net")
    }
    for attachment in reversed(running):
        attachment.send(b"answer\n")
    for number, attachment in enumerate(running):
        output = collect(attachment)
        assert (output.out, output.code) == (b"answer %d\n" % number, number)
    eventually(lambda: kinds_of_descriptors(one.monitor) == kept, what="all descriptors are closed")
    assert children(one.monitor) == [one.init], "all are reaped"


def test_one_after_the_other_leaves_nothing(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    kept = idle(one)
    for number in range(30):
        assert one.exec("sh", "-c", f"exit {number}").code == number
    with pytest.raises(StartFailed):
        one.exec("nosuch")
    with pytest.raises(StartFailed):
        one.exec("true", tty=True, cwd="/etc/passwd")
    eventually(lambda: kinds_of_descriptors(one.monitor) == kept, what="all descriptors are closed")


def test_a_background_process_that_holds_the_output_holds_the_client_for_two_seconds_only(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    begun = time.monotonic()
    output = one.exec("sh", "-c", "sleep 30 & echo started")
    assert output.ok() == b"started\n"
    assert 1.5 < time.monotonic() - begun < 10
    assert one.exec("pidof", "sleep").ok().count(b" ") == 1, "the background process goes on"


def test_held_outputs_of_many_do_not_add_up(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    between = []
    for _ in range(3):
        begun = time.monotonic()
        running = [one.exec_start("sh", "-c", f"sleep 30 & echo {n}") for n in range(8)]
        assert one.exec("echo", "between").ok() == b"between\n"
        between.append(time.monotonic() - begun)
        for number, attachment in enumerate(running):
            assert collect(attachment).ok() == b"%d\n" % number
        # Two seconds each would be sixteen; a slow machine needs some of that for the execs alone.
        assert time.monotonic() - begun < 14
        if between[-1] < min(patience(1.9), 10):
            return
    raise AssertionError(f"who came between them waited for them, each time: {between}")


def test_a_background_process_that_goes_on_writing_fills_nobodys_memory(box: Boxes) -> None:
    """Its client is slow: for two seconds the monitor must not take more than the client's mebibyte and a pipe."""
    one = box("sleep", "60")
    one.start().close()
    attachment = one.exec_start("sh", "-c", "yes & echo started")
    time.sleep(0.5)
    first = int(Path(f"/proc/{one.monitor}/statm").read_text().split()[1])
    time.sleep(1)
    second = int(Path(f"/proc/{one.monitor}/statm").read_text().split()[1])
    assert (second - first) * 4096 < 2 << 20
    assert collect(attachment).code == 0


def test_a_detached_exec_runs_on_without_anybody(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    output = one.exec("sh", "-c", "seq 1 100000; echo done > /done", detach=True)
    assert output.exit is None
    eventually((one.upper / "done").exists, what="it has ended")
    eventually(lambda: children(one.monitor) == [one.init], what="it is reaped")


@pytest.mark.core
def test_an_exec_with_a_terminal_of_the_containers_own_devpts(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    script = "tty; stty size; ls /dev/pts; trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"
    attachment = one.exec_start("sh", "-c", script, tty=True, consoleSize={"height": 12, "width": 34}, stdin=True)
    _until(attachment, b"/dev/pts/0\r\n12 34\r\n0     ptmx\r\nready\r\n")
    attachment.resize(56, 78)
    output = collect(attachment)
    assert (output.out, output.code) == (b"56 78\r\n", 3)


def test_a_terminal_where_there_is_no_devpts_is_refused(box: Boxes) -> None:
    one = box("sleep", "60", host={"Tmpfs": {"/dev": ""}})
    one.start().close()
    with pytest.raises(StartFailed, match="no /dev/pts of its own"):
        one.exec("true", tty=True)
    assert one.exec("echo", "without").ok() == b"without\n"


@pytest.mark.parametrize(
    ("command", "process", "message", "code"),
    [
        (("nosuch",), {}, 'exec: "nosuch": executable file not found in $PATH', 127),
        (("/nosuch",), {}, 'exec: "/nosuch": stat /nosuch: no such file or directory', 127),
        (("/etc",), {}, 'exec: "/etc": is a directory: permission denied', 126),
        (("/etc/passwd",), {}, 'exec: "/etc/passwd": permission denied', 126),
        (
            ("true",),
            {"cwd": "/nosuch"},
            'chdir to cwd ("/nosuch") set in config.json failed: no such file or directory',
            127,
        ),
        (("true",), {"user": {"username": "nosuch", "additionalGroups": []}}, "unable to find user nosuch", 126),
    ],
)
def test_what_cannot_be_executed_is_told_in_dockers_words(
    box: Boxes, command: tuple[str, ...], process: dict[str, object], message: str, code: int
) -> None:
    one = box("sleep", "60")
    one.start().close()
    with pytest.raises(StartFailed) as caught:
        one.exec(*command, **process)
    assert message in str(caught.value)
    assert caught.value.container_exit_code == code


def test_a_failing_system_call_is_told_with_its_step(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    group = one.group
    one.group = f"{one.group}/nonexistent"
    try:
        with pytest.raises(StartFailed, match=r"monitor: open .*cgroup.*/nonexistent.*no such file or directory"):
            one.exec("true")
    finally:
        one.group = group


def test_an_exec_into_a_container_that_has_ended(box: Boxes) -> None:
    one = box("true")
    one.run()
    with pytest.raises(Conflict, match="is not running"):
        one.exec("true")


@pytest.mark.core
def test_an_exec_that_begins_while_the_container_ends(box: Boxes) -> None:
    """It ran, or the container was not there any more, or it was killed on its way in: nothing else is told."""
    for pause in range(6):
        one = box("sleep", "60")
        one.start().close()
        time.sleep(pause / 1000)
        os.kill(one.init, signal.SIGKILL)
        try:
            told = f"exit code {one.exec('true').code}"
        except (Conflict, StartFailed) as e:
            told = str(e)
        assert told.endswith(("exit code 0", "exit code 137", "is not running", "the container has ended")), told


@pytest.mark.core
def test_an_exec_that_is_there_when_the_container_ends_is_killed_with_it(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    running = [
        one.exec_start("sh", "-c", "echo here; trap '' TERM INT HUP; while :; do sleep 1; done") for _ in range(3)
    ]
    for attachment in running:
        _until(attachment, b"here\n")
    one.handle.signal(signal.SIGKILL)
    assert [collect(attachment).code for attachment in running] == [137] * 3
    assert one.handle.wait_monitor(5)
    exited = one.handle.exited()
    assert exited is not None
    assert exited["exit_code"] == 137


def test_an_exec_that_ended_before_its_container_keeps_its_own_exit_code(box: Boxes) -> None:
    # Long enough after it that the exec is over first on a busy machine too.
    one = box("sh", "-c", "while [ ! -e /stop ]; do sleep 0.02; done; sleep 0.5")
    one.start().close()
    attachment = one.exec_start("sh", "-c", "touch /stop; exit 4")
    assert collect(attachment).code == 4


def test_an_exec_can_be_signalled(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    attachment = one.exec_start("sh", "-c", "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    _until(attachment, b"ready\n")
    attachment.signal(signal.SIGUSR1)
    output = collect(attachment)
    assert (output.out, output.code) == (b"caught\n", 5)
    assert one.exec("sh", "-c", "kill -9 $$").code == 137


def test_a_client_of_an_exec_that_goes_leaves_it_running(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    attachment = one.exec_start("sh", "-c", "cat; echo ended > /ended; sleep 30", stdin=True)
    attachment.close()
    eventually((one.upper / "ended").exists, what="its input is at its end")
    assert len(children(one.monitor)) == 2


def test_the_monitor_serves_others_while_an_exec_starts_and_ends(box: Boxes) -> None:
    one = box("sh", "-c", "while :; do echo tick; sleep 0.02; done")
    attachment = one.start()
    for _ in range(10):
        one.exec("true")
    heard = b""
    while heard.count(b"tick") < 10:
        heard += b"".join(body for kind, body in attachment.receive() or [] if kind == STDOUT)
    attachment.close()


def test_a_monitor_out_of_descriptors_turns_clients_away_and_recovers(box: Boxes) -> None:
    import resource

    one = box("sleep", "60")
    one.start().close()
    used = len(idle(one))
    resource.prlimit(one.monitor, resource.RLIMIT_NOFILE, (used + 6, 4096))
    clients = [one.connect() for _ in range(12)]
    time.sleep(0.2)
    busy = _cpu_ticks(one.monitor)
    time.sleep(0.5)
    assert _cpu_ticks(one.monitor) - busy < 20, "it does not spin"
    with pytest.raises(System, match="closed the connection"):
        one.exec("true")
    for client in clients:
        client.close()
    eventually(lambda: len(os.listdir(f"/proc/{one.monitor}/fd")) <= used, what="they are closed")
    resource.prlimit(one.monitor, resource.RLIMIT_NOFILE, (used + 2, 4096))
    with pytest.raises(StartFailed, match=r"cannot start a process in the container: .*Too many open files"):
        one.exec("true")
    assert len(os.listdir(f"/proc/{one.monitor}/fd")) <= used + 1
    resource.prlimit(one.monitor, resource.RLIMIT_NOFILE, (1024, 4096))
    assert one.exec("echo", "again").ok() == b"again\n"


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _until(attachment: Attachment, text: bytes) -> None:
    heard = b""
    while text not in heard:
        frames = attachment.receive()
        assert frames is not None, f"the end came before {text!r}: {heard!r}"
        heard += b"".join(body for kind, body in frames if kind == STDOUT)
