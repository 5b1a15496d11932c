"""The engines that are measured: ours on a store of its own, Docker and Podman as Debian packages them.

PEER_DOCKER_HOST names a Docker daemon that runs already (unix://...); without it, or where the place of the stores is
chosen, one is started for the measurement, on a socket and a data directory below the work directory, and ended after it.
Podman's store is there too.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.tools import Dockerd, podman_limits, unmount_below, which

IMAGE = f"sampan-bench-{os.getpid()}:latest"
"""Of this process alone: two that measure beside each other on one daemon do not remove each other's."""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    # The daemon's own builder: the other one is a program beside it.
    "DOCKER_BUILDKIT": "0",
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
def engines(names: list[str], place: Path | None = None) -> Iterator[dict[str, Engine]]:
    """The engines by name, ours first; what was started is ended, and what was stored is deleted.

    `place`: a directory on the file system on which they shall keep all that they have.
    """
    work = Path(tempfile.mkdtemp(prefix="sampan-bench." if place is None else "", dir=place or "/var/tmp"))
    found: dict[str, Engine] = {}
    daemon: Dockerd | None = None
    try:
        if "sampan" in names:
            found["sampan"] = _sampan(work)
        if "podman" in names and which("podman"):
            found["podman"] = _podman(work)
        if "docker" in names and which("docker"):
            host = os.environ.get("PEER_DOCKER_HOST", "") if place is None else ""
            if not host and which("dockerd"):
                daemon = Dockerd(work / "d").__enter__()
                host = daemon.host
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
    # crun refuses hybrid cgroups and runc does not.
    command += ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
    return Engine("podman", command, f"localhost/{IMAGE}", podman_limits())


def _image_tar(work: Path) -> Path:
    """The peers' image: one static busybox, as in our embedded one."""
    path = work / "image.tar"
    if path.exists():
        return path
    busybox = which("busybox")
    with tarfile.open(path, "w") as tar:
        tar.add(busybox, "bin/busybox")
        for applet in ("sh", "true", "sleep"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return path


def _clean(work: Path, found: dict[str, Engine], daemon: Dockerd | None) -> None:
    for engine in found.values():
        if engine.name == "docker" and daemon is None:
            engine("rmi", "-f", IMAGE)
        elif engine.name == "podman":
            engine("rmi", "-f", engine.image)
        elif engine.name == "sampan" and (work / "root").exists() and (ids := engine("ps", "-aq").split()):
            engine("rm", "-f", *ids)
    if daemon is not None:
        daemon.__exit__()
    unmount_below(work)
    shutil.rmtree(work)
