"""HTTP to the hosts of registries: pools, TLS, proxies, redirects, time limits. One of these serves many threads.

Redirects are followed here and not by the library: a blob's bytes may come from any host, and a credential goes to none but
the one that it was meant for.
"""

from __future__ import annotations

import threading
import time
from urllib.parse import urljoin, urlsplit

import urllib3

from sampan.registry import certificates
from sampan.registry.failures import Unreachable, clean, refused, unreachable
from sampan.registry.lines import Lines
from sampan.registry.pools import pools
from sampan.registry.proxies import proxy_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from sampan.registry.endpoint import Settings

AGENT = "sampan"
_REDIRECTS = 10
_CONNECT = 30.0  # seconds
_ERROR_BODY = 64 << 10
_LEAST = 1 << 10  # bytes of a body that have to come in the time for which a registry may be silent
_REDIRECTED = frozenset((301, 302, 303, 307, 308))
_PORTS = {"http": 80, "https": 443}


class Answer:
    """An answer whose body was not read yet. A context manager: what is left of the body is not waited for.

    `url` is where it came from in the end.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, method: str, url: str, window: float = 60.0) -> None:
        """`window`: seconds in which something worth the wait has to come (see `_LEAST`)."""
        self._response = response
        self._method = method
        self._window = window
        self._window_ends = time.monotonic() + window
        self._come = 0  # Bytes in this window.
        self.url = url
        self.status = response.status

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def headers(self, name: str) -> list[str]:
        """All headers of that name: a server may challenge in several."""
        return list(self._response.headers.getlist(name))

    @property
    def length(self) -> int | None:
        """Content-Length, None if there is none."""
        text = self.header("Content-Length")
        return int(text[:18]) if text.isascii() and text.isdigit() else None

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the body, as they came; b"" at its end. Raises `Unreachable` if that comes too early, or too slowly."""
        try:
            data = self._response.read1(size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise unreachable(self._method, self.url, e) from None
        self._come += len(data)
        if data and time.monotonic() >= self._window_ends:
            # The time limit of a socket is about silence: a byte now and then would be waited for without an end.
            if self._come < _LEAST:
                raise Unreachable(
                    f'{self._method.capitalize()} "{clean(self.url)}": {self._come} bytes have come in {self._window:g} seconds, which is no transfer'
                )
            self._window_ends, self._come = time.monotonic() + self._window, 0
        return data

    def read_all(self, limit: int) -> bytes:
        """The whole body. Raises `Unreachable`; longer ones are cut one byte behind the limit."""
        parts: list[bytes] = []
        left = limit + 1
        while left > 0 and (data := self.read(min(left, 1 << 16))):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def check(self, *good: int) -> Answer:
        """Itself. Raises `Refused` unless the status is one of these."""
        if self.status in good:
            return self
        with self:
            body = self.read_all(_ERROR_BODY) if self._method != "HEAD" else b""
            reason = self._response.reason or ""
            raise refused(self.url, self._method, self.status, reason, body, self.header("Retry-After"))

    def close(self) -> None:
        # A body that is whole goes back to the pool; of any other the connection is closed.
        if self._response.length_remaining == 0:
            self._response.release_conn()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


class Transport:
    """Sends requests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: dict[tuple[str, bool], Any] = {}
        self._lock = threading.Lock()
        self._lines = Lines()
        self._timeout = urllib3.Timeout(connect=min(_CONNECT, settings.timeout), read=settings.timeout)

    def hang_up(self) -> None:
        """End what is on its way, and all that is sent later: it raises `Unreachable` in a moment. From any thread."""
        self._lines.hang_up()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        verify: bool = True,
        follow: bool = True,
    ) -> Answer:
        """One request, and where it is redirected to. An `Authorization` goes to `url`'s own host alone.

        Raises `Unreachable`.
        """
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})}
        first, at = origin(url), url
        for _ in range(_REDIRECTS + 1):
            answer = self._once(method, at, sent, body, verify)
            target = answer.header("Location") if answer.status in _REDIRECTED and follow else ""
            if not target:
                return answer
            answer.close()
            at = self._redirected(at, target, verify)
            if origin(at) != first:
                # Also if a later redirect leads back: who was in between chose where to.
                sent = {k: v for k, v in sent.items() if k not in ("Authorization", "Cookie")}
        raise Unreachable(f'{method.capitalize()} "{clean(url)}": stopped after {_REDIRECTS} redirects')

    def _redirected(self, at: str, target: str, verify: bool) -> str:
        try:
            url = urljoin(at, target)
            parts = urlsplit(url)
            bad = parts.scheme not in _PORTS or not parts.hostname or parts.username is not None
            bad = bad or (parts.port or 1) > 65535
        except ValueError:
            bad = True
        if bad:
            raise Unreachable(f'Get "{clean(at)}": a redirect to {clean(target)!r}, which is no URL of a registry')
        if verify and at.startswith("https:") and parts.scheme != "https":
            raise Unreachable(f'Get "{clean(at)}": a redirect away from TLS, to {clean(target)!r}')
        return url

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None, verify: bool
    ) -> Answer:
        try:
            response = self._pool(url, verify).urlopen(
                method,
                url,
                headers=headers,
                body=body,
                redirect=False,
                retries=False,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise unreachable(method, url, e) from None
        return Answer(response, method, url, self._settings.timeout)

    def _pool(self, url: str, verify: bool) -> Any:
        """The connections to a host. A TLS context costs 20 ms, so one serves all threads."""
        key = (origin(url), verify)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._make_pool(url, verify)
            return self._pools[key]

    def _make_pool(self, url: str, verify: bool) -> Any:
        options: dict[str, Any] = {"maxsize": 8, "retries": False}
        if url.startswith("https:"):
            host = urlsplit(url).netloc
            options["ssl_context"] = certificates.context(host, verify, self._settings.certificates)
            options["cert_reqs"] = "CERT_REQUIRED" if verify else "CERT_NONE"
            if not verify:
                # Said once in the configuration, or meant by "localhost"; not with every request.
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        proxy = proxy_for(url)
        if proxy is None:
            return self._known(urllib3.PoolManager(**options))
        try:
            parts = urlsplit(proxy)
            login = f"{parts.username}:{parts.password or ''}" if parts.username else None
            bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            proxy_headers = urllib3.util.make_headers(proxy_basic_auth=login) if login else None
            return self._known(urllib3.ProxyManager(bare, proxy_headers=proxy_headers, **options))
        except (urllib3.exceptions.HTTPError, ValueError) as e:
            raise Unreachable(f"the proxy of the environment cannot be used: {clean(str(e))}") from None

    def _known(self, manager: urllib3.PoolManager) -> urllib3.PoolManager:
        manager.pool_classes_by_scheme = pools(self._lines)
        return manager


def origin(url: str) -> str:
    """Scheme, host and port: what a credential is for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{parts.port or _PORTS.get(parts.scheme, 0)}"
