"""Networks: made, found, listed, removed, pruned. What is in them is their endpoints' matter, see `engine.networkmembers`.

`host` and `none` are no networks but have names that lead somewhere; `bridge` is made when it is first asked for.
"""

from __future__ import annotations

from sampan.engine.failures import told
from sampan.errors import NotFound, Prohibited
from sampan.kernel import clock
from sampan.kernel.files import read_small
from sampan.oci.network import (
    BRIDGE,
    DRIVERS,
    HOST,
    ISOLATED,
    NONE,
    PREDEFINED,
    Endpoint,
    Network,
    Pool,
    predefined_id,
)
from sampan.store.layout import DEFAULT_ROOT
from sampan.store.networks import usable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.kernel.files import FileLock
    from sampan.oci.subnet import Subnet
    from sampan.store.layout import Layout
    from sampan.store.record import Record

    class Store(Protocol):
        def all(self) -> list[Network]: ...
        def get(self, network_id: str) -> Network: ...
        def find(self, reference: str) -> Network: ...
        def add(self, network: Network) -> None: ...
        def remove(self, network: Network) -> None: ...
        def making(self) -> FileLock: ...
        def lock(self, network_id: str) -> FileLock: ...
        def endpoints(self, network_id: str) -> list[Endpoint]: ...
        def collect_garbage(self) -> None: ...

    class Members(Protocol):
        def living(self, network_id: str) -> list[Endpoint]: ...
        def release_dead(self, network: Network) -> None: ...

    class Wires(Protocol):
        def take_down(self, network: Network) -> None: ...

    class Connections(Protocol):
        def connect(self, network: str, container: str, settings: Mapping[str, Any] | None = ...) -> None: ...
        def disconnect(self, network: str, container: str, force: bool = ...) -> None: ...

    class Records(Protocol):
        def try_read(self, container_id: str) -> Record | None: ...

    class Announcer(Protocol):
        def emit(self, kind: str, action: str, identifier: str, attributes: Mapping[str, str] = ...) -> None: ...
        def pruned(self, kind: str, reclaimed: int) -> None: ...

    Filters = Mapping[str, str | bool | Sequence[str]]


class NetworkHandle:
    """A network of an engine, as the library hands it out. May be used long after somebody else has removed it (NotFound)."""

    __slots__ = ("_network", "_networks")

    def __init__(self, networks: Networks, network: Network) -> None:
        self._networks = networks
        self._network = network

    @property
    def id(self) -> str:
        return self._network.id

    @property
    def short_id(self) -> str:
        return self._network.id[:12]

    @property
    def name(self) -> str:
        return self._network.name

    @property
    def driver(self) -> str:
        return self._network.driver

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._network.labels)

    @property
    def broken(self) -> str:
        """Why it cannot be used, "" for a good one."""
        return self._network.broken

    @property
    def attrs(self) -> dict[str, Any]:
        """What `inspect` gave when the network was looked up; without its containers."""
        return shown(self._network)

    def __repr__(self) -> str:
        return f"<Network {self.name}>"

    def inspect(self) -> dict[str, Any]:
        """`GET /networks/{id}`. Raises NotFound, Damaged."""
        return self._networks.inspect(self.id)

    def connect(self, container: str, settings: Mapping[str, Any] | None = None) -> None:
        """Put a container into it; settings: an EndpointSettings of the Engine API. Raises NotFound, Prohibited, InvalidParameter."""
        self._networks.connect(self.id, container, settings)

    def disconnect(self, container: str, force: bool = False) -> None:
        """Take a container out of it. Raises NotFound, Prohibited if it is not in it."""
        self._networks.disconnect(self.id, container, force)

    def remove(self) -> None:
        """Remove it. Raises Prohibited if a container is in it, NotFound."""
        self._networks.remove(self.id)


