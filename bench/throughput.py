"""How much goes between two containers of a network, and through a published port from another host: ours and Docker's in turns.

iperf3 is executed in the containers' network namespaces, so that both engines run the same program. The other host is a network
namespace, with a wire to this one for the time of the measurement.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from bench.engines import Engine, engines
from bench.measure import in_turns, table, verdict
from sampan.kernel import links, netlink

from support.netns import Host

NETWORK = "sampan-bench-wire"
HERE, OUTSIDE = "203.0.113.1", "203.0.113.9"
WIRE = "sampanbench0"
PORT = 5201
SECONDS = 2
LIMIT = 1.1


def main(rounds: int = 7) -> None:
    with ExitStack() as stack:
        found = stack.enter_context(engines(["sampan", "docker"]))
        outside = _outside(stack)
        pairs = {name: _Pair(engine, PORT + number, stack) for number, (name, engine) in enumerate(found.items())}
        ways: dict[str, dict[str, Callable[[], float]]] = {
            "between two containers": {name: pair.between for name, pair in pairs.items()},
            "through a published port, from another host": {
                name: partial(pair.published, outside) for name, pair in pairs.items()
            },
        }
        for title, actions in ways.items():
            rates = in_turns(actions, rounds, 1)
            table(f"iperf3 {title}, {SECONDS} s, {rounds} times in turns", rates, "Gb/s", 1e-9)
            if "docker" in rates:
                ratio = statistics.median(rates["docker"]) / statistics.median(rates["sampan"])
                verdict(f"Docker's by ours, {title}", ratio, LIMIT)


class _Pair:
    """Two containers of one engine, one of which publishes a port."""

    def __init__(self, engine: Engine, port: int, stack: ExitStack) -> None:
        self._port = port
        engine("network", "create", NETWORK)
        stack.callback(engine, "network", "rm", NETWORK)
        pids = []
        for number, flags in enumerate((("-p", f"{port}:{PORT}"), ())):
            name = f"{NETWORK}-{number}"
            engine(
                "run",
                "-d",
                "--network",
                NETWORK,
                "--name",
                name,
                *flags,
                *engine.run_flags,
                engine.image,
                "sleep",
                "1000",
            )
            stack.callback(engine, "rm", "-f", name)
            shown = json.loads(engine("inspect", name))[0]
            pids.append(shown["State"]["Pid"])
            if not number:
                self._address = shown["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
        self._server, self._client = pids

    def between(self) -> float:
        return self._measure(["nsenter", f"--net=/proc/{self._client}/ns/net"], self._address, PORT)

    def published(self, outside: Host) -> float:
        return self._measure(["nsenter", f"--net=/proc/{os.getpid()}/fd/{outside.fd}"], HERE, self._port)

    def _measure(self, within: list[str], address: str, port: int) -> float:
        """Bits a second that arrived."""
        server = subprocess.Popen(
            ["nsenter", f"--net=/proc/{self._server}/ns/net", "iperf3", "-s", "-1", "-p", str(PORT)],
            stdout=subprocess.DEVNULL,
        )
        try:
            self._await_listener()
            done = subprocess.run(
                [*within, "iperf3", "-c", address, "-p", str(port), "-t", str(SECONDS), "-J"],
                capture_output=True,
                text=True,
            )
            told = json.loads(done.stdout)
            if "error" in told:
                raise SystemExit(f"bench: iperf3 to {address}:{port}: {told['error']}")
            return float(told["end"]["sum_received"]["bits_per_second"])
        finally:
            server.kill()
            server.wait()

    def _await_listener(self) -> None:
        command = ["nsenter", f"--net=/proc/{self._server}/ns/net", "ss", "-Htln", f"sport = :{PORT}"]
        while not subprocess.run(command, capture_output=True, check=True).stdout:
            time.sleep(0.02)


def _outside(stack: ExitStack) -> Host:
    """Another host, at the other end of a wire from this one; both go with the measurement."""
    host = Host()
    stack.callback(host.close)
    with netlink.Socket() as here:
        links.add_veth(here, WIRE, "eth0", host.fd)
        stack.callback(_remove_wire)
        found = links.find(here, WIRE)
        there = links.find(host.links, "eth0")
        if found is None or there is None:
            raise SystemExit(f"bench: the link {WIRE} vanished")
        links.add_address(here, found.index, HERE, 24)
        links.add_address(host.links, there.index, OUTSIDE, 24)
        links.set_up(host.links, there.index)
    return host


def _remove_wire() -> None:
    with netlink.Socket() as here:
        found = links.find(here, WIRE)
        if found is not None:
            links.delete(here, found.index, WIRE)


if __name__ == "__main__":
    main()
