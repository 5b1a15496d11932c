"""Containers in the shape of a version of the API. The engine gives that of the newest; here is what older ones have besides or instead."""

from __future__ import annotations

from sampan.oci.network import is_user_defined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def summary(document: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """An item of `GET /containers/json`."""
    shown = dict(document)
    shown["NetworkSettings"] = _networks(shown["NetworkSettings"], version)
    if version < (1, 46):
        shown["HostConfig"] = {"NetworkMode": shown["HostConfig"]["NetworkMode"]}
    return shown


def inspection(document: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    shown = dict(document)
    settings = shown["NetworkSettings"]
    shown["NetworkSettings"] = _networks(settings, version)
    if version < (1, 44):
        # The address moved from the container to its endpoints.
        shown["Config"] = {**shown["Config"], "MacAddress": settings.get("MacAddress", "")}
    if version < (1, 43):
        shown["HostConfig"] = {name: value for name, value in shown["HostConfig"].items() if name != "Annotations"}
    if version < (1, 45):
        _name_by_id(shown)
    return shown


def _name_by_id(shown: dict[str, Any]) -> None:
    """What later is among the DNSNames was among the aliases: that a container is found by its short id."""
    settings = shown["NetworkSettings"]
    shown["NetworkSettings"] = {
        **settings,
        "Networks": {
            name: {**endpoint, "Aliases": [*(endpoint.get("Aliases") or ()), shown["Id"][:12]]}
            if is_user_defined(name)
            else endpoint
            for name, endpoint in (settings.get("Networks") or {}).items()
        },
    }


def request(body: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """The body of `POST /containers/create` of a client of that version: it knows nothing of what came later, and may count on what was before."""
    host = body.get("HostConfig")
    if version >= (1, 43) or not isinstance(host, dict):
        return dict(body)
    absent = ["Annotations", *(["ConsoleSize"] if version < (1, 42) else [])]
    host = {name: value for name, value in host.items() if name not in absent}
    if version < (1, 40) and not host.get("IpcMode"):
        host["IpcMode"] = "shareable"
    return {**body, "HostConfig": host}


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
