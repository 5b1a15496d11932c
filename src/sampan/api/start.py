"""What `sampan serve` starts: listeners, the log, the server."""

from __future__ import annotations

import resource

from sampan.api.listeners import Security, Tls, open_listener
from sampan.api.log import Log
from sampan.api.server import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.engine.engine import Engine


def serve(
    engine: Engine, addresses: Sequence[str], group: str | None, security: Mapping[str, Any], log_level: str = "info"
) -> None:
    """Serve an engine on some addresses until SIGTERM or SIGINT.

    security: tls (authority, certificate and key, or None), without_tls, without_authentication. Raises InvalidParameter, Conflict, System.
    """
    log = Log(log_level)
    tls = security["tls"]
    wanted = Security(Tls(*tls) if tls else None, security["without_tls"], security["without_authentication"])
    _raise_limit()
    engine.attend()
    listeners = []
    try:
        for address in addresses:
            listeners += open_listener(address, group, wanted)
        Server(engine, listeners, log).run()
    finally:
        for listener in listeners:
            listener.close()


def _raise_limit() -> None:
    """As many descriptors as we may have: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        pass
