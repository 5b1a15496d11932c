"""The engines that are measured: ours on a store of its own, Docker and Podman as Debian packages them.

PEER_DOCKER_HOST names a Docker daemon that runs already (unix://...); without it one is started for the measurement,
on a socket and a data directory below the work directory, and ended after it. Podman's store is there too.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE = "sampan-bench:latest"
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


class Engine:
    """A command line prefix. `run_flags` are what this machine needs beside the flags that are measured."""

    def __init__(self, name: str, command: list[str], image: str, run_flags: tuple[str, ...] = ()) -> None:
        self.name, self.command, self.image, self.run_flags = name, command, image, run_flags

    def __call__(self, *args: str, stdin: io.BufferedReader | None = None) -> str:
        """Run a verb to its end and give its output; the engine's own words in the error if it fails."""
        result = subprocess.run(
            [*self.command, *args],
            env=_ENVIRONMENT,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise SystemExit(
                f"bench: {' '.join([*self.command, *args])}: exit code {result.returncode}: {result.stderr}"
            )
        return result.stdout.strip()

    def run(self, *args: str) -> str:
        """`run --network none FLAGS IMAGE COMMAND`: the flags and the command are separated by "--" in `args`."""
        split = args.index("--")
        return self("run", "--network", "none", *self.run_flags, *args[:split], self.image, *args[split + 1 :])


@contextmanager
def engines(names: list[str]) -> Iterator[dict[str, Engine]]:
    """The engines by name, ours first; what was started is ended, and what was stored is deleted."""
    work = Path(tempfile.mkdtemp(prefix="sampan-bench.", dir="/var/tmp"))
    found: dict[str, Engine] = {}
    daemon = None
    try:
        if "sampan" in names:
            found["sampan"] = _sampan(work)
        if "podman" in names and _which("podman"):
            found["podman"] = _podman(work)
        if "docker" in names and _which("docker"):
            host = os.environ.get("PEER_DOCKER_HOST", "")
            if not host and _which("dockerd"):
                host, daemon = _dockerd(work)
            if host:
                found["docker"] = Engine("docker", ["docker", "-H", host], IMAGE)
        for name in names:
            if name not in found:
                print(f"  {name} is not on this machine")
        for peer in found.values():
            if peer.name != "sampan":
                with _image_tar(work).open("rb") as tar:
                    peer("import", "-", IMAGE, stdin=tar)
        yield found
    finally:
        _clean(work, found, daemon)


def _sampan(work: Path) -> Engine:
    command = [
        str(Path(sys.executable).parent / "sampan"),
        "--root",
        str(work / "root"),
        "--run-root",
        str(work / "run"),
    ]
    return Engine("sampan", command, "base")


def _podman(work: Path) -> Engine:
    command = ["podman", "--root", str(work / "podman"), "--runroot", str(work / "podman-run")]
    # crun refuses hybrid cgroups and runc does not; podman's defaults for limits need CAP_SYS_RESOURCE.
    command += ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
    limits = () if _has_capability(24) else ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    return Engine("podman", command, f"localhost/{IMAGE}", limits)


def _dockerd(work: Path) -> tuple[str, subprocess.Popen[bytes]]:
    host = f"unix://{work}/docker.sock"
    log = (work / "dockerd.log").open("wb")
    daemon = subprocess.Popen(
        [
            *("dockerd", "-H", host, "--data-root", str(work / "docker"), "--exec-root", str(work / "docker-exec")),
            *("-p", str(work / "docker.pid"), "--iptables=false", "--ip6tables=false", "--bridge=none"),
        ],
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    for _ in range(150):
        if subprocess.run(["docker", "-H", host, "version"], env=_ENVIRONMENT, capture_output=True).returncode == 0:
            return host, daemon
        if daemon.poll() is not None:
            break
        time.sleep(0.2)
    daemon.terminate()
    raise SystemExit(f"bench: dockerd did not come up: {(work / 'dockerd.log').read_text()[-2000:]}")


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)


def _which(program: str) -> str:
    """Where the program is on a complete path, whatever the caller's is; "" if nowhere."""
    return shutil.which(program, path=_ENVIRONMENT["PATH"]) or ""


def _image_tar(work: Path) -> Path:
    """The peers' image: one static busybox, as in our embedded one."""
    path = work / "image.tar"
    if path.exists():
        return path
    busybox = _which("busybox")
    with tarfile.open(path, "w") as tar:
        tar.add(busybox, "bin/busybox")
        for applet in ("sh", "true", "sleep"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return path


def _clean(work: Path, found: dict[str, Engine], daemon: subprocess.Popen[bytes] | None) -> None:
    for engine in found.values():
        if engine.name == "docker" and daemon is None:
            engine("rmi", "-f", IMAGE)
        elif engine.name == "podman":
            engine("rmi", "-f", engine.image)
        elif engine.name == "sampan" and (work / "root").exists() and (ids := engine("ps", "-aq").split()):
            engine("rm", "-f", *ids)
    if daemon is not None:
        daemon.terminate()
        daemon.wait(60)
    for point in sorted(_mounts_below(work), reverse=True):
        subprocess.run(["umount", point], check=True)
    shutil.rmtree(work)


def _mounts_below(directory: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [p for p in points if p.startswith(f"{directory}/")]
