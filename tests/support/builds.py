"""Builds as a user gives them, in a store and a context of their own.

A test module takes `build`, with the `store` of all its tests, by importing them, and names them in its `__all__`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import Result
from support.roots import Root


class Builds:
    """`build(dockerfile, *flags)` builds the context under the name "it", without a network unless the flags say one."""

    def __init__(self, root: Root, context: Path) -> None:
        self.root = root
        self.cli = root.cli
        self.context = context

    def __call__(self, dockerfile: str, *flags: str, **options: Any) -> Result:
        self.put("Dockerfile", dockerfile)
        network = () if "--network" in flags else ("--network", "none")
        return self.cli("build", "-t", "it", *network, *flags, str(self.context), **options)

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        """A file in the context."""
        place = self.context / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        place.chmod(mode)
        return place

    def run(self, *command: str, image: str = "it") -> str:
        """What a command in the image says."""
        return self.cli("run", "--rm", "--network", "none", image, *command).ok().out

    def inspect(self, image: str = "it") -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.cli("image", "inspect", image).ok().out)[0]
        return document

    def layers(self, image: str = "it") -> int:
        return len(self.inspect(image)["RootFS"]["Layers"])

    def history(self, image: str = "it") -> list[str]:
        """Newest first."""
        return self.cli("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).ok().out.splitlines()

    def holds(self, text: bytes) -> list[str]:
        """The files below both roots that hold a text."""
        found = []
        for top in (self.root.root, self.root.run_root):
            for path in top.rglob("*"):
                if path.is_file() and not path.is_symlink() and text in path.read_bytes():
                    found.append(str(path))
        return found


@pytest.fixture(scope="module")
def store(test_directory: str, request: pytest.FixtureRequest) -> Iterator[Root]:
    """One for a module, so that base is made once."""
    made = Root(Path(test_directory) / request.module.__name__.rpartition(".")[2])
    yield made
    made.delete()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The directory of a build's context."""
    place = tmp_path / "context"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture
def build(store: Root, tmp_path: Path) -> Builds:
    place = tmp_path / "context"
    place.mkdir(exist_ok=True)
    return Builds(store, place)


def steps(result: Result) -> list[str]:
    """Each step but the last, as "title: CACHED" or "title: DONE"."""
    titles = dict(re.findall(r"^(#\d+) \[.*?\d+/\d+\] (.*)$", result.err, re.M))
    ends = dict(re.findall(r"^(#\d+) (CACHED|DONE)", result.err, re.M))
    return [
        f"{title}: {ends.get(number, 'FAILED')}" for number, title in titles.items() if not title.startswith("FROM")
    ]
