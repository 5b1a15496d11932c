"""Values as a Go template sees them: Python's own, and what Python has no word for.

None is a nil interface, str a string, dict a map, list a slice, int and float numbers; `Object` is a Go struct, `Nil` a
nil that has a type. Where Go's type shows (in messages, in what nil prints), `type_name` knows it.
"""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final


class _Missing:
    """No value at all: the field of a map that has no such key. Prints as <no value>."""


MISSING: Final = _Missing()


class Nil(Struct):
    """A nil slice, map or pointer; type: "[]string", "map[string]string", "*container.Health"."""

    type: str

    @property
    def is_pointer(self) -> bool:
        return self.type.startswith("*")


class Method(Struct):
    """A method of an `Object`; parameters: how many texts it takes."""

    call: Callable[..., object]
    parameters: int = 0


class Object:
    """A Go struct: fields by their Go names, in order; a value that is a `Method` is called when it is named.

    keys: what a field is called in JSON ("" for a field that JSON leaves out), if it is called otherwise.
    omitted: fields that JSON leaves out when they are empty.
    """

    __slots__ = ("fields", "keys", "omitted", "pointer", "type")

    def __init__(
        self,
        type: str,
        fields: Mapping[str, Any],
        pointer: bool = False,
        keys: Mapping[str, str] | None = None,
        omitted: frozenset[str] = frozenset(),
    ) -> None:
        self.type = type
        self.fields = fields
        self.pointer = pointer
        self.keys = keys or {}
        self.omitted = omitted


class Row(Object):
    """A line of a listing: JSON has its fields by name, and escapes what HTML would read."""

    __slots__ = ()


class Headings(dict[str, object]):
    """The headings of a table, as a map that has methods."""

    __slots__ = ("methods",)
    methods: Mapping[str, Method]


class Integer(int):
    """A number of another Go type than int; the type is the class's."""

    go_type = "int64"


class Unsigned(Integer):
    go_type = "uint64"


class Duration(Integer):
    """Nanoseconds."""

    go_type = "time.Duration"


class Time(str):
    """A time.Time; the text is RFC 3339, as JSON has it."""

    __slots__ = ()
    go_type = "time.Time"


class Slice(list[object]):
    """A slice whose elements have a type."""

    __slots__ = ("go_type",)
    go_type: str


class Map(dict[str, object]):
    """A map whose values have a type."""

    __slots__ = ("go_type",)
    go_type: str


def type_name(value: object) -> str:
    """The Go type of a value, as messages write it."""
    known = getattr(value, "go_type", None)
    if known is not None:
        return str(known)
    if isinstance(value, Object):
        return "*" + value.type if value.pointer else value.type
    if isinstance(value, Nil):
        return value.type
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return "<nil>"


_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float64"),
    (str, "string"),
    (dict, "map[string]interface {}"),
    (list, "[]interface {}"),
    (tuple, "[]interface {}"),
)


def is_nil(value: object) -> bool:
    return value is None or value is MISSING or isinstance(value, Nil)


def truth(value: object) -> bool:
    """Whether {{if}} takes it: not if it is empty, zero, false or nil. A struct is always true."""
    return isinstance(value, Object) or (not is_nil(value) and bool(value))


def sort_key(key: object) -> tuple[int, object]:
    """The order of a map's keys, and what keeps unlike ones apart."""
    return (0, key) if isinstance(key, (int, float)) else (1, str(key).encode("utf-8", "surrogateescape"))


def items_sorted(mapping: Mapping[Any, object]) -> list[tuple[Any, object]]:
    return sorted(mapping.items(), key=lambda item: sort_key(item[0]))
