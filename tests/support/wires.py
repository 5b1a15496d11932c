"""A host with containers on its networks and a second host outside, each a network namespace: what `network/` makes is tried in it.

A test module takes `world` by importing it, and names it in its `__all__`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sampan.network import bridge, firewall, parameters
from sampan.oci.network import (
    BRIDGE,
    Endpoint,
    Network,
    Pool,
    PublishedPort,
)

from support.netns import Host, connect

SUBNET6 = "fd77::"
SUBNET6 = "fd77::"
OUTSIDE = "203.0.113.9"


SUBNET6 = "fd77::"
OUTSIDE = "203.0.113.9"
HOST = "203.0.113.1"


def network(number: int = 0, **fields: object) -> Network:
    pools = (Pool(f"10.{77 + number}.0.0/24", f"10.{77 + number}.0.1"),)
    values = {"id": f"{number:02x}" * 32, "name": f"net{number}", "driver": BRIDGE, "created": "", "pools": pools}
    return Network(**{**values, "link": f"br{number}", **fields})  # type: ignore[arg-type]


class World:
    """A host with a way to a second host outside, and containers on networks of it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.host, self.outside = self._new(), self._new()
        connect(self.host, self.outside, ("eth0", "eth0"), (HOST, OUTSIDE))
        self.host.run("ip", "route", "add", "default", "via", OUTSIDE)
        self.host.call(lambda: parameters.write("ipv4/ip_forward", "1"))
        self.endpoints: dict[str, list[Endpoint]] = {}

    def _new(self) -> Host:
        made = Host()
        self._stack.callback(made.close)
        return made

    def container(self, net: Network, last: int, *published: PublishedPort, gateway: bool = True) -> Host:
        made = self._new()
        number = int(net.id[:2], 16)
        endpoint = Endpoint(
            container=f"{number:02x}{last:02x}" * 16,
            start=1,
            id=os.urandom(32).hex(),
            interface="eth0",
            link="",
            mac=f"02:42:0a:4d:{number:02x}:{last:02x}",
            address=f"10.{77 + number}.0.{last}",
            prefix=24,
            gateway="" if net.internal else f"10.{77 + number}.0.1",
            address6=f"{SUBNET6}{last:x}" if net.ipv6 else "",
            prefix6=64,
            gateway6=f"{SUBNET6}1" if net.ipv6 else "",
            ports=published,
        )
        endpoint = endpoint.replace(link=bridge.link_name(endpoint.id))
        self.endpoints.setdefault(net.id, []).append(endpoint)
        master = self.host.call(lambda: bridge.ensure(self.host.links, net))
        with made.entered():
            bridge.attach(self.host.links, made.links, made.fd, net, endpoint, master)
            if gateway:
                bridge.route(made.links, net, endpoint)
        self.apply(net)
        return made

    def apply(self, net: Network) -> None:
        self.host.call(lambda: firewall.restore(net, lambda: self.endpoints.get(net.id, [])))


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def web(port: int = 8080, address: str = "0.0.0.0", protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(80, protocol, address, port)
