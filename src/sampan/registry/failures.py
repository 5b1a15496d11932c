"""What went wrong with a registry, in the words that Docker has for it.

What a registry says itself is shown, but never as it is: it may be a page of HTML, and it may hold what moves a terminal's
cursor.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from urllib.parse import urlsplit

import urllib3.exceptions

from sampan import jsontext
from sampan.errors import Unavailable
from sampan.registry.proxies import proxy_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TOLD = 512  # characters of a registry's own words
_UNTRUSTED = frozenset((2, 18, 19, 20, 21))  # X509_V_ERR_*: an issuer that is not known, or none but itself
_EXPIRED = frozenset((9, 10))


class Unreachable(Unavailable):
    """No answer was had, or its end is missing: the network, a server that closes or is silent. Asking again may help."""


class Refused(Unavailable):
    """An answer with a status that is an error. `code` is the registry's own word for it, "MANIFEST_UNKNOWN"; "" if it has none.

    `words`: what the registry said. `retry_after`: seconds that it wants to be left alone, None if it does not say.
    """

    def __init__(
        self, message: str, status: int, code: str = "", words: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.words = words
        self.retry_after = retry_after

    @property
    def http_status(self) -> int:  # type: ignore[override]
        """As dockerd answers: what is not there and what is not shown are the same."""
        return 404 if self.status in (401, 403, 404) else 500


def unreachable(method: str, url: str, error: BaseException) -> Unreachable:
    """What an error of the connection is called: `Get "URL": dial tcp HOST: connect: connection refused`."""
    return Unreachable(f'{method.capitalize()} "{url}": {_told(url, error)}')


def _told(url: str, error: BaseException) -> str:
    host = url.partition("://")[2].partition("/")[0]
    if any(isinstance(inner, urllib3.exceptions.ProxyError) for inner in _causes(error)):
        # It was not the registry that did not answer, but who stands before it.
        proxy = proxy_for(url) or ""
        return f"proxyconnect tcp: {_reason(urlsplit(proxy).netloc.rpartition('@')[2], error)}"
    return _reason(host, error)


def _reason(host: str, error: BaseException) -> str:
    for inner in _causes(error):
        if isinstance(inner, urllib3.exceptions.NameResolutionError | socket.gaierror):
            return f"dial tcp: lookup {host.rpartition(':')[0] or host}: no such host"
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"tls: failed to verify certificate: {_certificate(inner)}"
        if isinstance(inner, ssl.SSLError):
            if "WRONG_VERSION_NUMBER" in str(inner) or "HTTP_REQUEST" in str(inner):
                return "http: server gave HTTP response to HTTPS client"
            return f"tls: {(inner.reason or str(inner)).lower().replace('_', ' ')}"
        if isinstance(inner, urllib3.exceptions.ConnectTimeoutError):
            return f"dial tcp {host}: i/o timeout"
        if isinstance(inner, urllib3.exceptions.ReadTimeoutError | TimeoutError):
            return "timeout: the registry is silent"
        if isinstance(inner, urllib3.exceptions.IncompleteRead):
            return "unexpected EOF"
        if isinstance(inner, OSError) and inner.errno:
            if inner.errno == errno.ECONNRESET:
                return "read: connection reset by peer"
            return f"dial tcp {host}: connect: {os.strerror(inner.errno).lower()}"
    text = clean(str(error))
    return "EOF" if "Remote end closed connection" in text else text or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what lies below it, the innermost first: urllib3 wraps what the system said."""
    found: list[BaseException] = []
    queue = [error]
    while queue and len(found) < 20:
        one = queue.pop()
        found.append(one)
        inner = [a for a in one.args if isinstance(a, BaseException)]
        queue += [i for i in (*inner, one.__cause__, one.__context__) if i is not None and i not in found]
    yield from (e for e in found if not isinstance(e, urllib3.exceptions.HTTPError))
    yield from (e for e in found if isinstance(e, urllib3.exceptions.HTTPError))


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNTRUSTED:
        return "x509: certificate signed by unknown authority"
    if error.verify_code in _EXPIRED:
        return "x509: certificate has expired or is not yet valid"
    return f"x509: {clean(error.verify_message).rstrip('.')}"


def refused(url: str, method: str, status: int, reason: str, body: bytes, retry_after: str = "") -> Refused:
    """The error of an answer. The words are those of its JSON (distribution-spec, "Error Codes") if it has some."""
    code, words = _errors(body)
    if words:
        message = words
    elif status == 404:
        message = "not found"
    else:
        message = f"received unexpected HTTP status: {status} {clean(reason)}".rstrip()
    return Refused(message, status, code, words, _seconds(retry_after))


def _errors(body: bytes) -> tuple[str, str]:
    """The first code and "code: message" of all of a registry's errors; a token server's `details` as well."""
    try:
        found = jsontext.loads(body)
        errors = found.get("errors") if isinstance(found, dict) else None
        if not isinstance(errors, list) and isinstance(found, dict):
            details = found.get("details") or found.get("message") or found.get("error_description")
            return "", clean(details) if isinstance(details, str) else ""
        entries = [e for e in errors or () if isinstance(e, dict) and isinstance(e.get("code"), str)]
    except (ValueError, RecursionError):
        return "", ""
    told = [f"{e['code'].lower().replace('_', ' ')}: {e.get('message') or e['code']}" for e in entries[:4]]
    return (entries[0]["code"] if entries else ""), clean("\n".join(told))


def _seconds(retry_after: str) -> float | None:
    """Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if text:
        import time
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (TypeError, ValueError, OverflowError):
            return None
    return None


def clean(text: str) -> str:
    """Somebody else's words for a terminal: nothing but what can be printed, and not too much of it."""
    shown = "".join(c if c.isprintable() else " " for c in text).strip()
    return shown if len(shown) <= _TOLD else f"{shown[:_TOLD]}…"
