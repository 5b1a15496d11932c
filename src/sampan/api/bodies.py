"""JSON bodies judged by tables: names of members and their types. What is not in a table is ignored, as by Docker."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Texts:
    """In a table: an object whose members are texts."""


_NAMES = {Texts: "map[string]string", str: "string", bool: "bool", int: "int64", dict: "object", list: "array"}
_GIVEN = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}


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
        wrong = _wrong(kind, value)
        if wrong is not None:
            value = wrong[0]
            given = _GIVEN[type(value)]
            raise InvalidParameter(f"json: cannot unmarshal {given} into field {above}{name} of type {_NAMES[kind]}")
        found[name] = value
    return found


def _wrong(kind: type, value: Any) -> tuple[Any] | None:
    """The value that is not of its type, if there is one."""
    if kind is Texts:
        if not isinstance(value, dict):
            return (value,)
        return next(((member,) for member in value.values() if not isinstance(member, str)), None)
    return None if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else (value,)
