"""Verbs that take several containers: at once where that is worth it, in the order of the command line, one that fails stops no other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest

import sampan
from sampan.engine.parallel import AT_ONCE, at_once

from support.command import Command
from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]
DEAF = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]


def made(engine: sampan.Engine, *names: str, command: list[str] = SLEEP, start: bool = True, **options: object) -> None:
    for name in names:
        box = engine.containers.create("base", command, name=name, **options, network="none")
        if start:
            box.start()
    for name in names:
        if command == DEAF:
            eventually(lambda name=name: list(engine.containers.get(name).logs()), what="its signal handler")


def test_stopping_twenty_takes_as_long_as_stopping_one(cli: Command, engine: sampan.Engine) -> None:
    """Each ignores its stop signal and is killed after 3 s: one after the other that would be a minute."""
    names = [f"deaf{n}" for n in range(20)]
    made(engine, *names, command=DEAF)
    begun = time.monotonic()
    done = cli("stop", "-t", "3", *names)
    seconds = time.monotonic() - begun
    assert (done.code, done.out.split(), done.err) == (0, names, "")
    assert 3 <= seconds < patience(3 + 8), seconds
    assert {engine.containers.get(name).inspect()["State"]["ExitCode"] for name in names} == {137}


def test_one_that_is_not_there_stops_no_other(cli: Command, engine: sampan.Engine) -> None:
    made(engine, "a1", "b1", "c1")
    no = "No such container"
    for verb, errors in (
        (("pause",), [f"Error: {no}: no1", f"Error: {no}: no2"]),
        (("unpause",), [f"Error: {no}: no1", f"Error: {no}: no2"]),
        (("restart", "-t", "0"), [f"Error: {no}: no1", f"Error: {no}: no2"]),
        (("kill",), [f"Error: cannot kill container: {n}: {no}: {n}" for n in ("no1", "no2")]),
        (("start",), [f"Error: {no}: no1", f"Error: {no}: no2", "Error: failed to start containers: no1, no2"]),
        (("stop", "-t", "0"), [f"Error: {no}: no1", f"Error: {no}: no2"]),
        (("update", "--pids-limit", "90"), [f"Error: {no}: no1", f"Error: {no}: no2"]),
        (("rm",), [f"Error: {no}: no1", f"Error: {no}: no2"]),
    ):
        done = cli(*verb, "a1", "no1", "b1", "no2", "c1")
        assert (done.code, done.out, done.err.splitlines()) == (1, "a1\nb1\nc1\n", errors), verb
    assert cli("ps", "-aq").ok().out == ""


def test_removing_by_force_what_is_not_there_is_no_failure(cli: Command, engine: sampan.Engine) -> None:
    made(engine, "a1", "b1")
    done = cli("rm", "-f", "a1", "nosuch", "b1").ok()
    assert (done.out, done.err) == ("a1\nb1\n", "Error: No such container: nosuch\n")


def test_one_that_is_named_twice(cli: Command, engine: sampan.Engine) -> None:
    """Two threads of one command meet at one container as two commands do."""
    made(engine, "a1")
    assert cli("stop", "-t", "0", "a1", "a1", "a1").ok().out == "a1\na1\na1\n"
    done = cli("rm", "a1", "a1")
    assert (done.code, done.out) == (1, "a1\n")
    assert done.err in (
        "Error: No such container: a1\n",
        "Error: removal of container a1 is already in progress\n",
    )


def sockets(pid: int) -> int:
    """That a process has open; one that it closes while we look is not counted."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return found


def test_waiting_for_several(root: Root, engine: sampan.Engine) -> None:
    """Also for one that is gone before its turn comes."""
    for name, code in (("slow", 4), ("quick", 5)):
        script = f"trap 'exit {code}' USR1; echo up; while :; do sleep 0.05; done"
        made(engine, name, command=["sh", "-c", script], auto_remove=True)
        eventually(lambda name=name: list(engine.containers.get(name).logs()), what="its signal handler")
    command = root.cli.start("wait", "slow", "nosuch", "quick", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: sockets(command.pid) == 2, 60, "it waits for both")
    for name in ("quick", "slow"):
        engine.containers.get(name).kill("USR1")
        eventually(
            lambda name=name: name not in [b.name for b in engine.containers.list(all=True)], 60, f"{name} is gone"
        )
    out, err = command.communicate(timeout=patience(60))
    assert (command.returncode, out, err) == (1, b"4\n5\n", b"Error: No such container: nosuch\n")


def test_only_one_is_started_and_attached_to(cli: Command, engine: sampan.Engine) -> None:
    made(engine, "a1", "b1", start=False)
    for flag in ("-a", "-i"):
        done = cli("start", flag, "a1", "b1")
        assert (done.code, done.err) == (1, "you cannot start and attach multiple containers at once\n")
    # One after the other, in their order: the second may need the first.
    engine.containers.create("base", SLEEP, name="joined", network_mode="container:a1")
    assert cli("start", "a1", "joined").ok().out == "a1\njoined\n"


def test_an_interrupt_ends_the_command_and_not_the_containers(root: Root, engine: sampan.Engine) -> None:
    made(engine, "a1", "b1", command=DEAF)
    command = root.cli.start("stop", "-t", "600", "a1", "b1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ids = [engine.containers.get(name).id for name in ("a1", "b1")]  # others of these names were before them
    kills = {"event": "kill", "container": ids}

    def signalled() -> bool:
        with engine.events(since="1m", until="0s", filters=kills) as events:
            return {event["Actor"]["ID"] for event in events} == set(ids)

    eventually(signalled, 20, "both have their signal")
    command.send_signal(signal.SIGINT)
    assert command.wait(patience(60)) in (130, -signal.SIGINT)
    assert [engine.containers.get(name).status for name in ("a1", "b1")] == ["running", "running"]


def test_more_than_are_done_at_once_and_what_one_raises() -> None:
    words = [str(n) for n in range(3 * AT_ONCE)]

    def half(word: str) -> str:
        return str(100 // (int(word) - 7))

    done = list(at_once(words, half))
    assert [word for word, _ in done] == words
    outcomes = [outcome for _, outcome in done]
    assert [type(o.error) for o in outcomes if o.error] == [ZeroDivisionError]
    assert outcomes[7].error is not None
    assert [o.value for o in outcomes[8:10]] == ["100", "50"]
