"""The command where /etc/subuid and /etc/subgid have a range for containers' users, whatever they say on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from support.command import SAMPAN, Command, Result
from support.roots import Root

FIRST = 300000


class Machine:
    """The command on a machine whose /etc/subuid and /etc/subgid are these, as far as it can see."""

    def __init__(self, root: Root, directory: Path, text: str) -> None:
        self.file = directory / "subordinate"
        self.file.write_text(text)
        self._root = root
        self._shell = Command(root.cli.environment, "/usr/bin/unshare", ("-m", "sh", "-c"))

    def words(self, *args: str) -> list[str]:
        binds = "; ".join(f"mount --bind {self.file} /etc/{name}" for name in ("subuid", "subgid"))
        return [f"{binds}; exec {shlex.join([SAMPAN, *self._root.cli.before, *args])}"]

    def __call__(self, *args: str, env: dict[str, str] | None = None, input: bytes | None = None) -> Result:
        return self._shell(*self.words(*args), env=env, input=input)


@pytest.fixture
def machine(root: Root, tmp_path: Path) -> Machine:
    for name in ("subuid", "subgid"):
        Path("/etc", name).touch()  # a machine without the file has nothing to put another one over
    return Machine(root, tmp_path, f"sampan:{FIRST}:65536\n")
