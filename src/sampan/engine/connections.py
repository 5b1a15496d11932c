"""`POST /networks/{id}/connect` and `/disconnect`: which networks a container is in, now and at its next starts.

What it asked for is part of its record; if it runs, its interfaces change too.
"""

from __future__ import annotations

from sampan import jsontext
from sampan.engine.failures import told
from sampan.errors import Conflict, InvalidParameter, NotFound, Prohibited
from sampan.kernel.files import write_atomic
from sampan.oci.network import HOST, NONE, is_joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    from sampan.oci.network import Attachment, Network
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def get(self, reference: str) -> Record: ...
        def read(self, container_id: str) -> Record: ...
        def lock(self, container_id: str) -> RecordLock: ...
        def change(self, lock: RecordLock, record: Record) -> None: ...

    class Settler(Protocol):
        def recover(self, record: Record, lock: RecordLock) -> Observation: ...

    class Finder(Protocol):
        def find(self, reference: str) -> Network: ...

    class Announcer(Protocol):
        def connection(self, record: Record, network: Network, action: str) -> None: ...
        def for_shim(self, record: Record, networks: Iterable[Network]) -> tuple[str, ...]: ...

    class Wires(Protocol):
        def connect(self, record: Record, lock: RecordLock, seen: Observation, attachment: Attachment) -> None: ...
        def disconnect(self, record: Record, lock: RecordLock, seen: Observation, network: Network) -> None: ...
        def joined(self, record: Record, number: int) -> list[Network]: ...
        def tidy(self, network: Network) -> None: ...


_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_HOSTS = "container cannot be disconnected from host network or connected to host network"
_PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


class Connections:
    """Containers into networks and out of them."""

    def __init__(
        self,
        records: Records,
        settler: Settler,
        networks: Callable[[], Finder],
        wires: Callable[[], Wires],
        events: Announcer,
    ) -> None:
        """`networks` finds networks, `wires` changes the interfaces of containers that run."""
        self._records = records
        self._settler = settler
        self._networks = networks
        self._wires = wires
        self._events = events

    @told
    def connect(self, network: str, container: str, settings: Mapping[str, Any] | None = None) -> None:
        """Put a container into a network. settings: an EndpointSettings of the Engine API.

        Raises NotFound, Prohibited (it is in it, or in what goes with no network), InvalidParameter for addresses, in Docker's words.
        """
        from sampan.engine.attachments import attachment as judged

        record = self._records.get(container)
        found = self._networks().find(network)
        with self._records.lock(record.id) as lock:
            record = _whole(self._records.read(record.id))
            _check_mode(record, found)
            if _is_in(record, found):
                raise Prohibited(f"endpoint with name {record.name} already exists in network {found.name}")
            attachment = judged(found, settings or {}, self._records)
            seen = self._settler.recover(record, lock)
            changed = record.replace(networks=(*record.networks, attachment))
            if seen.running:
                self._wires().connect(changed, lock, seen, attachment)
            self._records.change(lock, changed)
            if seen.running:
                self._change_end(changed, lock, seen)
                self._events.connection(record, found, "connect")

    @told
    def disconnect(self, network: str, container: str, force: bool = False) -> None:
        """Take a container out of a network, also if it is gone: of a container that runs with `force` only.

        Raises NotFound, Prohibited if it is not in it.
        """
        try:
            record = self._records.get(container)
        except NotFound:
            if not force:
                raise
            self._networks().find(network)
            # Whoever comes to the network's lock next removes what there may be of a container that is gone.
            raise NotFound(f"endpoint {container} not found") from None
        try:
            found = self._networks().find(network)
        except NotFound as e:
            self._forget(record, network, None if force else e)
            return
        with self._records.lock(record.id) as lock:
            record = _whole(self._records.read(record.id))
            if found.name == HOST and record.host_config.get("NetworkMode") == HOST:
                raise Prohibited(_HOSTS)
            seen = self._settler.recover(record, lock)
            if not _is_in(record, found):
                where = "network" if seen.running else "the network"
                raise Prohibited(f"container {record.id} is not connected to {where} {found.name}")
            left = tuple(one for one in record.networks if one.network not in (found.name, found.id))
            changed = record.replace(networks=left)
            # First the record: killed after it, the interface goes with the container's end, and does not come back.
            self._records.change(lock, changed)
            if seen.running:
                self._wires().disconnect(changed, lock, seen, found)
                self._change_end(changed, lock, seen)
            # Nothing says any more that this container was in it: the end of it would not take its bridge along.
            self._wires().tidy(found)
            self._events.connection(record, found, "disconnect")

    def _forget(self, record: Record, name: str, refusal: NotFound | None) -> None:
        """Take a network that is gone out of a container's record, so that it can be started again. refusal: for one that runs."""
        with self._records.lock(record.id) as lock:
            record = _whole(self._records.read(record.id))
            if refusal is not None and self._settler.recover(record, lock).running:
                raise refusal
            left = tuple(one for one in record.networks if one.network != name)
            if left == record.networks:
                raise Prohibited(f"container {record.id} is not connected to the network {name}")
            self._records.change(lock, record.replace(networks=left))

    def _change_end(self, record: Record, lock: RecordLock, seen: Observation) -> None:
        """Let the end of the container, which its shim tells, tell of the networks that it is in now."""
        events = self._events.for_shim(record, self._wires().joined(record, seen.number))
        try:
            write_atomic(lock.paths.start(seen.number).events, jsontext.dumps({"events": events}), sync=False)
        except OSError:
            pass  # an event never fails what it tells of


def _whole(record: Record) -> Record:
    if record.broken:
        raise Conflict(f"container {record.id} is damaged ({record.broken}): it can only be removed")
    return record


def _check_mode(record: Record, network: Network) -> None:
    """Raises Prohibited where one of the two is no network, in Docker's words."""
    mode = record.host_config.get("NetworkMode", "")
    if mode == HOST or mode.startswith("container:"):
        raise Prohibited(_SHARED)
    if network.name == HOST:
        raise Prohibited(_HOSTS)
    if NONE in (network.name, mode):
        raise Prohibited(_PRIVATE)
    if not is_joined(mode):
        raise InvalidParameter(f"container {record.id} cannot be in networks (mode {mode})")


def _is_in(record: Record, network: Network) -> bool:
    return any(one.network in (network.name, network.id) for one in record.networks)
