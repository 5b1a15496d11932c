"""The start of one more container when a hundred run, and the private memory of what watches over each."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from bench.engines import Engine, engines
from bench.measure import table, verdict

RUNNING = 100


def main(rounds: int = 15) -> None:
    with engines(["sampan", "podman", "docker"]) as found:
        ours = found["sampan"]
        starts = {"none running": _starts(ours, rounds)}
        held = [ours.run("-d", "--", "sleep", "3600") for _ in range(RUNNING)]
        starts = {f"{RUNNING} running": _starts(ours, rounds), **starts}
        memory = {"sampan": [private_bytes(watcher(ours, i)) for i in held]}
        ours("rm", "-f", *held)
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
    table("private memory of the process that watches over a container", memory, "MiB", 1 / 2**20)
    verdict("the greatest of ours in MiB", max(memory["sampan"]) / 2**20, 4)


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
