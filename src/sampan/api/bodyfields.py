"""Fields of JSON bodies, of the type that the specification says or refused with 400; null and a field that is missing are the same."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.api.query import Query


def _typed(body: Mapping[str, Any], name: str, kind: type, words: str) -> Any:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidParameter(f"invalid JSON: {name} must be {words}")
    return value


def text(body: Mapping[str, Any], name: str) -> str:
    """A string, "" for none. Raises InvalidParameter."""
    return str(_typed(body, name, str, "a string") or "")


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A boolean, False for none. Raises InvalidParameter."""
    return bool(_typed(body, name, bool, "a boolean"))


def number(body: Mapping[str, Any], name: str) -> int | None:
    """An integer or None. Raises InvalidParameter."""
    value: int | None = _typed(body, name, int, "a number")
    return value


def texts(body: Mapping[str, Any], name: str) -> list[str]:
    """A list of strings; a string alone is a list of one, as Docker's StrSlice reads it. Raises InvalidParameter."""
    value = body.get(name)
    if isinstance(value, str):
        return [value]
    found = _typed(body, name, list, "a list of strings") or []
    if not all(isinstance(one, str) for one in found):
        raise InvalidParameter(f"invalid JSON: {name} must be a list of strings")
    return list(found)


def size(body: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Rows and columns of a terminal, (0, 0) for none. Raises InvalidParameter."""
    found = _typed(body, name, list, "a list of two numbers")
    if found is None:
        return (0, 0)
    if len(found) != 2 or not all(isinstance(one, int) and 0 <= one <= 0xFFFF for one in found):
        raise InvalidParameter(f"invalid JSON: {name} must be a list of two numbers")
    return (found[0], found[1])


def window(query: Query) -> tuple[int, int]:
    """The rows and columns of a resize. Raises InvalidParameter."""
    rows, columns = query.number("h"), query.number("w")
    if rows is None or columns is None or not (0 <= rows <= 0xFFFF and 0 <= columns <= 0xFFFF):
        raise InvalidParameter("invalid resize: h and w must be numbers of rows and columns, up to 65535")
    return rows, columns
