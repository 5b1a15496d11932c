"""The networks on disk: networks/ID/{network.json, endpoints/CONTAINER,ADDRESSES.json, lock}.

A network is made by one rename and goes by one. Its endpoints change under its lock only; one whose container does not run
is garbage of a killed command. Readers take no lock.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import Conflict, Damaged, InvalidParameter, NotFound, Prohibited, Unavailable
from sampan.kernel.files import FileLock, is_young, read_small, sync_directory, write_atomic
from sampan.oci.network import Endpoint, Network, endpoint_of
from sampan.store.layout import drop_run_directory
from sampan.store.record import is_hex, is_id
from sampan.store.staging import Staging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.steps.trace import Trace
    from sampan.store.layout import Layout, NetworkPaths

SCHEMA = 1
"""The version of network.json that this code writes; it reads all up to it."""

_PATIENCE = 30.0
"""Seconds that are waited for a lock: whoever has one computes and makes links, which takes milliseconds."""


class Networks:
    """All networks below one root. Holds no state: every call looks at the disk."""

    def __init__(self, layout: Layout, trace: Trace) -> None:
        self._layout = layout
        self._trace = trace
        self._staging = Staging(layout.networks, trace)

    # Looking up

    def ids(self) -> list[str]:
        """All networks, in no order."""
        return [entry for entry in os.listdir(self._layout.networks) if is_id(entry)]

    def all(self) -> list[Network]:
        """All networks, sorted by name and id; damaged ones as broken ones."""
        found = (self._try_get(network_id) for network_id in self.ids())
        return sorted(
            (network for network in found if network is not None), key=lambda network: (network.name, network.id)
        )

    def get(self, network_id: str) -> Network:
        """The network of a full id; a broken one if its record cannot be read. Raises NotFound."""
        if not is_id(network_id):
            raise no_such_network(network_id)
        path = self.paths(network_id).record
        try:
            data = read_small(path)
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.isdir(self.paths(network_id).directory):
                raise no_such_network(network_id) from None
            return _broken(network_id, f"{path}: no such file or directory")
        except OSError as e:
            return _broken(network_id, f"{path}: {(e.strerror or str(e)).lower()}")
        return _parsed(network_id, path, data)

    def named(self, name: str) -> Network | None:
        """The network of exactly that name."""
        return next((network for network in self.all() if network.name == name), None)

    def find(self, reference: str) -> Network:
        """The network with that id, that name or that unique beginning of an id, in this order, as Docker looks it up.

        Raises NotFound, or InvalidParameter for what could be several.
        """
        if is_id(reference):
            try:
                return self.get(reference)
            except NotFound:
                pass  # a name may look like one
        networks = self.all()
        for network in networks:
            if network.name == reference:
                return network
        matches = [
            network for network in networks if reference and is_hex(reference) and network.id.startswith(reference)
        ]
        if len(matches) > 1:
            raise InvalidParameter(
                f"network {reference} is ambiguous ({len(matches)} matches found based on ID prefix)"
            )
        if not matches:
            raise no_such_network(reference)
        return matches[0]

    def paths(self, network_id: str) -> NetworkPaths:
        return self._layout.network(network_id)

    def _try_get(self, network_id: str) -> Network | None:
        try:
            return self.get(network_id)
        except NotFound:
            return None  # removed meanwhile

    # Locks

    def making(self) -> FileLock:
        """Taken by whoever makes a network, from the choice of its subnet until it is there: a context manager.

        Raises `Unavailable` if another command has it for half a minute.
        """
        return _acquire(self._layout.networks_lock, "the list of networks is", make=True)

    def lock(self, network_id: str) -> FileLock:
        """Taken by whoever changes a network's endpoints or what is made of them, or removes it: a context manager.

        Raises NotFound if the network is gone, also if it goes while we wait, `Unavailable` after half a minute.
        """
        try:
            return _acquire(self.paths(network_id).lock, f"network {network_id[:12]} is", make=False)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(self.paths(network_id).directory):  # somebody took the file away: it comes back
                return _acquire(self.paths(network_id).lock, f"network {network_id[:12]} is", make=True)
            raise no_such_network(network_id) from None

    # Making and removing

    def add(self, network: Network) -> None:
        """Make a network; the caller has `making()`. Raises Conflict if there is one of that name, OSError."""
        if self.named(network.name) is not None:
            raise name_conflict(network.name)
        paths = self.paths(network.id)
        self._staging.collect_garbage()  # of a maker that was killed: nobody else makes one now
        with self._staging.begin() as staged:
            with self._trace.step("write network", f"{staged.path}/network.json"):
                os.mkdir(f"{staged.path}/endpoints", 0o700)
                os.close(os.open(f"{staged.path}/lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                write_atomic(f"{staged.path}/network.json", to_bytes(network))
            if not staged.publish(paths.directory):
                raise Conflict(f"network with id {network.id} already exists")
        sync_directory(self._layout.networks)

    def remove(self, network: Network) -> None:
        """Remove a network; the caller has its lock, and has found nobody in it. Raises NotFound if it is gone, Prohibited in use."""
        if self.endpoints(network.id):
            raise Prohibited(
                f"error while removing network: network {network.name} id {network.id} has active endpoints"
            )
        if not self._staging.remove(network.id):
            raise no_such_network(network.name)
        sync_directory(self._layout.networks)
        drop_run_directory(self.paths(network.id).run_directory, self._trace)

    # Endpoints

    def endpoints(self, network_id: str) -> list[Endpoint]:
        """All of a network, sorted by container; what cannot be read is left out. None of a network that is gone."""
        found: dict[str, Endpoint] = {}
        for container_id, paths in self.files(network_id).items():
            endpoint = self.newest(container_id, paths)
            if endpoint is not None:
                found[container_id] = endpoint
        return list(found.values())

    def endpoint_names(self, network_id: str) -> list[str]:
        """The containers that have a file in it, without a look into any."""
        return list(self.files(network_id))

    def addresses(self, network_id: str, without: str = "") -> list[str]:
        """Those that containers have in it, but for one container's. A start beside a hundred others reads none of their files."""
        found: list[str] = []
        for container_id, paths in self.files(network_id).items():
            if container_id == without:
                continue
            for path in paths:
                _, addresses = endpoint_of(os.path.basename(path))
                if not addresses and (endpoint := _read_endpoint(path, container_id)) is not None:
                    addresses = (endpoint.address, endpoint.address6)
                found += filter(None, addresses)
        return found

    def files(self, network_id: str) -> dict[str, list[str]]:
        """The files of each container's endpoint, sorted by container: two of one, if a command was killed between the writing of
        one and the removal of the other. With `newest` for who asks for many: the directory is read once."""
        directory = self.paths(network_id).endpoints
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found: dict[str, list[str]] = {}
        for name in names:
            if container_id := endpoint_of(name)[0]:
                found.setdefault(container_id, []).append(f"{directory}/{name}")
        return found

    def newest(self, container_id: str, paths: Sequence[str]) -> Endpoint | None:
        """What a container's `files` say; None for none, or if they are damaged."""
        found = (_read_endpoint(path, container_id) for path in paths)
        return max((endpoint for endpoint in found if endpoint is not None), key=lambda e: e.start, default=None)

    def endpoint_paths(self, network_id: str, container_id: str) -> list[str]:
        """The files of one container in it."""
        return self.files(network_id).get(container_id, [])

    def endpoint(self, network_id: str, container_id: str) -> Endpoint | None:
        """That of one container; None if it has none in this network, or a damaged one."""
        return self.newest(container_id, self.endpoint_paths(network_id, container_id))

    def of(self, container_id: str) -> list[tuple[str, Endpoint]]:
        """What a container has in networks: (the network's id, the endpoint)."""
        found = ((network_id, self.endpoint(network_id, container_id)) for network_id in self.ids())
        return [(network_id, endpoint) for network_id, endpoint in found if endpoint is not None]

    def put(self, network_id: str, endpoint: Endpoint) -> None:
        """Write an endpoint, in the place of the one that its container has; the caller has the network's lock. Raises OSError.

        Not synced: it ends with the machine at the latest.
        """
        path = f"{self.paths(network_id).endpoints}/{endpoint.file_name}"
        with self._trace.step("write endpoint", path):
            write_atomic(path, jsontext.dumps(endpoint.to_json()), sync=False)
        self._drop(network_id, endpoint.container, but=path)

    def drop(self, network_id: str, container_id: str) -> None:
        """Remove a container's endpoint; the caller has the network's lock. Idempotent."""
        self._drop(network_id, container_id)

    def _drop(self, network_id: str, container_id: str, but: str = "") -> None:
        for path in self.endpoint_paths(network_id, container_id):
            if path == but:
                continue
            with self._trace.step("remove endpoint", path):
                try:
                    os.unlink(path)
                except (FileNotFoundError, NotADirectoryError):
                    pass

    # What killed commands left

    def leftovers(self) -> list[str]:
        """Paths of what was being made or removed by commands that were killed, by this moment."""
        found = [path for path in self._staging.leftovers() if not is_young(path)]
        for network_id in self.ids():
            directory = self.paths(network_id).endpoints
            found += [f"{directory}/{name}" for name in _listed(directory) if name.startswith(".tmp-")]
        return [path for path in found if not is_young(path)]

    def collect_garbage(self) -> None:
        """Delete it. Safe beside processes that are at work."""
        self._staging.collect_garbage()
        for path in self.leftovers():
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def to_bytes(network: Network) -> bytes:
    """The content of network.json."""
    data = network.to_json()
    del data["broken"]
    return jsontext.dumps({"schema": SCHEMA, **data})


