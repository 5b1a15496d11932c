"""Who we are to one endpoint: Basic, and bearer tokens of the server that the endpoint names.

Tokens: the distribution project's "Token Authentication Specification" and "Oauth2 Token Authentication". A credential goes
to the endpoint that it is kept for, and to the token server that this endpoint names; to no other host, not through a
redirect either, and not without TLS if the endpoint itself has it. Tokens are kept in memory only.
"""

from __future__ import annotations

import base64
import threading
import time
from urllib.parse import urlencode, urlsplit

from sampan import jsontext
from sampan.errors import Unavailable
from sampan.registry import challenge
from sampan.registry.failures import Refused, clean
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.registry.challenge import Challenge
    from sampan.registry.endpoint import Endpoint
    from sampan.registry.transport import Answer, Transport

CLIENT = "sampan"
_LIFE = 60.0  # seconds that a token lives if its server does not say ("expires_in")
_EARLY = 5.0  # seconds before its end that it is not used any more
_LIMIT = 1 << 20


class Credential(Struct):
    """A user's name with a password, or an identity token of his; {} of neither is nobody."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token)

    def __repr__(self) -> str:
        return f"Credential({self.username!r})"  # Never the secret: a representation ends up in logs.


class Token(Struct):
    text: str
    until: float


class Authenticator:
    """What is put into the `Authorization` of requests to one endpoint. For many threads."""

    def __init__(self, endpoint: Endpoint, transport: Transport, credential: Credential) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self.credential = credential
        self._challenges: list[Challenge] = []
        self._tokens: dict[tuple[str, ...], Token] = {}
        self._lock = threading.Lock()

    def learn(self, answer: Answer) -> None:
        """Take note of what a 401 asks for."""
        self._challenges = challenge.parse(answer.headers("WWW-Authenticate")) or self._challenges

    def authorization(self, scopes: Sequence[str]) -> str:
        """The header for a request that needs these scopes, "" for none. Raises `Refused`, `Unreachable`, `Unavailable`."""
        for asked in self._challenges:
            if asked.scheme == "bearer":
                return f"Bearer {self._token(asked, tuple(scopes))}"
            if asked.scheme == "basic" and self.credential.username:
                return _basic(self.credential)
        return ""

    @property
    def wants_basic(self) -> bool:
        """Whether a name and a password are what is missing."""
        return any(asked.scheme == "basic" for asked in self._challenges)

    def forget(self, scopes: Sequence[str]) -> None:
        """A token that was not good enough; the next request gets a new one."""
        with self._lock:
            self._tokens.pop(tuple(scopes), None)

    def identity_token(self, asked_scopes: Sequence[str] = ()) -> str:
        """The identity token that the token server gives for name and password; "" if it gives none."""
        for asked in self._challenges:
            if asked.scheme == "bearer":
                answer = self._fetch(asked, tuple(asked_scopes), offline=True)
                return str(answer.get("refresh_token") or "")
        return ""

    def _token(self, asked: Challenge, scopes: tuple[str, ...]) -> str:
        with self._lock:
            known = self._tokens.get(scopes)
            if known is None or known.until < time.monotonic():
                known = self._tokens[scopes] = self._new(self._fetch(asked, scopes))
            return known.text

    def _new(self, found: dict[str, object]) -> Token:
        text = found.get("token") or found.get("access_token")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise Unavailable("authorization server did not include a token in the response")
        life = found.get("expires_in")
        seconds = float(life) if isinstance(life, int) and 0 < life < 1 << 31 else _LIFE
        return Token(text, time.monotonic() + max(seconds, _LIFE) - _EARLY)

    def _fetch(self, asked: Challenge, scopes: tuple[str, ...], offline: bool = False) -> dict[str, object]:
        """What the token server answers."""
        realm = self._realm(asked)
        service = asked.parameters.get("service", "")
        headers = {"Accept": "application/json"}
        if self.credential.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": self.credential.identity_token}
            form |= {"service": service, "client_id": CLIENT, "scope": " ".join(scopes)}
            body = urlencode(form).encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = self._send("POST", realm, headers, body)
        else:
            query = [("scope", scope) for scope in scopes]
            if service:
                query.insert(0, ("service", service))
            if self.credential.username:
                query.insert(0, ("account", self.credential.username))
                headers["Authorization"] = _basic(self.credential)
            if offline:
                query += [("client_id", CLIENT), ("offline_token", "true")]
            url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query) if query else realm
            answer = self._send("GET", url, headers, None)
        with answer:
            data = answer.read_all(_LIMIT)
        try:
            found = jsontext.loads(data)
        except ValueError:
            found = None
        if len(data) > _LIMIT or not isinstance(found, dict):
            raise Unavailable(f"the answer of the token server {clean(realm)} is no JSON object")
        return found

    def _send(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        # A redirect would carry a password, or a token's worth of rights, to a host that the registry did not name.
        answer = self._transport.send(method, url, headers, body, self._endpoint.verify, follow=False)
        return answer.check(200)

    def _realm(self, asked: Challenge) -> str:
        realm = asked.parameters.get("realm", "")
        try:
            parts = urlsplit(realm)
            good = (
                parts.scheme in ("http", "https")
                and bool(parts.hostname)
                and parts.username is None
                and parts.port != 0
            )
        except ValueError:
            good = False
        if not good:
            raise Unavailable(f"{self._endpoint.host} names no token server that could be asked: {clean(realm)!r}")
        if parts.scheme == "http" and self._endpoint.url.startswith("https:") and self._endpoint.verify:
            raise Unavailable(
                f"{self._endpoint.host} names a token server without TLS, which gets no credentials: {clean(realm)}"
            )
        return realm


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def is_denied(error: Refused) -> bool:
    """Whether a refusal is about who we are, or what we may."""
    return error.status in (401, 403)
