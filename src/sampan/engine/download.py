"""What a URL leads to, as a stream: `import` of an archive from a web server.

Only HTTP and HTTPS, also after a redirect: urllib's own opener would follow one to ftp, and would open files and
`data:` when it is asked to. Ten redirects at most, as in Go. A body that ends too early is an error: http.client ends
it in silence when it is read in pieces, and an archive that is cut between two members looks whole.

Another thread may hang up, also while the server says nothing: see `registry.lines`.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, System
from sampan.registry.lines import Line
from sampan.registry.lines import Lines as Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPResponse
    from types import TracebackType
    from typing import Any, Self
    from urllib.error import HTTPError
    from urllib.request import OpenerDirector, Request

SCHEMES = ("http://", "https://")
_TIMEOUT = 60.0  # seconds without a byte
_TOLD = 4096  # bytes of a server's own words


def download(url: str, lines: Lines | None = None) -> Download:
    """Ask for a URL. lines: by which somebody may hang up.

    Raises `InvalidParameter` for one that is not HTTP, `System` for what the server or the way to it say, `Stopped` when that was hung up.
    """
    import urllib.error
    from http.client import HTTPException

    if not url.startswith(SCHEMES):
        raise InvalidParameter(f'Get "{url}": unsupported protocol scheme')
    lines = lines or Lines()
    try:
        answer = _opener(lines).open(url, timeout=_TIMEOUT)
    except urllib.error.HTTPError as e:
        with e:
            words = "" if e.code < 400 else _words(e)
        lines.check()
        told = f"failed to GET {url} with status {e.code} {e.reason}"
        raise System(f"{told}: {words}" if words else told) from None
    except urllib.error.URLError as e:
        lines.check()
        raise System(f'Get "{url}": {_told(e.reason)}') from None
    except (HTTPException, OSError, ValueError) as e:
        lines.check()
        raise System(f'Get "{url}": {_told(e)}') from None
    return Download(answer, url, lines)


def _words(error: HTTPError) -> str:
    """What a server says besides the status, as far as it does."""
    from http.client import HTTPException

    try:
        return error.read(_TOLD).decode("utf-8", "replace").strip()
    except (HTTPException, OSError):
        return ""


def _opener(known: Lines) -> OpenerDirector:
    import urllib.request
    from http.client import HTTPConnection, HTTPSConnection

    class Plain(_Line, HTTPConnection):
        lines = known

    class Secure(_Line, HTTPSConnection):
        lines = known

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: Request) -> HTTPResponse:
            return self.do_open(Plain, request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: Request) -> HTTPResponse:
            return self.do_open(Secure, request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        Http,
        Https,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,  # says which scheme it does not know
    ):
        opener.add_handler(handler())
    return opener


class _Line(Line):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # What `http.client` connects with. There is no source address to bind to.
        self._create_connection = lambda address, timeout, _: self.dial(address, timeout)


def _told(reason: object) -> str:
    """What went wrong, without the number that Python puts before it."""
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return str(reason) or type(reason).__name__


class Download:
    """The body of an answer. A context manager."""

    def __init__(self, answer: Any, url: str, lines: Lines) -> None:
        self._answer: HTTPResponse = answer
        self._url = url
        self._lines = lines

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, empty at the end. Raises `System` for an end that the server did not announce, `Stopped` when it was hung up."""
        from http.client import HTTPException

        try:
            data = self._answer.read(None if size < 0 else size)
        except (HTTPException, OSError) as e:
            self._lines.check()
            raise System(f'Get "{self._url}": {_told(e)}') from None
        self._lines.check()
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
