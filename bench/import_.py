"""`import` of a Debian's tar (mmdebstrap, minbase): hashed, stored and unpacked, by us and by Docker."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

from bench.engines import Engine, engines
from bench.measure import in_turns, seconds, table, verdict

from support.debian import debian_tar

REFERENCE = "sampan-bench-debian:latest"


def main(rounds: int = 5) -> None:
    tar = debian_tar()
    with engines(["sampan", "docker"]) as found:
        times = in_turns({name: partial(_import, engine, tar) for name, engine in found.items()}, rounds, warm_up=1)
    table(f"import of a Debian tar of {tar.stat().st_size >> 20} MiB, {rounds} rounds in turns", times)
    if "docker" in times:
        verdict("sampan by docker", statistics.median(times["sampan"]) / statistics.median(times["docker"]), 1.0)


def _import(engine: Engine, tar: Path) -> float:
    with tar.open("rb") as stream:
        spent = seconds(lambda: engine("import", "-", REFERENCE, stdin=stream))
    engine("rmi", REFERENCE)
    return spent


if __name__ == "__main__":
    main()
