"""What a keeper keeps for one container: its server for names, its published ports, and the line to its shim."""

from __future__ import annotations

import _socket
import os

from sampan.kernel import namespaces
from sampan.network import loop, namesockets, wire
from sampan.network.dnsserver import NameServer
from sampan.network.forward import Server
from sampan.network.relay import DatagramRelay, StreamRelay
from sampan.oci.network import Endpoint, PublishedPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.network.keeper import Services


class Kept:
    """One start of one container."""

    def __init__(self, services: Services, container: str, start: int, over: Callable[[Kept], None]) -> None:
        self.container = container
        self.start = start
        self._services = services
        self._over = over
        self._link: Any = None
        self._namespace = -1
        self._parts: list[Any] = []
        self._servers: dict[tuple[str, ...], list[Server]] = {}
        self._names: NameServer | None = None
        self._descriptors = 0
        self.is_closed = False

    @property
    def has_link(self) -> bool:
        """Whether its shim would tell its end."""
        return self._link is not None

    def take(self, what: list[Any], descriptors: list[int]) -> None:
        """Descriptors that were handed over, ours now, each with what it is (`wire`). Raises OSError, ValueError; all are taken then, too."""
        self._count(len(descriptors))
        sockets: dict[str, int] = {}
        left = list(descriptors)
        try:
            for each in what:
                fd = left.pop(0)  # IndexError for a message that lost some: no descriptor was left for them
                if each == wire.LINK:
                    self.take_link(fd)
                elif each == wire.NAMESPACE:
                    self._take_namespace(fd)
                elif each in (wire.UDP, wire.TCP):
                    sockets[each] = fd
                else:
                    self.publish(PublishedPort(**each[1]), _socket.socket(fileno=fd))
            if len(sockets) == 2:
                self.serve_names(
                    _socket.socket(fileno=sockets.pop(wire.UDP)), _socket.socket(fileno=sockets.pop(wire.TCP))
                )
        except IndexError:
            raise ValueError("descriptors were lost on the way: the table of open files is full") from None
        finally:
            for fd in (*left, *sockets.values()):
                os.close(fd)

    def take_link(self, fd: int) -> None:
        """The line whose other end the container's shim has."""
        if self._link is not None:
            self._close_link()
            self._count(-1)
        self._link = _socket.socket(fileno=fd)
        self._link.setblocking(False)
        self._services.loop.watch(fd, loop.READ, self._heard)

    def _heard(self, _events: int) -> None:
        try:
            if self._link.recv(16):
                return  # nothing that we know
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def _close_link(self) -> None:
        if self._link is not None:
            self._services.loop.forget(self._link.fileno())
            self._link.close()
            self._link = None

    def _take_namespace(self, fd: int) -> None:
        if self._namespace >= 0:
            os.close(self._namespace)
            self._count(-1)
        self._namespace = fd
        self._servers.clear()

    def serve_names(self, udp: Any, tcp: Any) -> None:
        """Answer on these, instead of others."""
        if self._names is not None:
            self._names.answer_waiting()
            self._names.close()
            self._count(-2)
        services = self._services
        self._names = NameServer(
            services.loop, self.container, (udp, tcp), services.directory, services.forwarder, self.servers, services.budget, services.failed
        )  # fmt: skip

    def lead_names(self) -> None:
        """Have questions come here, where others were made after these sockets. Raises OSError."""
        if self._names is not None and self._namespace >= 0:
            udp, tcp = self._names.ports

            def lead() -> None:
                if not namesockets.leads_to(udp, tcp):
                    namesockets.lead(udp, tcp)

            namespaces.in_network(self._namespace, lead)

    def answer_waiting(self) -> None:
        """Answer the questions that wait, before others are asked."""
        if self._names is not None:
            self._names.answer_waiting()

    def restore_names(self, namespace: int) -> None:
        """Make its sockets anew, in the namespace that `namespace` is, ours now. Raises OSError, SampanError."""
        self._take_namespace(namespace)
        made = namesockets.open_sockets(namespace, namespaces.in_network)
        os.close(made.namespace)
        self._count(3)
        self.serve_names(made.udp, made.tcp)

    def publish(self, port: PublishedPort, bound: Any) -> None:
        """Serve a published port at a bound socket, which is ours. Raises OSError."""
        services = self._services
        try:
            if port.protocol == "tcp":
                target = self._target(port)
                self._parts.append(StreamRelay(services.loop, bound, self.container, target, services.budget))
            elif port.protocol == "udp":
                target = self._target(port)
                self._parts.append(DatagramRelay(services.loop, bound, self.container, target, services.budget))
            else:
                self._parts.append(bound)  # held, so that it is nobody else's; SCTP's messages have no relay
        except BaseException:
            bound.close()
            raise

    def _target(self, port: PublishedPort) -> Callable[[], tuple[str, int] | None]:
        """Where the port is in the container: the address may change, the endpoint may go."""

        def find() -> tuple[str, int] | None:
            endpoint: Endpoint | None = self._services.directory.own.find(self.container)
            if endpoint is None:
                return None
            wanted, other = endpoint.address, endpoint.address6
            if ":" in port.host_address:
                wanted, other = other, wanted
            address = wanted or other
            return (address, port.port) if address else None

        return find

    def servers(self, chosen: tuple[str, ...]) -> list[Server]:
        """Those that this container's other questions go to: the chosen ones, or the host's.

        They are asked from the container's network namespace, as if it asked them itself: what it may not reach, we do not reach for it. The
        host's own, on a loopback address, are only there for the host.
        """
        host = self._services.host_servers()
        wanted = chosen or host
        if wanted not in self._servers:
            self._servers.clear()
            self._servers[wanted] = [server for address in wanted for server in self._server(address, not chosen)]
        return self._servers[wanted]

    def _server(self, address: str, of_host: bool) -> list[Server]:
        from_host = self._namespace < 0 or (of_host and (address.startswith("127.") or address == "::1"))
        try:
            if from_host:
                return [Server(address, None, "")]
            return [Server(address, lambda function: namespaces.in_network(self._namespace, function), self.container)]
        except (OSError, ValueError):
            return []  # no address

    def _count(self, count: int) -> None:
        self._descriptors += count
        self._services.budget.kept += count

    def close(self) -> None:
        """Let go of all of it; the container's network namespace ends with that, if nobody else is in it."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._names is not None:
            self._names.close()
        self._services.forwarder.forget(self.container)
        for part in self._parts:
            part.close()
        self._close_link()
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1
        self._count(-self._descriptors)
        self._over(self)
