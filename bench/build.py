"""`build` by us and by Docker's classic builder: ten small steps and 2000 files, without and with the cache; a context of 50 000 files.

The base is the same image, every RUN is busybox by its path, and no network is made. What a context of many files costs is measured
with a Dockerfile that takes one of them.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.engines import Engine, engines
from bench.measure import in_turns, seconds, table, verdict

STEPS = 10
FILES = 2000
CONTEXT_FILES = 50_000
_NAME = "sampan-bench-build:latest"


def main(rounds: int = 3) -> None:
    with engines(["sampan", "docker"]) as found, tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        steps, large = Path(work) / "steps", Path(work) / "large"
        _make(steps, FILES, "COPY files /files\n")
        _make(large, CONTEXT_FILES, "COPY files/0/0 /one\n")
        try:
            for what, place, flags, limit in (
                (f"{STEPS} steps and {FILES} files, no cache", steps, ("--no-cache",), 0.1),
                (f"{STEPS} steps and {FILES} files, all cached", steps, (), 0.2),
                (f"one file of a context of {CONTEXT_FILES}, no cache", large, ("--no-cache",), 0.5),
            ):
                times = in_turns({n: _building(e, place, flags) for n, e in found.items()}, rounds, warm_up=1)
                table(f"build: {what}, {rounds} rounds in turns", times)
                if "docker" in times:
                    ratio = statistics.median(times["sampan"]) / statistics.median(times["docker"])
                    verdict("sampan by docker", ratio, limit)
        finally:
            for engine in found.values():
                engine("rmi", "-f", _NAME)


def _make(place: Path, files: int, copy: str) -> None:
    for number in range(files):
        directory = place / "files" / str(number // 500)
        if not number % 500:
            directory.mkdir(parents=True)
        (directory / str(number % 500)).write_text(f"{number}\n" * 20)
    runs = "".join(f'RUN ["/bin/busybox", "sh", "-c", "echo {n} >/step-{n}"]\n' for n in range(STEPS))
    (place / "Dockerfile").write_text(f"ARG BASE\nFROM $BASE\n{runs}{copy}")


def _building(engine: Engine, place: Path, flags: tuple[str, ...]) -> Callable[[], float]:
    # The same image has another name with each of them.
    common = ("--network", "none", "-q", "-t", _NAME, "--build-arg", f"BASE={engine.image}")
    return lambda: seconds(lambda: engine("build", *common, *flags, str(place)))


if __name__ == "__main__":
    main()
