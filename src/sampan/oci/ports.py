"""Ports in requests: `--expose`, `--publish`, and filters by port. Grammar and messages (go-connections, docker/cli).

A port is written "80/tcp", as the keys of Config.ExposedPorts and HostConfig.PortBindings are.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Bindings = dict[str, list[dict[str, str]]]

_LARGEST = (1 << 16) - 1
PROTOCOLS = ("tcp", "udp", "sctp")
_LONG_FORM = ("mode", "protocol", "published", "target")


def number(text: str) -> int:
    """One port. Raises ValueError in the words of Go's ParseUint."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > _LARGEST:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def range_of(text: str) -> tuple[int, int]:
    """The first and the last port of "80" or "80-90". Raises ValueError in Docker's words."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    begin, end = number(first), number(last if dash else first)
    if end < begin:
        raise ValueError(f"invalid range specified for port: {text}")
    return begin, end


def exposed(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """The uses of `--expose` (PORT or FIRST-LAST, with /PROTOCOL or without) as Config.ExposedPorts."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        if ":" in text:
            raise InvalidParameter(f"invalid port format for --expose: {text}")
        ports, _, protocol = text.partition("/")
        try:
            begin, end = range_of(ports)
        except ValueError as e:
            raise InvalidParameter(f"invalid range format for --expose: {text}, error: {e}") from None
        found.update({f"{port}/{protocol or 'tcp'}": {} for port in range(begin, end + 1)})
    return found


def bindings(texts: Iterable[str]) -> Bindings:
    """The uses of `--publish` as HostConfig.PortBindings. Raises InvalidParameter."""
    found: Bindings = {}
    for text in texts:
        for port, binding in _published(_short_form(text) if "=" in text else text):
            found.setdefault(port, []).append(binding)
    return found


def _short_form(text: str) -> str:
    """ "published=8080,target=80,protocol=udp" as "8080:80/udp"."""
    values = {"protocol": "tcp", "published": "", "target": ""}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        if not equals or name not in _LONG_FORM:
            raise InvalidParameter(f"invalid publish opts format (should be name=value but got '{field}')")
        values[name] = value
    return f"{values['published']}:{values['target']}/{values['protocol']}"


def _published(text: str) -> list[tuple[str, dict[str, str]]]:
    """[IP:][HOST PORTS:]PORTS[/PROTOCOL]: each port with where it is published."""
    rest, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    head, _, inner = rest.rpartition(":")
    ip, _, outer = head.rpartition(":")
    ip = _address(ip)
    if not inner:
        raise InvalidParameter(f"no port specified: {text}<empty>")
    begin, end = _range("containerPort", inner)
    first, last = _range("hostPort", outer) if outer else (0, 0)
    if outer and end - begin != last - first and begin != end:
        raise InvalidParameter(f"invalid ranges specified for container and host Ports: {inner} and {outer}")
    if protocol not in PROTOCOLS:
        raise InvalidParameter(f"invalid proto: {protocol}")
    # One port over a range outside: any of these that is free.
    outside = (
        [f"{first}-{last}"] if begin == end and first != last else [str(first + i) for i in range(end - begin + 1)]
    )
    return [
        (f"{begin + i}/{protocol}", {"HostIp": ip, "HostPort": port if outer else ""}) for i, port in enumerate(outside)
    ]


def _range(what: str, text: str) -> tuple[int, int]:
    try:
        return range_of(text)
    except ValueError:
        raise InvalidParameter(f"invalid {what}: {text}") from None


def _address(text: str) -> str:
    from sampan.oci.hosts import is_address

    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if address and not is_address(address):
        raise InvalidParameter(f"invalid IP address: {text}")
    return address
