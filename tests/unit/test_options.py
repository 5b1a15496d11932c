"""The library's options become the body that dockerd would get; sizes are read as Docker's command line reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.engine import options
from sampan.errors import InvalidParameter


# What docker 28.2 made of each (docker create -m SIZE).
@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("256m", 268435456),
        ("256M", 268435456),
        ("1.5g", 1610612736),
        ("1 g", 1073741824),
        ("1gib", 1073741824),
        ("1GB", 1073741824),
        ("7b", 7),
        ("5e3", 5000),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert options.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("256q", "invalid suffix: 'q'"),
        ("q", "invalid size: 'q'"),
        ("", "invalid size: ''"),
        ("-5", "invalid size: '-5'"),
        ("1gx", "invalid suffix: 'gx'"),
        ("1kbx", "invalid suffix: 'kbx'"),
        ("1.2.3", 'strconv.ParseFloat: parsing "1.2.3": invalid syntax'),
    ],
)
def test_sizes_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        options.parse_size(text)
    assert str(caught.value) == message


@given(st.text())
def test_any_text_is_a_size_or_a_bad_parameter(text: str) -> None:
    try:
        assert options.parse_size(text) >= 0
    except InvalidParameter:
        pass


@pytest.mark.parametrize(
    ("text", "nano"), [("0.5", 500_000_000), ("2", 2_000_000_000), (".25", 250_000_000), ("1/2", 500_000_000)]
)
def test_cpus(text: str, nano: int) -> None:
    assert options.parse_cpus(text) == nano


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "failed to parse x as a rational number"),
        ("", "failed to parse  as a rational number"),
        ("1.23456789012", "value is too precise"),
        ("1/3", "value is too precise"),
        ("1/0", "failed to parse 1/0 as a rational number"),
    ],
)
def test_cpus_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        options.parse_cpus(text)
    assert str(caught.value) == message


def test_swap_may_be_without_limit() -> None:
    assert options.parse_swap("-1") == -1
    assert options.parse_swap("1g") == 1 << 30


def body(**given: Any) -> dict[str, Any]:
    return options.request("base", None, None, given)


def test_the_issues_example() -> None:
    made = options.request("debian:12", ["sleep", "60"], None, {"memory": "128m", "cpus": 0.5})
    assert made == {
        "Image": "debian:12",
        "Cmd": ["sleep", "60"],
        "HostConfig": {"Memory": 134217728, "NanoCpus": 500_000_000},
    }


def test_a_tenth_of_a_cpu_is_a_tenth() -> None:
    assert body(cpus=0.1)["HostConfig"]["NanoCpus"] == 100_000_000


def test_a_command_as_text_is_split_as_a_shell_would() -> None:
    assert options.request("base", "sh -c 'echo a b'", "box", {})["Cmd"] == ["sh", "-c", "echo a b"]


def test_environment_as_a_mapping_or_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "x")
    monkeypatch.delenv("NOT_HERE", raising=False)
    assert body(environment={"A": "1", "FROM_HERE": None, "NOT_HERE": None})["Env"] == ["A=1", "FROM_HERE=x"]
    assert body(environment=["A=1", "B"])["Env"] == ["A=1", "B"]


def test_labels_as_a_mapping_or_a_list() -> None:
    assert body(labels={"a": 1})["Labels"] == {"a": "1"}
    assert body(labels=["a", "b"])["Labels"] == {"a": "", "b": ""}


def test_an_option_of_none_is_not_given() -> None:
    assert body(memory=None, hostname=None) == {"Image": "base", "HostConfig": {}}


def test_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(InvalidParameter, match=r"unknown option 'memmory'.*mem_limit"):
        body(memmory="1g")


def test_one_thing_under_two_names_is_a_mistake() -> None:
    with pytest.raises(InvalidParameter, match="given twice"):
        body(memory="1g", mem_limit="1g")


def test_every_option_goes_to_a_field_that_exists() -> None:
    from sampan.engine import fields

    for option, (room, field, _) in options._OPTIONS.items():
        assert field in (fields.HOST_CONFIG if room else fields.CONFIG), option
