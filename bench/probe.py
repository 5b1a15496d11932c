"""One probe of a health check: the processor time that it takes of everybody, its duration, and what a check costs in memory."""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.engines import Engine, engines
from bench.many import private_bytes, watcher
from bench.measure import in_turns, table, verdict

FLAGS = ("--health-cmd", "exit 1", "--health-retries", "1000000000")
SECONDS = 4.0
"""That probes are counted for, one right after the other."""
_TICK = os.sysconf("SC_CLK_TCK")


def main(rounds: int = 3) -> None:
    with engines(["sampan", "docker"]) as found:
        durations: dict[str, list[float]] = {name: [] for name in found}
        used = in_turns(
            {name: partial(_processor_time, engine, durations[name]) for name, engine in found.items()}, rounds, 1
        )
        ours = found["sampan"]
        memory = {
            "with a check": [_memory(ours, *FLAGS, "--health-interval", "1h") for _ in range(5)],
            "without": [_memory(ours) for _ in range(5)],
        }
    table(f"processor time of a probe, {rounds} times {SECONDS:g} s in turns", used)
    if "docker" in used:
        verdict("sampan by docker", statistics.median(used["sampan"]) / statistics.median(used["docker"]), 0.5)
    table("a probe from its start to its end", durations)
    table("private memory of the shim", memory, "MiB", 1 / 2**20)


def _processor_time(engine: Engine, durations: list[float]) -> float:
    """Seconds of processor time a probe, of all processes of the engine and of the probe itself."""
    container = engine.run("-d", *FLAGS, "--health-interval", "1ms", "--", "sleep", "3600")
    try:
        watchers = [watcher(engine, container), *_daemons(engine)]
        _await(lambda: _health(engine, container)["FailingStreak"] > 0)
        before, first = sum(map(_used, watchers)), _health(engine, container)["FailingStreak"]
        time.sleep(SECONDS)
        after, health = sum(map(_used, watchers)), _health(engine, container)
        durations += [_seconds(entry["End"]) - _seconds(entry["Start"]) for entry in health["Log"]]
        return (after - before) / float(health["FailingStreak"] - first)
    finally:
        engine("rm", "-f", container)


def _memory(engine: Engine, *flags: str) -> float:
    container = engine.run("-d", *flags, "--", "sleep", "3600")
    try:
        return private_bytes(watcher(engine, container))
    finally:
        engine("rm", "-f", container)


def _daemons(engine: Engine) -> list[int]:
    """Docker's daemon, as the one who listens on its socket, and all that it started."""
    if engine.name != "docker":
        return []
    path = engine.command[engine.command.index("-H") + 1].removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        pids = [struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]]
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += [int(child) for child in (task / "children").read_text().split()]
    return pids


def _used(pid: int) -> float:
    """Seconds of processor time of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICK


def _health(engine: Engine, container: str) -> dict[str, Any]:
    health: dict[str, Any] = json.loads(engine("inspect", container))[0]["State"]["Health"]
    return health


def _seconds(text: str) -> float:
    """Seconds of the day of an RFC 3339 time: a probe at midnight is measured wrong, by a day."""
    hours, minutes, seconds = text.partition("T")[2].rstrip("Z").split("+")[0].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("bench: no probe within 30 s")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
