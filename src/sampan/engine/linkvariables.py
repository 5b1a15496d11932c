"""The environment variables by which `--link` tells a container of another one, in the default network (Docker's legacy links)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOCAL = ("HOME", "PATH")
"""Variables that mean something in the other container only."""
_RANGE = 3
"""Ports in a row from which on the first and the last are told, too."""

Port = tuple[int, str]


def variables(parent: str, alias: str, address: str, exposed: Iterable[str], environment: Iterable[str]) -> list[str]:
    """NAME=VALUE entries. parent: the name of the container that they are for; alias: what it calls the other one.

    exposed, environment: of the other's Config.
    """
    prefix = alias.upper().replace("-", "_")
    ports = sorted(map(_parse, exposed), key=lambda port: (port[1] != "tcp", port))
    found = []
    if ports:
        number, protocol = min(ports, key=lambda port: (port[0], port[1] != "tcp"))
        found.append(f"{prefix}_PORT={protocol}://{address}:{number}")
    for first, last in _ranges(ports):
        found += _told_range(prefix, address, first, last)
    for port in ports:
        found += _told(prefix, address, port)
    found.append(f"{prefix}_NAME=/{parent}/{alias}")
    for entry in environment:
        name, equals, value = entry.partition("=")
        if equals and name not in _LOCAL:
            found.append(f"{prefix}_ENV_{name}={value}")
    return found


def _parse(text: str) -> Port:
    number, _, protocol = text.partition("/")
    return int(number), protocol or "tcp"


def _told(prefix: str, address: str, port: Port) -> list[str]:
    number, protocol = port
    name = f"{prefix}_PORT_{number}_{protocol.upper()}"
    return [
        f"{name}={protocol}://{address}:{number}",
        f"{name}_ADDR={address}",
        f"{name}_PORT={number}",
        f"{name}_PROTO={protocol}",
    ]


def _told_range(prefix: str, address: str, first: Port, last: Port) -> list[str]:
    begin = f"{prefix}_PORT_{first[0]}_{first[1].upper()}"
    end = f"{prefix}_PORT_{last[0]}_{last[1].upper()}"
    return [
        f"{begin}_START={first[1]}://{address}:{first[0]}",
        f"{begin}_ADDR={address}",
        f"{begin}_PROTO={first[1]}",
        f"{begin}_PORT_START={first[0]}",
        f"{end}_END={last[1]}://{address}:{last[0]}",
        f"{end}_PORT_END={last[0]}",
    ]


def _ranges(ports: list[Port]) -> Iterator[tuple[Port, Port]]:
    """The first and the last of each row of ports."""
    begin = 0
    for at in range(1, len(ports) + 1):
        if at < len(ports) and ports[at] == (ports[at - 1][0] + 1, ports[at - 1][1]):
            continue
        if at - begin >= _RANGE:
            yield ports[begin], ports[at - 1]
        begin = at