class Networks:
    """`engine.networks`."""

    def __init__(
        self,
        layout: Layout,
        store: Store,
        members: Callable[[], Members],
        records: Records,
        connections: Callable[[], Connections],
        wires: Callable[[], Wires],
        routes: Callable[[], list[Subnet]],
        events: Announcer,
    ) -> None:
        """`members` gives what knows which endpoints are alive, `connections` what puts containers into networks, `wires` what
        removes links and tables, `routes` where this machine's routes lead."""
        self._layout = layout
        self._store = store
        self._members = members
        self._records = records
        self._connections = connections
        self._wires = wires
        self._routes = routes
        self._events = events

    # The library's verbs

    @told
    def create(self, name: str, **request: Any) -> NetworkHandle:
        """Make a network.

        >>> engine.networks.create("front", Driver="bridge", IPAM={"Config": [{"Subnet": "10.9.0.0/24"}]})

        request: the members of the body of `POST /networks/create`. Raises InvalidParameter, Prohibited (a subnet is another
        network's), Conflict (the name is) in Docker's words.
        """
        from sampan.engine import networkrequest
        from sampan.store.record import new_id

        network = networkrequest.parse({"Name": name, **request}, new_id(), clock.now())
        with self._store.making():
            others = [self._default(making=True), *(other for other in self._store.all() if other.name != BRIDGE)]
            networkrequest.overlaps(network, others)
            networkrequest.same_link(network, others)
            network = self._with_subnets(network, others)
            self._store.add(network)
        self._announce("create", network)
        return NetworkHandle(self, network)

    @told
    def get(self, reference: str) -> NetworkHandle:
        """The network of that id, name or beginning of an id. Raises NotFound, InvalidParameter for an ambiguous one."""
        return NetworkHandle(self, self.find(reference))

    @told
    def list(self, filters: Filters | None = None) -> Sequence[NetworkHandle]:
        """All networks that the filters want (`GET /networks`), by name. Raises InvalidParameter."""
        from sampan.engine.networkfilters import NetworkFilter

        wanted = NetworkFilter(filters or {})
        used = self._used if wanted.dangling is not None else _unknown
        return [NetworkHandle(self, network) for network in self.everything() if wanted.matches(network, used(network))]

    @told
    def inspect(self, reference: str) -> dict[str, Any]:
        """`GET /networks/{id}`: with the containers that are in it now. Raises NotFound, InvalidParameter, Damaged."""
        network = usable(self.find(reference))
        containers = {}
        for endpoint in self._members().living(network.id):
            record = self._records.try_read(endpoint.container)
            if record is not None:
                containers[record.id] = _member(record, endpoint)
        return shown(network, containers)

    @told
    def remove(self, reference: str) -> str:
        """Remove a network; its id. Raises NotFound, Prohibited if it is predefined or a running container is in it, InvalidParameter
        for an ambiguous beginning of an id, Unavailable if another command holds it for half a minute, System."""
        network = self.find(reference)
        if network.is_predefined:
            raise Prohibited(f"{network.name} is a pre-defined network and cannot be removed")
        with self._store.lock(network.id):
            self._members().release_dead(network)
            self._refuse_used(network)
            # Before the record, by which the next command would know of them.
            self._wires().take_down(network)
            self._store.remove(network)
        self._announce("destroy", network)
        return network.id

    def connect(self, network: str, container: str, settings: Mapping[str, Any] | None = None) -> None:
        """Put a container into a network, see `engine.connections`.

        >>> engine.networks.connect("front", "web", {"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.9.0.7"}})

        settings: an EndpointSettings. Raises NotFound (the network, the container), Prohibited (it is in it already, or shares a
        namespace), InvalidParameter (settings), Conflict (another command has the container), Unavailable (no address is free), System.
        """
        self._connections().connect(network, container, settings)

    def disconnect(self, network: str, container: str, force: bool = False) -> None:
        """Take a container out of a network. force: also if the network is not there any more.

        Raises NotFound (the network, the container), Prohibited (it is not in it), Conflict, System.
        """
        self._connections().disconnect(network, container, force)

    @told
    def prune(
        self, filters: Filters | None = None, dry_run: bool = False, without: Collection[str] = ()
    ) -> dict[str, Any]:
        """Remove the networks that no running container is in: {"NetworksDeleted": [names]}.

        filters: until, label, label!. without: containers to be counted as gone. Raises InvalidParameter.
        """
        from sampan.engine.networkfilters import NetworkFilter

        wanted = NetworkFilter(filters or {}, pruned=True)
        deleted = []
        if not dry_run:
            self._store.collect_garbage()
        for network in self._store.all():
            if network.is_predefined or network.broken or not wanted.matches(network):
                continue
            if any(endpoint.container not in without for endpoint in self._members().living(network.id)):
                continue
            if dry_run or self._removed(network):
                deleted.append(network.name)
        if not dry_run:
            self._events.pruned("network", 0)
        return {"NetworksDeleted": deleted, "SpaceReclaimed": 0}

    def _refuse_used(self, network: Network) -> None:
        members = []
        for endpoint in self._store.endpoints(network.id):
            record = self._records.try_read(endpoint.container)
            members.append(f'name:"{record.name if record else ""}" id:"{endpoint.container[:12]}"')
        if members:
            what = f"network {network.name} has active endpoints ({', '.join(members)})"
            raise Prohibited(f"error while removing network: {what}")

    def _removed(self, network: Network) -> bool:
        try:
            self.remove(network.id)
        except (Prohibited, NotFound):
            return False  # somebody joined it, or removed it, in this moment
        return True

    # For the other services

    def everything(self) -> Sequence[Network]:
        """All networks by name, the predefined ones among them."""
        bridge = self.default()
        others = [network for network in self._store.all() if network.id != bridge.id]
        found = [bridge, self.predefined(HOST), self.predefined(NONE), *others]
        return sorted(found, key=lambda network: (network.name, network.id))

    def find(self, reference: str) -> Network:
        """A network by id, name or beginning of an id; also a predefined one. Raises NotFound, InvalidParameter."""
        if reference == BRIDGE:
            return self.default()
        for name in (HOST, NONE):
            if reference == name or reference == self._id_of(name):
                return self.predefined(name)
        try:
            return self._store.find(reference)
        except NotFound:
            matches = [name for name in PREDEFINED if len(reference) > 3 and self._id_of(name).startswith(reference)]
            if not matches:
                raise
            return self.default() if matches[0] == BRIDGE else self.predefined(matches[0])

    def predefined(self, name: str) -> Network:
        """What `ls` shows of the modes that are no networks."""
        return Network(id=self._id_of(name), name=name, driver=DRIVERS[name], created=self.default().created, link="")

    def default(self) -> Network:
        """The network `bridge`, made if this is the first time that anybody asks for it. Raises Prohibited, OSError."""
        return self._default(making=False)

    def _default(self, making: bool) -> Network:
        # Its id follows from the root, so that a start reads one record and no listing.
        try:
            return usable(self._store.get(self._id_of(BRIDGE)))
        except NotFound:
            if making:
                return self._make_default()
        with self._store.making():
            return self._default(making=True)

    def _make_default(self) -> Network:
        network = Network(
            id=self._id_of(BRIDGE),
            name=BRIDGE,
            driver="bridge",
            created=clock.now(),
            link=self._default_link(),
            pools=(Pool(""),),
        )
        network = self._with_subnets(network, self._store.all())
        self._store.add(network)
        return network

    def _default_link(self) -> str:
        """`sampan0`, if this is the usual root; two roots of one machine share nothing."""
        root = self._layout.root
        return "sampan0" if root == DEFAULT_ROOT else f"sampan{self._id_of(BRIDGE)[:8]}"

    def _id_of(self, name: str) -> str:
        """The id of a predefined network of this root."""
        return predefined_id(self._layout.root, name)

    # Within

    def _with_subnets(self, network: Network, others: Iterable[Network]) -> Network:
        """With subnets for the pools that have none, and gateways."""
        from sampan.network import subnets
        from sampan.oci.subnet import parse_subnet

        pools: list[Pool] = []
        taken = [parse_subnet(pool.subnet) for other in others for pool in other.pools]
        if not all(pool.subnet for pool in network.pools):
            taken += self._routes()
        # Two roots of one machine do not know of each other's networks: let them begin at different places.
        seed = bytes(5) if self._layout.root == DEFAULT_ROOT else bytes.fromhex(self._id_of(BRIDGE))
        six = network.ipv6 and not any(":" in pool.subnet for pool in network.pools)
        for pool in network.pools:
            if not pool.subnet:
                is_six = six and (not network.ipv4 or pool is network.pools[-1])
                chosen = subnets.choose6(taken, self._seed6()) if is_six else subnets.choose(taken, seed)
                taken.append(chosen)
                pool = pool.replace(subnet=str(chosen))
            # One that this host is kept out of has no gateway: its address is a container's.
            isolated = network.gateway_mode(":" in pool.subnet) == ISOLATED
            pools.append(pool if isolated else subnets.with_gateway(pool))
        return network.replace(pools=tuple(pools))

    def _seed6(self) -> bytes:
        """What makes this installation's IPv6 addresses its own (RFC 4193: they shall not meet those of others)."""
        from _blake2 import blake2b

        try:
            machine = read_small("/etc/machine-id")
        except OSError:
            machine = b""
        return blake2b(machine + self._layout.root.encode("utf-8", "surrogateescape"), digest_size=5).digest()

    def _used(self, network: Network) -> bool:
        return bool(self._members().living(network.id))

    def _announce(self, action: str, network: Network) -> None:
        self._events.emit("network", action, network.id, {"name": network.name, "type": network.driver})


