"""Fifty containers of one network ask for each other's names, a thousand times a second in all: what is lost, and how long it takes."""

from __future__ import annotations

import json

from bench.engines import Engine, engines
from bench.measure import table, verdict

from support.asking import Asked, ask

CONTAINERS = 50
RATE = 1000
SECONDS = 10
NETWORK = "sampan-bench-names"


def main() -> None:
    with engines(["sampan", "docker"]) as found:
        asked = {name: _measure(engine) for name, engine in found.items()}
    table(
        f"{CONTAINERS} containers, {RATE} questions a second for {SECONDS} s", {n: a.seconds for n, a in asked.items()}
    )
    for name, one in asked.items():
        ordered = sorted(one.seconds)
        print(
            f"  {name}: {one.sent} asked, {one.lost} lost, {len(one.wrong)} wrong, 99 of 100 within {ordered[len(ordered) * 99 // 100] * 1e3:.1f} ms"
        )
    verdict("questions of ours without the right answer", asked["sampan"].lost + len(asked["sampan"].wrong), 0)


def _measure(engine: Engine) -> Asked:
    names = [f"bench-name-{number}" for number in range(CONTAINERS)]
    engine("network", "create", NETWORK)
    try:
        for name in names:
            engine("run", "-d", "--network", NETWORK, "--name", name, *engine.run_flags, engine.image, "sleep", "1000")
        shown = json.loads(engine("inspect", *names))
        addresses = {one["Name"].lstrip("/"): one["NetworkSettings"]["Networks"][NETWORK]["IPAddress"] for one in shown}
        return ask([one["State"]["Pid"] for one in shown], addresses, RATE, SECONDS)
    finally:
        if left := [name for name in names if name in engine("ps", "-a", "--format", "{{.Names}}").split()]:
            engine("rm", "-f", *left)
        engine("network", "rm", NETWORK)


if __name__ == "__main__":
    main()
