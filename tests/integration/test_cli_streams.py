"""Standard streams of `run`, `exec`, `attach` and `logs` through real pipes: nothing lost, nothing mixed, nothing stuck."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import time

import pytest

from support.command import Command
from support.patience import eventually, patience

pytestmark = pytest.mark.root

RUN = ("run", "--rm", "--network", "none")


def test_output_and_errors_are_kept_apart(cli: Command) -> None:
    done = cli(*RUN, "base", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.code, done.out, done.err) == (9, "out\n", "err\n")


def test_input_reaches_the_program_and_ends(cli: Command) -> None:
    assert cli(*RUN, "-i", "base", "cat", input=b"a\0b\xff\n").ok().out_bytes == b"a\0b\xff\n"
    assert cli(*RUN, "-i", "base", "wc", "-c", input=b"x" * 100_000).ok().out.split()[0] == "100000"


def test_without_i_the_program_has_no_input(cli: Command) -> None:
    assert cli(*RUN, "base", "wc", "-c", input=b"x" * 1000).ok().out.split()[0] == "0"


def test_output_goes_on_after_the_end_of_input(cli: Command) -> None:
    done = cli(*RUN, "-i", "base", "sh", "-c", "cat; sleep 0.3; echo later", input=b"first\n").ok()
    assert done.out == "first\nlater\n"


def test_input_that_is_closed(cli: Command) -> None:
    process = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", cli.program, *cli.before, *RUN, "-i", "base", "sh", "-c", "cat; echo done"],
        env=cli.environment, capture_output=True,
    )  # fmt: skip
    assert (process.returncode, process.stdout, process.stderr) == (0, b"done\n", b"")


def test_a_large_input_that_is_echoed_does_not_hang(cli: Command) -> None:
    data = os.urandom(5 << 20)
    done = cli(*RUN, "-i", "base", "cat", input=data).ok()
    assert hashlib.sha256(done.out_bytes).digest() == hashlib.sha256(data).digest()


def test_a_program_that_does_not_read_its_input_ends_all_the_same(cli: Command) -> None:
    assert cli(*RUN, "-i", "base", "sh", "-c", "exit 3", input=b"x" * (5 << 20)).code == 3


def test_all_output_is_there_before_the_end(cli: Command) -> None:
    done = cli(*RUN, "base", "sh", "-c", "head -c 3000000 /dev/zero; echo end >&2").ok()
    assert (len(done.out_bytes), done.err) == (3_000_000, "end\n")


def test_yes_and_head_inside(cli: Command) -> None:
    """SIGPIPE has its default in a container, although Python ignores it."""
    assert cli(*RUN, "base", "sh", "-c", "yes | head -1").ok().out == "y\n"


def test_yes_and_head_outside(cli: Command) -> None:
    run = cli.start("run", "--name", "yes", "--network", "none", "base", "yes", stdout=-1, stderr=-1)
    head = subprocess.run(["head", "-1"], stdin=run.stdout, capture_output=True)
    assert run.stdout is not None
    run.stdout.close()
    _, err = run.communicate(timeout=patience(20))
    assert (head.stdout, err, run.returncode) == (b"y\n", b"", -signal.SIGPIPE)
    # As with Docker, only the reader has gone: the container goes on.
    assert cli("ps", "-q").out


def test_output_of_another_user_to_dev_stdout(cli: Command) -> None:
    done = cli(*RUN, "-u", "1000:1000", "base", "sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr").ok()
    assert (done.out, done.err) == ("out\n", "err\n")


def test_only_one_stream_attached(cli: Command) -> None:
    done = cli(*RUN, "-a", "stderr", "base", "sh", "-c", "echo out; echo err >&2").ok()
    assert (done.out, done.err) == ("", "err\n")


def test_only_input_attached_prints_nothing(cli: Command) -> None:
    done = cli("run", "--name", "fed", "--network", "none", "-i", "-a", "stdin", "base", "cat", input="fed\n").ok()
    assert (done.out, done.err) == ("", "")
    assert cli("logs", "fed").ok().out == "fed\n"


def test_the_input_device_is_not_a_tty(cli: Command) -> None:
    done = cli(*RUN, "-it", "base", "true")
    assert (done.code, done.out, done.err) == (1, "", "the input device is not a TTY\n")
    assert cli("ps", "-aq").out == ""


def test_a_terminal_without_input_may_be_piped(cli: Command) -> None:
    done = cli(*RUN, "-t", "base", "sh", "-c", "test -t 1 && echo terminal").ok()
    assert done.out == "terminal\r\n"


def test_exec_streams(cli: Command) -> None:
    cli("run", "-d", "--name", "box", "--network", "none", "base", "sleep", "1000").ok()
    done = cli("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 6")
    assert (done.code, done.out, done.err) == (6, "out\n", "err\n")
    assert cli("exec", "-i", "box", "cat", input="in\n").ok().out == "in\n"
    assert cli("exec", "box", "cat", input="in\n").ok().out == ""
    assert (
        cli("exec", "-e", "A=1", "-w", "/tmp", "-u", "7:8", "box", "sh", "-c", "echo $A $PWD $(id -u):$(id -g)")
        .ok()
        .out
        == "1 /tmp 7:8\n"
    )
    cli("exec", "-d", "box", "sh", "-c", "echo detached > /tmp/file").ok()
    assert eventually(lambda: cli("exec", "box", "cat", "/tmp/file").out) == "detached\n"
    done = cli("exec", "-it", "box", "true")
    assert (done.code, done.err) == (1, "the input device is not a TTY\n")
    data = os.urandom(3 << 20)
    assert cli("exec", "-i", "box", "cat", input=data).ok().out_bytes == data


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["no-such-program"], 127, 'exec: "no-such-program": executable file not found in $PATH'),
        (["/etc"], 126, "permission denied"),
        (["-u", "nobody-here", "box", "true"], 126, "unable to find user nobody-here"),
        (["-w", "/no-such", "box", "true"], 127, "/no-such"),
        (["-w", "relative", "box", "true"], 126, "the working directory 'relative' is invalid"),
        (["-d", "box", "no-such-program"], 1, "executable file not found in $PATH"),
    ],
)
def test_exec_of_what_cannot_be_executed(cli: Command, args: list[str], code: int, message: str) -> None:
    cli("run", "-d", "--name", "box", "--network", "none", "base", "sleep", "1000").ok()
    done = cli("exec", *(args if "box" in args else ["box", *args]))
    assert (done.code, done.out) == (code, ""), done
    assert message in done.err


def test_exec_without_a_running_container(cli: Command) -> None:
    assert cli("exec", "nobody", "true").err == "Error: No such container: nobody\n"
    identifier = cli("create", "--name", "box", "base").ok().out.strip()
    done = cli("exec", "box", "true")
    assert (done.code, done.err) == (1, f"Error: container {identifier} is not running\n")


def test_attach_hears_what_comes_and_gives_the_exit_code(cli: Command) -> None:
    cli(
        "run", "-d", "-i", "--name", "box", "--network", "none", "base", "sh", "-c", "read line; echo got $line; exit 8"
    ).ok()
    done = cli("attach", "box", input="a line\n")
    assert (done.code, done.out) == (8, "got a line\n")


def test_several_attach_to_one_container(cli: Command) -> None:
    script = "while read l; do echo got $l; [ $l = x ] && exit 2; done"
    cli("run", "-d", "-i", "--name", "box", "--network", "none", "base", "sh", "-c", script).ok()
    readers = [cli.start("attach", "--no-stdin", "box", stdin=-3, stdout=-1) for _ in range(2)]
    writer = cli.start("attach", "box", stdin=-1, stdout=-1)

    def attached() -> list[subprocess.Popen[bytes]]:
        """Those that see an answer, which nobody who came later does."""
        writer.stdin.write(b"are you there\n")  # type: ignore[union-attr]
        writer.stdin.flush()  # type: ignore[union-attr]
        seen, _, _ = select.select([reader.stdout for reader in readers], [], [], 0.5)
        return [reader for reader in readers if reader.stdout in seen]

    eventually(lambda: len(attached()) == 2, 60)
    answer, _ = writer.communicate(b"x\n", timeout=patience(20))
    assert answer.endswith(b"got x\n")
    for reader in readers:
        out, _ = reader.communicate(timeout=patience(20))
        assert (reader.returncode, out[-6:]) == (2, b"got x\n")


def test_attach_to_what_does_not_run(cli: Command) -> None:
    cli("create", "--name", "box", "base").ok()
    done = cli("attach", "box")
    assert (done.code, done.err) == (1, "You cannot attach to a stopped container, start it first\n")


def test_signals_are_handed_to_the_container(cli: Command) -> None:
    script = "trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    run = cli.start(*RUN, "base", "sh", "-c", script, stdout=-1)
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.terminate()
    out, _ = run.communicate(timeout=patience(20))
    assert (run.returncode, out) == (5, b"got TERM\n")


def test_signals_reach_a_container_whose_input_is_stuck(cli: Command) -> None:
    script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.1; done"
    with cli.start(*RUN, "-i", "base", "sh", "-c", script, stdin=-1, stdout=-1) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        assert run.stdout.readline() == b"ready\n"
        os.set_blocking(run.stdin.fileno(), False)
        try:
            while True:
                os.write(run.stdin.fileno(), b"x" * 65536)
                time.sleep(0.02)
        except BlockingIOError:
            pass
        run.send_signal(signal.SIGINT)
        assert run.wait(patience(20)) == 5


def test_without_sig_proxy_the_command_ends_and_the_container_does_not(cli: Command) -> None:
    script = "echo up; sleep 1000"
    flags = ("--name", "box", "--sig-proxy=false", "--network", "none")
    with cli.start("run", *flags, "base", "sh", "-c", script, stdout=-1) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        run.terminate()
        assert run.wait(patience(20)) == -signal.SIGTERM
    assert cli("ps", "-q").out


def test_a_killed_command_leaves_the_container_its_log_and_its_exit_code(cli: Command) -> None:
    script = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.03; done; exit 11"
    with cli.start("run", "--name", "box", "--network", "none", "base", "sh", "-c", script, stdout=-1) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"line 0\n"
        run.kill()
    assert cli("wait", "box").ok().out == "11\n"
    assert cli("logs", "box").ok().out == "".join(f"line {i}\n" for i in range(30))


def test_logs(cli: Command) -> None:
    cli(
        "run",
        "--name",
        "box",
        "--network",
        "none",
        "base",
        "sh",
        "-c",
        "echo 1; echo 2; echo 3; printf 4; exec >&-; echo err >&2",
    ).ok()
    done = cli("logs", "box").ok()
    assert (done.out, done.err) == ("1\n2\n3\n4", "err\n")
    cli("rm", "box").ok()
    cli("run", "--name", "box", "--network", "none", "base", "sh", "-c", "echo 1; echo 2; echo 3; printf 4").ok()
    assert cli("logs", "-n", "1", "box").ok().out == "4"
    assert cli("logs", "--tail=2", "box").ok().out == "3\n4"
    assert cli("logs", "--tail", "0", "box").ok().out == ""
    for nonsense in ("foo", "-1", "all", ""):
        assert cli("logs", "--tail", nonsense, "box").ok().out == "1\n2\n3\n4"
    first = cli("logs", "-t", "box").ok().out.splitlines()[0]
    stamp, text = first.split(" ", 1)
    assert text == "1"
    assert stamp.endswith("Z")
    assert stamp[10] == "T"
    done = cli("logs", "nobody")
    assert (done.code, done.err) == (1, "Error: No such container: nobody\n")


def test_logs_follow_until_the_end(cli: Command) -> None:
    cli(
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "base",
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i; sleep 0.2; done",
    ).ok()
    assert cli("logs", "-f", "box").ok().out == "1\n2\n3\n"


def test_logs_follow_ends_by_ctrl_c(cli: Command) -> None:
    cli("run", "-d", "--name", "box", "--network", "none", "base", "sh", "-c", "echo up; sleep 1000").ok()
    logs = cli.start("logs", "-f", "box", stdout=-1, stderr=-1)
    assert logs.stdout is not None
    assert logs.stdout.readline() == b"up\n"
    logs.send_signal(signal.SIGINT)
    _, err = logs.communicate(timeout=patience(20))
    assert (logs.returncode, err) == (130, b"")


def test_start_attached_hears_the_first_byte(cli: Command) -> None:
    cli("create", "-i", "--name", "box", "base", "sh", "-c", "echo up; cat; exit 4").ok()
    for _ in range(3):
        done = cli("start", "-ai", "box", input="in\n")
        assert (done.code, done.out) == (4, "up\nin\n")


def test_a_full_disk_behind_standard_output_is_told(cli: Command) -> None:
    with open("/dev/full", "wb") as full:
        run = cli.start(*RUN, "base", "echo", "x", stdout=full, stderr=-1)
        _, err = run.communicate(timeout=patience(20))
    assert (run.returncode, err) == (1, b"write /dev/stdout: no space left on device\n")
