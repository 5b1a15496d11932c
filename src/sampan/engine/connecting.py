"""What a start makes of a container's networks, and what its end leaves of them.

    prepare    a network namespace that nobody lives in yet, with an interface for each network; the init joins it
    release    a run has ended: its endpoints and the firewall's rules for its published ports go
    forget     the container is removed: so do the bridges and tables that nobody needs any more

An endpoint is written, under its network's lock, before anything of it is made: whoever comes after a killed command finds what
there may be. The links themselves need nobody: they go with the namespace, whose last descriptor is the command's or the init's.
"""

from __future__ import annotations

import os
import sys

from sampan.engine import etcfiles
from sampan.engine.endpoints import free_name, make_endpoint, names_of, ordered, parse_link, publishing_network
from sampan.engine.keepers import Keepers
from sampan.errors import Conflict, Forbidden, NotFound, SampanError, System, Unavailable
from sampan.kernel import links, namespaces, netlink
from sampan.network import bridge, firewall, ipam, parameters
from sampan.oci import subids
from sampan.oci.network import BRIDGE, OPTION_INTERFACE
from sampan.runtime.handle import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from sampan.kernel.files import FileLock
    from sampan.network.keeperlink import Keeper
    from sampan.network.ports import Bound
    from sampan.oci.network import Attachment, Endpoint, Network, PublishedPort
    from sampan.steps.trace import Trace
    from sampan.store.layout import ContainerPaths, Layout
    from sampan.store.locks import RecordLock
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Store(Protocol):
        def all(self) -> list[Network]: ...
        def get(self, network_id: str) -> Network: ...
        def lock(self, network_id: str) -> FileLock: ...
        def endpoints(self, network_id: str) -> list[Endpoint]: ...
        def addresses(self, network_id: str, without: str = ...) -> list[str]: ...
        def endpoint_names(self, network_id: str) -> list[str]: ...
        def endpoint(self, network_id: str, container_id: str) -> Endpoint | None: ...
        def of(self, container_id: str) -> list[tuple[str, Endpoint]]: ...
        def put(self, network_id: str, endpoint: Endpoint) -> None: ...
        def drop(self, network_id: str, container_id: str) -> None: ...

    class Finder(Protocol):
        def find(self, reference: str) -> Network: ...

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def get(self, reference: str) -> Record: ...

    class Members(Protocol):
        def living(self, network_id: str) -> list[Endpoint]: ...
        def release_dead(self, network: Network) -> None: ...

    Spawn = Callable[[str, list[str], int], int]


class Joined:
    """What a start is given: descriptors by name, and the commands by which its shim starts keepers again."""

    def __init__(self) -> None:
        self.network = -1
        self.user = -1
        self.endpoints: list[tuple[Network, Endpoint]] = []
        self.masters: dict[str, int] = {}
        """The indexes of the networks' links on the host, by the networks' ids."""
        self.environment: list[str] = []
        """Variables that tell of the containers that it is linked with."""
        self.lines: list[int] = []
        self.commands: list[tuple[str, ...]] = []
        self.keepers: list[Keeper] = []
        self.is_running = False

    @property
    def networks(self) -> list[Network]:
        return [network for network, _ in self.endpoints]

    def descriptors(self) -> dict[str, int]:
        """By the names that the plan has for them."""
        found = {"ns.network": self.network, **{f"keeper.{n}": fd for n, fd in enumerate(self.lines)}}
        return {**found, "user": self.user} if self.user >= 0 else found

    def close(self) -> None:
        """When the container runs, or failed: what is handed over then lives on, all else ends."""
        for fd in (self.network, self.user, *self.lines):
            if fd >= 0:
                os.close(fd)
        self.network = self.user = -1
        self.lines = []
        while self.keepers:
            self.keepers.pop().close()


