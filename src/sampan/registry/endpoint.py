"""Which hosts are asked for a repository, and how far each is trusted.

`docker.io` is kept at registry-1.docker.io; every other domain is its own host. Mirrors come first, for pulls. A
registry on the loopback interface, or one that the configuration calls insecure, is asked by TLS without a look at its
certificate, and then without TLS; every other one by TLS alone. What is insecure follows from the name as it was typed
and never from what a name server says of it: that could change between the question and the connection.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter
from sampan.oci.reference import DEFAULT_DOMAIN
from sampan.structs import Struct

HUB = "registry-1.docker.io"
HUB_ACCOUNT = "https://index.docker.io/v1/"
"""What Docker's configuration calls docker.io, for the sake of its first version."""
CERTIFICATES = ("/etc/sampan/certs.d", "/etc/docker/certs.d")
_LOOPBACK = ("127.0.0.0/8", "::1/128")


class Settings(Struct):
    """What the configuration says of registries.

    mirrors: (domain, URL) pairs in their order. insecure: hosts with or without a port, and networks of addresses.
    certificates: directories laid out as Docker's certs.d. timeout: seconds that a registry may be silent.
    """

    mirrors: tuple[tuple[str, str], ...] = ()
    insecure: tuple[str, ...] = ()
    certificates: tuple[str, ...] = CERTIFICATES
    timeout: float = 60.0


class Endpoint(Struct):
    """One way to ask: `url` is scheme and host. `verify`: the certificate has to be good. `account`: whose credentials it gets."""

    url: str
    account: str
    verify: bool = True
    mirror: bool = False

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]


def endpoints(domain: str, settings: Settings, mirrors: bool = True, insecure: bool = False) -> tuple[Endpoint, ...]:
    """The endpoints of a domain in the order in which they are asked. `insecure`: as if the configuration said so."""
    found: tuple[Endpoint, ...] = ()
    if mirrors:
        for of, url in settings.mirrors:
            if of == domain:
                host = urlsplit(url).netloc
                verify = not is_insecure(host, settings)
                found = (*found, Endpoint(url.rstrip("/"), host, verify, mirror=True))
    if domain == DEFAULT_DOMAIN:
        return (*found, Endpoint(f"https://{HUB}", HUB_ACCOUNT))
    if insecure or is_insecure(domain, settings):
        return (
            *found,
            Endpoint(f"https://{domain}", domain, verify=False),
            Endpoint(f"http://{domain}", domain, verify=False),
        )
    return (*found, Endpoint(f"https://{domain}", domain))


def is_insecure(host: str, settings: Settings) -> bool:
    """Whether a host, "name" or "name:port", may be asked without a good certificate."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or host in settings.insecure or name in settings.insecure:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(address in network for network in map(_network, (*_LOOPBACK, *settings.insecure)) if network is not None)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if "/" not in text:
        return None
    return ipaddress.ip_network(text, strict=False)


def check_insecure(text: str) -> str:
    """An entry of `insecure-registries`. Raises `InvalidParameter` for what is neither a host nor a network."""
    if "://" in text:
        raise InvalidParameter(
            f"'{text}' should be a host, with or without a port, without {text.partition('://')[0]}://"
        )
    try:
        if "/" in text:
            ipaddress.ip_network(text, strict=False)
        elif not text or urlsplit(f"//{text}").port == 0:
            raise ValueError
    except ValueError:
        raise InvalidParameter(f"'{text}' is neither HOST[:PORT] nor a network such as 10.0.0.0/8") from None
    return text


def check_mirror(text: str) -> str:
    """An entry of `mirrors`. Raises `InvalidParameter` for what is no URL of a registry."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise InvalidParameter(f"'{text}' is no mirror: a URL such as https://mirror.example is, without a user")
    return text
