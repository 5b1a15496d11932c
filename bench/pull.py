"""`pull` of a Debian with python3 from a registry on this machine (Debian's docker-registry), and `push` of it.

What is compared is the whole command: bytes fetched, verified, unpacked, and as durable as the engine makes them (ours are on the
disk when it ends; Podman's are in memory still). Ratios are of first quartiles; of Podman, which is no daemon either, the
processor time is compared as well. Each engine has a file system of its own, all made alike (`bench.disks`), and what is in memory
is written before each pull. Each round pulls a tag with a layer of its own, so that nobody has it already, and nothing is removed
before the end. The wall clock is for a machine that does nothing else: one thread of ours makes all files, and if it waits for its
turn everything does, while Podman's many have one of them running somewhere. The goals: half of podman's time, a third of Docker's, 100 MiB of memory; and for a push Docker's time.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.disks import disk
from bench.engines import Engine, engines
from bench.import_ import variant
from bench.measure import first_quartile, in_turns, processor_seconds, seconds, table, verdict

from support.debian import debian_tar
from support.registry import Registry, registry

_MEMORY = 100  # MiB
_MORE = {"podman": ("--tls-verify=false",)}


_PUSHES = 3
"""Docker's pushes take longer than all of the rest; the first one does not count."""


def main(rounds: int = 4) -> None:
    tar = debian_tar("python3")
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sampan-bench-pull.") as name,
        registry(Path(name) / "registry") as found,
        _apart(["sampan"]) as pushers,
        _apart(["sampan", "podman", "docker"]) as peers,
    ):
        directory = Path(name)
        pushers = pushers | {name: engine for name, engine in peers.items() if name == "docker"}
        pushes: dict[str, list[float]] = {name: [] for name in pushers}
        processor: dict[str, list[float]] = {name: [] for name in ("sampan", "podman") if name in peers}
        for number in range(rounds + 1):
            pushes["sampan"].append(_pushed(pushers["sampan"], tar, directory, found, number))
        for number in range(rounds + 1, rounds + 1 + _PUSHES) if "docker" in pushers else ():
            pushes["docker"].append(_pushed(pushers["docker"], tar, directory, found, number))
        pulling = {n: _pulling(engine, found, rounds, processor.get(n, [])) for n, engine in peers.items()}
        times = in_turns(pulling, rounds, warm_up=1)
        memory = _memory(peers["sampan"], _reference(found, 0))
    table(f"pull of a Debian with python3, {tar.stat().st_size >> 20} MiB unpacked, {rounds} rounds in turns", times)
    ours = first_quartile(times["sampan"])
    for peer, goal in (("podman", 0.5), ("docker", 1 / 3)):
        if peer in times:
            verdict(f"sampan by {peer}", ours / first_quartile(times[peer]), goal)
    if "podman" in processor:
        table("processor time of it", {name: values[1:] for name, values in processor.items()})
        verdict("sampan by podman", first_quartile(processor["sampan"]) / first_quartile(processor["podman"]), 0.5)
    verdict("memory of a pull in MiB", memory, _MEMORY)
    if "docker" in pushes:
        table("push of it, compressed on its way", {name: values[1:] for name, values in pushes.items()})
        ours, theirs = (first_quartile(pushes[name][1:]) for name in ("sampan", "docker"))
        verdict("sampan by docker", ours / theirs, 1.0)


@contextmanager
def _apart(names: list[str]) -> Iterator[dict[str, Engine]]:
    """Engines, each on a disk of its own."""
    with ExitStack() as stack:
        found: dict[str, Engine] = {}
        for name in names:
            found |= stack.enter_context(engines([name], stack.enter_context(disk())))
        yield found


def _reference(found: Registry, number: int) -> str:
    return f"{found.host}/debian:{number}"


def _pushed(engine: Engine, tar: Path, directory: Path, found: Registry, number: int) -> float:
    """Import an archive that nobody has had yet and push it; the seconds that the push took."""
    source = variant(tar, directory, number)
    with source.open("rb") as stream:
        engine("import", "-", _reference(found, number), stdin=stream)
    source.unlink()
    return seconds(lambda: engine("push", _reference(found, number)))


def _pulling(engine: Engine, found: Registry, rounds: int, processor: list[float]) -> Callable[[], float]:
    """Pulls the next tag at every call; the seconds that it took. All pull the same bytes, those that we pushed.

    Processor seconds are added to `processor`.
    """
    numbers: Iterator[int] = iter(range(rounds + 1))
    more = _MORE.get(engine.name, ())

    def pull() -> float:
        os.sync()
        before = processor_seconds()
        took = seconds(lambda: engine("pull", *more, _reference(found, next(numbers))))
        processor.append(processor_seconds() - before)
        return took

    return pull


def _memory(engine: Engine, reference: str) -> float:
    """MiB that a pull takes at most, all of it fetched again."""
    engine("rmi", reference)
    process = subprocess.Popen([*engine.command, "pull", "-q", reference], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench: pull {reference}: exit code {process.returncode}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
