"""`commit` of a container with 5000 changed files, by us and by Docker.

The files are written anew before each commit, so that nobody finds the layer there already; and nothing is removed
before the end: for half a minute after a large removal ext4 looks long for each new inode, which would be measured with whoever
comes next.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.engines import Engine, engines
from bench.measure import in_turns, seconds, table, verdict

FILES = 5000
_NAME = "sampan-bench-commit"
_WRITE = (
    "now=$(/bin/busybox date +%s); for d in $(/bin/busybox seq 10); do /bin/busybox mkdir -p /data/$d; "
    f"for f in $(/bin/busybox seq {FILES // 10}); do echo $d $f $now >/data/$d/$f; done; done"
)


def main(rounds: int = 5) -> None:
    made: list[tuple[Engine, str]] = []
    with engines(["sampan", "docker"]) as found:
        try:
            for engine in found.values():
                engine.run("--name", _NAME, "--", "/bin/busybox", "sh", "-c", _WRITE)
            actions = {name: _committing(engine, made) for name, engine in found.items()}
            times = in_turns(actions, rounds, warm_up=1)
        finally:
            for engine in found.values():
                engine("rm", _NAME)
            for engine, reference in made:
                engine("rmi", reference)
    table(f"commit of {FILES} changed files, {rounds} rounds in turns", times)
    if "docker" in times:
        verdict("sampan by docker", statistics.median(times["sampan"]) / statistics.median(times["docker"]), 0.5)


def _committing(engine: Engine, made: list[tuple[Engine, str]]) -> Callable[[], float]:
    """Changes all files and commits, with another name at every call; the seconds that the commit took."""

    def one() -> float:
        engine("start", "-a", _NAME)
        reference = f"{_NAME}:{len(made)}"
        elapsed = seconds(lambda: engine("commit", _NAME, reference))
        made.append((engine, reference))
        return elapsed

    return one


if __name__ == "__main__":
    main()
