"""Docker's Engine API, asked in turns of `sampan serve` and of dockerd: one container's life, execs, the docker command, many at once."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench.engines import Engine, engines
from bench.many import private_bytes, watcher
from bench.measure import in_turns, seconds, table

from support.tools import which

PARTS = ("create", "start", "wait", "remove")
AT_ONCE, ALTOGETHER, HELD = 16, 64, 100


class Api:
    """One engine by its socket, a connection for each request, as clients that are started for one do it."""

    def __init__(self, name: str, path: str, engine: Engine) -> None:
        self.name, self.path, self.engine = name, path, engine

    def __call__(self, method: str, target: str, body: Any = None) -> Any:
        connection = HTTPConnection("localhost", timeout=120)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.path)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/v1.41{target}", data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise SystemExit(f"bench: {self.name}: {method} {target}: {answer.status} {found[:300]!r}")
        return json.loads(found) if found[:1] in (b"{", b"[") else found

    def create(self, *command: str, network: str = "none") -> str:
        body = {"Image": self.engine.image, "Cmd": command, "HostConfig": {"NetworkMode": network}}
        return str(self("POST", "/containers/create", body)["Id"])

    def start(self, container: str) -> None:
        self("POST", f"/containers/{container}/start")

    def remove(self, container: str) -> None:
        self("DELETE", f"/containers/{container}?force=1&v=1")

    def life(self, network: str) -> dict[str, float]:
        """Seconds of each part of a container's life."""
        at = [time.perf_counter()]
        container = self.create("true", network=network)
        for step in (
            self.start,
            lambda container: self("POST", f"/containers/{container}/wait"),
            self.remove,
        ):
            at.append(time.perf_counter())
            step(container)
        at.append(time.perf_counter())
        return {part: after - before for part, before, after in zip(PARTS, at[:-1], at[1:], strict=True)}

    def exec(self, container: str) -> None:
        made = self("POST", f"/containers/{container}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
        self("POST", f"/exec/{made}/start", {"Detach": False, "Tty": False})
        if self("GET", f"/exec/{made}/json")["ExitCode"]:
            raise SystemExit(f"bench: {self.name}: true failed in an exec")

    def docker(self, *words: str) -> None:
        subprocess.run(["docker", "-H", f"unix://{self.path}", *words], check=True, stdout=subprocess.DEVNULL)

    def many(self) -> float:
        """Seconds that a container takes of those that are made at once."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return seconds(lambda: list(pool.map(lambda _: self.life("none"), range(ALTOGETHER)))) / ALTOGETHER


def main(rounds: int = 15) -> None:
    with engines(["sampan", "docker"]) as found, _serving(found["sampan"]) as ours:
        apis = [ours]
        if "docker" in found:
            apis.append(Api("docker", found["docker"].command[2].removeprefix("unix://"), found["docker"]))
        print(f"load average before: {os.getloadavg()[0]:.1f}")
        for network in ("none", "bridge"):
            _lives(apis, network, rounds)
        _execs(apis, rounds)
        if which("docker"):
            for network in ("none", "bridge"):
                words = ("run", "--rm", "--pull", "never", "--network", network)
                _turns(
                    f"docker run --rm --network {network}",
                    apis,
                    rounds,
                    {api.name: partial(api.docker, *words, api.engine.image, "true") for api in apis},
                )
        table(f"a container of {ALTOGETHER}, {AT_ONCE} at once", in_turns({api.name: api.many for api in apis}, 3, 1))
        _pings(apis)
        _held(apis)


def _lives(apis: list[Api], network: str, rounds: int) -> None:
    parts: dict[str, dict[str, list[float]]] = {part: {} for part in (*PARTS, "all of it")}
    for number in range(2 + rounds):
        for api in apis:
            took = api.life(network)
            if number >= 2:
                for part, value in {**took, "all of it": sum(took.values())}.items():
                    parts[part].setdefault(api.name, []).append(value)
    for part, values in parts.items():
        table(f"API, network {network}: {part}", values)


def _turns(title: str, apis: list[Api], rounds: int, actions: Mapping[str, Callable[[], object]]) -> None:
    table(
        f"{title}, {rounds} rounds", in_turns({api.name: partial(seconds, actions[api.name]) for api in apis}, rounds)
    )


def _execs(apis: list[Api], rounds: int) -> None:
    held = {api.name: api.create("sleep", "600") for api in apis}
    for api in apis:
        api.start(held[api.name])
    _turns("API: exec", apis, rounds, {api.name: partial(api.exec, held[api.name]) for api in apis})
    if which("docker"):
        actions = {api.name: partial(api.docker, "exec", held[api.name], "true") for api in apis}
        _turns("docker exec", apis, rounds, actions)
    for api in apis:
        api.remove(held[api.name])


def _pings(apis: list[Api]) -> None:
    """How long `GET /_ping` takes while a hundred containers are started, eight at once."""
    found: dict[str, list[float]] = {}
    for api in apis:
        made = [api.create("sleep", "600") for _ in range(HELD)]
        with ThreadPoolExecutor(8) as pool:
            starts = [pool.submit(api.start, container) for container in made]
            times = found[api.name] = []
            while not all(start.done() for start in starts):
                times.append(seconds(partial(api, "GET", "/_ping")))
            for start in starts:
                start.result()
            list(pool.map(api.remove, made))
        times.sort()
        print(
            f"  {api.name}: {len(times)} pings during {HELD} starts: median {statistics.median(times) * 1e3:.1f} ms,"
            f" 99th percentile {times[len(times) * 99 // 100] * 1e3:.1f} ms"
        )
    table(f"GET /_ping while {HELD} containers start", found)


def _held(apis: list[Api]) -> None:
    """How long the hundredth start takes, and what each container that runs costs."""
    first, last, memory = {}, {}, {}
    for api in apis:
        times, made = [], []
        for _ in range(HELD):
            made.append(api.create("sleep", "600"))
            times.append(seconds(partial(api.start, made[-1])))
        memory[api.name] = [private_bytes(watcher(api.engine, container)) for container in made[:: HELD // 5]]
        first[api.name], last[api.name] = times[:10], times[-10:]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(api.remove, made))
        print(
            f"  {api.name}: a start of the last ten by one of the first: {statistics.median(times[-10:]) / statistics.median(times[:10]):.2f}"
        )
    table("a start, of the first ten", first)
    table(f"a start, of the last ten of {HELD}", last)
    table("private memory of the process that watches over a container", memory, "MiB", 1 / 2**20)


@contextmanager
def _serving(engine: Engine) -> Iterator[Api]:
    """A server on the store of the command, with the image there."""
    engine.run("--rm", "--", "true")
    path = Path(engine.command[engine.command.index("--root") + 1]).parent / "api.sock"
    server = subprocess.Popen([*engine.command, "serve", "-H", f"unix://{path}", "--log-level", "error"])
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        yield Api("sampan", str(path), engine)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
