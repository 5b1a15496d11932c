"""Options of log drivers: what is refused, in Docker's words (compared with dockerd 20.10), and what is made of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.engine import logoptions
from sampan.errors import InvalidParameter

FAILED = "failed to initialize logging driver: "


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("json-file", {"foo": "bar"}, "unknown log opt 'foo' for json-file log driver"),
        ("json-file", {"max-size": "x"}, f"{FAILED}invalid size: 'x'"),
        ("json-file", {"max-size": ""}, f"{FAILED}invalid size: ''"),
        ("json-file", {"max-size": "0"}, f"{FAILED}max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, f"{FAILED}max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, f'{FAILED}strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", {"compress": "yes"}, f'{FAILED}strconv.ParseBool: parsing "yes": invalid syntax'),
        (
            "json-file",
            {"compress": "true", "max-file": "1"},
            f"{FAILED}compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("json-file", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        (
            "json-file",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "json-file",
            {"tag": "{{.Nope}}"},
            f'{FAILED}template: log-tag:1:2: executing "log-tag" at <.Nope>: '
            "can't evaluate field Nope in type *logger.Info",
        ),
        ("json-file", {"tag": "a{{.Name"}, f"{FAILED}template: log-tag:1: unclosed action"),
        ("local", {"foo": "bar"}, "unknown log opt 'foo' for log driver local"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("local", {"max-size": "x"}, f"{FAILED}invalid value for max-size: x: invalid size: 'x'"),
        ("local", {"max-file": "0"}, f"{FAILED}compression cannot be enabled when max file count is 1"),
        ("local", {"max-file": "1"}, f"{FAILED}compression cannot be enabled when max file count is 1"),
        (
            "local",
            {"max-file": "x"},
            f'{FAILED}invalid value for max-file: x: strconv.Atoi: parsing "x": invalid syntax',
        ),
        (
            "local",
            {"compress": "q"},
            f'{FAILED}error reading compress log option: strconv.ParseBool: parsing "q": invalid syntax',
        ),
    ],
)
def test_refused_in_dockers_words(driver: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as e:
        logoptions.check({"Type": driver, "Config": options})
    assert str(e.value) == message


@pytest.mark.parametrize("options", [{"env-regex": "("}, {"labels-regex": "("}])
def test_bad_patterns(options: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match=r"^failed to initialize logging driver: error parsing regexp: .*`\(`$"):
        logoptions.check({"Type": "json-file", "Config": options})


def test_what_would_lose_lines_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="non-blocking"):
        logoptions.check({"Type": "json-file", "Config": {"mode": "non-blocking"}})
    logoptions.check({"Type": "json-file", "Config": {"mode": "blocking"}})


def test_a_driver_that_is_not_there() -> None:
    with pytest.raises(InvalidParameter, match=r'plugin "syslog" not found \(there are json-file, local, none\)'):
        logoptions.check({"Type": "syslog"})


@pytest.mark.parametrize(
    ("driver", "options", "bounds"),
    [
        ("json-file", {}, (10_000_000, 3, False)),
        ("json-file", {"max-size": "10k"}, (10_000, 3, False)),
        ("json-file", {"max-size": "1.5MB", "max-file": "7"}, (1_500_000, 7, False)),
        ("json-file", {"max-size": "-1"}, (0, 3, False)),
        ("json-file", {"compress": "true"}, (10_000_000, 3, True)),
        ("local", {}, (20 << 20, 5, True)),
        ("local", {"compress": "0", "max-file": "1"}, (20 << 20, 1, False)),
    ],
)
def test_bounds(driver: str, options: dict[str, str], bounds: Any) -> None:
    assert logoptions._bounds(driver, options) == bounds


def test_the_options_stay_as_they_were_given() -> None:
    given = {"Type": "json-file", "Config": {"max-size": "10m", "labels": "a,b"}}
    assert logoptions.check(given) == given
    assert logoptions.check({}) == {"Type": "json-file", "Config": {}}


def test_a_tag() -> None:
    values = {"Name": "box", "ID": "0123"}
    assert logoptions.expand_tag("x/{{.Name}}/{{ .ID }}!", values) == "x/box/0123!"
    assert logoptions.expand_tag("", values) == ""
    with pytest.raises(InvalidParameter, match="made of fields"):
        logoptions.expand_tag("{{upper .Name}}", values)
