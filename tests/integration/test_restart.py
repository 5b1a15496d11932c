"""Restart policies, carried out by the containers' own monitors: when, how often, what cancels them, and what Docker shows of it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine import times
from sampan.engine.containers import Container
from sampan.errors import Conflict, NotModified, StartFailed

from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root

FAILING = ["sh", "-c", "echo up; exit 3"]
SLOW = ["sh", "-c", "echo up; sleep 1000"]


def state(box: Container) -> dict[str, Any]:
    found: dict[str, Any] = box.inspect()["State"]
    return found


def count(box: Container) -> int:
    return int(box.inspect()["RestartCount"])


def output(box: Container) -> str:
    return b"".join(entry.data for entry in box.logs()).decode()


def starts(root: Root, box: Container) -> Path:
    return root.root / "containers" / box.id / "starts"


def newest(root: Root, box: Container) -> Path:
    return max((p for p in starts(root, box).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def monitor(root: Root, box: Container) -> int:
    return int(json.loads((newest(root, box) / "started").read_text())["monitor"])


def resting(box: Container, at_least: int = 4) -> Container:
    """One whose back-off has grown so long that it stays in it for a while."""
    eventually(lambda: box.status == "restarting" and count(box) >= at_least, 30, "a long back-off")
    return box


def made(engine: sampan.Engine, command: list[str], policy: str, **options: Any) -> Container:
    options = options if "network_mode" in options else {"network": "none", **options}
    box = engine.containers.create("base", command, restart_policy=policy, **options)
    box.start()
    return box


# When


@pytest.mark.core
def test_on_failure_restarts_so_often_and_no_more(engine: sampan.Engine) -> None:
    box = made(engine, FAILING, "on-failure:2")
    eventually(lambda: box.status == "exited", 20, "the last restart has failed")
    assert (state(box)["ExitCode"], count(box)) == (3, 2)
    assert output(box) == "up\n" * 3
    # A start by hand begins to count anew.
    box.start()
    eventually(lambda: box.status == "exited", 20, "the last restart has failed again")
    assert (count(box), output(box)) == (2, "up\n" * 6)


def test_on_failure_leaves_a_success_alone(engine: sampan.Engine) -> None:
    box = made(engine, ["sh", "-c", "echo up; test -e /seen && exit 0; touch /seen; exit 1"], "on-failure")
    eventually(lambda: box.status == "exited", 20, "it has succeeded")
    assert (state(box)["ExitCode"], count(box), output(box)) == (0, 1, "up\nup\n")


def test_always_restarts_what_ends_well(engine: sampan.Engine) -> None:
    box = made(engine, ["sh", "-c", "echo up; test -e /seen && exec sleep 1000; touch /seen"], "always")
    eventually(lambda: box.status == "running" and output(box) == "up\nup\n", 20, "it runs a second time")
    assert count(box) == 1
    assert box.exec(["echo", "works"]).stdout == "works\n"
    box.stop(timeout=0)
    assert (box.status, count(box)) == ("exited", 1)


def test_the_pauses_between_restarts_double(engine: sampan.Engine) -> None:
    box = made(engine, ["sh", "-c", "echo up; exit 1"], "on-failure:4")
    eventually(lambda: count(box) == 4 and box.status == "exited", 20)
    stamps = [times.parse(entry.time) / 1e9 for entry in box.logs()]
    assert len(stamps) == 5
    gaps = [second - first for first, second in itertools.pairwise(stamps)]
    for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert gap >= least


def test_while_it_rests_it_is_shown_as_docker_shows_it(root: Root, engine: sampan.Engine) -> None:
    box = resting(made(engine, FAILING, "always", name="box"))
    shown = state(box)
    assert (shown["Running"], shown["Restarting"], shown["Paused"], shown["Pid"]) == (True, True, False, 0)
    assert shown["ExitCode"] == 3
    assert box.summary()["Status"].startswith("Restarting (3) ")
    assert box.summary()["Status"].endswith(" ago")
    assert [c.name for c in engine.containers.list()] == ["box"]
    assert [c.name for c in engine.containers.list(filters={"status": "restarting"})] == ["box"]
    assert root.cli("ps", "--format", "{{.State}}").ok().out == "restarting\n"


# What ends it


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_what_was_stopped_stays_stopped(engine: sampan.Engine, policy: str) -> None:
    for end in (lambda b: b.stop(timeout=0), lambda b: b.kill(), lambda b: b.kill("TERM")):
        box = made(engine, ["sh", "-c", "trap 'exit 1' TERM; echo up; while :; do sleep 0.05; done"], policy)
        eventually(lambda box=box: output(box) == "up\n")
        end(box)
        eventually(lambda box=box: box.status == "exited")
        time.sleep(0.3)
        assert (box.status, count(box)) == ("exited", 0)


def test_a_signal_that_is_not_the_stop_signal_is_no_stop(engine: sampan.Engine) -> None:
    """With a stop signal of its own; without one any signal counts as a stop, with Docker too."""
    script = ["sh", "-c", "trap 'exit 1' HUP; echo up; while :; do sleep 0.05; done"]
    box = made(engine, script, "always", stop_signal="TERM")
    careful = made(engine, script, "unless-stopped", stop_signal="TERM")
    plain = made(engine, script, "always")
    for one in (box, careful, plain):
        eventually(lambda one=one: output(one) == "up\n")
        one.kill("HUP")
    eventually(lambda: count(box) == 1 and box.status == "running", what="it runs again")
    eventually(lambda: careful.status == plain.status == "exited")
    assert count(careful) == count(plain) == 0


@pytest.mark.parametrize("how", ["stop", "kill", "rm", "signal"])
def test_a_restart_that_is_waited_for_is_cancelled_at_once(root: Root, engine: sampan.Engine, how: str) -> None:
    box = resting(made(engine, FAILING, "always"), at_least=6)
    pid, begun = monitor(root, box), time.monotonic()
    if how == "rm":
        with pytest.raises(Conflict, match="container is restarting: stop the container before"):
            box.remove()
        box.remove(force=True)
    elif how == "stop":
        box.stop()
    else:
        box.kill("KILL" if how == "kill" else "INT")
    assert time.monotonic() - begun < patience(2)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), what="its monitor has gone")
    if how != "rm":
        assert (box.status, state(box)["ExitCode"]) == ("exited", 3)
        assert count(box) >= 6
        box.remove()


def test_starting_what_restarts_is_no_error_and_no_second_start(engine: sampan.Engine) -> None:
    box = resting(made(engine, FAILING, "always"))
    before = count(box)
    with pytest.raises(NotModified):
        box.start()
    assert count(box) >= before


# A start that fails


def test_a_restart_that_fails_is_told_and_not_repeated(engine: sampan.Engine) -> None:
    script = "#!/bin/sh\\ntest -e /seen && rm /program; touch /seen; exit 4\\n"
    make = f"printf '{script}' > /program; chmod 755 /program"
    box = engine.containers.create("base", ["sh", "-c", make], name="maker")
    box.start()
    box.wait()
    box.commit("made")
    box = engine.containers.create("made", [], entrypoint=["/program"], restart_policy="always")
    try:
        box.start()
        eventually(lambda: box.status == "exited", 20, "the second restart has failed")
        assert "/program" in state(box)["Error"]
        assert (state(box)["ExitCode"], count(box)) == (4, 2)
        time.sleep(0.3)
        assert count(box) == 2
    finally:
        box.remove(force=True)
        engine.containers.get("maker").remove()
        engine.images.remove("made")


def test_a_start_that_fails_is_not_repeated_either(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", [], entrypoint=["/nosuch"], restart_policy="always")
    with pytest.raises(StartFailed):
        box.start()
    assert (state(box)["Status"], state(box)["ExitCode"], count(box)) == ("created", 127, 0)


def test_a_restart_whose_network_is_gone_is_told_and_not_repeated(engine: sampan.Engine) -> None:
    donor = engine.containers.create("base", ["sleep", "1000"], name="donor")
    donor.start()
    box = made(engine, ["sh", "-c", "sleep 0.5; exit 4"], "always", network_mode="container:donor")
    donor.kill()
    eventually(lambda: box.status == "exited", 20, "the restart has failed")
    assert f"cannot join network of a non running container: {donor.id}" in state(box)["Error"]
    assert count(box) == 1
    # Docker leaves the exit code of the run that was to be followed.
    assert state(box)["ExitCode"] == 4


# Who listens


def test_run_in_the_foreground_ends_with_the_first_run(root: Root) -> None:
    ran = root.cli("run", "--name", "box", "--network", "none", "--restart", "on-failure:2", "base", *FAILING)
    assert (ran.code, ran.out, ran.err) == (3, "up\n", "")
    with root.engine() as engine:
        box = engine.containers.get("box")
        assert box.wait() == 3
        eventually(lambda: box.status == "exited", 20)
        assert output(box) == "up\n" * 3


def test_wait_hears_the_next_exit(engine: sampan.Engine) -> None:
    box = made(engine, ["sh", "-c", "sleep 0.2; exit 6"], "always")
    assert box.wait() == 6
    assert count(box) >= 1
    # Of one that rests as well, and the end of it.
    resting(box, 3)
    assert box.wait() == 6
    resting(box, 5)
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(box.wait()))
    waiting.start()
    time.sleep(0.2)
    box.stop(timeout=0)
    waiting.join(patience(10))
    assert codes == [6]


def test_nothing_of_the_first_command_is_needed_for_a_restart(root: Root, tmp_path: Path) -> None:
    """Not its directory, environment, umask, terminal or life."""
    place = tmp_path / "gone"
    place.mkdir()
    old = os.umask(0o777)
    try:
        run = root.cli("run", "-d", "--name", "box", "--network", "none", "--restart", "always", "base", "sh", "-c",
                       "umask; pwd; echo up; test -e /seen && exec sleep 1000; touch /seen; exit 1",
                       cwd=str(place), env={"TMPDIR": str(place), "PYTHONPATH": str(place), "X": "secret"})  # fmt: skip
    finally:
        os.umask(old)
    place.rmdir()
    run.ok()
    with root.engine() as engine:
        box = engine.containers.get("box")
        eventually(lambda: count(box) == 1 and box.status == "running", 20)
        eventually(lambda: output(box).count("up") == 2)
        assert output(box) == "0022\n/\nup\n" * 2
        assert "X=" not in box.exec(["env"]).stdout


def test_attach_and_exec_while_it_rests(engine: sampan.Engine) -> None:
    box = resting(made(engine, FAILING, "always"), at_least=5)
    with pytest.raises(Conflict, match="is restarting, wait until the container is running"):
        box.attach()
    with pytest.raises(Conflict, match="is restarting, wait until the container is running"):
        box.exec(["true"])


# restart, by hand


def test_restart_by_hand(root: Root, engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLOW, name="box")
    box.restart()
    first = state(box)["Pid"]
    eventually(lambda: output(box) == "up\n")
    box.restart(timeout=0)
    assert state(box)["Running"]
    assert state(box)["Pid"] != first
    assert count(box) == 0
    eventually(lambda: output(box) == "up\nup\n")
    # Also one that is paused, and one that restarts itself.
    box.pause()
    box.restart(timeout=0)
    assert state(box)["Status"] == "running"
    failing = resting(made(engine, FAILING, "always"), 5)
    failing.restart()
    assert count(failing) < 5


def test_restart_by_hand_keeps_what_is_to_be_removed_at_its_end(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLOW, auto_remove=True, name="box")
    box.start()
    box.restart(timeout=0)
    assert box.status == "running"
    box.stop(timeout=0)
    with pytest.raises(sampan.SampanError, match="No such container"):
        box.inspect()


def test_restart_on_the_command_line(root: Root) -> None:
    for name in ("one", "two"):
        root.cli("run", "-d", "--name", name, "--network", "none", "base", *SLOW).ok()
    result = root.cli("restart", "-t", "0", "one", "nosuch", "two")
    assert (result.code, result.out) == (1, "one\ntwo\n")
    assert "No such container: nosuch" in result.err
    assert root.cli("ps", "-q").ok().out.count("\n") == 2


@pytest.mark.parametrize(
    ("flags", "text", "code"),
    [
        (("--restart", "always", "--rm"), "conflicting options: cannot specify both --restart and --rm", 125),
        (("--restart", "often"), "invalid restart policy: unknown policy 'often'", 125),
        (("--restart", "always:3"), "maximum retry count can only be used with 'on-failure'", 125),
        (("--restart", "on-failure:x"), "maximum retry count must be an integer", 125),
    ],
)
def test_flags_that_do_not_go_together(root: Root, flags: tuple[str, ...], text: str, code: int) -> None:
    result = root.cli("run", *flags, "--network", "none", "base", "true")
    assert result.code == code
    assert text in result.err


# Whatever is killed


def test_the_death_of_a_monitor_is_a_failure_like_any_other(root: Root, engine: sampan.Engine) -> None:
    """The next command finds the container lost, and has it restarted."""
    box = made(engine, SLOW, "always")
    eventually(lambda: output(box) == "up\n")
    os.kill(monitor(root, box), signal.SIGKILL)
    eventually(lambda: engine.containers.list(all=True)[0].status == "running" and count(box) == 1, 20)
    eventually(lambda: output(box) == "up\nup\n")


def test_without_a_policy_it_stays_lost(root: Root, engine: sampan.Engine) -> None:
    box = made(engine, SLOW, "no")
    os.kill(monitor(root, box), signal.SIGKILL)
    eventually(lambda: box.status == "exited")
    assert (state(box)["ExitCode"], count(box)) == (255, 0)


@pytest.mark.core
def test_a_monitor_that_is_killed_while_it_rests(root: Root, engine: sampan.Engine) -> None:
    box = resting(made(engine, ["sh", "-c", "echo up; test $(wc -l < /count) -gt 5 && exec sleep 1000; echo x >> /count; exit 1"],
                       "always"), at_least=5)  # fmt: skip
    before = count(box)
    os.kill(monitor(root, box), signal.SIGKILL)
    eventually(lambda: box.status in ("running", "restarting") and count(box) >= before, 20)
    eventually(lambda: box.status == "running", 30, "somebody has made the restart")


def test_a_monitor_that_is_killed_while_it_rests_is_cancelled_all_the_same(root: Root, engine: sampan.Engine) -> None:
    box = resting(made(engine, FAILING, "always"), at_least=6)
    os.kill(monitor(root, box), signal.SIGKILL)
    box.stop()
    assert box.status == "exited"
    time.sleep(0.3)
    assert box.status == "exited"


def test_many_commands_that_find_one_restart_undone_make_one_start(root: Root, engine: sampan.Engine) -> None:
    box = made(engine, SLOW, "always")
    eventually(lambda: output(box) == "up\n")
    os.kill(monitor(root, box), signal.SIGKILL)
    commands = [root.cli.start("ps", stdout=subprocess.DEVNULL) for _ in range(6)]
    assert [c.wait(patience(60)) for c in commands] == [0] * 6
    eventually(lambda: box.status == "running", 20)
    time.sleep(0.5)
    assert (count(box), newest(root, box).name, output(box)) == (1, "2", "up\nup\n")


def test_a_client_that_does_not_read_does_not_hold_up_the_restart(engine: sampan.Engine) -> None:
    box = engine.containers.create(
        "base", ["sh", "-c", "head -c 600000 /dev/zero | tr '\\0' x; test -e /seen && exec sleep 1000; touch /seen"],
        restart_policy="always",
    )  # fmt: skip
    attachment = box.start(attach=True)
    assert attachment is not None
    eventually(lambda: count(box) == 1 and box.status == "running", 20, "it runs again")
    received = sum(len(data) for kind, data in attachment if kind == 32)
    assert received == 600000
    assert attachment.exit == {"exit_code": 0, "oom_killed": False}
    attachment.close()
