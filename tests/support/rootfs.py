"""A root file system to run things in, made of the machine's static busybox: for tests of the core, which know no images."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nuser:x:1000:\nteam:x:2000:user\nshared:x:3000:other,user\n"


def make_rootfs(directory: Path) -> Path:
    """busybox with a link for each of its applets, and the few files that a system has."""
    busybox = shutil.which("busybox")
    assert busybox, "the tests need a static busybox (scripts/packages)"
    for name in ("bin", "dev", "etc", "proc", "sys", "root", "tmp", "home/user", "var"):
        (directory / name).mkdir(parents=True)
    os.chmod(directory / "tmp", 0o1777)
    os.chown(directory / "home/user", 1000, 1000)
    shutil.copy(busybox, directory / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    return directory


def variant(rootfs: Path, directory: Path) -> Path:
    """A copy of a root file system to change."""
    shutil.copytree(rootfs, directory, symlinks=True)
    os.chmod(directory / "tmp", 0o1777)
    return directory
