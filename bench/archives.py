"""`load` and `save` of a Debian (mmdebstrap, minbase: 11 000 files), by us and by Docker.

Each round loads an archive of its own, with a layer that nobody has yet, and nothing is removed before the end: see
`bench.import_`. All archives are Docker's own, so that it has the easy part. Each round saves another image.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.engines import Engine, engines
from bench.import_ import reference, variant
from bench.measure import in_turns, seconds, table, verdict

from support.debian import debian_tar


def main(rounds: int = 3) -> None:
    tar = debian_tar()
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sampan-bench-tars.") as name,
        engines(["sampan", "docker"]) as found,
    ):
        if "docker" not in found:
            raise SystemExit("bench: archives needs Docker, which writes the archives that are loaded")
        directory = Path(name)
        archives = [_saved_by_docker(found["docker"], tar, directory, number) for number in range(rounds + 1)]
        loads = in_turns({n: _loading(engine, iter(archives)) for n, engine in found.items()}, rounds, warm_up=1)
        saves = in_turns({n: _saving(engine, directory) for n, engine in found.items()}, rounds, warm_up=1)
        for engine in found.values():
            for number in range(len(archives)):
                engine("rmi", reference(number))
    for verb, times in (("load", loads), ("save", saves)):
        table(f"{verb} of a Debian of {tar.stat().st_size >> 20} MiB, {rounds} rounds in turns", times)
        verdict("sampan by docker", statistics.median(times["sampan"]) / statistics.median(times["docker"]), 1.0)


def _saved_by_docker(docker: Engine, tar: Path, directory: Path, number: int) -> Path:
    """A Docker archive of an image that Docker no longer has."""
    source, archive = variant(tar, directory, number), directory / f"archive-{number}.tar"
    with source.open("rb") as stream:
        docker("import", "-", reference(number), stdin=stream)
    source.unlink()
    docker("save", "-o", str(archive), reference(number))
    docker("rmi", reference(number))
    return archive


def _loading(engine: Engine, archives: Iterator[Path]) -> Callable[[], float]:
    """Loads the next archive at every call; the seconds that it took."""
    return lambda: seconds(lambda: engine("load", "-q", "-i", str(next(archives))))


def _saving(engine: Engine, directory: Path) -> Callable[[], float]:
    """Saves the next image at every call; the seconds that it took."""
    numbers = iter(range(1 << 10))

    def one() -> float:
        target = directory / f"saved-{engine.name}.tar"
        number = next(numbers)
        elapsed = seconds(lambda: engine("save", "-o", str(target), reference(number)))
        target.unlink()
        return elapsed

    return one


if __name__ == "__main__":
    main()
