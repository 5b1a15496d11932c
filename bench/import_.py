"""`import` of a Debian's tar (mmdebstrap, minbase): hashed, stored and unpacked, by us and by Docker.

Each round has a tar of its own, so that nobody finds the layer there already, and nothing is removed before the end: for
half a minute after a large removal ext4 looks long for each new inode, which would be measured with whoever comes next.
"""

from __future__ import annotations

import io
import shutil
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.engines import Engine, engines
from bench.measure import in_turns, seconds, table, verdict

from support.debian import debian_tar


def main(rounds: int = 5) -> None:
    tar = debian_tar()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sampan-bench-tars.") as directory:
        tars = [variant(tar, Path(directory), number) for number in range(rounds + 1)]
        with engines(["sampan", "docker"]) as found:
            actions = {name: _importing(engine, iter(tars)) for name, engine in found.items()}
            times = in_turns(actions, rounds, warm_up=1)
            for engine in found.values():
                for number in range(len(tars)):
                    engine("rmi", reference(number))
    table(f"import of a Debian tar of {tar.stat().st_size >> 20} MiB, {rounds} rounds in turns", times)
    if "docker" in times:
        verdict("sampan by docker", statistics.median(times["sampan"]) / statistics.median(times["docker"]), 1.0)


def reference(number: int) -> str:
    return f"sampan-bench-debian:{number}"


def variant(tar: Path, directory: Path, number: int) -> Path:
    """The tar with one file more, which makes it another layer."""
    copy = directory / f"{number}.tar"
    shutil.copyfile(tar, copy)
    with tarfile.open(copy, "a") as archive:
        entry = tarfile.TarInfo("./bench")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(str(number).encode()[:1]))
    return copy


def _importing(engine: Engine, tars: Iterator[Path]) -> Callable[[], float]:
    """Imports the next tar at every call; the seconds that it took."""

    def one() -> float:
        tar = next(tars)
        with tar.open("rb") as stream:
            return seconds(lambda: engine("import", "-", reference(int(tar.stem)), stdin=stream))

    return one


if __name__ == "__main__":
    main()
