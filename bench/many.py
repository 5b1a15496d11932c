"""One more container when five hundred run: its start, listings of all of them, and the memory of what watches over each."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.engines import Engine, engines
from bench.measure import seconds, table, verdict

RUNNING = 500
AT_ONCE = 2


def main(rounds: int = 16) -> None:
    with engines(["sampan", "podman", "docker"]) as found:
        ours = found["sampan"]
        # Before and after: what the machine does meanwhile (it is slower, or has less memory left) meets both.
        none = _starts(ours, rounds // 2)
        listed = {"ps, none running": _listings(ours, rounds, "ps")}
        held = _hold(ours, RUNNING)
        starts = {f"{RUNNING} running": _starts(ours, rounds)}
        listed = {
            f"ps, {RUNNING} running": _listings(ours, rounds, "ps"),
            "ps -q": _listings(ours, rounds, "ps", "-q"),
            "inspect one": _listings(ours, rounds, "inspect", held[RUNNING // 2]),
            **listed,
        }
        memory = {"sampan": [private_bytes(watcher(ours, i)) for i in held[::5]]}
        ours("rm", "-f", *held)
        starts["none running"] = none + _starts(ours, rounds - rounds // 2)
        for name, engine in found.items():
            if name != "sampan":
                few = [engine.run("-d", "--", "sleep", "3600") for _ in range(3)]
                memory[name] = [private_bytes(watcher(engine, i)) for i in few]
                engine("rm", "-f", *few)
    table(f"run -d, one more container, {rounds} times each", starts)
    verdict(
        f"a start with {RUNNING} running by one with none",
        statistics.median(starts[f"{RUNNING} running"]) / statistics.median(starts["none running"]),
        1.3,
    )
    table(f"listings, {rounds} times each", listed)
    verdict(f"ps with {RUNNING} running, in ms", statistics.median(listed[f"ps, {RUNNING} running"]) * 1e3, 300)
    table("private memory of the process that watches over a container", memory, "MiB", 1 / 2**20)
    verdict("the greatest of ours in MiB", max(memory["sampan"]) / 2**20, 4)


def _hold(engine: Engine, number: int) -> list[str]:
    """So many idle containers, a few started at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda _: engine.run("-d", "--", "sleep", "3600"), range(number)))


def _listings(engine: Engine, rounds: int, *args: str) -> list[float]:
    return [seconds(lambda: engine(*args)) for _ in range(rounds + 2)][2:]


def _starts(engine: Engine, rounds: int) -> list[float]:
    times = []
    for number in range(rounds + 2):
        begun = time.perf_counter()
        made = engine.run("-d", "--", "sleep", "3600")
        spent = time.perf_counter() - begun
        engine("rm", "-f", made)
        if number >= 2:
            times.append(spent)
    return times


def watcher(engine: Engine, container: str) -> int:
    """The parent of the container's main process: shim, conmon or containerd-shim."""
    main = json.loads(engine("inspect", container))[0]["State"]["Pid"]
    return int(Path(f"/proc/{main}/stat").read_text().rpartition(")")[2].split()[1])


def private_bytes(pid: int) -> float:
    total = 0.0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    main()
