"""Subordinate ids and the maps made of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sampan.oci import subids

TEXT = "alice:100000:65536\n# no entry\nbob:165536:65536\nsampan:300000:1000\nsampan:500000:70000\nbroken:x:1\n0:900000:5\n"


def test_the_first_owner_that_has_any_counts() -> None:
    assert subids.ranges(TEXT, ("sampan", "root", "0")) == [(300000, 1000), (500000, 70000)]
    assert subids.ranges(TEXT, ("nobody", "root", "0")) == [(900000, 5)]
    assert subids.ranges(TEXT, ("nobody", "broken")) == []
    assert subids.ranges("", ("root",)) == []


def test_advice_names_a_range_that_nobody_has() -> None:
    assert subids.free("") == 100000
    assert subids.free("alice:100000:65536\n") == 196608
    assert subids.free(TEXT) >= 900005


def test_a_private_map_has_as_many_ids_as_images_use() -> None:
    ranges = [(300000, 1000), (500000, 70000)]
    assert subids.private_map(ranges) == ((0, 300000, 1000), (1000, 500000, 64536))
    assert subids.private_map([]) == ()
    assert subids.lines(subids.private_map(ranges)) == "0 300000 1000\n1000 500000 64536\n"


def test_the_kept_id_is_itself_outside() -> None:
    assert subids.keep_map([(100000, 65536)], 1000) == ((0, 100000, 1000), (1000, 1000, 1), (1001, 101001, 64535))
    assert subids.keep_map([(100000, 65536)], 0) == ((0, 0, 1), (1, 100001, 65535))
    assert subids.keep_map([(100000, 10)], 5000) == ((0, 100000, 10), (5000, 5000, 1))


@given(st.integers(0, 70000), st.integers(0, 70000))
def test_maps_lead_there_and_back(kept: int, one: int) -> None:
    entries = subids.keep_map([(200000, 30000), (400000, 50000)], kept)
    assert subids.outside(entries, kept) == kept
    away = subids.outside(entries, one)
    assert away == -1 or subids.outside(subids.reverse(entries), away) == one
    inside = [i for first, _, length in entries for i in (first, first + length - 1)]
    assert len(set(inside)) == len(inside) - sum(1 for e in entries if e[2] == 1), "no id is mapped twice"
