"""Frozen records: construction, equality, inheritance, and the way through JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.structs import Struct


class Point(Struct):
    x: int
    y: int = 0


class Named(Point):
    name: str = ""
    tags: tuple[str, ...] = ()
    inner: Point | None = None


def test_fields_are_positional_in_order_and_may_be_named() -> None:
    assert (Point(1).x, Point(1).y, Point(1, 2).y, Point(y=3, x=4).y) == (1, 0, 2, 3)


def test_fields_of_a_base_come_first_and_bases_keep_their_own() -> None:
    assert Named._fields == ("x", "y", "name", "tags", "inner")
    assert Point._fields == ("x", "y")


def test_a_subclass_may_change_a_default_without_moving_the_field() -> None:
    class Tall(Point):
        y = 9

    assert Tall._fields == ("x", "y")
    assert Tall(1).y == 9


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "Point misses the field 'x'"),
        ((1, 2, 3), {}, "Point takes 2 fields, 3 were given"),
        ((1,), {"x": 2}, "Point got an unknown or repeated field 'x'"),
        ((1,), {"z": 2}, "Point got an unknown or repeated field 'z'"),
    ],
)
def test_wrong_fields_are_told(args: tuple[int, ...], kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Point(*args, **kwargs)


def test_nothing_can_be_set_or_deleted() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen: x cannot be set"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Point is frozen: x cannot be deleted"):
        del point.x
    assert point == Point(1)


def test_equality_wants_the_same_class_and_hash_agrees() -> None:
    class Other(Point):
        pass

    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(2, 1)
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)
    assert len({Point(1, 2), Point(1, 2), Other(1, 2)}) == 2


def test_replace_makes_a_copy_and_refuses_what_is_no_field() -> None:
    point = Named(1, name="a")
    assert point.replace(y=5) == Named(1, 5, "a")
    assert point.y == 0
    with pytest.raises(TypeError, match="unknown or repeated field 'z'"):
        point.replace(z=1)


def test_repr_can_be_read_back() -> None:
    value = Named(1, 2, "a", ("t",), Point(3))
    assert repr(value) == "Named(x=1, y=2, name='a', tags=('t',), inner=Point(x=3, y=0))"
    assert eval(repr(value)) == value


def test_a_class_variable_is_no_field() -> None:
    class Limited(Struct):
        LIMIT: ClassVar[int] = 3  # type: ignore[name-defined]  # noqa: F821
        n: int = 0

    assert Limited._fields == ("n",)
    assert Limited(4).to_json() == {"n": 4}


@given(st.integers(), st.text(), st.lists(st.text()), st.integers())
def test_to_json_is_plain_all_the_way_down(x: int, name: str, tags: list[str], inner: int) -> None:
    value = Named(x, 0, name, tuple(tags), Point(inner))
    assert value.to_json() == {"x": x, "y": 0, "name": name, "tags": tags, "inner": {"x": inner, "y": 0}}


def test_to_json_goes_into_dictionaries() -> None:
    class Box(Struct):
        content: dict[str, object]

    assert Box({"a": Point(1), "b": [Point(2)]}).to_json() == {
        "content": {"a": {"x": 1, "y": 0}, "b": [{"x": 2, "y": 0}]}
    }


def test_what_was_whole_is_read_back_and_what_was_not_is_told() -> None:
    whole = Named(1, name="n", tags=("a",))
    assert Named.from_fields(whole.to_json()) == Named(1, 0, "n", ["a"], None)  # type: ignore[arg-type]
    assert Point.from_fields({"x": 3}) == Point(3)
    with pytest.raises(TypeError, match=r"^Point got an unknown or repeated field 'z'$"):
        Point.from_fields({"x": 1, "z": 2})
    with pytest.raises(AttributeError, match="Point is frozen"):
        Point.from_fields({"x": 1, "y": 2}).x = 2  # type: ignore[misc]
