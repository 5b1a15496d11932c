"""Containers in the shape of a version of the API. The engine gives that of the newest; here is what older ones have besides or instead."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def summary(document: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """An item of `GET /containers/json`."""
    shown = dict(document)
    shown["NetworkSettings"] = _networks(shown["NetworkSettings"], version)
    return shown


def inspection(document: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    shown = dict(document)
    settings = shown["NetworkSettings"]
    shown["NetworkSettings"] = _networks(settings, version)
    if version < (1, 44):
        # The address moved from the container to its endpoints.
        shown["Config"] = {**shown["Config"], "MacAddress": settings.get("MacAddress", "")}
    if version < (1, 46):
        host = dict(shown["HostConfig"])
        host.pop("Annotations", None) if version < (1, 43) else None
        shown["HostConfig"] = host
    return shown


def _networks(settings: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """Endpoints without the names that came later: DNSNames in 1.44, GwPriority in 1.48."""
    missing = [name for name, since in (("DNSNames", (1, 44)), ("GwPriority", (1, 48))) if version < since]
    networks = settings.get("Networks") or {}
    if not missing or not networks:
        return dict(settings)
    shown = {
        name: {key: value for key, value in endpoint.items() if key not in missing}
        for name, endpoint in networks.items()
    }
    return {**settings, "Networks": shown}
