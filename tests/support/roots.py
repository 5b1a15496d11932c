"""A root and a run root of a test's own, and what a test must not leave in them or on the host."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import host
from support.command import Command
from support.imagestore import disk
from support.patience import eventually
from support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sampan

BASE = Path(os.environ.get("SAMPAN_TEST_DIR", "/var/tmp/sampan-tests"))
# What remains when all containers of a root are removed: images, layers, locks. The rest must be as it was.
PER_CONTAINER = ("containers", "names", "snapshots", "content/ingest")
# Made by the first start and kept for the next ones: compiled seccomp filters, the locks of networks' keepers and of the zygote,
# the boot in which names were looked through.
KEPT = {".filters", ".names", ".networks", ".zygote"}
_numbers = itertools.count(1)


class Root:
    """One store that shares nothing with any other: directories, control groups, and the command that uses them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.run_root = directory / "run"
        self.config = directory / "sampan.toml"
        # A group of its own, so that what is left of it is known to be this root's.
        self.cgroup_parent = f"sampan-test-{os.getpid()}-{next(_numbers)}"
        directory.mkdir(parents=True)
        self.config.write_text(f'cgroup-parent = "/{self.cgroup_parent}"\n')
        self.environment = {
            "SAMPAN_ROOT": str(self.root),
            "SAMPAN_RUN_ROOT": str(self.run_root),
        }
        self.cli = Command(self.environment, before=("--config", str(self.config)))

    def engine(self, **options: Any) -> sampan.Engine:
        """A new Engine on this root."""
        import sampan

        return sampan.Engine(root=str(self.root), run_root=str(self.run_root), config=str(self.config), **options)

    def terminal(self, *args: str, rows: int = 24, columns: int = 80, env: dict[str, str] | None = None) -> Terminal:
        """The command on a terminal."""
        environment = {**self.cli.environment, "TERM": "xterm", **(env or {})}
        return Terminal([self.cli.program, *self.cli.before, *args], environment, rows, columns)

    def forget_zygotes(self) -> bool:
        """Take away the place of zygotes that have left: a command looks for one only where there has been one, and what is tested is the way without.

        Whether there is none now.
        """
        place = self.run_root / ".zygote"
        if place.is_dir() and not any(path.is_socket() for path in place.iterdir()):
            shutil.rmtree(place)
        return not place.exists()

    def state(self) -> Leftovers:
        return Leftovers(self)

    def remove_containers(self) -> None:
        """Remove every container by the command's own means; an AssertionError if it cannot."""
        if not any((self.root / place).is_dir() and os.listdir(self.root / place) for place in PER_CONTAINER):
            return  # the command is not started for nothing: after each of a thousand tests
        if ids := self.cli("ps", "-aq").ok().out.split():
            self.cli("rm", "-f", *ids, timeout=120).ok()

    def delete(self) -> None:
        """Remove the containers, then the directories and the control groups."""
        if self.root.exists():
            self.remove_containers()
        shutil.rmtree(self.directory)
        for group in host.cgroups(self.cgroup_parent):
            os.rmdir(group)


@contextlib.contextmanager
def small_root(place: Path, size: str) -> Iterator[Root]:
    """A store on a file system of its own that is soon full; its containers and the file system go also if the test fails."""
    with disk(place, size):
        root = Root(place / "store")
        try:
            yield root
        finally:
            root.delete()


class Leftovers:
    """What is there now. `check()` says what came since, after the containers were removed."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._before = self._look()

    def _look(self) -> set[str]:
        root = self._root
        found = {f"mount {m}" for m in host.mounts(root.directory)}
        # The zygote of a server that several tests share comes with the first start; that it goes with its server is shown in test_zygote.
        found |= {f"process {p}" for p in host.processes(str(root.directory)).values() if " zygote " not in p}
        # The parent group itself may stay, as Docker's does; its shims' group as well, as long as it is empty.
        found |= {f"cgroup {g}" for g in host.cgroups(root.cgroup_parent) if not _may_stay(g, root.cgroup_parent)}
        places = [root.root / p for p in PER_CONTAINER] + [root.run_root]
        for place in places:
            if place.is_dir():
                names = set(os.listdir(place)) - KEPT
                found |= {f"{place.relative_to(root.directory)}/{entry}" for entry in names}
        networks = (
            [entry for entry in os.listdir(root.root / "networks") if not entry.startswith(".")]
            if (root.root / "networks").is_dir()
            else []
        )
        for network in networks:
            found |= {f"endpoint {entry}" for entry in os.listdir(root.root / "networks" / network / "endpoints")}
            record = json.loads((root.root / "networks" / network / "network.json").read_text())
            if os.path.exists(f"/sys/class/net/{record['link']}/bridge"):
                found.add(f"bridge {record['link']} of network {record['name']}")
        layers = root.root / "layers"
        if layers.is_dir():
            found |= {f"layers/{entry}" for entry in os.listdir(layers) if entry.startswith(".")}
        return found

    def check(self) -> None:
        """An AssertionError that lists everything that is there now and was not before."""
        self._root.remove_containers()
        try:
            # A killed process leaves the table a moment after its container is gone.
            eventually(lambda: not self.left(), seconds=3)
        except AssertionError:
            raise AssertionError("left behind:\n  " + "\n  ".join(self.left())) from None

    def left(self) -> list[str]:
        return sorted(self._look() - self._before)


def _may_stay(group: str, parent: str) -> bool:
    path = Path(group)
    return path.name == Path(parent).name or (path.name == "shims" and not (path / "cgroup.procs").read_text())
