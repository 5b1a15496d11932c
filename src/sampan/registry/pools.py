"""urllib3's pools, with connections that another thread may hang up."""

from __future__ import annotations

import socket

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from sampan.registry.lines import Line, Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def pools(known: Lines) -> dict[str, type[HTTPConnectionPool]]:
    """Pools whose connections are these lines: by the scheme, as `urllib3.PoolManager` has them."""

    class Plain(_Line, HTTPConnection):
        lines = known

    class Secure(_Line, HTTPSConnection):
        lines = known

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Line(Line):
    def _new_conn(self: Any) -> socket.socket:
        """As the library's, but that the socket is known while it connects."""
        address = self._dns_host.strip("[]"), self.port
        try:
            return self.dial(address, self.timeout, allowed_gai_family(), self.socket_options or ())  # type: ignore[no-any-return]
        except socket.gaierror as e:
            raise NameResolutionError(self.host, self, e) from e
        except TimeoutError as e:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from e
        except OSError as e:
            raise NewConnectionError(self, f"Failed to establish a new connection: {e}") from e
