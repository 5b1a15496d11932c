"""`build` by us and by Docker's classic builder: ten small steps and 2000 files, without and with the cache; a context of 50 000 files.

The base is the same image, every RUN is busybox by its path, and no network is made. "All new": each round has other files and other
commands, so that both write every layer; "the same again" is built a second time without the cache. What a context of many files costs
is measured with a Dockerfile that takes one of them.

What the rounds have made has names of this process alone, and is removed at the end. Each round is printed when it is done: what fails
later takes nothing of what is known.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.engines import Engine, engines
from bench.measure import first_quartile, in_turns, seconds, table, verdict

STEPS = 10
FILES = 2000
CONTEXT_FILES = 50_000
_NAME = f"sampan-bench-build-{os.getpid()}"


def main(rounds: int = 5) -> None:
    with engines(["sampan", "docker"]) as found, tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        steps, large = Path(work) / "steps", Path(work) / "large"
        _make(steps, FILES, "COPY files /files\n")
        _make(large, CONTEXT_FILES, "COPY files/0/0 /one\n")
        builders = {name: Builder(engine) for name, engine in found.items()}
        what = f"{STEPS} steps and {FILES} files"
        try:
            _compare(
                f"{what}, all new, no cache", builders, lambda b: b.build(steps, "--no-cache", new=True), rounds, 0.1
            )
            _compare(f"{what}, the same again, no cache", builders, lambda b: b.build(steps, "--no-cache"), rounds, 0.1)
            _compare(f"{what}, all cached", builders, lambda b: b.build(steps), rounds, 0.2)
            context = f"one file of a context of {CONTEXT_FILES}, no cache"
            # Docker packs all of it each time: two rounds of that are enough.
            _compare(context, builders, lambda b: b.build(large, "--no-cache"), min(rounds, 2), 0.5)
        finally:
            for builder in builders.values():
                builder.clean()


def _compare(
    what: str, builders: Mapping[str, Builder], action: Callable[[Builder], float], rounds: int, limit: float
) -> None:
    print(f"\nbuild: {what}: one warm-up and {rounds} rounds in turns", flush=True)

    def timed(name: str) -> float:
        taken = action(builders[name])
        print(f"    {name:10}{taken:8.2f} s", flush=True)
        return taken

    times = in_turns({name: partial(timed, name) for name in builders}, rounds, warm_up=1)
    table(f"build: {what}", times)
    if "docker" in times:
        ratio = first_quartile(times["sampan"]) / first_quartile(times["docker"])
        verdict("sampan by docker (first quartiles)", ratio, limit)


class Builder:
    """Builds with one engine, and knows what it has made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: set[str] = set()
        self._round = 0

    def build(self, place: Path, *flags: str, new: bool = False) -> float:
        """Seconds that one build takes. `new`: of files and commands that were not there before."""
        if new:
            self._round += 1
            for directory in (place / "files").iterdir():
                for file in directory.iterdir():
                    file.write_text(f"{self._engine.name} {self._round} {file.name}\n" * 10)
        # The same image has another name with each of the engines.
        arguments = (f"BASE={self._engine.image}", f"ROUND={self._engine.name}{self._round}")
        given = [word for argument in arguments for word in ("--build-arg", argument)]

        os.sync()  # what the context, and the engine before, have left to be written is not this one's

        def run() -> None:
            self._made.add(self._engine("build", "--network", "none", "-q", "-t", _NAME, *given, *flags, str(place)))

        return seconds(run)

    def clean(self) -> None:
        """Remove what was made. An image of an earlier round may have gone with a later one."""
        for image in self._made:
            if image in self._engine("images", "-aq", "--no-trunc").split():
                self._engine("rmi", "-f", image)


def _make(place: Path, files: int, copy: str) -> None:
    for number in range(files):
        directory = place / "files" / str(number // 500)
        if not number % 500:
            directory.mkdir(parents=True)
        (directory / str(number % 500)).write_text(f"{number}\n" * 20)
    runs = "".join(f'RUN ["/bin/busybox", "sh", "-c", "echo {n} $ROUND >/step-{n}"]\n' for n in range(STEPS))
    (place / "Dockerfile").write_text(f"ARG BASE\nFROM $BASE\nARG ROUND\n{runs}{copy}")


if __name__ == "__main__":
    main()
