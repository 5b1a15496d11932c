"""Layers whose owners are shown through a map: not on the emulated machine, whose kernel can map no file system that it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.kernel import mount, namespaces

from support.child import in_child


@pytest.mark.root
def test_an_overlay_of_mapped_layers(tmp_path: Path) -> None:
    """What the image's ids own is shown to the container's; what is written belongs to these, and reads back by the reverse map."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_text("x")
    os.chown(tmp_path / "lower/file", 5, 6)
    for name in ("upper", "work"):
        os.chown(tmp_path / name, 100000, 100000)

    def inside() -> list[tuple[int, int]]:
        there = namespaces.user_namespace("0 100000 65536\n", "0 100000 65536\n")
        back = namespaces.user_namespace("100000 0 65536\n", "100000 0 65536\n")
        lower = mount.clone_mapped(str(tmp_path / "lower"), there)
        fd = mount.overlay([f"/proc/self/fd/{lower}"], str(tmp_path / "upper"), str(tmp_path / "work"))
        shown = os.stat("file", dir_fd=fd)
        with open(os.open("file", os.O_WRONLY | os.O_APPEND, dir_fd=fd), "w") as file:
            file.write("y")
        written = os.stat(tmp_path / "upper/file")
        reading = mount.clone_mapped(str(tmp_path / "upper"), back)
        read = os.stat("file", dir_fd=reading)
        return [(s.st_uid, s.st_gid) for s in (shown, written, read)]

    assert in_child(inside) == [(100005, 100006), (100005, 100006), (5, 6)]
