"""`engine.registries` over the API: as whom the server asks registries, and what they say."""

from __future__ import annotations

import base64

from sampan import jsontext
from sampan.client.session import filters as encoded
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.client.session import Session
    from sampan.engine.registries import Login


class RemoteRegistries:
    """A server keeps no credentials for its clients: they go with each request, from here."""

    def __init__(self, session: Session, logins: Mapping[str, Login] | None = None) -> None:
        self._session = session
        self._logins = dict(logins or {})

    def as_user(self, logins: Mapping[str, Login]) -> RemoteRegistries:
        """The registries as these users, by registry, and as nobody to all others."""
        return RemoteRegistries(self._session, logins)

    def account(self, domain: str) -> dict[str, str] | None:
        """Who we are to a registry, as `X-Registry-Auth` has it; None for nobody."""
        login = self._logins.get(domain)
        return None if login is None else _document(domain, login)

    def accounts(self) -> dict[str, dict[str, str]]:
        """All of them, as `X-Registry-Config` has them."""
        return {domain: _document(domain, login) for domain, login in self._logins.items()}

    def check(self, server: str, login: Login) -> tuple[str, str]:
        """Try credentials: what the registry says, and an identity token if it gives one. Raises Unauthorized, Unavailable."""
        answer = self._session.json("POST", "/auth", body=_document(server, login))
        return answer["Status"], answer.get("IdentityToken") or ""

    def distribution(self, text: str) -> dict[str, Any]:
        """`GET /distribution/{name}/json`: what a name leads to in its registry. Raises NotFound, Unavailable."""
        account = self.account(reference.parse(text).domain)
        headers = {}
        if account is not None:
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(jsontext.dumps(account)).decode("ascii")
        found: dict[str, Any] = self._session.ask("GET", f"/distribution/{text}/json", headers=headers).json
        return found

    def search(
        self, term: str, limit: int = 25, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """`GET /images/search`: what an index finds. Raises InvalidParameter, Unavailable."""
        query = {"term": term, "limit": limit, "filters": encoded(filters)}
        found: list[dict[str, Any]] = self._session.json("GET", "/images/search", query)
        return found


def _document(server: str, login: Login) -> dict[str, str]:
    document = {
        "username": login.username,
        "password": login.password,
        "identitytoken": login.identity_token,
        "serveraddress": server,
    }
    return {name: value for name, value in document.items() if value}
