"""The docker command line on our server, also at a real terminal."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.apiserver import Server, home, server
from support.command import Command, Result
from support.patience import eventually
from support.terminal import Terminal

__all__ = ["home", "server"]

pytestmark = [pytest.mark.root, pytest.mark.long]


@pytest.fixture(scope="module")
def docker(server: Server) -> Command:
    return Command({"DOCKER_HOST": server.url, "DOCKER_CONFIG": "/nonexistent"}, program="docker")


RUN = ("run", "--network", "none")


def test_run(docker: Command) -> None:
    def run(*words: str, input: str | None = None) -> Result:
        return docker(*RUN, "--rm", *words, input=input)

    assert run("base", "echo", "hello").ok().out == "hello\n"
    split = run("base", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (split.out, split.err, split.code) == ("out\n", "err\n", 3)
    assert run("-i", "base", "wc", "-c", input="x" * 1_000_000).ok().out == "1000000\n"
    missing = run("base", "nosuch")
    assert missing.code == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.err
    assert docker("ps", "-aq").ok().out == ""


def test_a_program_that_ends_without_reading_gives_its_exit_code(docker: Command) -> None:
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    assert yes.stdout is not None
    with yes.stdout as pipe:
        ended = docker(*RUN, "--rm", "-i", "base", "sh", "-c", "exit 3", stdin=pipe.fileno())
    yes.wait()
    assert (ended.code, ended.err) == (3, "")


@pytest.mark.parametrize("version", ["1.24", "1.25", "1.30", "1.35", "1.41", "1.44", "1.50", "1.51"])
def test_older_clients(docker: Command, version: str) -> None:
    """That of 1.24 removes its container itself, as soon as it is told of the end; and hangs up when it hears of the removal, be it before the answer."""
    env = {"DOCKER_API_VERSION": version}
    ran = docker(*RUN, "--rm", "base", "sh", "-c", "echo out; exit 4", env=env)
    assert (ran.out, ran.code) == ("out\n", 4)
    hung_up = r'time=\S+ level=error msg="error removing container: .*context canceled"\n'
    assert re.fullmatch(f"(?:{hung_up})?" if version == "1.24" else "", ran.err)
    assert docker("ps", "-aq", env=env).ok().out == ""
    assert "base" in docker("images", "--format", "{{.Repository}}", env=env).ok().out
    assert docker("info", "--format", "{{.Swarm.LocalNodeState}}", env=env).ok().out == "inactive\n"
    built = docker("build", "-q", "-", input="FROM base\nLABEL old=1\n", env=env).ok().out.strip()
    assert docker("image", "inspect", "-f", "{{.Config.Labels}}", built, env=env).ok().out == "map[old:1]\n"
    docker("rmi", built, env=env).ok()


@pytest.mark.parametrize(("version", "word"), [("1.23", "old"), ("1.52", "new")])
def test_clients_that_are_too_old_or_too_new_are_told_so(docker: Command, version: str, word: str) -> None:
    refused = docker("ps", env={"DOCKER_API_VERSION": version})
    assert refused.code == 1
    assert f"client version {version} is too {word}" in refused.err


def test_the_verbs(docker: Command, tmp_path: Path) -> None:
    docker(*RUN, "-d", "--name", "web", "base", "sh", "-c", "echo line; exec sleep 300").ok()
    try:
        assert "web" in docker("ps").ok().out
        assert docker("exec", "web", "sh", "-c", "echo a; exit 7").code == 7
        assert docker("exec", "-i", "web", "cat", input="typed").ok().out == "typed"
        assert docker("exec", "web", "nosuch").code == 127
        assert docker("logs", "web").ok().out == "line\n"
        (tmp_path / "f").write_text("copied")
        docker("cp", str(tmp_path / "f"), "web:/tmp/f").ok()
        docker("cp", "web:/tmp/f", str(tmp_path / "g")).ok()
        assert (tmp_path / "g").read_text() == "copied"
        assert "A /tmp/f" in docker("diff", "web").ok().out
        assert "sleep 300" in docker("top", "web").ok().out
        assert docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}").ok().out == "web 1\n"
        for verb in ("pause", "unpause"):
            docker(verb, "web").ok()
        docker("update", "--memory", "64m", "--memory-swap", "64m", "web").ok()
        docker("rename", "web", "other").ok()
        docker("restart", "-t", "0", "other").ok()
        docker("stop", "-t", "0", "other").ok()
        assert docker("wait", "other").ok().out == "137\n"
        docker("start", "other").ok()
        assert docker("inspect", "-f", "{{.State.Status}} {{.Name}}", "other").ok().out == "running /other\n"
        assert docker("export", "other").ok().out_bytes[257:262] == b"ustar"
        # The client sends whole seconds: of the one that it is now nothing is told.
        told = ("events", "--since", "5m", "--until", "0s", "--filter", "event=rename")
        eventually(lambda: "oldName=/web" in docker(*told).ok().out)
        docker("kill", "other").ok()
    finally:
        docker("rm", "-f", "web", "other")
    docker("version").ok()
    docker("info").ok()
    assert "not a swarm manager" in docker("node", "ls").err


def test_at_a_terminal(server: Server, docker: Command) -> None:
    environment = {**docker.environment, "TERM": "xterm"}
    with Terminal([docker.program, *RUN, "-it", "--rm", "base", "sh"], environment, 40, 120) as terminal:
        terminal.expect("[#$] ")
        terminal.send("stty size\n")
        terminal.expect("40 120")
        terminal.resize(30, 100)
        # The client tells of it in its own time, beside what is typed.
        terminal.send("while [ \"$(stty size)\" != '30 100' ]; do sleep 0.1; done; stty size\n")
        terminal.expect("\n30 100")
        terminal.send("exit 5\n")
        assert terminal.wait() == 5
    docker(*RUN, "-d", "--name", "held", "base", "sleep", "300").ok()
    try:
        with Terminal([docker.program, "exec", "-it", "held", "sh"], environment, 41, 121) as terminal:
            terminal.expect("[#$] ")
            terminal.send("stty size\n")
            terminal.expect("41 121")
            terminal.send("\x03exit 6\n")
            assert terminal.wait() == 6
    finally:
        docker("rm", "-f", "held").ok()


def test_logs_are_followed_to_the_end(docker: Command) -> None:
    docker(*RUN, "-d", "--name", "talks", "base", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done").ok()
    try:
        assert docker("logs", "-f", "talks").ok().out == "1\n2\n3\n"
    finally:
        docker("rm", "-f", "talks").ok()


def test_what_is_not_there_is_named(docker: Command) -> None:
    """And not taken for an image that has to be pulled, which is what 404 says to this client."""
    for network, message in (("nosuch", "network nosuch not found"), ("container:nosuch", "No such container: nosuch")):
        refused = docker("run", "--rm", "--network", network, "base", "true")
        assert (refused.code, refused.err.splitlines()[0]) == (125, f"docker: Error response from daemon: {message}")
    missing = docker("run", "--rm", "--pull", "never", "nosuch", "true")
    assert (missing.code, missing.err.splitlines()[0]) == (
        125,
        "docker: Error response from daemon: No such image: nosuch:latest",
    )
    killed = docker("kill", "nosuch").err
    assert killed == "Error response from daemon: cannot kill container: nosuch: No such container: nosuch\n"
    assert docker("rm", "-l", "nosuch").err == "Error response from daemon: No such container: nosuch\n"
    pulled = docker("pull", "--platform", "nosuch", "localhost:1/x").err
    assert (
        pulled == 'Error response from daemon: "nosuch": unknown operating system or architecture: invalid argument\n'
    )
    docker(*RUN, "-d", "--name", "there", "base", "sleep", "300").ok()
    try:
        assert docker("exec", "-u", "nosuch", "there", "id").code == 126
        assert docker("exec", "-w", "/nosuch", "there", "pwd").code == 127
    finally:
        docker("rm", "-f", "there").ok()


def test_prunes_take_a_label(docker: Command) -> None:
    """All of them do, and what has no labels stays."""
    docker("build", "-q", "-", input="FROM base\nRUN --network=none true\nLABEL kept=1\n").ok()
    docker("create", "--name", "pruned", "--label", "gone=1", "base").ok()
    before = docker("system", "df", "--format", "{{.Type}} {{.TotalCount}}").ok().out
    assert docker("system", "prune", "-f", "--filter", "label=nosuch").ok().out == "Total reclaimed space: 0B\n"
    assert docker("system", "df", "--format", "{{.Type}} {{.TotalCount}}").ok().out == before
    assert "Deleted Containers:" in docker("system", "prune", "-f", "--filter", "label=gone").ok().out
    assert docker("ps", "-aq").ok().out == ""
    docker("system", "prune", "-a", "-f", "--filter", "label=kept").ok()
