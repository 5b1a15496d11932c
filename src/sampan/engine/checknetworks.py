"""What of networks does not fit together, for `system check`: records, endpoints that nobody has, bridges and tables that nobody needs."""

from __future__ import annotations

import time

from sampan.engine.check import ERROR, GARBAGE, found
from sampan.errors import NotFound
from sampan.kernel import links, netlink
from sampan.kernel.files import is_young
from sampan.network import bridge, firewall
from sampan.oci.subnet import parse_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from sampan.engine.check import Found
    from sampan.kernel.files import FileLock
    from sampan.oci.network import Endpoint, Network
    from sampan.store.layout import NetworkPaths
    from sampan.store.record import Record

    class Store(Protocol):
        def all(self) -> list[Network]: ...
        def lock(self, network_id: str) -> FileLock: ...
        def paths(self, network_id: str) -> NetworkPaths: ...
        def endpoint_names(self, network_id: str) -> list[str]: ...
        def endpoint_paths(self, network_id: str, container_id: str) -> list[str]: ...
        def leftovers(self) -> list[str]: ...
        def collect_garbage(self) -> None: ...

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...

    class Members(Protocol):
        def living(self, network_id: str) -> list[Endpoint]: ...

    class Wires(Protocol):
        def tidy(self, network: Network) -> None: ...


# Whoever ends or removes a container gives its address back a moment after its locks have gone, and takes the bridge down behind the
# last one: on a busy machine not at once.
_GIVEN_BACK_SECONDS = 2.0


class NetworkCheck:
    """The networks' part of `engine.check`."""

    def __init__(self, store: Store, members: Members, records: Records, wires: Callable[[], Wires]) -> None:
        """`wires` gives what removes links and tables."""
        self._store = store
        self._members = members
        self._records = records
        self._wires = wires

    def findings(self) -> Iterator[Found]:
        networks = self._store.all()
        for network in networks:
            if network.broken:
                what = f"{network.broken}; remove it with: network rm {network.id}"
                yield found(ERROR, "network", self._store.paths(network.id).directory, what)
                continue
            yield from self._dead_endpoints(network)
        whole = [network for network in networks if not network.broken]
        yield from self._conflicts(whole)
        for path in self._store.leftovers():
            yield found(GARBAGE, "network", path, "a killed command left it", "remove it", self._store.collect_garbage)
        # A network keeps its bridge as long as there is a container that may come back to it.
        records = (self._records.try_read(container_id) for container_id in self._records.ids())
        wanted = {one.network for record in records if record is not None for one in record.networks}
        for network in whole:
            if network.name not in wanted and network.id not in wanted:
                yield from self._unneeded(network)

    def _dead_endpoints(self, network: Network) -> Iterator[Found]:
        for path in _staying(lambda: self._dead(network)):
            what = f"an address in network {network.name} of a container that does not run"
            yield found(GARBAGE, "endpoint", path, what, "give it back", self._wires().tidy, network)

    def _dead(self, network: Network) -> set[str]:
        """The files of endpoints whose container nobody is at work on."""
        living = {endpoint.container for endpoint in self._members.living(network.id)}
        paths = (
            path
            for container_id in self._store.endpoint_names(network.id)
            if container_id not in living
            for path in self._store.endpoint_paths(network.id, container_id)
        )
        # One that was written a moment ago: its monitor may be about to take its lock.
        return {path for path in paths if not is_young(path)}

    def _conflicts(self, networks: list[Network]) -> Iterator[Found]:
        for at, network in enumerate(networks):
            for other in networks[:at]:
                path = self._store.paths(network.id).record
                if other.name == network.name:
                    yield found(ERROR, "network", path, f"network {other.id} has the name {network.name}, too")
                if _overlap(network, other):
                    yield found(ERROR, "network", path, f"its subnet overlaps that of network {other.name}")

    def _unneeded(self, network: Network) -> Iterator[Found]:
        """Bridges and tables of networks that nobody is in: what a killed command left."""
        for what in _staying(lambda: self._left(network)):
            text = f"it is of network {network.name}, which no container is in"
            yield found(GARBAGE, "link", what, text, "remove it", self._wires().tidy, network)

    def _left(self, network: Network) -> set[str]:
        """What there is of a network that nobody is in. Judged under the network's lock."""
        try:
            with self._store.lock(network.id):
                return set() if self._store.endpoint_names(network.id) else set(remains(network))
        except NotFound:
            return set()


def remains(network: Network) -> list[str]:
    """What there is of a network on this host: its link, and its table of the firewall."""
    left = []
    with netlink.Socket() as host:
        link = links.find(host, network.link)
        if link is not None and bridge.is_ours(link, network.id):
            left.append(network.link)
    connected = firewall.connect()
    if connected is not None:
        with connected[0]:
            if firewall.has_table(connected[1], network):
                left.append(f"nftables: {bridge.table_name(network.id)}")
    return left


def _overlap(network: Network, other: Network) -> bool:
    mine = [parse_subnet(pool.subnet) for pool in network.pools]
    return any(parse_subnet(pool.subnet).overlaps(subnet) for pool in other.pools for subnet in mine)


def _staying(look: Callable[[], set[str]]) -> list[str]:
    """What is there at each look: what an end that is on its way gives back, it gives back meanwhile."""
    there = look()
    deadline = time.monotonic() + _GIVEN_BACK_SECONDS
    while there and time.monotonic() < deadline:
        time.sleep(0.05)
        there &= look()
    return sorted(there)
