"""kill -s, top, pause and rename on their edges: in states where they mean little, and in the middle of what others do.

What is refused was compared with Docker in each state, with the same words but for the capital letters of older daemons.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import Conflict, NotFound, SampanError

from support.command import Command
from support.patience import eventually, patience

pytestmark = pytest.mark.root

TRAPS = [
    "sh",
    "-c",
    "trap 'echo hup' HUP; trap 'echo rt' 37; trap 'echo term' TERM; echo up; while :; do sleep 0.05; done",
]
STATES = ("created", "running", "paused", "restarting", "exited")


def in_state(engine: sampan.Engine, state: str, **options: Any) -> Container:
    if state == "restarting":
        box = engine.containers.create(
            "base", ["sh", "-c", "exit 3"], name="box", network="none", restart_policy="always", **options
        )
        box.start()
        # Late enough that it rests for some seconds.
        eventually(lambda: box.inspect()["RestartCount"] >= 5 and box.status == "restarting", 30)
        return box
    box = engine.containers.create("base", TRAPS, name="box", network="none", **options)
    if state != "created":
        box.start()
        eventually(lambda: "up" in output(box))
    if state == "paused":
        box.pause()
    if state == "exited":
        box.kill()
    return box


def output(box: Container) -> str:
    return b"".join(entry.data for entry in box.logs()).decode()


def status(box: Container) -> str:
    return str(box.inspect()["State"]["Status"])


# kill -s


@pytest.mark.parametrize("state", ["created", "paused"])
def test_signals_that_are_none(engine: sampan.Engine, cli: Command, state: str) -> None:
    box = in_state(engine, state)
    for word, message in (
        ("0", "invalid signal: 0"),
        ("FOO", "invalid signal: FOO"),
        ("SIG", "invalid signal: SIG"),
        ("RTMIN+31", "invalid signal: RTMIN+31"),
        ("-9", "invalid signal: -9"),
        ("65", "cannot kill container: box: the linux daemon does not support signal 65"),
        ("9999999999", "cannot kill container: box: the linux daemon does not support signal 9999999999"),
    ):
        done = cli("kill", f"--signal={word}", "box")
        assert (done.code, done.err) == (1, f"Error: {message}\n"), word
    assert status(box) == state


@pytest.mark.parametrize(("word", "heard"), [("HUP", "hup"), ("sighup", "hup"), ("1", "hup"), ("RTMIN+3", "rt"), ("sigrtmin+3", "rt"), ("37", "rt"), ("RTMAX-27", "rt"), ("15", "term")])  # fmt: skip
def test_a_signal_by_each_of_its_names(engine: sampan.Engine, cli: Command, word: str, heard: str) -> None:
    box = in_state(engine, "running")
    assert cli("kill", "-s", word, "box").ok().out == "box\n"
    eventually(lambda: heard in output(box))
    assert status(box) == "running"


def test_no_word_for_a_signal_is_the_last_one(engine: sampan.Engine, cli: Command) -> None:
    box = in_state(engine, "running")
    cli("kill", "-s", "", "box").ok()
    assert box.wait() == 137


def test_a_signal_to_one_that_waits_to_be_restarted(engine: sampan.Engine) -> None:
    """Nobody is there to hear it. By Docker's rule it takes the restart back only if it may be the container's end: its stop signal,
    or any if it has none of its own."""
    box = in_state(engine, "restarting", stop_signal="TERM")
    count = box.inspect()["RestartCount"]
    box.kill("HUP")
    eventually(lambda: box.inspect()["RestartCount"] > count, 60)
    eventually(lambda: status(box) == "restarting", 60)
    box.kill("TERM")
    eventually(lambda: status(box) == "exited")


def test_the_last_signal_to_one_that_waits_to_be_restarted(engine: sampan.Engine) -> None:
    box = in_state(engine, "restarting")
    box.kill()
    eventually(lambda: status(box) == "exited")
    count = box.inspect()["RestartCount"]
    time.sleep(2)
    assert (status(box), box.inspect()["RestartCount"]) == ("exited", count)


def test_stopped_by_a_signal_it_still_runs(engine: sampan.Engine) -> None:
    """SIGSTOP is the program's affair and no pause: it is running, top shows it, and what comes after is heard after SIGCONT."""
    box = in_state(engine, "running")
    box.kill("STOP")
    main = str(box.inspect()["State"]["Pid"])

    def letter() -> str:
        table = box.top("-o pid,stat")
        return next(row[1] for row in table["Processes"] if row[0] == main)

    eventually(lambda: letter().startswith("T"))
    assert status(box) == "running"
    with pytest.raises(Conflict, match="is not paused"):
        box.unpause()
    box.kill("HUP")
    assert "hup" not in output(box)
    box.kill("CONT")
    eventually(lambda: "hup" in output(box))
    box.kill("STOP")
    box.stop(timeout=1)
    assert status(box) == "exited"