def no_such_network(reference: str) -> NotFound:
    return NotFound(f"network {reference} not found")


def name_conflict(name: str) -> Conflict:
    return Conflict(f"network with name {name} already exists")


def usable(network: Network) -> Network:
    """The network, if its record is whole. Raises Damaged."""
    if network.broken:
        raise Damaged(f"network {network.name} is damaged ({network.broken}): remove it with: network rm {network.id}")
    return network


def _parsed(network_id: str, path: str, data: bytes) -> Network:
    try:
        fields = jsontext.loads(data)
        if fields["schema"] > SCHEMA:
            return _broken(network_id, f"{path}: written by a newer sampan (schema {fields['schema']})")
        network = Network.from_json(fields)
        if network.id != network_id or not all(isinstance(t, str) and t for t in (network.name, network.driver)):
            raise ValueError(f"it is that of {network.id}")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        return _broken(network_id, f"{path}: not a network's record: {e}")
    return network


def _read_endpoint(path: str, container_id: str) -> Endpoint | None:
    try:
        endpoint = Endpoint.from_json(jsontext.loads(read_small(path)))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
        return None
    return endpoint if endpoint.container == container_id else None


def _broken(network_id: str, why: str) -> Network:
    return Network(id=network_id, name=network_id[:12], driver="", created="", link="", broken=why)


def _acquire(path: str, what: str, make: bool) -> FileLock:
    try:
        return FileLock.acquire(path, _PATIENCE, make=make)
    except BlockingIOError:
        raise Unavailable(f"{what} in use: another command has held {path} for {_PATIENCE:.0f} s, try again") from None


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
