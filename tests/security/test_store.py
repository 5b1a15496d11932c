"""What is on disk and in the run directory is root's alone. CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: others could enter, and execute set-id programs of images."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from support.child import in_child
from support.roots import Root

pytestmark = [pytest.mark.root]

NOBODY = 65534


def reachable(*tops: str) -> list[str]:
    """What a user without any privileges can open or go into of these trees, asked as that user."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    return [top for top in tops if os.access(top, os.X_OK) or os.access(top, os.R_OK)]


def test_cve_2021_41091_nobody_else_gets_to_the_programs_of_a_container(root: Root) -> None:
    script = "cp /bin/busybox /suid; chmod 4755 /suid; exec sleep 1000"
    root.cli("run", "-d", "--name", "box", "base", "sh", "-c", script).ok()
    root.cli("exec", "box", "sh", "-c", "until [ -u /suid ]; do sleep 0.05; done").ok()
    (program,) = [path for path in root.root.glob("snapshots/*/*/suid") if path.stat().st_mode & stat.S_ISUID]
    pid = root.cli("inspect", "-f", "{{.State.Pid}}", "box").ok().out.strip()
    below = [str(path) for top in (root.root, root.run_root) for path in top.iterdir()]
    assert in_child(lambda: reachable(*below, str(program), f"/proc/{pid}/root/suid")) == []
    for top in (root.root, root.run_root):
        # The first process of a user namespace has to come by; nobody else finds a name to ask for.
        assert not top.stat().st_mode & 0o066, top
        assert top.stat().st_uid == 0
    assert Path(f"/proc/{pid}/root/suid").stat().st_mode & stat.S_ISUID
