"""Other programs that read and write archives of images, each on a directory of its own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from support.patience import patience

if TYPE_CHECKING:
    from typing import IO, Any

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_CAP_SYS_RESOURCE = 24


class Tool:
    """A command line prefix: `tool("inspect", "x")` runs it to its end and gives its output, or fails in its words."""

    def __init__(self, *command: str) -> None:
        self.command = command

    def __call__(self, *args: str, stdin: IO[bytes] | None = None) -> str:
        result = subprocess.run(
            [*self.command, *args],
            env=_ENVIRONMENT,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
        )
        assert result.returncode == 0, f"{' '.join([*self.command, *args])}: {result.returncode}: {result.stderr}"
        return result.stdout.strip()

    def json(self, *args: str) -> Any:
        return json.loads(self(*args))


def skopeo(directory: Path) -> Tool:
    """No policy file need be installed, and no registry is asked."""
    return Tool("skopeo", "--insecure-policy", "--tmpdir", str(directory))


def buildah(directory: Path) -> Tool:
    return Tool("buildah", *_containers_store(directory))


def podman(directory: Path, runtime: str = "runc") -> Tool:
    # crun refuses hybrid control groups, and runc does not.
    return Tool("podman", *_containers_store(directory), "--runtime", runtime, "--cgroup-manager", "cgroupfs")


def podman_limits() -> tuple[str, ...]:
    """What `podman run` needs where its default limits may not be set."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if int(effective, 16) >> _CAP_SYS_RESOURCE & 1:
        return ()
    return ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def _containers_store(directory: Path) -> tuple[str, ...]:
    # The run root's path may have 50 characters.
    run = tempfile.mkdtemp(prefix="sampan-")
    atexit.register(shutil.rmtree, run, ignore_errors=True)
    # vfs: nothing is left mounted.
    return ("--storage-driver", "vfs", "--root", str(directory / "store"), "--runroot", run)


class Dockerd:
    """A Docker daemon of its own. A context manager; `docker` is its command line.

    It is given a bridge of its own, on addresses for benchmarks: told to have none, it deletes the docker0 of whichever
    daemon this machine has.
    """

    def __init__(self, directory: Path, *more: str) -> None:
        self.directory = directory
        self._more = more
        self.host = f"unix://{directory}/docker.sock"
        self.docker = Tool("docker", "-H", self.host)
        self._bridge = f"tdock{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Dockerd:
        self.directory.mkdir(exist_ok=True)
        ip = Tool("ip")
        ip("link", "add", self._bridge, "type", "bridge")
        try:
            ip("address", "add", f"198.19.{os.getpid() % 256}.1/24", "dev", self._bridge)
            self._process = come_up(self._command(), self.docker, self.directory)
        except BaseException:
            ip("link", "delete", self._bridge)
            raise
        return self

    def _command(self) -> list[str]:
        return [
            *("dockerd", "-H", self.host, "-p", str(self.directory / "docker.pid")),
            *("--data-root", str(self.directory / "docker"), "--exec-root", str(self.directory / "docker-exec")),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", f"--bridge={self._bridge}", *self._more),
        ]

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        end(self._process, self.directory)
        Tool("ip")("link", "delete", self._bridge)


class Containerd:
    """A containerd of its own. A context manager; `ctr` is its command line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ctr = Tool("ctr", "-a", f"{directory}/c.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Containerd:
        directory = self.directory
        directory.mkdir(exist_ok=True)
        config = directory / "config.toml"
        config.write_text(
            f"""version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
root = "{directory}/root"
state = "{directory}/state"
[grpc]
address = "{directory}/c.sock"
[ttrpc]
address = "{directory}/c.sock.ttrpc"
"""
        )
        self._process = come_up(["containerd", "-c", str(config)], self.ctr, directory)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        end(self._process, self.directory)


def come_up(command: list[str], client: Tool, directory: Path) -> subprocess.Popen[bytes]:
    """Start an engine's daemon and wait until its command line has an answer of it; one that gives none is ended.

    A dockerd of which it says "timeout waiting for containerd to start" may have been given too long a path for its sockets.
    """
    log = directory / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    up = False
    try:
        up = _answers(process, client)
    finally:
        if not up:
            end(process, directory)
    assert up, f"{command!r} did not come up: {log.read_text(errors='replace')[-2000:]}"
    return process


def _answers(process: subprocess.Popen[bytes], client: Tool) -> bool:
    deadline = time.monotonic() + patience(60)
    while process.poll() is None and time.monotonic() < deadline:
        if subprocess.run([*client.command, "version"], env=_ENVIRONMENT, capture_output=True).returncode == 0:
            return True
        time.sleep(0.1)
    return False


def end(process: subprocess.Popen[bytes], directory: Path) -> None:
    """End a daemon, and unmount what it leaves."""
    process.terminate()
    process.wait(60)
    unmount_below(directory)


def unmount_below(directory: Path) -> None:
    """What an engine left mounted below its directory, topmost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{directory}/"):
            subprocess.run(["umount", point], check=True)


def which(program: str) -> str:
    """Where the program is on a complete path, whatever the caller's is; "" if nowhere."""
    return shutil.which(program, path=_ENVIRONMENT["PATH"]) or ""


def packed(directory: Path) -> Path:
    """A directory, as a layout is one, as a tar beside it."""
    target = directory.with_suffix(".tar")
    with tarfile.open(target, "w") as tar:
        for name in sorted(os.listdir(directory)):
            tar.add(directory / name, name)
    return target


def unpacked(archive: Path) -> Path:
    """And back: the tar as a directory beside it."""
    target = archive.with_name(f"{archive.stem}-unpacked")
    target.mkdir()
    # tar's own: the filters of `extractall` came with Python 3.11.4, and Debian 12 has 3.11.2.
    subprocess.run(["tar", "-xf", archive, "-C", target], check=True)
    return target