class Connector:
    """Containers in networks."""

    def __init__(
        self,
        layout: Layout,
        store: Store,
        records: Records,
        networks: Finder,
        members: Callable[[], Members],
        spawn: Spawn,
        interpreter: Sequence[str],
        notify: Callable[[str], None],
        trace: Trace,
    ) -> None:
        """`spawn` starts a keeper, `interpreter` is the command line that a shim starts one with. `notify` tells a person."""
        self._store = store
        self._records = records
        self._networks = networks
        self._members = members
        self._keepers = Keepers(layout, store, spawn, interpreter, trace)
        self._notify = notify
        self._trace = trace

    # a start

    def prepare(self, record: Record, paths: ContainerPaths, number: int) -> Joined:
        """All of a container's networks for its start `number`; the caller has its record lock, and closes what it gets.

        Raises NotFound for a network that is gone, System, and what `ipam` raises, in Docker's words; nothing is left then.
        """
        self.release(record, number - 1)  # of an end that nobody has settled
        self._check_links(record)
        joined = Joined()
        try:
            wanted = [(attachment, self._networks.find(attachment.network)) for attachment in record.networks]
            self._make_namespace(record, joined)
            bound = self._keepers.bind(record, [network for _, network in wanted])
            try:
                self._enter(record, number, wanted, joined, bound)
                self._wire(joined)
                linked = self._linked(record)
                joined.environment = self._variables(record, linked)
                etcfiles.connect(record, paths, ordered(joined.endpoints), _hosts(linked))
                self._keepers.hand_over(record, number, joined, bound)
            finally:
                if bound is not None:
                    bound.close()
        except BaseException as e:
            joined.close()
            self.release(record, number)
            if isinstance(e, SampanError):
                raise e.within("failed to set up container networking") from None
            raise
        return joined

    def _make_namespace(self, record: Record, joined: Joined) -> None:
        with self._trace.step("make network namespace"):
            if record.uids:
                # Its own user namespace owns it: its root may change the links, and mount its sysfs.
                maps = subids.lines(record.uids), subids.lines(record.gids)
                joined.user, joined.network = namespaces.user_and_network(*maps)
            else:
                joined.network = namespaces.new_network()

    def _enter(
        self,
        record: Record,
        number: int,
        wanted: Sequence[tuple[Attachment, Network]],
        joined: Joined,
        bound: Bound | None,
    ) -> None:
        """The host's side: an address in each network, the bridge, the firewall's rules."""
        publisher = publishing_network(record, [network for _, network in wanted])
        taken = {attachment.options.get(OPTION_INTERFACE, "") for attachment, _ in wanted}
        with netlink.Socket() as host:
            for attachment, network in wanted:
                name = attachment.options.get(OPTION_INTERFACE) or free_name(network, taken)
                taken.add(name)
                ports = tuple(bound.ports) if bound is not None and network is publisher else ()
                self._enter_one(host, record, number, attachment, network, name, ports, joined)

    def _enter_one(
        self,
        host: netlink.Socket,
        record: Record,
        number: int,
        attachment: Attachment,
        network: Network,
        name: str,
        ports: tuple[PublishedPort, ...],
        joined: Joined,
    ) -> None:
        with self._store.lock(network.id):
            taken = self._store.addresses(network.id, record.id)
            try:
                addresses = ipam.allocate(network, taken, attachment.address, attachment.address6)
            except (Unavailable, Forbidden):
                # Perhaps they are those of containers that do not run any more, and that nobody has settled.
                self._members().release_dead(network)
                taken = self._store.addresses(network.id, record.id)
                addresses = ipam.allocate(network, taken, attachment.address, attachment.address6)
            endpoint = make_endpoint(record, number, attachment, network, name, ports, addresses)
            self._store.put(network.id, endpoint)
            joined.endpoints.append((network, endpoint))
            joined.masters[network.id] = self._make_host_side(host, network, endpoint)
            firewall.forget_datagrams((endpoint,))

    def _make_host_side(self, host: netlink.Socket, network: Network, endpoint: Endpoint) -> int:
        """The index of its link. `endpoint`: the one that was written."""
        with self._trace.step("make link", network.link):
            master = bridge.ensure(host, network)
        if network.driver != BRIDGE:
            return master
        if not network.internal:
            for told in parameters.allow_forwarding(network):
                self._notify(told)
        with self._trace.step("set firewall of", network.name):
            if not firewall.enter(network, endpoint, lambda: self._store.endpoints(network.id)):
                self._notify(
                    "the kernel's nf_tables cannot be used: published ports are relayed by a process, and containers of "
                    f"network {network.name} reach nothing outside"
                )
        return master

    def _wire(self, joined: Joined, first: int = 0) -> None:
        """The container's side: an interface for each network from the `first` on, and the ways out."""
        with self._trace.step("make interfaces"), netlink.Socket() as host:

            def inside() -> None:
                with netlink.Socket() as socket:
                    links.set_up(socket, links.LOOPBACK)
                    for network, endpoint in joined.endpoints[first:]:
                        master = joined.masters[network.id]
                        bridge.attach(host, socket, joined.network, network, endpoint, master)
                    if first:
                        bridge.unroute(socket)
                    _set_routes(socket, joined.endpoints)

            namespaces.in_network(joined.network, inside)

    # a container that runs

    def connect(self, record: Record, lock: RecordLock, seen: Observation, attachment: Attachment) -> None:
        """Give a running container, whose lock the caller has, an interface in one more network, which its record has already.

        Raises System, and what `ipam` raises; nothing is left of it then.
        """
        network = self._networks.find(attachment.network)
        joined = self._present(record, lock, seen)
        before = list(joined.endpoints)
        try:
            networks = [n for n, _ in before] + [network]
            published = any(endpoint.ports for _, endpoint in before)
            first = publishing_network(record, networks) is network
            bound = self._keepers.bind(record, networks) if first and not published else None
            try:
                taken = {endpoint.interface for _, endpoint in before}
                name = attachment.options.get(OPTION_INTERFACE) or free_name(network, taken)
                with netlink.Socket() as host:
                    ports = tuple(bound.ports) if bound is not None else ()
                    self._enter_one(host, record, seen.number, attachment, network, name, ports, joined)
                self._wire(joined, len(before))
                etcfiles.connect(record, lock.paths, ordered(joined.endpoints), _hosts(self._linked(record)))
                self._keepers.hand_over(record, seen.number, joined, bound, (network,))
            finally:
                if bound is not None:
                    bound.close()
        except BaseException:
            self._leave(record, joined, network)
            raise
        finally:
            joined.close()

    def disconnect(self, record: Record, lock: RecordLock, seen: Observation, network: Network) -> None:
        """Take a running container's interface in a network away, which its record has no longer. Idempotent. Raises System."""
        joined = self._present(record, lock, seen)
        try:
            answered = self._keepers.answering(joined)
            self._leave(record, joined, network)
            etcfiles.connect(record, lock.paths, ordered(joined.endpoints), _hosts(self._linked(record)))
            self._keepers.look(network)
            if answered == network.id:
                # Another network's keeper answers from here on.
                others = [n for n, _ in joined.endpoints if n.id == self._keepers.answering(joined)]
                self._keepers.hand_over(record, seen.number, joined, None, others)
        finally:
            joined.close()
        self.tidy(network)

    def _present(self, record: Record, lock: RecordLock, seen: Observation) -> Joined:
        """What a running container is in now. Raises Conflict if it ends in this moment."""
        joined = Joined()
        paths = lock.paths
        try:
            joined.network = Handle(paths, paths.start(seen.number).directory).open_namespace("network")
        except ProcessLookupError:
            raise Conflict(f"container {record.id} is not running") from None
        joined.is_running = True
        joined.endpoints += self._endpoints(record, seen.number)
        return joined

    def joined(self, record: Record, number: int) -> list[Network]:
        """The networks that start `number` of a container is in."""
        return [network for network, _ in self._endpoints(record, number)]

    def _endpoints(self, record: Record, number: int) -> list[tuple[Network, Endpoint]]:
        found = self._store.of(record.id)
        return [(self._store.get(network_id), endpoint) for network_id, endpoint in found if endpoint.start == number]

    def _leave(self, record: Record, joined: Joined, network: Network) -> None:
        """Undo one network of a container that runs: its interface, its rules, its endpoint, and other ways out if it was the way."""
        for found, endpoint in joined.endpoints:
            if found.id != network.id:
                continue
            joined.endpoints.remove((found, endpoint))
            with self._trace.step("remove interface", endpoint.interface), netlink.Socket() as host:

                def inside(host: netlink.Socket = host, endpoint: Endpoint = endpoint) -> None:
                    with netlink.Socket() as socket:
                        bridge.detach(host, socket, endpoint)
                        bridge.unroute(socket)
                        _set_routes(socket, joined.endpoints)

                namespaces.in_network(joined.network, inside)
            with self._store.lock(network.id):
                self._drop(found, endpoint)
            return

    def _check_links(self, record: Record) -> None:
        """Raises System, in Docker's words, for a `--link` of the default network to a container that cannot be reached there."""
        for network, links_ in self._default_links(record):
            there = {endpoint.names[0] for endpoint in self._members().living(network.id)}
            for alias, name in links_.items():
                if name in there:
                    continue
                try:
                    other = self._records.get(name)
                except NotFound:
                    continue  # with the container the link is gone
                if any(attachment.network == network.name for attachment in other.networks):
                    raise System(f"Cannot link to a non running container: /{name} AS /{record.name}/{alias}")
                raise System(f"Cannot link to /{name}, as it does not belong to the default network")

    def _default_links(self, record: Record) -> list[tuple[Network, dict[str, str]]]:
        """The default network, if it is in it and has links there, with their aliases and the names that these are for."""
        wanted = [attachment for attachment in record.networks if attachment.links and attachment.network == BRIDGE]
        return [(self._networks.find(BRIDGE), dict(map(parse_link, attachment.links))) for attachment in wanted]

    def linked_variables(self, record: Record) -> list[str]:
        """The variables that tell a container, or one more process of it, of those that it is linked with, as far as they run."""
        return self._variables(record, self._linked(record))

    def _linked(self, record: Record) -> list[tuple[Network, Endpoint, str]]:
        """Whom the container knows by `--link` in the default network, and as what, as far as they run."""
        found = []
        for network, wanted in self._default_links(record):
            for endpoint in self._store.endpoints(network.id):
                for alias, name in wanted.items():
                    if endpoint.address and name == endpoint.names[0]:
                        found.append((network, endpoint, alias))
        return found

    def _variables(self, record: Record, linked: Sequence[tuple[Network, Endpoint, str]]) -> list[str]:
        return [entry for _, endpoint, alias in linked for entry in self._told(record, endpoint, alias)]

    def _told(self, record: Record, endpoint: Endpoint, alias: str) -> list[str]:
        from sampan.engine.linkvariables import variables

        try:
            other = self._records.read(endpoint.container)
        except NotFound:
            return []  # removed in this moment
        config = other.config
        return variables(
            record.name, alias, endpoint.address, config.get("ExposedPorts") or (), config.get("Env") or ()
        )

    def rename(self, record: Record) -> None:
        """Let a container that runs be found by the name that its record has now; the caller has its lock."""
        for network_id, found in self._store.of(record.id):
            network = self._store.get(network_id)
            for attachment in record.networks:
                if attachment.network not in (network.name, network.id):
                    continue
                with self._store.lock(network_id):
                    self._store.put(network_id, found.replace(names=names_of(record, attachment)))

    # an end

    def release(self, record: Record, number: int) -> None:
        """Take away what starts up to `number` had in networks. Idempotent; safe beside a later start. Raises System."""
        if not record.networks:
            return
        for network_id, found in self._store.of(record.id):
            if found.start > number:
                continue
            try:
                with self._store.lock(network_id):
                    endpoint = self._store.endpoint(network_id, record.id)
                    if endpoint is not None and endpoint.start <= number:
                        self._drop(self._store.get(network_id), endpoint)
            except NotFound:
                pass  # the network is gone, and so is all that was in it

    def _drop(self, network: Network, endpoint: Endpoint) -> None:
        """Rules first: as long as the endpoint is there, the next command knows that there may be some."""
        if endpoint.ports and not network.broken:

            def left() -> list[Endpoint]:
                return [e for e in self._store.endpoints(network.id) if e.container != endpoint.container]

            with self._trace.step("set firewall of", network.name):
                firewall.leave(network, endpoint, left)
                firewall.forget_datagrams((endpoint,))
        self._store.drop(network.id, endpoint.container)

    def forget(self, record: Record) -> None:
        """The container is removed: its endpoints go, and with the last endpoint of a network its bridge and its table.

        Raises System.
        """
        if not record.networks:
            return
        self.release(record, sys.maxsize)
        for network in self._mentioned(record):
            self.tidy(network)

    def tidy(self, network: Network) -> None:
        """Remove a network's bridge and table if nobody is in it. Idempotent. Raises System."""
        try:
            with self._store.lock(network.id):
                self._members().release_dead(network)
                if not self._store.endpoint_names(network.id):
                    self.take_down(network)
        except NotFound:
            pass

    def take_down(self, network: Network) -> None:
        """Remove a network's bridge and table; the caller has its lock. Idempotent. Raises System."""
        if network.broken:
            return
        if network.driver == BRIDGE:
            found = firewall.connect()
            if found is not None:
                with found[0], self._trace.step("remove firewall of", network.name):
                    firewall.remove(found[0], network)
        with netlink.Socket() as host, self._trace.step("remove link", network.link):
            bridge.tear_down(host, network)

    def _mentioned(self, record: Record) -> list[Network]:
        """The networks that a container's record names, as far as they are there still."""
        names = {attachment.network for attachment in record.networks}
        return [network for network in self._store.all() if network.name in names or network.id in names]


def _hosts(linked: Sequence[tuple[Network, Endpoint, str]]) -> list[tuple[str, str]]:
    """Their lines of /etc/hosts: (address, names)."""
    return [
        (endpoint.address, " ".join(dict.fromkeys((alias, endpoint.container[:12], *endpoint.names))))
        for _, endpoint, alias in linked
    ]


def _set_routes(inside: netlink.Socket, endpoints: Sequence[tuple[Network, Endpoint]]) -> None:
    """The default routes: by the first network that has a gateway, in each family for itself."""
    missing = {"address", "address6"}
    for network, endpoint in ordered(endpoints):
        if network.internal:
            continue
        have = {field for field in missing if getattr(endpoint, field)}
        if have:
            # Only the families that no better network leads out of.
            bridge.route(
                inside,
                network,
                endpoint.replace(**{field: "" for field in ("address", "address6") if field not in have}),
            )
            missing -= have
