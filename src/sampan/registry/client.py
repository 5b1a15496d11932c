"""One repository of one registry: requests with the right credentials, tried again where that may help.

OCI distribution specification v1.1; where a registry is older, Docker's Registry API v2, which is the same as far as it is
used here. What a registry says is not believed: see `registry.pull`.
"""

from __future__ import annotations

import random
import threading

from sampan.errors import InvalidParameter, Unavailable
from sampan.registry.endpoint import Endpoint, endpoints
from sampan.registry.failures import Refused, Unreachable, clean
from sampan.registry.lines import Stopped as Stopped
from sampan.registry.tokens import Authenticator, Credential
from sampan.registry.transport import Transport, origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sampan.registry.endpoint import Settings
    from sampan.registry.transport import Answer

ATTEMPTS = 5
"""How often something is asked for at most, as for Docker."""
_FIRST_PAUSE = 0.25  # seconds, doubled from one attempt to the next
_LONGEST_PAUSE = 60.0  # A registry that wants to be left alone for longer is told of instead.
AGAIN = frozenset((429, 500, 502, 503, 504))
_TAG_PAGES = 1000
_PAGE_LIMIT = 4 << 20


class Patience:
    """Waiting for a registry and between attempts, which `stop` ends at once, from any thread."""

    def __init__(self, hang_up: Callable[[], None]) -> None:
        """hang_up: brings those back who wait for an answer."""
        self._stopped = threading.Event()
        self._hang_up = hang_up

    def stop(self) -> None:
        # In this order: who comes back sees that it is no failure of the registry's, and does not try again.
        self._stopped.set()
        self._hang_up()

    def check(self) -> None:
        """Raises `Stopped` if all is to end."""
        if self._stopped.is_set():
            raise Stopped

    def pause(self, attempt: int, wanted: float | None = None) -> None:
        """Wait before attempt 1, 2 ...: as long as the registry wants, else twice as long each time. Raises `Stopped`."""
        # Not all clients that a registry has turned away come back in the same moment.
        seconds = _FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(1, 1.5) if wanted is None else wanted
        if self._stopped.wait(min(seconds, _LONGEST_PAUSE)):
            raise Stopped


