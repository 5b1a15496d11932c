"""Other engines with sampan-oci as their runtime: dockerd, podman and containerd as Debian packages them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.patience import patience
from support.rootfs import make_rootfs
from support.tools import Containerd, Dockerd, Tool, podman, podman_limits

pytestmark = [pytest.mark.root, pytest.mark.long]

RUNTIME = str(Path(sys.executable).parent / "sampan-oci")
ENVIRONMENT = ("-c", "ENV PATH=/bin", "-c", 'CMD ["sh"]')


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One busybox, as the tar of a root file system."""
    directory = tmp_path_factory.mktemp("image")
    rootfs = make_rootfs(directory / "rootfs")
    subprocess.run(["tar", "-C", rootfs, "-cf", directory / "rootfs.tar", "."], check=True)
    return directory / "rootfs.tar"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """conmon leaves a file named `oom` where podman was called."""
    monkeypatch.chdir(tmp_path)


def ends(tool: Tool, *args: str) -> tuple[int, str]:
    """The exit code of a command line that may fail, and all that it said."""
    result = subprocess.run([*tool.command, *args], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return result.returncode, result.stdout + result.stderr


def on_terminal(tool: Tool, *args: str) -> str:
    """What a command says on a terminal."""
    said = b""

    def keep(fd: int) -> bytes:
        nonlocal said
        data = os.read(fd, 1024)
        said += data
        return data

    pid, master = pty.fork()
    if pid == 0:
        os.execvp(tool.command[0], [*tool.command, *args])
    try:
        while keep(master):
            pass
    except OSError:
        pass  # the other side is closed
    os.waitpid(pid, 0)
    return said.decode()


def until(condition: object, what: str) -> None:
    deadline = time.monotonic() + patience(20)
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Engine:
    """A command line that is Docker's, and the flags that containers need on it."""

    def __init__(self, tool: Tool, image: str, *flags: str) -> None:
        self.tool, self.image, self.flags = tool, image, ("--network", "none", *flags)

    def run(self, *args: str) -> list[str]:
        split = args.index("--")
        return ["run", *self.flags, *args[:split], self.image, *args[split + 1 :]]


@pytest.fixture(scope="module", params=["dockerd", "podman"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Engine]:
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "podman":
        tool = podman(directory, RUNTIME)
        tool("import", "-q", *ENVIRONMENT, str(archive), "localhost/box:latest")
        yield Engine(tool, "localhost/box:latest", *podman_limits())
        tool("rmi", "-f", "localhost/box:latest")
        return
    # A short path: the sockets' names have to fit.
    with Dockerd(Path(f"/tmp/sampan-oci-{os.getpid()}"), "--add-runtime", f"sampan={RUNTIME}") as daemon:
        daemon.docker("import", *ENVIRONMENT, str(archive), "box:latest")
        yield Engine(daemon.docker, "box:latest", "--runtime", "sampan")
    subprocess.run(["rm", "-rf", str(daemon.directory)], check=True)


def test_output_and_exit_codes(engine: Engine) -> None:
    assert engine.tool(*engine.run("--rm", "--", "echo", "hello")) == "hello"
    assert ends(engine.tool, *engine.run("--rm", "--", "sh", "-c", "exit 3"))[0] == 3
    code, said = ends(engine.tool, *engine.run("--rm", "--", "no-such-program"))
    assert code == 127, said
    code, said = ends(engine.tool, *engine.run("--rm", "--", "/etc"))
    assert code == 126, said


def test_a_volume_a_user_and_limits(engine: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = "id -u; pwd; echo data > /v/file; grep Seccomp: /proc/self/status; ulimit -n"
    flags = ["-v", f"{tmp_path}:/v", "-u", "1000:1000", "-w", "/tmp", "-m", "64m", "--pids-limit", "30"]
    said = engine.tool(*engine.run("--rm", *flags, "--ulimit", "nofile=100:100", "--", "sh", "-c", script))
    assert said.split() == ["1000", "/tmp", "Seccomp:", "2", "100"]
    assert (tmp_path / "file").read_text() == "data\n"
    assert (tmp_path / "file").stat().st_uid == 1000
    # A limit that is set is a limit that holds.
    code, _ = ends(
        engine.tool, *engine.run("--rm", "-m", "16m", "--", "sh", "-c", "x=$(head -c 60000000 /dev/zero | tail)")
    )
    assert code == 137


def test_terminals(engine: Engine) -> None:
    assert "/dev/pts/0" in on_terminal(engine.tool, *engine.run("--rm", "-it", "--", "tty"))
    engine.tool(*engine.run("-d", "--name", "for-tty", "--", "sleep", "300"))
    try:
        assert "/dev/pts/" in on_terminal(engine.tool, "exec", "-it", "for-tty", "tty")
    finally:
        engine.tool("rm", "-f", "for-tty")


def test_a_life(engine: Engine) -> None:
    script = "trap 'exit 9' TERM; echo started; while true; do sleep 0.1; done"
    engine.tool(*engine.run("-d", "--name", "life", "--", "sh", "-c", script))
    try:
        until(lambda: "started" in engine.tool("logs", "life"), "no log")
        assert engine.tool("exec", "life", "echo", "inside") == "inside"
        assert ends(engine.tool, "exec", "life", "sh", "-c", "exit 5")[0] == 5
        assert ends(engine.tool, "exec", "life", "no-such-program")[0] in (126, 127)  # Docker 20 has 126 with runc, too
        assert "sleep" in engine.tool("top", "life")
        engine.tool("pause", "life")
        assert engine.tool("inspect", "-f", "{{.State.Status}}", "life") == "paused"
        engine.tool("unpause", "life")
        engine.tool("restart", "life")
        until(lambda: engine.tool("logs", "life").count("started") == 2, "it did not start again")
        engine.tool("stop", "life")
        assert engine.tool("inspect", "-f", "{{.State.ExitCode}}", "life") == "9"
    finally:
        engine.tool("rm", "-f", "life")


def test_a_kill_ends_what_shares_the_hosts_processes(engine: Engine) -> None:
    engine.tool(*engine.run("-d", "--name", "shared", "--pid", "host", "--", "sh", "-c", "sleep 301 & sleep 302"))
    try:
        until(lambda: "sleep 301" in engine.tool("top", "shared"), "no second process")
    finally:
        engine.tool("rm", "-f", "shared")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert not {"sleep 301", "sleep 302"} & set(listed)


def test_containerd(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = Path(f"/tmp/sampan-ctd-{os.getpid()}")
    # containerd reads images only: made by podman, which has no daemon.
    maker = podman(tmp_path_factory.mktemp("maker"))
    maker("import", "-q", *ENVIRONMENT, str(archive), "localhost/box:latest")
    image = tmp_path_factory.mktemp("saved") / "box.tar"
    maker("save", "-o", str(image), "localhost/box:latest")
    with Containerd(directory) as daemon:
        ctr = daemon.ctr
        ctr("images", "import", str(image))
        made = ["run", "--runc-binary", RUNTIME]
        assert ctr(*made, "--rm", "localhost/box:latest", "one", "echo", "hello") == "hello"
        ctr(*made, "-d", "localhost/box:latest", "two", "sleep", "300")
        assert ctr("task", "exec", "--exec-id", "a", "two", "echo", "inside") == "inside"
        assert ends(ctr, "task", "exec", "--exec-id", "b", "two", "sh", "-c", "exit 6")[0] == 6
        assert "memory.usage_in_bytes" in ctr("task", "metrics", "two") or "memory.usage" in ctr(
            "task", "metrics", "two"
        )
        ctr("task", "pause", "two")
        assert "PAUSED" in ctr("task", "ls")
        ctr("task", "resume", "two")
        ctr("task", "kill", "-s", "SIGKILL", "two")
        until(lambda: "STOPPED" in ctr("task", "ls"), "it was not stopped")
        ends(ctr, "task", "delete", "two")  # its code is the task's, 137
        ctr("containers", "rm", "two")
        assert ctr("containers", "ls", "-q") == ""
    subprocess.run(["rm", "-rf", str(directory)], check=True)
