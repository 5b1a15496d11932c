"""`GET /images/search`: the search that Docker Hub's index has, and registries that have kept it (docker/registry, version 1 of its API).

The distribution protocol has none: a registry of today answers 404.
"""

from __future__ import annotations

import base64
from urllib.parse import urlencode

from sampan import jsontext
from sampan.engine.imagefilters import truth
from sampan.errors import InvalidParameter, Unavailable
from sampan.oci import reference
from sampan.oci.reference import DEFAULT_DOMAIN
from sampan.registry.endpoint import Endpoint, Settings, endpoints
from sampan.registry.failures import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sampan.registry.tokens import Credential
    from sampan.registry.transport import Transport

LIMIT = 25
_MOST = 100
_HUB_INDEX = "https://index.docker.io"
_FILTERS = ("is-automated", "is-official", "stars")
_PAGE_LIMIT = 4 << 20


def search(
    term: str,
    limit: int,
    filters: Mapping[str, Sequence[str]],
    settings: Settings,
    credential: Callable[[str], Credential],
    transport: Transport,
) -> list[dict[str, Any]]:
    """What an index finds: star_count, is_official, name, is_automated, description of each.

    term: with a registry's host before it, that one is asked. limit: at most 100. Raises InvalidParameter in Docker's words, Unavailable.
    """
    wanted = _Wanted(filters)
    if not 1 <= limit <= _MOST:
        raise InvalidParameter(f"Limit {limit} is outside the range of [1, {_MOST}]")
    domain, words = _split(term)
    path = f"/v1/search?{urlencode({'q': words, 'n': str(limit)})}"
    document = _asked(transport, domain, path, settings, credential)
    try:
        results = [_shown(one) for one in document["results"] or ()]
    except (KeyError, TypeError, AttributeError):
        raise Unavailable(f"the answer of {domain} to a search is not what an index says") from None
    return [one for one in results if wanted.fits(one)]


def _split(term: str) -> tuple[str, str]:
    """The registry that a term names, and what it looks for there."""
    if not term:
        raise InvalidParameter("invalid search term: it is empty")
    if "://" in term:
        raise InvalidParameter(f"invalid repository name: repository name ({term}) should not have a scheme")
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference.parse(f"{first}/x").domain, rest
    return DEFAULT_DOMAIN, term.removeprefix("library/")


def _asked(
    transport: Transport, domain: str, path: str, settings: Settings, credential: Callable[[str], Credential]
) -> Any:
    found = endpoints(domain, settings, mirrors=False)
    for position, endpoint in enumerate(found):
        url = _HUB_INDEX if domain == DEFAULT_DOMAIN else endpoint.url
        try:
            answer = transport.send("GET", f"{url}{path}", _headers(endpoint, credential), None, endpoint.verify)
        except Unreachable:
            if position == len(found) - 1:
                raise
            continue  # the same host without TLS, where that is allowed
        with answer.check(200):
            data = answer.read_all(_PAGE_LIMIT)
        try:
            return jsontext.loads(data)
        except ValueError:
            raise Unavailable(f"the answer of {domain} to a search is no JSON document") from None
    raise AssertionError("no endpoint")


def _headers(endpoint: Endpoint, credential: Callable[[str], Credential]) -> dict[str, str]:
    known = credential(endpoint.account)
    if not known.username or not known.password:
        return {}
    pair = f"{known.username}:{known.password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}


def _shown(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "star_count": int(one.get("star_count") or 0),
        "is_official": bool(one.get("is_official")),
        "name": str(one["name"]),
        "is_automated": bool(one.get("is_automated")),
        "description": str(one.get("description") or ""),
    }


class _Wanted:
    """The filters of a search. Raises InvalidParameter for what is none."""

    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        for name in filters:
            if name not in _FILTERS:
                raise InvalidParameter(f"invalid filter '{name}'")
        self._automated = truth("is-automated", filters.get("is-automated", ()))
        self._official = truth("is-official", filters.get("is-official", ()))
        stars = filters.get("stars", ())
        if not all(text.isascii() and text.isdigit() for text in stars):
            raise InvalidParameter(f"invalid filter 'stars=[{' '.join(stars)}]'")
        self._stars = max((int(text) for text in stars), default=0)

    def fits(self, one: Mapping[str, Any]) -> bool:
        return (
            self._automated in (None, one["is_automated"])
            and self._official in (None, one["is_official"])
            and one["star_count"] >= self._stars
        )
