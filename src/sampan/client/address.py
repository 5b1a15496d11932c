"""Where a server is: what a URL and the environment say, judged before anything is connected."""

from __future__ import annotations

import os
import ssl
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "unix:///run/sampan/sampan.sock"
_PORT, _TLS_PORT = 2375, 2376
_FILES = ("ca.pem", "cert.pem", "key.pem")


class Address(Struct):
    """A server. url: as it is shown. path: of a unix socket, "" for TCP. tls: with what TCP is secured, None for nothing."""

    url: str
    path: str = ""
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None


def find(
    url: str | None, tls: str | ssl.SSLContext | None = None, environment: Mapping[str, str] = os.environ
) -> Address:
    """What `connect` was given; without a URL what DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say, or the usual socket.

    tls: a directory with ca.pem, cert.pem and key.pem, as DOCKER_CERT_PATH is one, or a context. Raises InvalidParameter.
    """
    if url is None:
        url = environment.get("DOCKER_HOST") or DEFAULT
        if tls is None and url.startswith("tcp://") and environment.get("DOCKER_TLS_VERIFY"):
            tls = environment.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        if not rest.startswith("/"):
            raise InvalidParameter(f"{url}: a unix socket is named by a complete path, unix:///run/sampan/sampan.sock")
        if tls is not None:
            raise InvalidParameter(f"{url}: a unix socket has no TLS")
        return Address(url, path=rest)
    if scheme == "tcp":
        return _tcp(url, tls)
    if scheme == "ssh":
        raise InvalidParameter(
            f"{url}: ssh is not spoken here: forward the socket (ssh -nNT -L /tmp/sampan.sock:/run/sampan/sampan.sock HOST)"
            " and connect to unix:///tmp/sampan.sock"
        )
    raise InvalidParameter(f"{url}: the address of a server begins with unix:// or tcp://")


def _tcp(url: str, tls: str | ssl.SSLContext | None) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as e:
        raise InvalidParameter(f"{url}: {str(e).lower()}") from None
    if not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise InvalidParameter(f"{url}: the address of a server is tcp://HOST:PORT")
    context = _context(tls) if isinstance(tls, str) else tls
    return Address(url, host=host, port=port or (_PORT if context is None else _TLS_PORT), tls=context)


def _context(directory: str) -> ssl.SSLContext:
    authority, certificate, key = (os.path.join(directory, name) for name in _FILES)
    try:
        context = ssl.create_default_context(cafile=authority)
        context.verify_flags &= (
            ~ssl.VERIFY_X509_STRICT
        )  # from Python 3.13 on; Docker's clients take an authority without "key usage"
        if os.path.exists(certificate):
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as e:
        reason = (e.strerror or str(e)).lower()
        raise InvalidParameter(f"certificates in {directory} ({', '.join(_FILES)}): {reason}") from None
    return context
