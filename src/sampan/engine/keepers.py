"""What of a start lives on: published ports' sockets and those for names, bound here and handed over to the networks' keepers."""

from __future__ import annotations

from sampan.engine.endpoints import publishing_network
from sampan.errors import System
from sampan.oci.network import OPTION_HOST_ADDRESS, ROUTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from sampan.network.keeperlink import Keeper, Place
    from sampan.network.ports import Bound, Wish
    from sampan.oci.network import Endpoint, Network, PublishedPort
    from sampan.steps.trace import Trace
    from sampan.store.layout import Layout
    from sampan.store.record import Record

    class Store(Protocol):
        def all(self) -> list[Network]: ...
        def endpoints(self, network_id: str) -> list[Endpoint]: ...

    class Joined(Protocol):
        network: int
        endpoints: list[tuple[Network, Endpoint]]
        lines: list[int]
        commands: list[tuple[str, ...]]
        keepers: list[Keeper]
        is_running: bool

    Spawn = Callable[[str, list[str], int], int]


class Keepers:
    """The keepers of networks, as a start sees them."""

    def __init__(self, layout: Layout, store: Store, spawn: Spawn, interpreter: Sequence[str], trace: Trace) -> None:
        """`spawn` starts a keeper, `interpreter` is the command line that a shim starts one with."""
        self._layout = layout
        self._store = store
        self._spawn = spawn
        self._interpreter = interpreter
        self._trace = trace

    def bind(self, record: Record, networks: Sequence[Network]) -> Bound | None:
        """The sockets of the ports that are to be published, None if there are none to be."""
        host = record.host_config
        bindings = host.get("PortBindings") or {}
        publisher = publishing_network(record, networks)
        if publisher is None or not (bindings or host.get("PublishAllPorts")):
            return None
        from sampan.network import ports  # in here: most containers publish none

        exposed = record.config.get("ExposedPorts") or () if host.get("PublishAllPorts") else ()
        address = publisher.options.get(OPTION_HOST_ADDRESS, "")
        wished = ports.wishes(bindings, exposed, address, ports.host_has_ipv6())
        routed = [publisher.gateway_mode(six) == ROUTED for six in (False, True)]
        wished, opened = ports.at_containers(wished, *routed) if any(routed) else (wished, [])
        with self._trace.step("bind ports"):
            try:
                bound = ports.bind(wished)
            except ports.PortInUse:
                # Perhaps of a container that has just ended, whose keeper has not heard of it.
                self._wake_keepers()
                bound = self._bind_again(record, wished)
            except System as e:
                raise System(f"{_programming(record)}: {e}") from None
        bound.ports += opened
        bound.sockets += [None] * len(opened)
        return bound

    def _bind_again(self, record: Record, wished: list[Wish]) -> Bound:
        from sampan.network import ports

        try:
            return ports.bind(wished)
        except ports.PortInUse as e:
            raise self._port_in_use(record, e, wished) from None
        except System as e:
            raise System(f"{_programming(record)}: {e}") from None

    def _wake_keepers(self) -> None:
        from sampan.network import keeperlink

        for network in self._store.all():
            found = keeperlink.find(self._place(network))
            if found is not None:
                with found:
                    found.look()

    def _port_in_use(self, record: Record, refused: object, wished: Sequence[Wish]) -> System:
        """In the words that Docker has for a port of a container, which may be this one, or of another program."""
        port, protocol = getattr(refused, "port", 0), getattr(refused, "protocol", "")
        address = getattr(refused, "address", "")
        wanted = [wish for wish in wished if wish.first <= port <= wish.last and wish.protocol == protocol]
        ours = len(wanted) > 1 or any(
            (published.host_port, published.protocol) == (port, protocol)
            for network in self._store.all()
            for endpoint in self._store.endpoints(network.id)
            for published in endpoint.ports
        )
        reason = f"Bind for {address}:{port} failed: port is already allocated" if ours else str(refused)
        return System(f"{_programming(record)}: {reason}")

    def answering(self, joined: Joined) -> str:
        """The network whose keeper answers its names."""
        from sampan.network import keeperlink

        return keeperlink.names_network(network for network, _ in joined.endpoints)

    def look(self, network: Network) -> None:
        """Let a network's keeper see that an endpoint has gone."""
        from sampan.network import keeperlink

        found = keeperlink.find(self._place(network))
        if found is not None:
            with found:
                found.look()

    def hand_over(
        self,
        record: Record,
        number: int,
        joined: Joined,
        bound: Bound | None,
        only: Sequence[Network] | None = None,
    ) -> None:
        """Give the networks' keepers (or those of `only` some) the sockets of published ports, and those on which names are asked for."""
        from sampan.network import keeperlink

        answering = self.answering(joined)
        for network, endpoint in joined.endpoints:
            if not keeperlink.needs_keeper(network, endpoint) or (only is not None and network not in only):
                continue
            place = self._place(network)
            with self._trace.step("hand over to keeper of", network.name):
                keeper = keeperlink.ensure(place, self._spawn)
                joined.keepers.append(keeper)
                names = keeperlink.open_sockets(joined.network) if network.id == answering else None
                try:
                    sockets = _with_sockets(bound) if endpoint.ports and bound is not None else []
                    line = keeper.hand_over(record.id, number, names, sockets, line=not joined.is_running)
                    if line >= 0:
                        joined.lines.append(line)
                finally:
                    if names is not None:
                        names.close()
            joined.commands.append(keeperlink.restart_command(place, record.id, self._interpreter))

    def _place(self, network: Network) -> Place:
        from sampan.network.place import Place

        paths = self._layout.network(network.id)
        return Place(network.id, self._layout.networks, paths.run_directory, self._layout.containers)


def _with_sockets(bound: Bound) -> list[tuple[PublishedPort, object]]:
    return [(p, socket) for p, socket in zip(bound.ports, bound.sockets, strict=True) if socket is not None]


def _programming(record: Record) -> str:
    return f"driver failed programming external connectivity on endpoint {record.name} ({record.id})"
