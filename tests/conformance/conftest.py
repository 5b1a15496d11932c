"""The runtimes under test (--runtime), containers of them, and the table of what came out (--table)."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from support.conformance import table
from support.conformance.fixtures import OURS, directory, oci, runtime, suite_directory, tools

__all__ = ["directory", "oci", "runtime", "suite_directory", "tools"]

RUNTIMES = ("runc", OURS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runtime", action="append", metavar="PROGRAM", help="test this OCI runtime (default: runc, ours)"
    )
    parser.addoption("--table", metavar="FILE", help="write the results there, and judge them")


def pytest_configure(config: pytest.Config) -> None:
    target = config.getoption("table", None)
    if target:
        config.pluginmanager.register(Reporter(Path(target), runtimes(config)))


def runtimes(config: pytest.Config) -> list[str]:
    # Only what the command line of this folder's own run says: a run of all tests does not know the option.
    return config.getoption("runtime", None) or list(RUNTIMES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime_program" in metafunc.fixturenames:
        programs = [
            pytest.param(
                program, id=os.path.basename(program), marks=pytest.mark.long if program == OURS else pytest.mark.peer
            )
            for program in runtimes(metafunc.config)
        ]
        metafunc.parametrize("runtime_program", programs, scope="session")


class Reporter:
    """Collects what became of each test, writes the table, and decides how the run ends."""

    def __init__(self, target: Path, programs: list[str]) -> None:
        self.target = target
        self.programs = sorted(programs, key=lambda program: program == OURS)
        self.table = table.Table(table.demands(Path(__file__).parent), [os.path.basename(p) for p in self.programs])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome == "failed":
            name, _, case = report.nodeid.rpartition("::")[2].removesuffix("]").partition("[")
            runtime = next(each for each in self.table.runtimes if case.startswith(each))  # which may have a dash in it
            parameter = case.removeprefix(runtime).removeprefix("-")
            why = getattr(report, "wasxfail", "")
            outcome = table.FAILED if report.failed else table.UNTOLD if why else table.PASSED
            self.table.record(table.number_of(name), runtime, parameter, outcome, why.removeprefix("reason: "))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        versions = {os.path.basename(program): _version(program) for program in self.programs}
        machine = f"{platform.system()} {platform.release()}, {platform.machine()}, {_cgroups()}"
        self.target.write_text(self.table.render(versions, machine))
        self.problems = self.table.problems()
        # What a failed test means is for the table to say: one that is known to fail with runc is no failure of the run.
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if self.problems else pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section(f"conformance: {self.target}")
        for problem in self.problems:
            terminalreporter.write_line(problem)
        terminalreporter.write_line("conforms as far as runc does" if not self.problems else "DOES NOT CONFORM")


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.partition("\n")[0].strip()


def _cgroups() -> str:
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    hybrid = Path("/sys/fs/cgroup/unified/cgroup.controllers").exists()
    return "cgroup v2" if unified else "hybrid cgroups" if hybrid else "cgroup v1"
