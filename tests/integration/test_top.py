"""`top`: a container's processes, by ps of the host and without it."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import Conflict, InvalidParameter, System

from support.command import Command
from support.patience import eventually

pytestmark = pytest.mark.root

TWO = ["sh", "-c", "sleep 1234 & echo ready; wait"]


def started(engine: sampan.Engine, **options: Any) -> Container:
    box = engine.containers.create("base", TWO, **options)
    box.start()
    eventually(lambda: list(box.logs()), what="both processes")
    return box


def pids(box: Container) -> dict[str, str]:
    """Command -> pid, by the kernel."""
    main = box.inspect()["State"]["Pid"]
    with open(f"/proc/{main}/task/{main}/children") as file:
        (child,) = file.read().split()
    return {" ".join(TWO): str(main), "sleep 1234": child}


@pytest.mark.core
def test_a_table_as_docker_prints_it(engine: sampan.Engine, cli: Command) -> None:
    box = started(engine, name="topped")
    expected = pids(box)
    assert box.top("-o pid,args") == {
        "Titles": ["PID", "COMMAND"],
        "Processes": [[pid, command] for command, pid in expected.items()],
    }
    done = cli("top", "topped", "-o", "pid,args").ok().out
    assert done.splitlines() == [
        f"{'PID':20}COMMAND",
        *(f"{pid:20}{command}" for command, pid in expected.items()),
    ]
    full = cli("container", "top", "topped").ok().out.splitlines()
    assert full[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [line.split()[1] for line in full[1:]] == list(expected.values())


def test_the_options_are_those_of_ps(engine: sampan.Engine, cli: Command) -> None:
    box = started(engine, name="topped")
    main, child = pids(box).values()
    said = subprocess.run(["ps", "-o", "vsz=", "-q", main], capture_output=True, text=True, check=True).stdout
    # No option of ps is taken for one of ours, and the caller's screen cuts nothing off.
    shown = cli("top", "topped", "axo", "pid=PID,vsz,args", "--sort", "-pid", env={"COLUMNS": "10"}).ok().out
    assert [line.split() for line in shown.splitlines()] == [
        ["PID", "VSZ", "COMMAND"],
        [child, said.strip(), "sleep", "1234"],
        [main, said.strip(), *" ".join(TWO).split()],
    ]
    threads = box.top("axm -o pid,tty")["Processes"]
    assert threads == [[main, "?"], ["-", "-"], [child, "?"], ["-", "-"]]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ("-o args", System, "Couldn't find PID field in ps output"),
        ("-o pid,foo", System, 'ps: error: unknown user-defined format specifier "foo"'),
        ("-C none-such -o pid", System, "ps: exit status 1"),
        ("-o pid,ppid=PID", InvalidParameter, 'specifying "pid,ppid=PID" is not allowed'),
    ],
)
def test_options_that_give_no_pids(engine: sampan.Engine, options: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        started(engine).top(options)
    assert str(caught.value) == message


def test_states(engine: sampan.Engine, cli: Command) -> None:
    box = engine.containers.create("base", TWO, name="topped")
    refused = cli("top", "topped")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"Error: container {box.id} is not running\n"
    box.start()
    box.pause()
    assert box.top()["Processes"]
    box.kill()
    with pytest.raises(Conflict):
        box.top()
    assert cli("top", "nobody").err == "Error: No such container: nobody\n"
    assert "requires at least 1 argument" in cli("top").err


def test_a_machine_without_ps(engine: sampan.Engine, cli: Command) -> None:
    box = started(engine, name="topped")
    expected = pids(box)
    without = {"PATH": "/none"}
    by_ps = [line.split() for line in cli("top", "topped").ok().out.splitlines()]
    ours = [line.split() for line in cli("top", "topped", env=without).ok().out.splitlines()]
    # What moves on between two looks is not compared; nor when it began, which each rounds from the clock's present state: it may fall into two minutes.
    moving = {by_ps[0].index(name) for name in ("C", "TIME", "STIME")}
    for one, other in zip(by_ps, ours, strict=True):
        assert [w for i, w in enumerate(one) if i not in moving] == [w for i, w in enumerate(other) if i not in moving]
    begun = by_ps[0].index("STIME")
    minutes = [int(line[1][begun][:2]) * 60 + int(line[1][begun][3:]) for line in (by_ps, ours)]
    assert abs(minutes[0] - minutes[1]) in (0, 1, 24 * 60 - 1)
    assert cli("top", "topped", "-o", "pid,args", env=without).ok().out.splitlines()[1:] == [
        f"{pid:20}{command}" for command, pid in expected.items()
    ]
    assert "install procps" in cli("top", "topped", "aux", env=without).err


def test_processes_of_an_exec_are_the_containers_too(engine: sampan.Engine) -> None:
    box = started(engine)
    attachment = box.exec_start(["sleep", "4321"])
    try:
        eventually(lambda: ["sleep 4321"] in [p[1:] for p in box.top("-o pid,args")["Processes"]], what="the exec")
        inside = {int(p[0]) for p in box.top("-o pid,args")["Processes"]}
        assert os.getpid() not in inside
        assert len(inside) == 3
    finally:
        attachment.close()
