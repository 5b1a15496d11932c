"""Names and addresses in requests: `--dns`, `--dns-search`, `--add-host`. Grammar and messages.

Sources: docker/cli (opts/opts.go, opts/hosts.go).
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

_LONGEST_NAME = 254
"""Characters of a domain name, RFC 1035."""


def is_address(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address, the latter with or without a zone."""
    import _socket  # the C half: the socket module imports selectors and enum

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text.partition("%")[0])
            return True
        except (OSError, ValueError):
            continue
    return False


def check_address(text: str) -> str:
    """An address without blanks around it and without a zone, as `--dns` takes it. Raises InvalidParameter."""
    address = text.strip()
    if "%" in address or not is_address(address):
        raise InvalidParameter(f"IP address is not correctly formatted: {text}")
    return address


def check_domain(text: str) -> str:
    """A domain as `--dns-search` takes it; "." stands for none. Raises InvalidParameter."""
    name = text.strip()
    if name == ".":
        return name
    labels = name.removesuffix(".").split(".")
    if len(name) > _LONGEST_NAME or not any(c.isalpha() for c in name) or not all(_is_label(label) for label in labels):
        raise InvalidParameter(f"{text} is not a valid domain")
    return name


def _is_label(text: str) -> bool:
    return text.isascii() and text.replace("-", "").isalnum() and not text.startswith("-") and not text.endswith("-")


def parse_host(text: str) -> str:
    """NAME:ADDRESS or NAME=ADDRESS, the address also in brackets, as an entry of HostConfig.ExtraHosts.

    Raises InvalidParameter.
    """
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name:
        raise InvalidParameter(f'bad format for add-host: "{text}"')
    if len(address) > 2 and address[0] == "[" and address[-1] == "]":
        address = address[1:-1]
    if address == "host-gateway":
        return f"{name}:{address}"
    if "%" in address or not is_address(address):
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{address}"
