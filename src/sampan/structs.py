"""Frozen records without the cost of `dataclasses` (18 ms of imports) or `typing` (12 ms).

A class that derives from `Struct` lists its fields as annotations, in order, with defaults as class
attributes; it gets a constructor, equality, a repr and a round trip through plain JSON data. Type
checkers see it as a frozen dataclass (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Struct:
    """A frozen record: fields are the annotations of the class and of its bases, bases first."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _names: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        # Since 3.10 a class's annotations are its own or empty, never its base's; 3.14 does not keep them in __dict__.
        own = [n for n, kind in cls.__annotations__.items() if not kind.startswith("ClassVar")]
        cls._fields = (*(f for f in cls._fields if f not in own), *own)
        cls._names = frozenset(cls._fields)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A start makes two hundred of these: names are looked at one by one only where something is wrong.
        cls = type(self)
        fields = cls._fields
        values = self.__dict__
        if args:
            values.update(zip(fields, args))  # noqa: B905  (its argument costs a tenth of all; lengths are compared below)
        if kwargs:
            values.update(kwargs)
            if len(values) != len(args) + len(kwargs) or not cls._names.issuperset(kwargs):
                raise TypeError(cls._complaint(args, kwargs))
        if len(values) != len(fields):
            for name in fields[len(args) :]:
                if name not in values:
                    if not hasattr(cls, name):
                        raise TypeError(cls._complaint(args, kwargs))
                    values[name] = getattr(cls, name)
        if len(args) > len(fields):
            raise TypeError(cls._complaint(args, kwargs))

    @classmethod
    def _complaint(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """What is wrong with fields that no record can be made of."""
        if len(args) > len(cls._fields):
            return f"{cls.__name__} takes {len(cls._fields)} fields, {len(args)} were given"
        given = cls._fields[: len(args)]
        for name in kwargs:
            if name not in cls._names or name in given:
                return f"{cls.__name__} got an unknown or repeated field {name!r}"
        missing = next(f for f in cls._fields if f not in given and f not in kwargs and not hasattr(cls, f))
        return f"{cls.__name__} misses the field {missing!r}"

    def to_values(self) -> list[Any]:
        """The fields without their names, in order; those at the end that are as they are by default are left out."""
        cls, values = type(self), self.__dict__
        found = [values[name] for name in cls._fields]
        for name in reversed(cls._fields):
            if found[-1] is not getattr(cls, name, found):
                break
            found.pop()
        return found

    @classmethod
    def from_values(cls, values: list[Any]) -> Self:
        """The record that `to_values` described. Raises TypeError for too many values, or too few."""
        fields = cls._fields
        if len(values) > len(fields):
            return cls(*values)  # which says what is wrong
        made = object.__new__(cls)
        own = made.__dict__
        own.update(zip(fields, values, strict=False))
        for name in fields[len(values) :]:
            if not hasattr(cls, name):
                return cls(*values)
            own[name] = getattr(cls, name)
        return made

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """The record with these fields, in a dictionary that is its own from now on: for what was whole once, and is read back by the hundred."""
        if len(fields) != len(cls._fields):
            return cls(**fields)
        for name in cls._fields:
            if name not in fields:
                return cls(**fields)  # which says what is wrong
        made = object.__new__(cls)
        object.__setattr__(made, "__dict__", fields)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *map(self.__dict__.__getitem__, self._fields)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f}={getattr(self, f)!r}' for f in self._fields)})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data; nested structs, tuples and lists included."""
        values = self.__dict__
        return {f: v if type(v := values[f]) in _ATOMS else _plain(v) for f in self._fields}


_ATOMS = frozenset((str, int, bool, float, type(None)))
"""Types of what is plain already: most of all values, which cost no call."""


def _plain(value: Any) -> Any:
    # The two that most of it is made of are asked for first.
    if isinstance(value, dict):
        return {k: v if type(v) in _ATOMS else _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [v if type(v) in _ATOMS else _plain(v) for v in value]
    return value.to_json() if isinstance(value, Struct) else value
