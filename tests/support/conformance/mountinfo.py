"""The lines of /proc/PID/mountinfo (proc(5)) as tests ask about them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mount:
    """options are the mount's own, super those of its file system; optional has the propagation ("shared:3")."""

    point: str
    root: str
    options: frozenset[str]
    optional: frozenset[str]
    type: str
    source: str
    super: frozenset[str]

    @property
    def propagation(self) -> str:
        """ "private", "shared", "slave", "shared slave" or "unbindable"."""
        kinds = [("shared", "shared:"), ("slave", "master:"), ("unbindable", "unbindable")]
        found = [kind for kind, mark in kinds if any(field.startswith(mark) for field in self.optional)]
        return " ".join(found) or "private"


def parse(text: str) -> list[Mount]:
    """All mounts, in the order in which they were made."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, point, options, *optional = left.split(" ")
        kind, source, sup = right.split(" ", 2)
        found.append(
            Mount(
                point,
                root,
                frozenset(options.split(",")),
                frozenset(field for field in optional if field),
                kind,
                source,
                frozenset(sup.split(",")),
            )
        )
    return found


def at(text: str, point: str) -> Mount:
    """The topmost mount there; an AssertionError if there is none."""
    found = [mount for mount in parse(text) if mount.point == point]
    assert found, f"nothing is mounted at {point}:\n{text}"
    return found[-1]


@contextlib.contextmanager
def mounted(directory: Path, *, propagation: str = "private", below: str = "sub") -> Iterator[Path]:
    """A tmpfs of the host with a file in it, and another one mounted below it."""
    directory.mkdir()
    try:
        for place, made in ((directory, "top"), (directory / below, "below")):
            place.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "conformance", str(place)], check=True)
            subprocess.run(["mount", f"--make-{propagation}", str(place)], check=True)
            (place / made).write_text(made)
        yield directory
    finally:
        subprocess.run(["umount", "-R", str(directory)], check=True)
        directory.rmdir()
