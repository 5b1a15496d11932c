"""`pause` and `unpause`: what stands still, what each verb says to a paused container, and what ends it all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sampan
from sampan import jsontext
from sampan.engine.containers import Container
from sampan.errors import Conflict, SampanError

from support.command import Command
from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root

COUNT = ["sh", "-c", "trap 'exit 3' TERM; trap 'echo hup' HUP; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"]


def counting(engine: sampan.Engine, **options: object) -> Container:
    box = engine.containers.create("base", COUNT, **options)
    box.start()
    eventually(lambda: list(box.logs()), what="first output")
    return box


def paused(engine: sampan.Engine, **options: object) -> Container:
    box = counting(engine, **options)
    box.pause()
    return box


def alive(pid: int) -> bool:
    """A zombie that nobody reaps yet has ended, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.core
def test_a_paused_container_stands_still_and_goes_on(engine: sampan.Engine) -> None:
    box = paused(engine)
    state = box.inspect()["State"]
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    assert state["Pid"] > 0
    # What was in the pipe already is still written down.
    time.sleep(0.1)
    before = len(list(box.logs()))
    time.sleep(0.2)
    assert len(list(box.logs())) == before
    box.unpause()
    assert box.status == "running"
    eventually(lambda: len(list(box.logs())) > before, what="going on")


def test_the_command_line(engine: sampan.Engine, cli: Command) -> None:
    box = counting(engine, name="counter")
    assert cli("pause", "counter").ok().out == "counter\n"
    listing = cli("ps").ok().out
    assert "(Paused)" in listing
    assert "Up " in listing
    second = cli("pause", "counter", "nobody")
    assert second.code == 1
    assert f"Container {box.id} is already paused" in second.err
    assert "No such container: nobody" in second.err
    assert cli("container", "unpause", "counter").ok().out == "counter\n"
    again = cli("unpause", "counter")
    assert again.code == 1
    assert f"Container {box.id} is not paused" in again.err


def test_what_a_paused_container_refuses(engine: sampan.Engine) -> None:
    box = paused(engine)
    refused: list[tuple[Callable[[], object], str]] = [
        (box.start, "cannot start a paused container, try unpause instead"),
        (box.pause, f"Container {box.id} is already paused"),
        (lambda: box.exec(["true"]), f"Container {box.name} is paused, unpause the container before exec"),
        (box.attach, f"container {box.id} is paused, unpause the container before attach"),
        (box.remove, f'cannot remove container "/{box.name}": container is paused and must be unpaused first'),
    ]
    for verb, text in refused:
        with pytest.raises(Conflict) as caught:
            verb()
        assert str(caught.value) == text
    assert engine.system.info()["ContainersPaused"] == 1


def test_pausing_what_does_not_run(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["true"])
    for verb, text in (
        (box.pause, f"container {box.id} is not running"),
        (box.unpause, f"Container {box.id} is not paused"),
    ):
        with pytest.raises(Conflict) as caught:
            verb()
        assert str(caught.value) == text


def test_stop_lets_it_end_well(engine: sampan.Engine) -> None:
    box = paused(engine)
    box.stop(timeout=60)
    assert (box.status, box.inspect()["State"]["ExitCode"]) == ("exited", 3)


def test_kill_ends_it(engine: sampan.Engine) -> None:
    box = paused(engine)
    box.kill()
    assert (box.status, box.inspect()["State"]["ExitCode"]) == ("exited", 137)


def test_a_signal_that_is_not_its_end_leaves_it_paused(engine: sampan.Engine) -> None:
    box = paused(engine, stop_signal="TERM")
    box.kill("HUP")
    assert box.status == "paused"
    box.unpause()
    eventually(lambda: any(entry.data == b"hup\n" for entry in box.logs()), what="the signal's effect")


def test_remove_with_force(engine: sampan.Engine) -> None:
    box = paused(engine)
    box.remove(force=True)
    with pytest.raises(SampanError):
        engine.containers.get(box.id)


def test_a_container_whose_monitor_is_killed_while_it_is_paused_is_dead_for_the_next_command(
    engine: sampan.Engine, root: Root
) -> None:
    box = paused(engine)
    pid = box.inspect()["State"]["Pid"]
    started = next((root.root / "containers" / box.id / "starts").iterdir()) / "started"
    os.kill(jsontext.loads(started.read_bytes())["monitor"], signal.SIGKILL)
    eventually(lambda: engine.containers.get(box.id).status == "exited", what="the end")
    assert box.inspect()["State"]["ExitCode"] in (137, 255)
    assert not alive(pid)


def test_of_many_pauses_at_once_one_wins(engine: sampan.Engine) -> None:
    box = counting(engine)
    for verb, refusal in ((box.pause, "is already paused"), (box.unpause, "is not paused")):
        outcomes: list[str] = []

        def one(verb: Callable[[], None] = verb, outcomes: list[str] = outcomes) -> None:
            try:
                verb()
                outcomes.append("")
            except Conflict as e:
                outcomes.append(str(e))

        threads = [threading.Thread(target=one) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count("") == 1
        assert len([o for o in outcomes if refusal in o]) == 49


def test_a_pause_that_is_killed_on_the_way_is_undone_by_unpause(engine: sampan.Engine, root: Root) -> None:
    box = counting(engine)
    program = (
        "import os, sys, sampan\n"
        "def die(event):\n"
        "    if event.text.startswith('freeze cgroup') and event.finished == (sys.argv[4] == 'after'): os.kill(os.getpid(), 9)\n"
        "sampan.Engine(sys.argv[1], sys.argv[2], observer=die).containers.get(sys.argv[3]).pause()\n"
    )
    for when, expected in (("before", "running"), ("after", "paused")):
        args = [sys.executable, "-c", program, str(root.root), str(root.run_root), box.id, when]
        assert subprocess.run(args, timeout=patience(30)).returncode == -signal.SIGKILL
        assert box.status == expected
    box.unpause()
    assert box.status == "running"


def test_five_hundred_processes(engine: sampan.Engine) -> None:
    many = "i=0; while [ $i -lt 500 ]; do sleep 1000 & i=$((i+1)); done; echo all; wait"
    box = engine.containers.create("base", ["sh", "-c", many])
    box.start()
    eventually(lambda: list(box.logs()), what="500 processes", seconds=60)
    box.pause()
    assert box.status == "paused"
    box.kill()
    assert box.status == "exited"
