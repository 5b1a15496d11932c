"""What a start on the default bridge costs more than one with `--network none`, by `Engine.start`: the first and the hundredth."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from functools import partial

import sampan
from bench.measure import in_turns, seconds, table, verdict

NEIGHBOURS = 100
LIMIT = 5
"""Milliseconds."""


def main(rounds: int = 30) -> None:
    work = tempfile.mkdtemp(prefix="sampan-bench.", dir="/var/tmp")
    try:
        with sampan.Engine(root=f"{work}/root", run_root=f"{work}/run") as engine:
            _compare(engine, "alone", rounds)
            others = [engine.containers.create("base", "sleep 1000", network="bridge") for _ in range(NEIGHBOURS)]
            for container in others:
                container.start()
            _compare(engine, f"beside {NEIGHBOURS} others", rounds)
            for container in others:
                container.remove(force=True)
    finally:
        shutil.rmtree(work)


def _compare(engine: sampan.Engine, where: str, rounds: int) -> None:
    times = in_turns({mode: partial(_start, engine, mode) for mode in ("none", "bridge")}, rounds)
    table(f"Engine.start, {where}, {rounds} rounds in turns", times)
    more = statistics.median(times["bridge"]) - statistics.median(times["none"])
    verdict(f"ms more on the bridge, {where}", more * 1e3, LIMIT)


def _start(engine: sampan.Engine, mode: str) -> float:
    container = engine.containers.create("base", "sleep 1000", network=mode)
    try:
        return seconds(container.start)
    finally:
        container.remove(force=True)


if __name__ == "__main__":
    main()
