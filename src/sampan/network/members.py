"""Who is in a network, as its directory says now: what a keeper answers names from.

A name must be known as soon as its endpoint's record is there, and unknown as soon as that has gone. So each question looks
whether the directory has changed: one stat, and nothing else is read if it has not.
"""

from __future__ import annotations

import os
import time

from sampan import jsontext
from sampan.kernel import files
from sampan.oci.network import Endpoint, Network, endpoint_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GRAIN = 50_000_000
"""Nanoseconds by which a change may be younger than the directory's time says: the kernel's clock for files ticks."""
_OTHERS_SECONDS = 0.25
"""How old the list of a container's networks may be. Its own network's is always new."""
_MOST = 1 << 16
"""Endpoints of one network that are read."""


class Members:
    """One network's record and endpoints."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._endpoints = f"{directory}/endpoints"
        self._network: Network | None = None
        self._seen = 0
        self._known: dict[str, tuple[Any, Endpoint]] = {}
        self.by_name: dict[str, list[Endpoint]] = {}
        self.by_address: dict[str, Endpoint] = {}

    @property
    def network(self) -> Network | None:
        """The record, which does not change; None if it is gone, or cannot be read."""
        if self._network is None:
            data = _read(f"{self._directory}/network.json")
            self._network = None if data is None else _made(Network, data)
        return self._network

    def find(self, container: str) -> Endpoint | None:
        """The endpoint of a container."""
        self.look()
        found = self._known.get(container)
        return None if found is None else found[1]

    def all(self) -> list[Endpoint]:
        """All endpoints."""
        self.look()
        return [endpoint for _, endpoint in self._known.values()]

    def look(self) -> None:
        """Read what has changed since the last time."""
        try:
            changed = os.stat(self._endpoints).st_mtime_ns
        except OSError:
            changed = -1  # the network was removed
        if changed == self._seen and changed != 0:
            return
        now = time.time_ns()
        if self._read(changed >= 0):
            self._index()
        # What was changed a moment ago may change once more within the same tick.
        self._seen = changed if now - changed > _GRAIN else 0

    def _read(self, there: bool) -> bool:
        known: dict[str, tuple[Any, Endpoint]] = {}
        try:
            entries = list(os.scandir(self._endpoints)) if there else []
        except OSError:
            entries = []
        for entry in entries[:_MOST]:
            container, _ = endpoint_of(entry.name)
            if not container:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # dropped meanwhile
            stamp = (entry.name, status.st_ino, status.st_mtime_ns, status.st_size)
            before = self._known.get(container)
            if before is None or before[0] != stamp:
                data = _read(entry.path)
                made = None if data is None else _made(Endpoint, data)
                before = None if made is None else (stamp, made)
            # Of two, the newer start's: its writer has not yet removed the other.
            if before is not None and (container not in known or known[container][1].start < before[1].start):
                known[container] = before
        changed = known != self._known
        self._known = known
        return changed

    def _index(self) -> None:
        self.by_name, self.by_address = {}, {}
        for _, endpoint in self._known.values():
            for name in {name.lower() for name in (*endpoint.names, endpoint.container[:12])}:
                self.by_name.setdefault(name, []).append(endpoint)
            for address in (endpoint.address, endpoint.address6):
                if address:
                    self.by_address[address] = endpoint


class Directory:
    """All networks of one root, read as far as somebody asks."""

    def __init__(self, networks: str, own: str) -> None:
        """`own`: the id of the network whose changes are seen at once."""
        self._path = networks
        self._members: dict[str, Members] = {}
        self._found: dict[str, tuple[float, list[str]]] = {}
        self.own = self.members(own)
        self._own = own

    def members(self, network: str) -> Members:
        if network not in self._members:
            self._members[network] = Members(f"{self._path}/{network}")
        return self._members[network]

    def of_container(self, container: str) -> list[tuple[Members, Network, Endpoint]]:
        """The networks that a container is in, in the order in which they are asked for a name."""
        found = []
        for network_id in self._ids(container):
            members = self.members(network_id)
            network, endpoint = members.network, members.find(container)
            if network is not None and endpoint is not None and not network.broken:
                found.append((members, network, endpoint))
        found.sort(key=lambda each: (-each[2].gateway_priority, each[1].internal, each[1].name))
        return found

    def _ids(self, container: str) -> list[str]:
        """Ids of the networks that have an endpoint of it. Of others than our own they may be a moment old."""
        now = time.monotonic()
        since, ids = self._found.get(container, (0.0, []))
        if now - since > _OTHERS_SECONDS or not since:
            try:
                names = os.listdir(self._path)
            except OSError:
                names = []
            ids = [name for name in names if name[:1] != "." and self._has(name, container)]
            if len(self._found) > 4096:
                self._found.clear()
            self._found[container] = (now, ids)
        return ids if self._own in ids else [*ids, self._own]

    def _has(self, network: str, container: str) -> bool:
        try:
            names = os.listdir(f"{self._path}/{network}/endpoints")
        except OSError:
            return False
        return any(name.startswith(container) for name in names)


def _read(path: str) -> dict[str, Any] | None:
    try:
        data = jsontext.loads(files.read_small(path))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _made(kind: Any, data: dict[str, Any]) -> Any:
    try:
        return kind.from_json(data)
    except (TypeError, ValueError, AttributeError):
        return None  # damaged: `system check` tells it
