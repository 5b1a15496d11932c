"""Who lives all along an endurance run, and what there is of a store, of its processes and of theirs before and after it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from support import host
from support.disk import disk
from support.patience import eventually, patience
from support.roots import Root

RESIDENTS = {
    "resident-healthy": ("--health-cmd", "true", "--health-interval", "100ms"),
    "resident-writing": (),
    "resident-busy": ("--restart", "always"),
}


def settle_down(root: Root) -> None:
    """Wait until what was begun has come to its end, and let the next command finish what killed ones left."""
    root.cli("ps", "-a").ok()
    eventually(lambda: not _strangers(root), 30, lambda: _told(root))
    root.cli("ps", "-a").ok()


def _strangers(root: Root) -> dict[int, str]:
    """The processes that have to do with the root, but for the residents'.

    The parents are looked at last: a probe that began just now has one then, and one that has ended is not there any more.
    """
    shims = set(_shims(root).values())
    found = host.processes(str(root.directory))
    parents = host.parents()
    family = _below(shims, parents)
    return {pid: text for pid, text in found.items() if pid in parents and pid not in family}


def _told(root: Root) -> str:
    """Who is left, and of what."""
    looked = "\n".join(_closely(*one) for one in _strangers(root).items())
    return f"only the residents' processes are left, but these are, too:\n{looked}\n{root.cli('ps', '-a').ok().out}"


def _closely(pid: int, text: str) -> str:
    """A process that should have ended, and what it is waiting for."""
    seen = [text]
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended after all
        proc = Path(f"/proc/{pid}")
        seen += [(proc / name).read_text().strip() for name in ("stat", "wchan", "syscall")]
        seen += [os.readlink(fd) for fd in (proc / "fd").iterdir()]
    return "\n    ".join(seen)


def ids_of_residents(root: Root) -> list[str]:
    return root.cli("ps", "-q", "--no-trunc", *(f"--filter=name={name}" for name in RESIDENTS)).ok().out.split()


def _shims(root: Root) -> dict[str, int]:
    """The pids of the residents' shims."""
    found = {}
    for name in RESIDENTS:
        main = json.loads(root.cli("inspect", name).ok().out)[0]["State"]["Pid"]
        found[name] = int(Path(f"/proc/{main}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def _below(shims: set[int], parents: dict[int, int]) -> set[int]:
    """The shims and all that are below them."""
    found = set(shims)
    for _ in range(8):
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def measure(root: Root) -> dict[str, object]:
    """What must be the same before and after."""
    files = disk(root)
    del files["locks"]  # a lock's gate is made when somebody first has to wait there, and stays
    found: dict[str, object] = {
        "files and directories": sum(names for _, names in files.values()),
        "containers": len(root.cli("ps", "-aq").ok().out.split()),
        "mounts on the host": len(host.mounts(root.directory)),
        "control groups": len(host.cgroups(root.cgroup_parent)),
        "processes but the residents'": _fewest_strangers(root),
        "descriptors of this process": len(os.listdir("/proc/self/fd")),
    }
    for name, shim in _shims(root).items():
        # A probe that is on its way has some, too, and is so for most of the time on a busy machine.
        looks = _pauses(200 if "--health-cmd" in RESIDENTS[name] else 20)
        found[f"descriptors, {name}"] = min(len(os.listdir(f"/proc/{shim}/fd")) for _ in looks)
        found[f"private KiB, {name}"] = _private(shim) >> 10
    return found


def _fewest_strangers(root: Root) -> int:
    """0 as soon as there is none: what the last commands began may need a moment to end."""
    fewest = len(_strangers(root))
    deadline = time.monotonic() + patience(60)
    while fewest and time.monotonic() < deadline:
        time.sleep(0.02)
        fewest = min(fewest, len(_strangers(root)))
    return fewest


def _private(pid: int) -> int:
    """Bytes that it shares with nobody; while it has forked a probe, it shares all of them: the most of several looks."""
    return max(_private_now(pid) for _ in _pauses(20))


def _pauses(times: int) -> Iterator[None]:
    for _ in range(times):
        time.sleep(0.02)
        yield


def _private_now(pid: int) -> int:
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


def start_residents(root: Root) -> None:
    script = "while :; do echo written all the time; sleep 0.05; done"
    for name, flags in RESIDENTS.items():
        root.cli("run", "-d", "--name", name, "--network", "none", *flags, "base", "sh", "-c", script).ok()


def keep_busy(root: Root) -> None:
    """What the residents do anyway: so that what they measure in the beginning is not that of newborns."""
    for _ in range(5):
        for name in RESIDENTS:
            root.cli("exec", name, "true").ok()
            root.cli("logs", "--tail", "1", name).ok()
