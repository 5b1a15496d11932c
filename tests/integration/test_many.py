"""Many containers at once: what a listing costs for each, and commands that meet others of their kind all the time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import sampan

from support.command import Command
from support.patience import patience
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]


def system_calls(root: Root, trace: Path, *args: str) -> int:
    """How many system calls the command makes from its first to its last."""
    command = [root.cli.program, *root.cli.before, *args]
    done = subprocess.run(
        ["strace", "-f", "-o", str(trace), *command],
        env=root.cli.environment,
        capture_output=True,
        timeout=patience(60),
    )
    assert done.returncode == 0, done.stderr
    return len(trace.read_text(errors="replace").splitlines())


@pytest.mark.parametrize("args", [("ps",), ("ps", "-aq"), ("ps", "--filter", "status=running")])
def test_a_listing_needs_few_system_calls_for_each_container(
    root: Root, engine: sampan.Engine, tmp_path: Path, args: tuple[str, ...]
) -> None:
    """33 and not 60: each container is looked at once, and of each of its files nothing is asked but the content."""
    for _ in range(2):
        engine.containers.create("base", SLEEP).start()
    few = system_calls(root, tmp_path / "few", *args)
    for _ in range(8):
        engine.containers.create("base", SLEEP).start()
    many = system_calls(root, tmp_path / "many", *args)
    assert (many - few) / 8 <= 33, (few, many)


def test_listings_while_containers_come_and_go(cli: Command) -> None:
    """`ps` failed with "No such container" where one was removed between its finding and its showing."""
    running = [
        cli.start("run", "--rm", "--network", "none", "base", "sh", "-c", ":", stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    listed = 0
    while running:
        for args in (("ps", "-a"), ("ps", "-aq", "--filter", "status=exited"), ("ps", "-as")):
            assert (cli(*args).ok().err) == ""
        listed += 1
        for process in [p for p in running if p.poll() is not None]:
            assert process.returncode == 0
            running.remove(process)
            if listed < 12:
                running.append(cli.start("run", "--rm", "--network", "none", "base", "true", stdout=subprocess.DEVNULL))
    assert listed >= 3


@pytest.mark.patience(900)
@pytest.mark.parametrize(
    ("times", "at_once"),
    [pytest.param(1, 50, id="some"), pytest.param(10, 100, id="all", marks=[pytest.mark.long, pytest.mark.alone])],
)
def test_many_runs_at_the_same_time(root: Root, cli: Command, times: int, at_once: int) -> None:
    """Every one gives its own output and exit code, and nothing of any is left."""
    before = root.state()
    for _ in range(times):
        running = [
            cli.start(
                "run", "--rm", "--network", "none", "base", "sh", "-c", f"echo {n}; exit {n}",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for n in range(at_once)
        ]  # fmt: skip
        for n, process in enumerate(running):
            out, err = process.communicate(timeout=patience(120))
            assert (process.returncode, out.decode(), err.decode()) == (n, f"{n}\n", "")
    assert cli("ps", "-aq").ok().out == ""
    cli("system", "check").ok()
    before.check()
