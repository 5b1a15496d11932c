"""`pull` of a Debian with python3 from a registry on this machine (Debian's docker-registry), and `push` of it.

Each round pulls a tag with a layer of its own, so that nobody has it already, and nothing is removed before the end: see
`bench.import_`. The goals: half of podman's time, a third of Docker's, 100 MiB of memory; and for a push Docker's time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.engines import Engine, engines
from bench.import_ import variant
from bench.measure import in_turns, seconds, table, verdict

from support.debian import debian_tar
from support.registry import Registry, registry

_MEMORY = 100  # MiB
_MORE = {"podman": ("--tls-verify=false",)}


def main(rounds: int = 3) -> None:
    tar = debian_tar("python3")
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sampan-bench-pull.") as name,
        registry(Path(name) / "registry") as found,
        engines(["sampan", "podman", "docker"]) as peers,
    ):
        directory = Path(name)
        pushes: dict[str, list[float]] = {"sampan": [], "docker": []}
        for number in range(rounds + 1):
            source = variant(tar, directory, number)
            for engine in ("sampan", "docker") if "docker" in peers else ("sampan",):
                pushes[engine].append(_pushed(peers[engine], source, _reference(found, engine, number)))
            source.unlink()
        _forget(peers, found, rounds)
        times = in_turns({n: _pulling(engine, found, rounds) for n, engine in peers.items()}, rounds, warm_up=1)
        memory = _memory(peers["sampan"], _reference(found, "sampan", 0))
        _forget(peers, found, rounds)
    table(f"pull of a Debian with python3, {tar.stat().st_size >> 20} MiB unpacked, {rounds} rounds in turns", times)
    ours = statistics.median(times["sampan"])
    for peer, goal in (("podman", 0.5), ("docker", 1 / 3)):
        if peer in times:
            verdict(f"sampan by {peer}", ours / statistics.median(times[peer]), goal)
    verdict("memory of a pull in MiB", memory, _MEMORY)
    if pushes["docker"]:
        table("push of it, compressed on its way", {name: values[1:] for name, values in pushes.items()})
        ours, theirs = (statistics.median(pushes[name][1:]) for name in ("sampan", "docker"))
        verdict("sampan by docker", ours / theirs, 1.0)


def _reference(found: Registry, engine: str, number: int) -> str:
    return f"{found.host}/from-{engine}:{number}"


def _pushed(engine: Engine, tar: Path, reference: str) -> float:
    """Import an archive and push it; the seconds that the push took."""
    with tar.open("rb") as stream:
        engine("import", "-", reference, stdin=stream)
    return seconds(lambda: engine("push", reference))


def _pulling(engine: Engine, found: Registry, rounds: int) -> Callable[[], float]:
    """Pulls the next tag at every call; the seconds that it took. All pull the same bytes, those that we pushed."""
    numbers: Iterator[int] = iter(range(rounds + 1))
    more = _MORE.get(engine.name, ())
    return lambda: seconds(lambda: engine("pull", *more, _reference(found, "sampan", next(numbers))))


def _forget(peers: dict[str, Engine], found: Registry, rounds: int) -> None:
    """Remove what is there of the images."""
    for engine in peers.values():
        for name in ("sampan", "docker"):
            for number in range(rounds + 1):
                command = [*engine.command, "rmi", "-f", _reference(found, name, number)]
                subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)


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
