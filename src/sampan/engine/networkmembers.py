"""Who is in a network: endpoints whose container runs. One whose does not was left by killed commands, and nobody's."""

from __future__ import annotations

from sampan.kernel.files import lock_is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sampan.oci.network import Endpoint, Network
    from sampan.store.layout import ContainerPaths

    class Store(Protocol):
        def endpoints(self, network_id: str) -> list[Endpoint]: ...
        def endpoint_names(self, network_id: str) -> list[str]: ...
        def drop(self, network_id: str, container_id: str) -> None: ...

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...


class Members:
    """The endpoints of networks beside the lives of their containers."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._records = records

    def living(self, network_id: str) -> list[Endpoint]:
        """The endpoints whose container runs, starts or is being settled, sorted by container."""
        return [endpoint for endpoint in self._store.endpoints(network_id) if self.is_living(endpoint)]

    def is_living(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint is somebody's: its container's monitor lives, or somebody is at work on the container."""
        paths = self._records.paths(endpoint.container)
        # In this order: a start takes the record lock, and gives it back when the monitor has its own.
        return lock_is_held(paths.record_lock) or lock_is_held(paths.monitor_lock)

    def release_dead(self, network: Network) -> None:
        """Remove the endpoints that are nobody's, and files that are none; the caller has the network's lock."""
        living = {endpoint.container for endpoint in self.living(network.id)}
        whole = {endpoint.container for endpoint in self._store.endpoints(network.id)}
        for container_id in self._store.endpoint_names(network.id):
            damaged = container_id not in whole and not lock_is_held(self._records.paths(container_id).record_lock)
            if damaged or (container_id in whole and container_id not in living):
                self._store.drop(network.id, container_id)
