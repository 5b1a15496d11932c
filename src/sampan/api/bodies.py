"""JSON bodies judged by tables: names of members and their types. What is not in a table is ignored, as by Docker."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Texts:
    """In a table: an object whose members are texts."""


class Words:
    """In a table: a list of texts; a text alone is a list of one, as Docker's StrSlice reads it."""


class Size:
    """In a table: rows and columns of a terminal, a list of two numbers."""


_NAMES = {
    Texts: "map[string]string",
    Words: "[]string",
    Size: "[2]uint16",
    str: "string",
    bool: "bool",
    int: "int64",
    dict: "object",
    list: "array",
}
_GIVEN = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}
_MOST_CELLS = 0xFFFF


def fields(body: Any, table: Mapping[str, type], above: str = "") -> dict[str, Any]:
    """The members that are in the table and not null. Names fit whatever the case, as in Go. Raises InvalidParameter.

    above: where in the body this object is, for messages.
    """
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise InvalidParameter(
            f"json: cannot unmarshal {_GIVEN[type(body)]} into {above.rstrip('.') or 'the body'} of type object"
        )
    known = {name.lower(): name for name in table}
    found: dict[str, Any] = {}
    for key, value in body.items():
        name = known.get(key.lower())
        if name is None or value is None:
            continue
        kind = table[name]
        if kind is Words and isinstance(value, str):
            value = [value]
        wrong = _wrong(kind, value)
        if wrong is not None:
            given = _GIVEN[type(wrong[0])]
            raise InvalidParameter(f"json: cannot unmarshal {given} into field {above}{name} of type {_NAMES[kind]}")
        found[name] = value
    return found


def _wrong(kind: type, value: Any) -> tuple[Any] | None:
    """The value that is not of its type, if there is one."""
    if kind is Texts:
        members = value.values() if isinstance(value, dict) else None
        return (value,) if members is None else _first_wrong(str, members)
    if kind is Words:
        return _first_wrong(str, value) if isinstance(value, list) else (value,)
    if kind is Size:
        return None if isinstance(value, list) and len(value) == 2 and all(map(_is_cells, value)) else (value,)
    return _first_wrong(kind, (value,))


def _first_wrong(kind: type, values: Any) -> tuple[Any] | None:
    return next(
        ((one,) for one in values if not isinstance(one, kind) or (kind is int and isinstance(one, bool))), None
    )


def _is_cells(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_CELLS
