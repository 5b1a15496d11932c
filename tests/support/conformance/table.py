"""The table of docs/conformance.md: what each test asks, by whose text, and what each runtime made of it in one run."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from support.conformance.reasons import REASONS

OURS = "sampan-oci"
PASSED, FAILED, UNTOLD, NOT_RUN = "passed", "failed", "untold", "not run"
_NAME = re.compile(r"test_([a-z]+[0-9]+)_")
_TEXT = re.compile(r"(?P<section>[^.]+)\. (?P<quote>.+)", re.DOTALL)
_HEAD = """\
# Conformance

What the OCI runtime specification 1.2.0 demands, sentence by sentence, and whether it is so: the same tests, in one run, against
`runc` and against `sampan-oci`. A quoted sentence is the specification's; numbers that begin with R are of its `runtime.md`, with RL of
`runtime-linux.md`, C of `config.md`, L of `config-linux.md`, F of `features.md` and `features-linux.md`. X is the command line that callers of runtimes
expect, which no specification has. The tests are in `tests/conformance`; `make conformance` runs them, writes this page, and fails if
there is one that runc passes and ours does not, or one that fails without a reason that is known.

"""


@dataclass(frozen=True)
class Demand:
    """One test, as its source has it."""

    number: str
    section: str
    quote: str
    name: str
    file: str


@dataclass
class Results:
    """What became of the cases of one test with one runtime: a test without parameters has one case, ""."""

    cases: dict[str, tuple[str, str]] = field(default_factory=dict)

    def record(self, case: str, outcome: str, why: str) -> None:
        """A case has one outcome; what fails in its teardown has failed."""
        if self.cases.get(case, ("", ""))[0] != FAILED:
            self.cases[case] = (outcome, why)

    def outcome(self) -> str:
        outcomes = {outcome for outcome, _ in self.cases.values()}
        if not outcomes:
            return NOT_RUN
        return FAILED if FAILED in outcomes else PASSED if PASSED in outcomes else UNTOLD

    def having(self, outcome: str) -> list[str]:
        return sorted(case for case, (its, _) in self.cases.items() if its == outcome)


def number_of(name: str) -> str:
    """ "test_r12_what_it_is" is R12."""
    match = _NAME.match(name)
    assert match, f"{name}: no number"
    return match.group(1).upper()


def demands(directory: Path) -> list[Demand]:
    """Every test of the suite in the order of the chapters; an AssertionError for one without a number or its text."""
    found = []
    for file in sorted(directory.glob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                text = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
                match = _TEXT.fullmatch(text)
                assert match, f"{file.name}: {node.name}: its docstring has no section and sentence"
                found.append(Demand(number_of(node.name), match["section"], match["quote"], node.name, file.name))
    return sorted(found, key=lambda demand: _order(demand.number))


def _order(number: str) -> tuple[int, int]:
    kind = number.rstrip("0123456789")
    return ["R", "RL", "C", "L", "F", "X"].index(kind), int(number[len(kind) :])


class Table:
    """The results of one run."""

    def __init__(self, found: list[Demand], runtimes: list[str]) -> None:
        self.demands = found
        self.runtimes = runtimes
        self._results: dict[tuple[str, str], Results] = {}

    def record(self, number: str, runtime: str, case: str, outcome: str, why: str = "") -> None:
        self._results.setdefault((number, runtime), Results()).record(case, outcome, why)

    def results(self, number: str, runtime: str) -> Results:
        return self._results.get((number, runtime), Results())

    def problems(self) -> list[str]:
        """What must not be: ours fails what runc passes, a failure nobody has explained, a test that was not run."""
        found = []
        for demand in self.demands:
            for runtime in self.runtimes:
                results = self.results(demand.number, runtime)
                failed = results.having(FAILED)
                if not results.cases:
                    found.append(f"{demand.number}: was not run with {runtime}")
                elif failed and runtime == OURS:
                    found += [f"{demand.number}: ours fails {case}" for case in self._worse(demand, failed)]
                if failed and demand.number not in REASONS.get(runtime, {}):
                    cases = " ".join(failed)
                    found.append(f"{demand.number}: {runtime} fails without a known reason: {demand.name} {cases}")
        return found

    def _worse(self, demand: Demand, failed: list[str]) -> list[str]:
        """The cases of these that another runtime passes."""
        others = [self.results(demand.number, runtime) for runtime in self.runtimes if runtime != OURS]
        return [f"{demand.name} {case}" for case in failed if any(case in other.having(PASSED) for other in others)]

    def render(self, versions: dict[str, str], machine: str) -> str:
        """The page."""
        lines = [_HEAD + f"This run: {machine}; " + "; ".join(versions[name] for name in self.runtimes) + ".\n"]
        lines += [self._totals(), ""]
        lines += [
            f"| number | section | demand | {' | '.join(self.runtimes)} |",
            "|---" * (3 + len(self.runtimes)) + "|",
        ]
        for demand in self.demands:
            cells = [_cell(self.results(demand.number, runtime)) for runtime in self.runtimes]
            lines.append(f"| {demand.number} | {demand.section} | {_escaped(demand.quote)} | {' | '.join(cells)} |")
        lines += ["", "## Why", ""]
        for runtime in self.runtimes:
            reasons = self._reasons(runtime)
            if reasons:
                lines += [f"What fails or cannot be told here with `{runtime}`:", "", *reasons, ""]
        return "\n".join(lines)

    def _totals(self) -> str:
        texts = []
        for runtime in self.runtimes:
            outcomes = [self.results(demand.number, runtime).outcome() for demand in self.demands]
            counts = {outcome: outcomes.count(outcome) for outcome in (PASSED, FAILED, UNTOLD, NOT_RUN)}
            cases = sum(len(self.results(demand.number, runtime).cases) for demand in self.demands)
            texts.append(
                f"`{runtime}` passes {counts[PASSED]} of {len(self.demands)} tests ({cases} cases), fails {counts[FAILED]}, "
                f"and {counts[UNTOLD]} cannot be told on this machine"
                + (f"; {counts[NOT_RUN]} were not run" if counts[NOT_RUN] else "")
            )
        return "; ".join(texts) + "."

    def _reasons(self, runtime: str) -> list[str]:
        found = []
        for demand in self.demands:
            results = self.results(demand.number, runtime)
            if results.having(FAILED):
                found.append(f"- {demand.number}: {REASONS.get(runtime, {}).get(demand.number, 'not known')}")
            untold = {why: case for case, (outcome, why) in results.cases.items() if outcome == UNTOLD}
            found += [f"- {demand.number}{f' ({case})' if case else ''}: {why}" for why, case in untold.items()]
        return found


def _cell(results: Results) -> str:
    failed, untold = results.having(FAILED), results.having(UNTOLD)
    if failed and failed != [""]:
        return f"fails: {_escaped(', '.join(failed))}" if len(failed) < len(results.cases) else "fails"
    if failed:
        return "fails"
    if not results.cases:
        return NOT_RUN
    if len(untold) == len(results.cases):
        return "cannot be told here"
    return "passes" + (f"; cannot be told here: {', '.join(untold)}" if untold else "")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
