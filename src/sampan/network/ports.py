"""Binding the host's sockets of published ports: who binds one has it, and hears of it if somebody else does.

A socket is held as long as the port is published (by the network's keeper), also where the firewall sends all packets on:
without it another program could bind the port, and would never hear from anybody.
"""

from __future__ import annotations

import _socket
import errno
import os

from sampan.errors import InvalidParameter, System, Unavailable
from sampan.oci import ports as words
from sampan.oci.network import PublishedPort
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EVERYWHERE, EVERYWHERE6 = "0.0.0.0", "::"
_SCTP = 132
_BACKLOG = 4096
"""Connections that may wait for the proxy to take them; the kernel cuts it to net.core.somaxconn."""
_ATTEMPTS = 64
"""How often a port that the kernel chose for one address may be another program's at the next one."""
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


class Wish(Struct):
    """A port to publish. first, last: which of the host's may be taken, 0 for any; addresses: at all of these the same one."""

    port: int
    protocol: str
    addresses: tuple[str, ...]
    first: int
    last: int


class PortInUse(Unavailable):
    """Somebody else has the port. `address`, `port`, `protocol`: which."""

    def __init__(self, address: str, port: int, protocol: str) -> None:
        super().__init__(f"failed to bind host port {_shown(address)}:{port}/{protocol}: address already in use")
        self.address, self.port, self.protocol = address, port, protocol


class Bound:
    """Ports that are ours, with a socket for each (None where the kernel has no such sockets), until `close`."""

    __slots__ = ("ports", "sockets")

    def __init__(self) -> None:
        self.ports: list[PublishedPort] = []
        self.sockets: list[_socket.socket | None] = []

    def close(self) -> None:
        """Close them; what was handed over to a keeper stays bound there."""
        for socket in self.sockets:
            if socket is not None:
                socket.close()
        self.sockets = []


def wishes(
    bindings: Mapping[str, Sequence[Mapping[str, str]] | None],
    exposed: Iterable[str] = (),
    default_address: str = "",
    ipv6: bool = True,
) -> list[Wish]:
    """What HostConfig.PortBindings asks for, and with `exposed` (`-P`) every port that is exposed and not bound anyway.

    default_address: for bindings that name none; without it those are at all addresses of the host. ipv6: whether the host
    has IPv6. Those that name a port come first: nobody is to take it away. Raises InvalidParameter.
    """
    found = [
        _wish(key, binding, default_address, ipv6) for key, entries in bindings.items() for binding in (entries or [{}])
    ]
    found += [_wish(key, {}, default_address, ipv6) for key in sorted(exposed, key=_by_number) if key not in bindings]
    return sorted(found, key=lambda wish: (not wish.first, wish.first != wish.last))


def _by_number(key: str) -> tuple[int, str]:
    port, _, protocol = key.partition("/")
    return (int(port) if port.isdigit() else 0, protocol)


def _wish(key: str, binding: Mapping[str, str], default_address: str, ipv6: bool) -> Wish:
    text, _, protocol = key.partition("/")
    host_port = binding.get("HostPort") or ""
    try:
        first, last = words.range_of(host_port) if host_port else (0, 0)
        port = words.number(text)
    except ValueError:
        raise InvalidParameter(f"invalid port specification: {host_port or text!r}") from None
    address = binding.get("HostIp") or default_address
    addresses = (address,) if address else (EVERYWHERE, *((EVERYWHERE6,) if ipv6 else ()))
    return Wish(port, protocol or "tcp", addresses, first, last)


def at_containers(wished: Iterable[Wish], four: bool, six: bool) -> tuple[list[Wish], list[PublishedPort]]:
    """Of wishes, what is left for this host, and what is reached at the container's own address.

    four, six: whether that is so for IPv4, and for IPv6 (gateway mode `routed`): which of the host's addresses and ports was named means nothing then.
    """
    left, opened = [], dict[PublishedPort, None]()
    for wish in wished:
        routed = [address for address in wish.addresses if (six if ":" in address else four)]
        for address in routed:
            opened[PublishedPort(wish.port, wish.protocol, EVERYWHERE6 if ":" in address else EVERYWHERE, 0)] = None
        addresses = tuple(address for address in wish.addresses if address not in routed)
        if addresses:
            left.append(wish.replace(addresses=addresses))
    return left, list(opened)


