"""Query parameters that are JSON: objects of texts, platforms."""

from __future__ import annotations

from sampan import jsontext
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.api.query import Query

_NAMES: dict[type, str] = {dict: "object", list: "array"}
_PLATFORM = ("os", "architecture", "variant")


def document(query: Query, name: str, kind: type) -> Any:
    """The JSON value of a parameter, None if it is empty. Raises InvalidParameter if it is none, or of another type."""
    value = query.text(name)
    if not value:
        return None
    try:
        found = jsontext.loads(value)
    except ValueError as e:
        raise InvalidParameter(f"invalid value for {name}: {e}") from None
    if found is not None and not isinstance(found, kind):
        raise InvalidParameter(f"invalid value for {name}: {value} is no JSON {_NAMES[kind]}")
    return found


def mapping(query: Query, name: str) -> dict[str, str | None]:
    """A JSON object of texts, of which some may be null. Raises InvalidParameter."""
    found: dict[str, str | None] = document(query, name, dict) or {}
    if not all(value is None or isinstance(value, str) for value in found.values()):
        raise InvalidParameter(f"invalid value for {name}: the members of the object are texts")
    return found


def platform(value: str) -> str:
    """A platform as JSON, {"os": ..., "architecture": ..., "variant": ...}, as os/architecture[/variant]; "" for none."""
    if not value:
        return ""
    try:
        found = jsontext.loads(value)
    except ValueError as e:
        raise InvalidParameter(f"failed to parse platform: {e}") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(key, ""), str) for key in _PLATFORM):
        raise InvalidParameter("failed to parse platform: it is no JSON object of texts")
    os, architecture, variant = (found.get(key, "") for key in _PLATFORM)
    if not os or not architecture:
        raise InvalidParameter("invalid platform: os and architecture must be provided")
    return "/".join(part for part in (os, architecture, variant) if part)
