"""Health checks: the flags and options that ask for one, what is run, and what a result makes of a container's health."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan import jsontext
from sampan.cli import request
from sampan.cli.flags import UsageError, parse
from sampan.cli.run import CREATE
from sampan.engine import options
from sampan.engine.inspect import Life, status_text
from sampan.errors import InvalidParameter
from sampan.kernel import clock
from sampan.oci import duration, health
from sampan.oci.image import parse_config
from sampan.shim.health import KEPT_RESULTS, judge, pause
from sampan.shim.protocol import HealthPlan

SECOND = 1_000_000_000


def asked(*flags: str) -> Any:
    return request.build(parse(CREATE.flags, [*flags, "base"], interspersed=False)).get("Healthcheck")


def plan(**changes: Any) -> HealthPlan:
    made = HealthPlan(30.0, 30.0, 0.0, 5.0, 3, ("true",), "", "too long", health.beginning(None))
    return made.replace(**changes)


def result(code: int, output: str = "") -> dict[str, Any]:
    return {"Start": "s", "End": "e", "ExitCode": code, "Output": output}


def after(codes: list[int], ages: list[float] | None = None, **changes: Any) -> tuple[str, int]:
    """Status and failing streak after these exit codes, from the start on."""
    made = plan(**changes)
    now = made.health
    for code, age in zip(codes, ages or [1000.0] * len(codes), strict=True):
        now = judge(made, now, result(code), age)
    return now["Status"], now["FailingStreak"]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], ("starting", 0)),
        ([0], ("healthy", 0)),
        ([1, 1], ("starting", 2)),
        ([1, 1, 1], ("unhealthy", 3)),
        ([1, 2, -1, 137], ("unhealthy", 4)),
        ([0, 1, 1], ("healthy", 2)),
        ([0, 1, 1, 1], ("unhealthy", 3)),
        ([1, 1, 1, 0], ("healthy", 0)),
        ([1, 1, 0, 1, 1], ("healthy", 2)),
    ],
)
def test_failures_in_a_row_count(codes: list[int], expected: tuple[str, int]) -> None:
    assert after(codes) == expected


@pytest.mark.parametrize(
    ("codes", "ages", "expected"),
    [
        ([1, 1, 1, 1], [1, 2, 3, 9.9], ("starting", 0)),
        ([1, 1, 1], [8, 9, 10], ("starting", 1)),
        ([1, 1, 1, 1], [9, 10, 11, 12], ("unhealthy", 3)),
        # After the first success they count, start period or not.
        ([1, 0, 1, 1, 1], [1, 2, 3, 4, 5], ("unhealthy", 3)),
    ],
)
def test_in_the_start_period_a_failure_does_not_count_until_the_first_success(
    codes: list[int], ages: list[float], expected: tuple[str, int]
) -> None:
    assert after(codes, ages, start_period=10.0) == expected


def test_one_failure_is_enough_if_that_was_asked_for() -> None:
    assert after([7], retries=1) == ("unhealthy", 1)


@given(st.lists(st.integers(-1, 255), max_size=30), st.integers(1, 5))
def test_the_status_follows_from_the_last_codes(codes: list[int], retries: int) -> None:
    made = plan(retries=retries)
    now = made.health
    for number, code in enumerate(codes):
        now = judge(made, now, result(code, str(number)), 1000.0)
    kept = list(range(len(codes)))[-KEPT_RESULTS:]
    assert [entry["Output"] for entry in now["Log"]] == [str(number) for number in kept]
    streak = next((n for n, code in enumerate(reversed(codes)) if code == 0), len(codes))
    assert now["FailingStreak"] == streak
    expected = "unhealthy" if streak >= retries else "healthy" if 0 in codes else "starting"
    assert now["Status"] == expected


def test_when_the_next_probe_is_due() -> None:
    made = plan(interval=30.0, start_period=10.0, start_interval=2.0)
    assert pause(made, "starting", 0.0) == 2.0
    assert pause(made, "starting", 10.0) == 30.0, "the start period is over"
    assert pause(made, "healthy", 1.0) == 30.0, "it has started"
    assert pause(plan(start_interval=2.0), "starting", 0.0) == 30.0, "there is no start period"


def test_a_plan_survives_its_journey() -> None:
    made = plan(command=("sh", "-c", "é \udcff"), health={**health.beginning(None), "Log": [result(1, "é")]})
    arrived = HealthPlan.from_text(made.to_text())
    assert arrived.replace(command=tuple(arrived.command)) == made


# what is run


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, []),
        ({"Healthcheck": None}, []),
        ({"Healthcheck": {}}, []),
        ({"Healthcheck": {"Test": []}}, []),
        ({"Healthcheck": {"Test": ["NONE"]}}, []),
        ({"Healthcheck": {"Test": ["OTHER", "x"]}}, []),
        ({"Healthcheck": {"Test": ["CMD"]}}, []),
        ({"Healthcheck": {"Test": ["CMD", "a", "b c"]}}, ["a", "b c"]),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "a | b"]}}, ["/bin/sh", "-c", "a | b"]),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "a"]}, "Shell": ["/bin/bash", "-ec"]}, ["/bin/bash", "-ec", "a"]),
    ],
)
def test_the_command(config: dict[str, Any], expected: list[str]) -> None:
    assert health.command(config) == expected


def test_what_is_not_set_is_dockers_default_and_nonsense_of_an_image_too() -> None:
    names = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    for check in ({}, dict.fromkeys(names, 0), dict.fromkeys(names, -5)):
        values = [health.setting({"Healthcheck": check}, name) for name in names]
        assert values == [30 * SECOND, 30 * SECOND, 0, 5 * SECOND, 3]
    assert health.setting({"Healthcheck": {"Interval": 7, "Retries": 1}}, "Interval") == 7


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ({"Interval": 999_999}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Timeout": -1}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Retries": -1, "StartPeriod": 5}, "Retries in Healthcheck cannot be negative"),
        ({"StartPeriod": 5}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"StartInterval": 5}, "StartInterval in Healthcheck cannot be less than 1ms"),
        ({"Test": "true"}, "invalid value for Healthcheck.Test: 'true' is not a list of text"),
        ({"Test": [1]}, "invalid value for Healthcheck.Test: [1] is not a list of text"),
        ({"Retries": "3"}, "invalid value for Healthcheck.Retries: '3' is not a number of 64 bits"),
        ({"Interval": True}, "invalid value for Healthcheck.Interval: True is not a number of 64 bits"),
        ({"Interval": 1 << 63}, "is not a number of 64 bits"),
    ],
)
def test_what_cannot_be_asked_for(check: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        health.check_request(check)
    assert text in str(caught.value)


def test_what_can_be_asked_for() -> None:
    health.check_request({"Test": None, "Interval": None, "Retries": 0})
    health.check_request({"Test": ["CMD", "a"], "Interval": 1_000_000, "StartPeriod": 1_000_000, "Retries": 1})


@pytest.mark.parametrize("check", [{"Interval": "5s"}, {"Retries": 1.5}, {"Timeout": True}, {"Test": "true"}])
def test_a_check_of_an_image_is_of_the_right_types(check: dict[str, Any]) -> None:
    document = {"rootfs": {"type": "layers", "diff_ids": []}, "config": {"Healthcheck": check}}
    with pytest.raises(InvalidParameter, match="Healthcheck is malformed"):
        parse_config(jsontext.dumps(document))


# the command line, compared with what docker 28.2.2 sends


def test_flags() -> None:
    assert asked() is None
    assert asked("--no-healthcheck") == {"Test": ["NONE"]}
    assert asked("--health-cmd", "x y") == {"Test": ["CMD-SHELL", "x y"]}
    assert asked("--health-interval", "1m30s") == {"Interval": 90 * SECOND}
    assert asked("--health-cmd=", "--health-retries=0", "--health-timeout=0") is None
    every = ("--health-cmd=x", "--health-interval=1s", "--health-timeout=2s", "--health-retries=4")
    assert asked(*every, "--health-start-period=5s", "--health-start-interval=600ms") == {
        "Test": ["CMD-SHELL", "x"],
        "Interval": SECOND,
        "Timeout": 2 * SECOND,
        "Retries": 4,
        "StartPeriod": 5 * SECOND,
        "StartInterval": 600_000_000,
    }


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--no-healthcheck", "--health-cmd=x"], "--no-healthcheck conflicts with --health-* options"),
        (["--no-healthcheck", "--health-retries=1"], "--no-healthcheck conflicts with --health-* options"),
        (["--health-interval=-1s"], "--health-interval cannot be negative"),
        (["--health-timeout=-1s"], "--health-timeout cannot be negative"),
        (["--health-retries=-1"], "--health-retries cannot be negative"),
        (["--health-start-period=-1s"], "--health-start-period cannot be negative"),
        (["--health-start-interval=-1ns"], "--health-start-interval cannot be negative"),
    ],
)
def test_flags_that_are_refused(flags: list[str], text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        asked(*flags)
    assert str(caught.value) == text


def test_flags_that_are_no_durations() -> None:
    expected = 'invalid argument "5" for "--health-interval" flag: time: missing unit in duration "5"'
    with pytest.raises(UsageError) as caught:
        asked("--health-interval", "5")
    assert str(caught.value) == expected


# the library


def test_the_option_takes_docker_pys_spelling_and_dockers() -> None:
    expected = {"Test": ["CMD-SHELL", "x"], "Interval": SECOND, "StartPeriod": 2 * SECOND, "Retries": 2}
    for given_check in (
        {"test": "x", "interval": SECOND, "start_period": 2 * SECOND, "retries": 2},
        {"Test": ["CMD-SHELL", "x"], "Interval": "1s", "StartPeriod": "2s", "Retries": 2, "Timeout": None},
    ):
        assert options.request("base", None, None, {"healthcheck": given_check})["Healthcheck"] == expected
    with pytest.raises(InvalidParameter, match="unknown field 'cmd' of healthcheck"):
        options.request("base", None, None, {"healthcheck": {"cmd": "x"}})


# what is shown


@pytest.mark.parametrize(
    ("status", "text"), [("starting", "(health: starting)"), ("healthy", "(healthy)"), ("unhealthy", "(unhealthy)")]
)
def test_the_status_column(status: str, text: str) -> None:
    assert status_text(Life("running", started=clock.now()), {"Status": status}).endswith(f" {text}")
    assert status_text(Life("paused", started=clock.now()), {"Status": status}).endswith(" (Paused)")
    assert status_text(Life("exited", finished=clock.now()), {"Status": status}).endswith(" ago")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (1, "1ns"), (1500, "1.5µs"), (300 * 10**6, "300ms"), (1500 * 10**6, "1.5s"), (90 * SECOND, "1m30s"),
     (3600 * SECOND, "1h0m0s"), (-SECOND, "-1s")],
)  # fmt: skip
def test_durations_are_written_as_go_writes_them(nanoseconds: int, text: str) -> None:
    assert duration.shown(nanoseconds) == text
    assert duration.parse(text) == nanoseconds
