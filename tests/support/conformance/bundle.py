"""Bundles for the conformance suite: a root with the probe and a few of busybox's applets, and a plain configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the suite's scripts call; a root is made for every test, so that it is no longer than it has to be.
APPLETS = (
    *("sh", "true", "false", "echo", "cat", "ls", "touch", "mkdir", "rm", "sleep", "mount", "umount", "test", "kill"),
    *("id", "env", "stat", "ps", "mknod", "dd", "chown", "head", "grep", "readlink", "ln", "stty", "hostname", "chmod"),
)
CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
)


def build_probe(directory: Path) -> Path:
    """The probe as a static program; gcc says what is wrong if it cannot be built."""
    program = directory / "probe"
    source = Path(__file__).with_name("probe.c")
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", str(program), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, f"the probe cannot be built (scripts/packages):\n{built.stderr}"
    return program


def make_tools(directory: Path) -> Path:
    """What every root gets its programs from, by hard links: the probe and busybox."""
    directory.mkdir()
    build_probe(directory)
    busybox = shutil.which("busybox")
    assert busybox, "the tests need a static busybox (scripts/packages)"
    shutil.copy(busybox, directory / "busybox")
    return directory


def make_root(directory: Path, tools: Path) -> None:
    """A root file system that belongs to one test."""
    for name in ("bin", "dev", "etc", "proc", "sys", "root", "tmp", "run", "home"):
        (directory / name).mkdir(parents=True)
    os.chmod(directory / "tmp", 0o1777)
    for program in ("probe", "busybox"):
        os.link(tools / program, directory / "bin" / program)
    for applet in APPLETS:
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\n")


def make_config(args: tuple[str, ...], cgroup: str) -> dict[str, Any]:
    """A configuration with nothing special in it. Version 1.0.2: runtimes older than the newest fields know it too."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": [PATH],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "conformance",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }
