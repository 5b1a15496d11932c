"""runtime-linux.md: descriptors, links in /dev."""

from __future__ import annotations

import os

import pytest

from support.conformance.runtime import Containers

pytestmark = [pytest.mark.root]


def test_rl1_three_descriptors(oci: Containers) -> None:
    """File descriptors. "By default, only the `stdin`, `stdout` and `stderr` file descriptors are kept open for the application
    by the runtime." """
    held = [os.dup(1) for _ in range(3)]
    try:
        report = oci().report(pass_fds=tuple(held))
    finally:
        for fd in held:
            os.close(fd)
    assert sorted(report["fds"]) == ["0", "1", "2"]


LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}


@pytest.mark.parametrize("path", LINKS)
def test_rl2_links_in_dev(oci: Containers, path: str) -> None:
    """Dev symbolic links. "While creating the container, runtimes MUST create the following symlinks if the source file exists
    after processing `mounts`." """
    one = oci("sh", "-c", f"echo through >> {path}; readlink {path}")
    if path == "/dev/stdout":
        assert one.run().ok().out == f"through\n{LINKS[path]}\n"
    else:
        one.script(f"readlink {path}; test -e {path}")
        assert one.run().ok().out == f"{LINKS[path]}\n"


def test_rl3_links_in_a_dev_of_the_root(oci: Containers) -> None:
    """Dev symbolic links. "... runtimes MUST create the following symlinks": also where /dev is no mount of its own."""
    one = oci()
    one.config["mounts"] = [m for m in one.config["mounts"] if not m["destination"].startswith("/dev")]
    found = one.stat(*LINKS)
    assert {path: entry.get("link") for path, entry in found.items()} == LINKS
