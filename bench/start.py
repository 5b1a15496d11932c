"""`run --rm --network none IMAGE true` as a whole command, with nothing resident of ours."""

from __future__ import annotations

import statistics
from functools import partial

from bench.engines import Engine, engines
from bench.measure import in_turns, seconds, table, verdict


def main(rounds: int = 15) -> None:
    with engines(["sampan", "podman", "docker"]) as found:
        times = in_turns({name: partial(_run, engine) for name, engine in found.items()}, rounds)
    table(f"run --rm --network none IMAGE true, {rounds} rounds in turns", times)
    if "podman" in times:
        ratio = statistics.median(times["sampan"]) / statistics.median(times["podman"])
        verdict("sampan by podman", ratio, 0.5)


def _run(engine: Engine) -> float:
    return seconds(lambda: engine.run("--rm", "--", "true"))


if __name__ == "__main__":
    main()
