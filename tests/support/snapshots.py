"""A snapshotter of each kind on directories of its own, and an image to try it with.

A test module takes `store` by importing it, and names it in its `__all__`.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sampan.kernel import mount
from sampan.steps.trace import Event, Trace
from sampan.store.overlay import OverlaySnapshotter
from sampan.store.vfs import VfsSnapshotter

from support.archives import (
    END,
    directory,
    member,
    symlink,
)

if TYPE_CHECKING:
    from sampan.store.snapshots import RootMount, Snapshotter

KINDS: dict[str, type[OverlaySnapshotter] | type[VfsSnapshotter]] = {
    "overlay": OverlaySnapshotter,
    "vfs": VfsSnapshotter,
}
ID = "c0ffee" * 10 + "0001"

BASE = (
    directory(b"d", mode=0o750, uid=4, mtime=100)
    + member(b"d/one", b"1")
    + member(b"d/two", b"2")
    + directory(b"d/sub", mode=0o1777, mtime=200)
    + member(b"d/sub/three", b"3")
    + member(b"file", b"base", mode=0o600)
    + directory(b"usr/lib")
    + symlink(b"lib", b"usr/lib")
    + symlink(b"abs", b"/usr")
    + member(b"linked", b"shared", mode=0o640, uid=8, mtime=300)
)
BELOW = {"d": "dir", "d/one": "1", "d/two": "2", "d/sub": "dir", "d/sub/three": "3", "file": "base"} | {
    "usr": "dir",
    "usr/lib": "dir",
    "lib": "-> usr/lib",
    "abs": "-> /usr",
    "linked": "shared",
}


def without(*names: str) -> dict[str, str]:
    return {n: v for n, v in BELOW.items() if not any(n == gone or n.startswith(gone + "/") for gone in names)}


class Store:
    """A snapshotter on directories of its own."""

    def __init__(self, top: Path, kind: str, observer: Callable[[Event], None] | None = None) -> None:
        self.layers, self.parts = top / "layers", top / "snapshots"
        for place in (self.layers, self.parts):
            place.mkdir(parents=True, exist_ok=True)
        self.trace = Trace(observer)
        self.snapshotter: Snapshotter = KINDS[kind](str(self.layers), str(self.parts), self.trace)

    def image(self, *archives: bytes) -> list[str]:
        """Unpack layers, bottom first; return their chain ids."""
        chain: list[str] = []
        for archive in archives:
            info = self.snapshotter.unpack(tuple(chain), io.BytesIO(archive + END))
            chain.append(info.chain_id)
        return chain

    @contextmanager
    def container(self, *archives: bytes) -> Iterator[Path]:
        """The root file system of a new container, mounted where nobody sees it."""
        chain = self.image(*archives)
        self.snapshotter.create(ID, chain)
        try:
            with mounted(self.snapshotter.root(ID, chain)) as path:
                yield path
        finally:
            self.snapshotter.remove(ID)

    def leftovers(self) -> list[str]:
        return [name for place in (self.layers, self.parts) for name in os.listdir(place) if name.startswith(".")]


@contextmanager
def mounted(root: RootMount) -> Iterator[Path]:
    if root.kind == "bind":
        yield Path(root.source)
        return
    fd = mount.overlay(root.lower, root.upper, root.work)
    try:
        yield Path(f"/proc/self/fd/{fd}/.")
    finally:
        os.close(fd)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, request.param)
    yield made
    assert made.leftovers() == []


def tree(top: Path) -> dict[str, str]:
    """Names and what they are, without what the init layer put there."""
    init = {"dev", "dev/pts", "dev/shm", "dev/console", "proc", "sys", ".dockerenv", "etc", "etc/mtab"}
    init |= {"etc/hosts", "etc/hostname", "etc/resolv.conf"}
    found: dict[str, str] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if name in init:
            continue
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            found[name] = path.read_text()
        elif stat.S_ISLNK(status.st_mode):
            found[name] = "-> " + os.readlink(path)
        else:
            found[name] = {stat.S_IFDIR: "dir", stat.S_IFCHR: "char", stat.S_IFIFO: "fifo", stat.S_IFBLK: "block"}[
                stat.S_IFMT(status.st_mode)
            ]
    return found
