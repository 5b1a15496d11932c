"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go's programs read them (golang.org/x/net/http/httpproxy).

The loopback interface is never asked through a proxy, which would ask its own. HTTP_PROXY in capitals counts as well: this
is no CGI script, whose requests could set it.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The URL of the proxy for a request, None if it goes straight."""
    variables = os.environ if environment is None else environment
    parts = urlsplit(url)
    host, scheme = parts.hostname or "", parts.scheme
    proxy = _first(variables, f"{scheme.upper()}_PROXY", f"{scheme}_proxy")
    if not proxy or host == "localhost" or _passes(host, parts.port or _PORTS[scheme], variables):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _first(variables: Mapping[str, str], *names: str) -> str:
    return next((variables[name] for name in names if variables.get(name)), "")


def _passes(host: str, port: int, variables: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names a host: "*", a name with all below it, ".name" for those alone, an address, a network; with a port or without."""
    address = _address(host)
    if address is not None and address.is_loopback:
        return True
    for entry in _first(variables, "NO_PROXY", "no_proxy").lower().split(","):
        text = entry.strip()
        if text == "*":
            return True
        if text and _fits(text, host.lower(), address, port):
            return True
    return False


def _fits(text: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> bool:
    if "/" in text:
        try:
            return address is not None and address in ipaddress.ip_network(text, strict=False)
        except ValueError:
            return False
    if (plain := _address(text.strip("[]"))) is not None:
        return plain == address
    name, colon, wanted = text.rpartition(":")
    if colon and wanted.isdigit():
        if int(wanted) != port:
            return False
        text = name
    if (plain := _address(text.strip("[]"))) is not None:
        return plain == address
    text = text.removeprefix("*")
    if text.startswith("."):
        return host.endswith(text)
    return host == text or host.endswith(f".{text}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