def bind(wished: Iterable[Wish]) -> Bound:
    """Bind them all, or none. Raises PortInUse, System."""
    bound = Bound()
    try:
        for wish in wished:
            _bind(wish, bound)
    except BaseException:
        bound.close()
        raise
    return bound


def bind_again(published: Iterable[PublishedPort]) -> Bound:
    """Bind ports that were given before. Raises PortInUse, System."""
    return bind(Wish(p.port, p.protocol, (p.host_address,), p.host_port, p.host_port) for p in published)


def _bind(wish: Wish, bound: Bound) -> None:
    """The first port of the range that is free at all addresses; of no range, one that the kernel chooses."""
    if not wish.first:
        for attempt in range(_ATTEMPTS):
            try:
                return _bind_at(wish, 0, bound)
            except PortInUse:
                if attempt == _ATTEMPTS - 1:
                    raise
        return None
    for port in range(wish.first, wish.last + 1):
        try:
            return _bind_at(wish, port, bound)
        except PortInUse:
            if port == wish.last:
                raise
    return None


def _bind_at(wish: Wish, port: int, bound: Bound) -> None:
    sockets: list[_socket.socket | None] = []
    published = []
    try:
        for address in wish.addresses:
            try:
                socket = _open(address, port, wish.protocol)
            except OSError as e:
                # The second of two addresses is [::]: without IPv6 on this host there is nobody who could ask there.
                if sockets and e.errno in _ABSENT:
                    continue
                raise _refusal(e, address, port, wish.protocol) from None
            sockets.append(socket)
            if socket is not None:
                port = socket.getsockname()[1]
            published.append(PublishedPort(wish.port, wish.protocol, address, port))
    except BaseException:
        for socket in sockets:
            if socket is not None:
                socket.close()
        raise
    bound.sockets += sockets
    bound.ports += published


def _open(address: str, port: int, protocol: str) -> _socket.socket | None:
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    kind = _socket.SOCK_DGRAM if protocol == "udp" else _socket.SOCK_STREAM
    number = {"tcp": _socket.IPPROTO_TCP, "udp": _socket.IPPROTO_UDP}.get(protocol, _SCTP)
    try:
        socket = _socket.socket(family, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK, number)
    except OSError as e:
        if protocol == "sctp" and port and e.errno in _ABSENT:
            return None  # the firewall can send such packets on all the same
        raise
    try:
        if family == _socket.AF_INET6:
            socket.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        if protocol != "udp":
            # Connections of the port's last holder that are still on their way out are no reason to wait for a minute.
            socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        socket.bind((address, port))
        if protocol != "udp":
            socket.listen(_BACKLOG)
    except BaseException:
        socket.close()
        raise
    return socket


def _refusal(error: OSError, address: str, port: int, protocol: str) -> PortInUse | System:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(address, port, protocol)
    if protocol == "sctp" and error.errno in _ABSENT:
        return System(
            f"failed to bind host port {_shown(address)}:{port}/{protocol}: this kernel has no SCTP sockets (CONFIG_IP_SCTP), "
            "by which a free port is found: name one, as in -p 8080:80/sctp"
        )
    reason = {
        errno.EADDRNOTAVAIL: "cannot assign requested address",
        errno.EACCES: "permission denied: ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
    }.get(error.errno or 0, os.strerror(error.errno or 0).lower())
    return System(f"failed to bind host port {_shown(address)}:{port}/{protocol}: {reason}")


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def host_has_ipv6() -> bool:
    """Whether sockets of IPv6 can be made, and not only by the kernel's configuration."""
    return os.path.exists("/proc/net/if_inet6")