def _unknown(_network: Network) -> bool:
    return False


def host_routes() -> list[Subnet]:
    """Where this machine's routes and addresses lead, but for the default route. Raises OSError."""
    from sampan.kernel import links
    from sampan.kernel.netlink import Socket
    from sampan.oci.subnet import parse_subnet

    with Socket() as socket:
        found = {f"{route.destination}/{route.prefix}" for route in links.list_routes(socket) if route.destination}
        found |= {f"{address.address}/{address.prefix}" for address in links.list_addresses(socket)}
    return [parse_subnet(text) for text in found if not text.endswith("/0")]


def shown(network: Network, containers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`GET /networks/{id}`, in Docker's order."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None if network.is_predefined else dict(sorted(network.ipam_options.items())),
            "Config": [_shown_pool(pool) for pool in network.pools],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": dict(containers or {}),
        "Options": _shown_options(network),
        "Labels": dict(sorted(network.labels.items())),
    }


def _shown_pool(pool: Pool) -> dict[str, Any]:
    return {
        "Subnet": pool.subnet,
        **({"IPRange": pool.range} if pool.range else {}),
        **({"Gateway": pool.gateway} if pool.gateway else {}),
        **({"AuxiliaryAddresses": dict(sorted(pool.reserved.items()))} if pool.reserved else {}),
    }


def _shown_options(network: Network) -> dict[str, str]:
    if not network.is_default:
        return dict(sorted(network.options.items()))
    # What holds, written out, as Docker does for this one.
    return {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": network.link,
        "com.docker.network.driver.mtu": "1500",
    }


def _member(record: Record, endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": record.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.address}/{endpoint.prefix}" if endpoint.address else "",
        "IPv6Address": f"{endpoint.address6}/{endpoint.prefix6}" if endpoint.address6 else "",
    }
