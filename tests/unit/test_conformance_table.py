"""docs/conformance.md lists each test of the conformance suite, as its source has it, and every reason is of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.conformance.reasons import REASONS
from support.conformance.table import FAILED, PASSED, UNTOLD, Demand, Table, demands

PROJECT = Path(__file__).parents[2]
DEMANDS = demands(PROJECT / "tests/conformance")


def rows() -> dict[str, tuple[str, str]]:
    """The section and sentence of each number in the page."""
    found = {}
    for line in (PROJECT / "docs/conformance.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| number"):
            number, section, *quote, _, _ = line.strip("| ").replace("\\|", "\0").split(" | ")
            found[number] = (section, " | ".join(quote).replace("\0", "|").replace("\\*", "*"))
    return found


def test_every_test_has_a_number_of_its_own() -> None:
    numbers = [demand.number for demand in DEMANDS]
    assert [number for number in set(numbers) if numbers.count(number) > 1] == []


def test_the_page_lists_each_test() -> None:
    """`make conformance` writes it."""
    assert rows() == {demand.number: (demand.section, demand.quote) for demand in DEMANDS}


@pytest.mark.parametrize("chapter", ["R", "RL", "C", "L", "F", "X"])
def test_every_chapter_is_there(chapter: str) -> None:
    assert any(demand.number.rstrip("0123456789") == chapter for demand in DEMANDS)


def test_reasons_are_of_tests() -> None:
    numbers = {demand.number for demand in DEMANDS}
    assert [number for reasons in REASONS.values() for number in reasons if number not in numbers] == []


# The judgement itself, with results that are made up.


def table(*numbers: str) -> Table:
    made = [Demand(number, "section", "sentence", f"test_{number.lower()}_x", "test_x.py") for number in numbers]
    return Table(made, ["runc", "sampan-oci"])


def test_what_both_pass_is_no_problem() -> None:
    one = table("R1")
    for runtime in one.runtimes:
        one.record("R1", runtime, "", PASSED)
    assert one.problems() == []


def test_what_runc_passes_and_ours_does_not_is_a_problem_whatever_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REASONS["sampan-oci"], "R1", "known")
    one = table("R1")
    one.record("R1", "runc", "a", PASSED)
    one.record("R1", "sampan-oci", "a", FAILED)
    assert one.problems() == ["R1: ours fails test_r1_x a"]


def test_a_failure_needs_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    one = table("R1")
    one.record("R1", "runc", "", FAILED)
    one.record("R1", "sampan-oci", "", PASSED)
    assert len(one.problems()) == 1
    monkeypatch.setitem(REASONS["runc"], "R1", "known")
    assert one.problems() == []


def test_a_test_that_was_not_run_is_a_problem() -> None:
    one = table("R1")
    one.record("R1", "runc", "", PASSED)
    assert one.problems() == ["R1: was not run with sampan-oci"]


def test_a_teardown_that_fails_has_failed_the_test() -> None:
    one = table("R1")
    one.record("R1", "runc", "", FAILED)
    one.record("R1", "runc", "", PASSED)
    assert one.results("R1", "runc").outcome() == FAILED


def test_what_cannot_be_told_here_is_said_with_its_reason() -> None:
    one = table("R1")
    for runtime in one.runtimes:
        one.record("R1", runtime, "", UNTOLD, "no such processor")
    assert one.problems() == []
    page = one.render({name: name for name in one.runtimes}, "a machine")
    assert "| cannot be told here | cannot be told here |" in page
    assert "- R1: no such processor" in page