class Connection:
    """An endpoint that has answered."""

    def __init__(
        self, endpoint: Endpoint, transport: Transport, authenticator: Authenticator, patience: Patience
    ) -> None:
        self.endpoint = endpoint
        self.authenticator = authenticator
        self.patience = patience
        self._transport = transport

    def request(
        self,
        method: str,
        path: str,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request, authorized, tried again where that may help. `path` begins with "/v2/", or is a URL of this registry.

        The answer may be an error. Raises `Unreachable`, `Refused` (by a token server), `Stopped`.
        """
        attempt = 0
        while True:
            attempt += 1
            self.patience.check()
            try:
                answer = self.authorized(method, path, scopes, headers, body)
            except Unreachable:
                if attempt == ATTEMPTS:
                    raise
                self.patience.pause(attempt)
                continue
            if answer.status not in AGAIN or attempt == ATTEMPTS:
                return answer
            wanted = self._turned_away(answer)
            self.patience.pause(attempt, wanted)

    def _turned_away(self, answer: Answer) -> float | None:
        """How long to wait after a status that may be another one later. Raises `Refused` if that is too long."""
        try:
            answer.check()
        except Refused as e:
            if e.retry_after is not None and e.retry_after > _LONGEST_PAUSE:
                raise
            return e.retry_after
        raise AssertionError("a status that is no error")

    def authorized(
        self,
        method: str,
        path: str,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Answer:
        """One request, and once more with a new token if the first one was not good any more. A body that can be read once cannot be."""
        for last in (False, True):
            url = path if "://" in path else f"{self.endpoint.url}{path}"
            # An upload may go on at another host, which is not told who we are.
            own = origin(url) == origin(self.endpoint.url)
            header = self.authenticator.authorization(scopes) if own else ""
            sent = {**(headers or {}), **({"Authorization": header} if header else {})}
            answer = self._transport.send(method, url, sent, body, self.endpoint.verify)
            # Only the registry itself may ask who we are, not a host that it has sent us to.
            elsewhere = answer.url != url or not own
            if answer.status != 401 or elsewhere or last or not (body is None or isinstance(body, bytes)):
                return answer
            self.authenticator.learn(answer)
            answer.close()
            self.authenticator.forget(scopes)
        raise AssertionError("unreachable")


class Client:
    """One registry by its domain. `credentials` gives who we are to an account; it is asked when it is needed."""

    def __init__(
        self,
        domain: str,
        settings: Settings,
        credentials: Callable[[str], Credential],
        mirrors: bool = False,
        insecure: bool = False,
    ) -> None:
        self.domain = domain
        self._transport = Transport(settings)
        self.patience = Patience(self._transport.hang_up)
        self._credentials = credentials
        self._endpoints = endpoints(domain, settings, mirrors, insecure)

    def connections(self) -> Iterator[Connection]:
        """The endpoints that answer, in the order in which they are asked: mirrors, the registry itself.

        Raises `Unreachable` or `Refused` of the last one if that does not answer, `Stopped`. An endpoint without TLS is asked only
        if TLS was no way to talk at all.
        """
        for position, endpoint in enumerate(self._endpoints):
            try:
                connection = self.connect(endpoint)
            except (Unreachable, Refused):
                self.patience.check()
                if position == len(self._endpoints) - 1:
                    raise
                continue
            yield connection
            if not endpoint.mirror:
                return

    def connect(self, endpoint: Endpoint, credential: Credential | None = None) -> Connection:
        """Ask whether there is a registry, and learn how it wants to be asked. Raises `Unreachable`, `Refused`, `Stopped`."""
        self.patience.check()
        known = self._credentials(endpoint.account) if credential is None else credential
        authenticator = Authenticator(endpoint, self._transport, known)
        connection = Connection(endpoint, self._transport, authenticator, self.patience)
        with self._transport.send("GET", f"{endpoint.url}/v2/", None, None, endpoint.verify) as answer:
            if answer.status == 401:
                authenticator.learn(answer)
            elif answer.status != 429:  # That is for whoever asks for something.
                answer.check(200)
        return connection

    def login(self, credential: Credential) -> tuple[str, str]:
        """Try a credential: the identity token that came of it, "" for none, and the status that the registry gave.

        Raises `Unreachable`; `Refused` if it is not good.
        """
        for connection in self.connections_for(credential):
            authenticator = connection.authenticator
            if not credential.identity_token and (token := authenticator.identity_token()):
                return token, "Login Succeeded"
            with connection.request("GET", "/v2/") as answer:
                answer.check(200)
            return "", "Login Succeeded"
        raise AssertionError("no endpoint")

    def connections_for(self, credential: Credential) -> Iterator[Connection]:
        """As `connections`, with this credential."""
        before, self._credentials = self._credentials, lambda _account: credential
        try:
            yield from self.connections()
        finally:
            self._credentials = before


class Repository:
    """One repository by one connection."""

    def __init__(self, connection: Connection, path: str, actions: str = "pull") -> None:
        self.connection = connection
        self.path = path
        self.scopes = (f"repository:{path}:{actions}",)

    def get(self, what: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        """`what` is below the repository: "manifests/latest". The answer may be an error."""
        return self.connection.request(method, f"/v2/{self.path}/{what}", self.scopes, headers)

    def tags(self) -> list[str]:
        """All tags. Raises `Refused`, `Unreachable`, `Unavailable` for a list without an end."""
        from sampan import jsontext

        found: list[str] = []
        what = f"/v2/{self.path}/tags/list"
        for _ in range(_TAG_PAGES):
            with self.connection.request("GET", what, self.scopes).check(200) as answer:
                data, link = answer.read_all(_PAGE_LIMIT), answer.header("Link")
            try:
                tags = jsontext.loads(data)["tags"]
            except (ValueError, KeyError, TypeError):
                raise InvalidParameter(f"the list of tags of {self.path} is not what a registry says") from None
            found += [tag for tag in tags or () if isinstance(tag, str)]
            what = self.next_page(link)
            if not what:
                return found
        raise Unavailable(f"the list of tags of {self.path} has more than {_TAG_PAGES} pages")

    def next_page(self, link: str) -> str:
        """The path of the next page by a `Link` (RFC 5988), "" for none; of this registry alone: a credential is sent there.

        Raises `Unavailable` for one that leads elsewhere.
        """
        target, _, relation = link.partition(">")
        if 'rel="next"' not in relation.replace(" ", ""):
            return ""
        target = target.strip().removeprefix("<")
        path = target.removeprefix(self.connection.endpoint.url)
        if not path.startswith("/v2/"):
            raise Unavailable(f"the list of {self.path} goes on elsewhere: {clean(target)}")
        return path
