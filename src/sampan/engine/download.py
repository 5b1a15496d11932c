"""What a URL leads to, as a stream: `import` of an archive from a web server.

Only HTTP and HTTPS, also after a redirect: urllib's own opener would follow one to ftp, and would open files and
`data:` when it is asked to. Ten redirects at most, as in Go. A body that ends too early is an error: http.client ends
it in silence when it is read in pieces, and an archive that is cut between two members looks whole.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPResponse
    from types import TracebackType
    from typing import Any, Self
    from urllib.request import OpenerDirector

SCHEMES = ("http://", "https://")
_TIMEOUT = 60.0  # seconds without a byte
_TOLD = 4096  # bytes of a server's own words


def download(url: str) -> Download:
    """Ask for a URL. Raises `InvalidParameter` for one that is not HTTP, `System` for what the server or the way to it say."""
    import urllib.error
    from http.client import HTTPException

    if not url.startswith(SCHEMES):
        raise InvalidParameter(f'Get "{url}": unsupported protocol scheme')
    try:
        answer = _opener().open(url, timeout=_TIMEOUT)
    except urllib.error.HTTPError as e:
        with e:
            words = "" if e.code < 400 else e.read(_TOLD).decode("utf-8", "replace").strip()
        told = f"failed to GET {url} with status {e.code} {e.reason}"
        raise System(f"{told}: {words}" if words else told) from None
    except urllib.error.URLError as e:
        raise System(f'Get "{url}": {_told(e.reason)}') from None
    except (HTTPException, OSError, ValueError) as e:
        raise System(f'Get "{url}": {_told(e)}') from None
    return Download(answer, url)


def _opener() -> OpenerDirector:
    import urllib.request

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,  # says which scheme it does not know
    ):
        opener.add_handler(handler())
    return opener


def _told(reason: object) -> str:
    """What went wrong, without the number that Python puts before it."""
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return str(reason) or type(reason).__name__


class Download:
    """The body of an answer. A context manager."""

    def __init__(self, answer: Any, url: str) -> None:
        self._answer: HTTPResponse = answer
        self._url = url

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, empty at the end. Raises `System` for an end that the server did not announce."""
        from http.client import HTTPException

        try:
            data = self._answer.read(None if size < 0 else size)
        except (HTTPException, OSError) as e:
            raise System(f'Get "{self._url}": {_told(e)}') from None
        if not data and self._answer.length:
            raise System(f'Get "{self._url}": unexpected EOF: {self._answer.length} bytes are missing')
        return data

    @property
    def length(self) -> int:
        """Bytes that the server has announced and that were not read yet; 0 if it has announced nothing."""
        return self._answer.length or 0

    @property
    def modified(self) -> float:
        """When the server says that it was changed, seconds since the epoch; 0 if it says nothing."""
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(self._answer.headers.get("Last-Modified") or "").timestamp())
        except (TypeError, ValueError, OverflowError):
            return 0.0

    def close(self) -> None:
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()
