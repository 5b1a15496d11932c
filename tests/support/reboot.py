"""A reboot, as far as a store can tell: no process of a container lives, /run is empty, the boot id is another one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

from sampan.kernel import cgroup
from sampan.kernel.files import lock_is_held

from support.patience import eventually
from support.roots import Root


def reboot(root: Root, *, in_order: bool = False) -> None:
    """Take everything away that a power cut takes; `in_order`: the programs end first, as in a shutdown, and are told as ended."""
    while living := _living(root):
        for facts in living:
            if in_order:
                _kill(facts["pid"])
                # Its monitor writes the end down, and dies in its back-off, or in what follows that.
                eventually(partial(_has_told, facts), what="the end of a program is written down")
            _kill(facts["monitor"])
    driver = cgroup.detect()
    for directory in (root.root / "containers").iterdir():
        if not directory.name.startswith("."):
            group = cgroup.group_name(directory.name, root.cgroup_parent)
            driver.kill(group)
            driver.remove(group)
    shutil.rmtree(root.run_root, ignore_errors=True)
    for path in (root.root / "containers").glob("*/starts/*/*"):
        if path.name in ("started", "restarted", "exit.json"):
            _in_another_boot(path)


def _living(root: Root) -> list[dict[str, Any]]:
    """What the monitors that live have written down of themselves; of one that is coming up, when it has."""
    found = []
    for container in (root.root / "containers").iterdir():
        newest = max(container.glob("starts/[0-9]*"), key=lambda p: int(p.name), default=None)
        if newest is not None and lock_is_held(str(container / "monitor.lock")):
            facts = _read(newest / "started")
            found += [{**facts, "start": str(newest)}] if facts and _alive(facts["monitor"]) else []
    return found


def _has_told(facts: dict[str, Any]) -> bool:
    return _read(Path(facts["start"]) / "exit.json") is not None


def _kill(pid: int) -> None:
    """Not one that has ended already; and wait until it has."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    eventually(lambda: not _alive(pid), what="what was killed has ended")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None  # also an exit file that was reserved only
    return found


def _in_another_boot(path: Path) -> None:
    facts = _read(path)
    if facts is None:
        return
    for place in (facts, facts.get("restart") or {}):
        if "boot" in place:
            place["boot"] = "another"
    path.write_text(json.dumps(facts))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
