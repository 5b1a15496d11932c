"""Networks as the Engine API shows them, by the version that a client speaks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


_SINCE = (
    ("Created", (1, 25)),
    ("Ingress", (1, 29)),
    ("ConfigFrom", (1, 30)),
    ("ConfigOnly", (1, 30)),
    ("EnableIPv4", (1, 48)),
)


def network(found: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """`GET /networks/{id}`, and an item of `GET /networks`."""
    absent = {name for name, since in _SINCE if version < since}
    return {name: value for name, value in found.items() if name not in absent}
