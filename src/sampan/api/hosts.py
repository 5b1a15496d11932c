"""Whom a request is for, and where it comes from: what keeps web pages from using a browser to talk to a server on this machine.

A page can make a browser send requests to 127.0.0.1, and by a name of its own whose address it changes (DNS rebinding) read
the answers. The first comes with an Origin, the second with a Host that is no name of ours. Programs send neither.
"""

from __future__ import annotations

import ipaddress
import os

from sampan.errors import Forbidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.api.listeners import Listener


def check_host(headers: Mapping[str, str], listener: Listener) -> None:
    """Raises Forbidden. On a unix socket any Host is right: no browser gets there, and clients send what they like."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin.rpartition("//")[2] != host:
        raise Forbidden(f"requests of web pages are not taken (Origin: {origin})")
    if listener.is_tcp and listener.tls is None and not _is_ours(_name(host), listener):
        raise Forbidden(
            f"this server is not {host or 'without a name'}: use its address, or serve with -H tcp://NAME:PORT"
        )


def _name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_ours(name: str, listener: Listener) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in ("localhost", os.uname().nodename.lower(), listener.host.lower())
    return True