def test_many_last_signals_are_one_end(engine: sampan.Engine) -> None:
    box = in_state(engine, "running")
    since = time.time()
    outcomes: list[BaseException | None] = []

    def kill() -> None:
        try:
            box.kill()
            outcomes.append(None)
        except Conflict as e:
            outcomes.append(e)

    threads = [threading.Thread(target=kill) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None in outcomes
    assert len(outcomes) == 10
    assert box.wait() == 137
    with engine.events(since=since, until=time.time(), filters={"event": ["die"]}) as events:
        assert [event["Actor"]["ID"] for event in events] == [box.id]


# pause


def test_a_pause_in_the_middle_of_a_stop(engine: sampan.Engine) -> None:
    """The stop that waits for the program ends it all the same when its time is up, and not before."""
    box = in_state(engine, "running")
    stopping = threading.Thread(target=lambda: box.stop(timeout=2))
    stopping.start()
    eventually(lambda: "term" in output(box))
    box.pause()
    assert status(box) == "paused"
    began = time.monotonic()
    stopping.join(patience(30))
    assert not stopping.is_alive()
    assert time.monotonic() - began < patience(15)
    assert (status(box), box.inspect()["State"]["ExitCode"]) == ("exited", 137)


def test_pause_and_unpause_in_turns_beside_the_end(engine: sampan.Engine) -> None:
    """Whichever comes first: no container that has ended looks paused, and none stays frozen."""
    for _ in range(3):
        box = in_state(engine, "running")
        over = threading.Event()
        wrong: list[str] = []

        def flip(box: Container = box, over: threading.Event = over, wrong: list[str] = wrong) -> None:
            while not over.is_set():
                for verb in (box.pause, box.unpause):
                    try:
                        verb()
                    except Conflict:
                        continue
                    except SampanError as e:
                        wrong.append(str(e))

        flipping = threading.Thread(target=flip)
        flipping.start()
        time.sleep(0.1)
        box.kill()
        eventually(lambda box=box: status(box) == "exited")  # type: ignore[misc]
        over.set()
        flipping.join()
        assert not wrong
        assert (status(box), box.inspect()["State"]["ExitCode"]) == ("exited", 137)
        box.remove()


def test_a_paused_one_is_restarted_and_runs(engine: sampan.Engine) -> None:
    box = in_state(engine, "paused")
    before = box.inspect()["State"]["Pid"]
    box.restart(timeout=0)
    assert status(box) == "running"
    assert box.inspect()["State"]["Pid"] != before


# top


@pytest.mark.parametrize("state", ["running", "paused"])
def test_the_columns_that_were_asked_for(engine: sampan.Engine, cli: Command, state: str) -> None:
    box = in_state(engine, state)
    head, *rows = cli("top", "box", "-o", "pid,args").ok().out.splitlines()
    assert head.split() == ["PID", "COMMAND"]
    main = str(box.inspect()["State"]["Pid"])
    assert [row.split(None, 1)[1] for row in rows if row.split()[0] == main] == [" ".join(TRAPS)]
    assert status(box) == state


@pytest.mark.parametrize("state", ["restarting", "exited"])
def test_options_of_one_that_has_no_processes(engine: sampan.Engine, state: str) -> None:
    box = in_state(engine, state)
    words = (
        f"Container {box.id} is restarting, wait until"
        if state == "restarting"
        else f"container {box.id} is not running"
    )
    for options in ("", "-o pid,args", "-o args", "aux"):
        with pytest.raises(Conflict, match=words):
            box.top(options)


def test_the_end_in_the_middle_of_a_top(engine: sampan.Engine) -> None:
    """A table, or that it does not run: nothing else, however the two meet."""
    box = in_state(engine, "running")
    seen: list[Any] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                seen.append(box.top()["Titles"][0])
            except Conflict as e:
                seen.append("not running" if "is not running" in str(e) else str(e))
            except SampanError as e:
                seen.append(str(e))

    looking = threading.Thread(target=look)
    looking.start()
    eventually(lambda: seen)
    box.kill()
    eventually(lambda: seen[-1] == "not running")
    over.set()
    looking.join()
    assert set(seen) == {"UID", "not running"}


# rename


@pytest.mark.parametrize("state", STATES)
def test_another_name_changes_nothing_else(engine: sampan.Engine, cli: Command, state: str) -> None:
    box = in_state(engine, state)
    before = box.inspect()
    cli("rename", "box", "/renamed").ok()
    after = engine.containers.get("renamed").inspect()
    assert (after["Name"], after["Id"]) == ("/renamed", before["Id"])
    if state != "restarting":
        assert after["State"] == before["State"]
    with pytest.raises(NotFound):
        engine.containers.get("box")
    # The old one is free, and the container has the new one in whatever it does next.
    other = engine.containers.create("base", ["true"], name="box", network="none")
    assert other.id != before["Id"]
    refused = cli("rename", "renamed", "box")
    assert refused.code == 1
    assert 'The container name "/box" is already in use by container "' + other.id in refused.err
    if state == "running":
        assert engine.containers.get("renamed").exec(["echo", "1"]).stdout == "1\n"


def test_names_that_are_refused(engine: sampan.Engine, cli: Command) -> None:
    in_state(engine, "created")
    for name, message in (
        ("box", "Renaming a container with the same name as its current name"),
        ("", "Neither old nor new names may be empty"),
        (
            "-bad",
            "Error when allocating new name: Invalid container name (/-bad), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
    ):
        done = cli("rename", "--", "box", name)
        assert (done.code, message in done.err) == (1, True), done
    assert engine.containers.get("box").name == "box"


def test_a_name_that_is_given_while_it_is_restarted_again_and_again(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "exit 3"], name="box", network="none", restart_policy="always")
    box.start()
    for number in range(20):
        eventually(lambda: _renamed(box, f"box{number}"))  # noqa: B023
        assert engine.containers.get(f"box{number}").id == box.id
    count = box.inspect()["RestartCount"]
    eventually(lambda: box.inspect()["RestartCount"] > count, 60)
    assert box.inspect()["Name"] == "/box19"


def _renamed(box: Container, name: str) -> bool:
    """False if it is being started at the moment."""
    try:
        box.rename(name)
    except Conflict as e:
        if "is in use" not in str(e):
            raise
        return False
    return True


def test_of_many_who_want_one_name_one_has_it(engine: sampan.Engine) -> None:
    boxes = [engine.containers.create("base", ["true"], name=f"box{n}", network="none") for n in range(8)]
    refused: list[str] = []

    def take(box: Container) -> None:
        try:
            box.rename("wanted")
        except Conflict as e:
            refused.append(str(e))

    threads = [threading.Thread(target=take, args=(box,)) for box in boxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owner = engine.containers.get("wanted")
    assert len(refused) == 7
    assert all(f'"/wanted" is already in use by container "{owner.id}"' in words for words in refused)
    names = {c.name for c in engine.containers.list(all=True)}
    assert names == {"wanted", *(b.name for b in boxes if b.id != owner.id)}
