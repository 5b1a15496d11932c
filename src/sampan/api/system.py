"""`/version` and `/info`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine


def version(engine: Engine, exchange: Exchange) -> None:
    exchange.reply(200, engine.system.version())


def info(engine: Engine, exchange: Exchange) -> None:
    exchange.reply(200, info_shown(engine.system.info(), exchange.version))


def info_shown(document: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """`GET /info` as a version of the API has it. The engine gives that of the newest (moby, api/docs/CHANGELOG.md)."""
    shown = dict(document)
    if version < (1, 50):
        shown |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    if version < (1, 49):
        del shown["FirewallBackend"]
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            shown[name] = {**shown[name], "Expected": shown[name]["ID"]}
        shown["RegistryConfig"] = {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            **shown["RegistryConfig"],
        }
    if version < (1, 44):
        del shown["CDISpecDirs"]
    return shown
