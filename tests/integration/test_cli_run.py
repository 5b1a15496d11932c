"""`run` and `create` as a user types them: output, exit codes, messages, and what is left afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.command import Command
from support.roots import Root

pytestmark = pytest.mark.root

RUN = ("run", "--rm", "--network", "none")


def inspected(cli: Command, name: str) -> dict[str, Any]:
    (value,) = json.loads(cli("inspect", name).ok().out)
    found: dict[str, Any] = value
    return found


def test_hello(cli: Command) -> None:
    done = cli("run", "--rm", "base", "echo", "hello").ok()
    assert (done.out, done.err) == ("hello\n", "")


@pytest.mark.core
def test_a_container_with_everything(root: Root) -> None:
    with root.terminal(
        *[
            "run",
            "-it",
            "--name",
            "box",
            "-m",
            "256m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "64",
            "-h",
            "box",
            "--domainname",
            "example.test",
            "-e",
            "A=1",
            "-w",
            "/srv",
            "base",
            "sh",
        ]
    ) as terminal:
        terminal.expect("# ")
        terminal.send("echo $A $(hostname) $PWD $(cat /proc/sys/kernel/domainname) $TERM; exit 3\n")
        terminal.expect("1 box /srv example.test xterm")
        assert terminal.wait() == 3
    found = inspected(root.cli, "box")
    assert found["State"]["ExitCode"] == 3
    host = found["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 << 20, 500_000_000, 64)
    assert "box" in root.cli("ps", "-a").ok().out


def test_a_server_in_the_background(root: Root) -> None:
    cli = root.cli
    identifier = cli("run", "-d", "--name", "web", "base", "httpd", "-f", "-p", "8080").ok().out.strip()
    assert len(identifier) == 64
    assert cli("ps", "-q", "--no-trunc").out.strip() == identifier
    with root.terminal("exec", "-it", "web", "sh") as terminal:
        terminal.expect("# ")
        terminal.send("echo in-$((20 + 3))\nexit 4\n")
        terminal.expect("in-23")
        assert terminal.wait() == 4
    assert cli("logs", "web").ok().out == ""
    assert cli("stop", "-t", "5", "web").ok().out == "web\n"
    assert cli("ps", "-q").out == ""
    assert cli("start", "web").ok().out == "web\n"
    assert inspected(cli, "web")["State"]["Running"]
    assert cli("rm", "-f", "web").ok().out == "web\n"
    assert cli("ps", "-aq").out == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 77"], 77),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 143),
    ],
)
def test_exit_codes_of_programs(cli: Command, command: list[str], code: int) -> None:
    assert cli(*RUN, "base", *command).code == code


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["base", "no-such-program"], 127, 'exec: "no-such-program": executable file not found in $PATH'),
        (["base", "/no/such/program"], 127, "no such file or directory"),
        (["base", "/etc"], 126, "permission denied"),
        (["base", "/etc/passwd"], 126, "permission denied"),
        (["--pull", "never", "no-such-image"], 125, "No such image: no-such-image:latest"),
        (
            ["-w", "relative", "base"],
            125,
            "the working directory 'relative' is invalid, it needs to be an absolute path",
        ),
        (["-m", "1m", "base"], 125, "Minimum memory limit allowed is 6MB"),
        (["-u", "nobody-here", "base"], 125, "unable to find user nobody-here: no matching entries in passwd file"),
        (["--cap-add", "foo", "base"], 125, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        (["--stop-signal", "FOO", "base"], 125, "invalid signal: FOO"),
        (["--name", "a b", "base"], 125, "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        (["--name", "/", "base"], 125, "Invalid container name (/), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        (["--ipc", "container:", "base"], 125, 'can\'t join IPC of container : invalid name or ID supplied: ""'),
        (["--network", "container:nobody", "base"], 125, "No such container: nobody"),
        (["--detach-keys", "ctrl-foo", "base"], 125, "invalid detach keys (ctrl-foo)"),
        (["--security-opt", "foo", "base"], 125, "foo"),
        (["A"], 125, "invalid reference format: repository name (library/A) must be lowercase"),
    ],
)
def test_what_cannot_be_run(cli: Command, args: list[str], code: int, message: str) -> None:
    done = cli("run", "--rm", *args, *(["true"] if args[-1] == "base" else []))
    assert (done.code, done.out) == (code, ""), done
    assert done.err.startswith("sampan: ")
    assert message in done.err
    assert done.err.endswith("\n\nRun 'sampan run --help' for more information\n")
    assert cli("ps", "-aq").out == ""


def test_a_debian(cli: Command, debian_image: str) -> None:
    assert "VERSION_CODENAME=bookworm" in cli(*RUN, debian_image, "cat", "/etc/os-release").ok().out
    assert cli(*RUN, debian_image, "perl", "-e", "print 6 * 7").ok().out == "42"
    assert cli(*RUN, "-u", "www-data:mail", debian_image, "id").ok().out == (
        "uid=33(www-data) gid=8(mail) groups=8(mail)\n"
    )


def test_a_start_that_fails_keeps_the_container_and_its_exit_code(cli: Command) -> None:
    assert cli("run", "--name", "broken", "base", "no-such-program").code == 127
    state = inspected(cli, "broken")["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "no-such-program" in state["Error"]


def test_a_start_that_fails_in_the_background_tells_the_container_that_is_left(cli: Command) -> None:
    done = cli("run", "-d", "--network", "none", "base", "no-such-program")
    assert done.code == 127
    assert "executable file not found in $PATH" in done.err
    assert done.out.strip() == cli("ps", "-aq", "--no-trunc").ok().out.strip()


def test_a_name_that_is_in_use(cli: Command) -> None:
    identifier = cli("create", "--name", "taken", "base").ok().out.strip()
    done = cli("run", "--name", "taken", "base", "true")
    assert done.code == 125
    assert done.err.startswith(
        f'sampan: Conflict. The container name "/taken" is already in use by container "{identifier}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def test_a_create_that_is_refused(cli: Command) -> None:
    """As with Docker: 125 for what is wrong with the flags, 1 for what the engine refuses."""
    done = cli("create", "--pid", "foo", "base")
    assert (done.code, done.err) == (
        125, "sampan: --pid: invalid PID mode\n\nRun 'sampan create --help' for more information\n",
    )  # fmt: skip
    done = cli("create", "--pull", "never", "no-such-image")
    assert (done.code, done.err) == (1, "Error: No such image: no-such-image:latest\n")


def test_create_then_start(cli: Command) -> None:
    cli("create", "--name", "later", "base", "sh", "-c", "echo out; echo err >&2; exit 5").ok()
    assert inspected(cli, "later")["State"]["Status"] == "created"
    done = cli("start", "-a", "later")
    assert (done.code, done.out, done.err) == (5, "out\n", "err\n")


def test_rm_removes_the_container(cli: Command) -> None:
    cli("run", "--rm", "--name", "gone", "base", "true").ok()
    assert cli("ps", "-aq").out == ""
    cli("run", "--rm", "--name", "gone", "base", "true").ok()


def test_a_removed_background_container_leaves_nothing(cli: Command) -> None:
    cli("run", "-d", "--rm", "--name", "short", "base", "sleep", "0.2").ok()
    assert cli("wait", "short").code in (0, 1)
    assert cli("ps", "-aq").out == ""


def test_environment(cli: Command, tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("# comment\nFILE=1\nBOTH=file\nINHERITED\nUNSET\n")
    done = cli(
        *RUN, "--env-file", str(path), "-e", "BOTH=flag", "-e", "FLAG", "-e", "NOT_SET", "-e", "EMPTY=", "base", "env",
        env={"INHERITED": "x y", "FLAG": "given"},
    ).ok()  # fmt: skip
    lines = done.out.splitlines()
    assert {"FILE=1", "BOTH=flag", "INHERITED=x y", "FLAG=given", "EMPTY=", "HOME=/root"} <= set(lines)
    assert not [line for line in lines if line.startswith(("UNSET", "NOT_SET"))]


def test_environment_of_docker(cli: Command) -> None:
    lines = cli(*RUN, "-h", "box", "base", "env").ok().out.splitlines()
    assert "HOSTNAME=box" in lines
    assert "HOME=/root" in lines
    assert [line for line in lines if line.startswith("PATH=")]
    assert not [line for line in lines if line.startswith("TERM=")]


def test_a_bad_environment_file(cli: Command, tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("A B=1\n")
    done = cli("run", "--env-file", str(path), "base")
    assert (done.code, done.err.splitlines()[0]) == (
        125, f"sampan: invalid env file ({path}): variable 'A B' contains whitespaces",
    )  # fmt: skip


def test_cidfile(cli: Command, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    identifier = cli("create", "--cidfile", str(path), "base").ok().out.strip()
    assert path.read_text() == identifier
    done = cli("run", "--rm", "--cidfile", str(path), "base", "true")
    assert (done.code, done.err.splitlines()[0]) == (
        125, f"sampan: container ID file found, make sure the other container isn't running or delete {path}",
    )  # fmt: skip
    assert cli("ps", "-aq").out.count("\n") == 1


def test_cidfile_of_a_create_that_fails_is_removed(cli: Command, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    assert cli("run", "--cidfile", str(path), "--pull", "never", "no-such-image").code == 125
    assert not path.exists()


def test_labels(cli: Command, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text("a=1\n")
    cli("create", "--name", "labelled", "--label-file", str(path), "-l", "b", "--label=c=d=e", "base").ok()
    assert inspected(cli, "labelled")["Config"]["Labels"] == {"a": "1", "b": "", "c": "d=e"}


def test_entrypoint(cli: Command) -> None:
    assert cli(*RUN, "--entrypoint", "echo", "base", "a", "b").ok().out == "a b\n"
    assert cli(*RUN, "--entrypoint", "", "base", "echo", "a").ok().out == "a\n"


def test_two_names_are_one_network_flag(cli: Command) -> None:
    assert cli("run", "--rm", "--net=none", "base", "ls", "/sys/class/net").ok().out == "lo\n"


def test_detached_and_attached_is_a_conflict(cli: Command) -> None:
    done = cli("run", "-d", "-a", "stdout", "base", "true")
    assert (done.code, done.err) == (1, "conflicting options: cannot specify both --attach and --detach\n")


def test_debug_prints_the_steps_also_of_a_start_that_fails(root: Root) -> None:
    good = root.cli("--debug", "run", "--rm", "--network", "none", "base", "echo", "hello").ok()
    assert good.out == "hello\n"
    assert "stage2" in good.err
    assert "pivot_root" in good.err
    bad = root.cli("--debug", "run", "--rm", "--network", "none", "base", "no-such-program")
    assert bad.code == 127
    assert "stage2" in bad.err
    assert "executable file not found in $PATH)" in bad.err.partition("execve")[2]


def test_without_root_it_is_one_clear_line() -> None:
    # Everything is imported before: a checkout below /root is not readable for others.
    code = (
        "import os, sys, sampan.cli.{0}, sampan.engine.engine, sampan.jsontext; from sampan.cli import main; os.setresuid(1, 1, 1); "
        "sys.exit(main.run({1!r}))"
    )
    for verb, args, exit_code in (
        ("ps", ["ps"], 1),
        ("run", ["run", "base"], 125),
        ("containers", ["rm", "a1", "b1"], 1),
    ):
        done = subprocess.run([sys.executable, "-c", code.format(verb, args)], capture_output=True, text=True)
        assert done.returncode == exit_code, done
        assert done.stderr == "sampan needs root: run it with sudo (containers without root come in a later version)\n"


def test_names_that_are_not_utf8(cli: Command) -> None:
    name = b"caf\xe9"
    done = cli(*RUN, "-e", b"A=" + name, "base", "sh", "-c", b'echo "$A" "$0"', name).ok()
    assert done.out_bytes == name + b" " + name + b"\n"
    cli("create", "--name", "bytes", "base", "echo", name).ok()
    assert inspected(cli, "bytes")["Args"] == [os.fsdecode(name)]
    assert "\\xe9" in cli("ps", "-a").ok().out
