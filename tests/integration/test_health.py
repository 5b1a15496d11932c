"""Health checks of real containers: what is probed and as whom, what a result changes, what a probe may do to others."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import InvalidParameter

from support.command import Command
from support.patience import eventually, patience
from support.roots import KEPT, Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]
FAST = {"interval": "50ms", "retries": 2}


def probed(engine: sampan.Engine, test: str | list[str], *, command: list[str] = SLEEP, **options: Any) -> Container:
    """A running container with this health check; what begins with `health_` is of the check."""
    check = {name.removeprefix("health_"): options.pop(name) for name in list(options) if name.startswith("health_")}
    box = engine.containers.create(
        "base", command, healthcheck={"test": test, **FAST, **check}, **options, network="none"
    )
    box.start()
    return box


def state(box: Container) -> dict[str, Any]:
    found: dict[str, Any] = box.inspect()["State"]["Health"]
    return found


def log(box: Container) -> list[tuple[int, str]]:
    return [(entry["ExitCode"], entry["Output"]) for entry in state(box)["Log"]]


def first(box: Container) -> tuple[int, str]:
    """The first result."""
    return eventually(lambda: log(box), what="a result")[0]


def becomes(box: Container, status: str) -> None:
    eventually(lambda: box.health == status, what=f"{status}, not {box.health}")


def monitor(box: Container) -> int:
    main = box.inspect()["State"]["Pid"]
    return int(Path(f"/proc/{main}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> bytes:
    """Of a process that may have gone: b"" then."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def ended(pid: int) -> bool:
    """A zombie that nobody has reaped yet has ended, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


# what becomes of a container's health


def test_a_container_is_starting_then_unhealthy_then_healthy(engine: sampan.Engine, cli: Command) -> None:
    box = probed(engine, "echo out; echo err >&2; test -e /ok", health_retries=3)
    name = box.name
    assert state(box)["Status"] in ("starting", "unhealthy")
    becomes(box, "unhealthy")
    assert state(box)["FailingStreak"] >= 3
    assert log(box)[0] == (1, "out\nerr\n")
    assert "(unhealthy)" in cli("ps", "--filter", f"name={name}", "--format", "{{.Status}}").ok().out
    box.exec("touch /ok")
    becomes(box, "healthy")
    assert state(box)["FailingStreak"] == 0
    assert cli("ps", "--filter", "health=healthy", "--format", "{{.Names}}").ok().out.split() == [name]
    assert cli("ps", "--filter", "health=starting", "-q").ok().out == ""
    assert (
        cli("inspect", "-f", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", name).ok().out == "healthy 0\n"
    )
    entry = state(box)["Log"][-1]
    assert entry["Start"] < entry["End"]
    assert sorted(entry) == ["End", "ExitCode", "Output", "Start"]


def test_until_the_first_result_it_is_starting(engine: sampan.Engine, cli: Command) -> None:
    box = probed(engine, "true", health_interval="1h")
    assert state(box) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert "(health: starting)" in cli("ps").ok().out
    assert cli("ps", "--filter", "health=starting", "--format", "{{.Names}}").ok().out.split() == [box.name]


def test_a_container_without_a_check_has_no_health(engine: sampan.Engine, cli: Command) -> None:
    box = engine.containers.create("base", SLEEP, network="none")
    box.start()
    assert "Health" not in box.inspect()["State"]
    assert "Healthcheck" not in box.inspect()["Config"]
    assert box.health == "none"
    assert cli("ps", "--filter", "health=none", "--format", "{{.Names}}").ok().out.split() == [box.name]


def test_before_the_first_start_there_is_no_health(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP, healthcheck={"test": "true"}, network="none")
    assert "Health" not in box.inspect()["State"]
    assert box.inspect()["Config"]["Healthcheck"] == {"Test": ["CMD-SHELL", "true"]}


def test_only_the_last_five_results_are_kept(engine: sampan.Engine) -> None:
    box = probed(engine, "echo . >> /count; wc -l < /count", health_interval="10ms")
    eventually(lambda: [text.strip() for _, text in log(box)][-1:] >= ["7"] and len(log(box)) == 5)
    numbers = [int(text) for _, text in log(box)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_in_the_start_period_failures_do_not_count(engine: sampan.Engine) -> None:
    box = probed(engine, "false", health_start_period="1h", health_start_interval="20ms", health_interval="1h")
    eventually(lambda: len(log(box)) == 5, what="probes at the start interval")
    assert (state(box)["Status"], state(box)["FailingStreak"]) == ("starting", 0)


def test_the_start_interval_ends_with_the_first_success(engine: sampan.Engine) -> None:
    box = probed(engine, "true", health_start_period="1h", health_start_interval="20ms", health_interval="1h")
    becomes(box, "healthy")
    # Many times the start interval: were it still in force, there would be more of them.
    time.sleep(0.3)
    assert len(log(box)) == 1


def test_after_the_start_period_failures_count(engine: sampan.Engine) -> None:
    box = probed(engine, "false", health_start_period="300ms", health_start_interval="20ms")
    becomes(box, "unhealthy")
    assert len(log(box)) > 2, "those of the start period are in the log, too"


def test_the_interval_is_counted_from_the_end_of_a_probe(engine: sampan.Engine) -> None:
    box = probed(engine, "sleep 0.2", health_interval="200ms")
    entries = eventually(lambda: state(box)["Log"][2:] and state(box)["Log"])
    for before, after in itertools.pairwise(entries):
        assert seconds(after["Start"]) - seconds(before["End"]) >= 0.19


def seconds(text: str) -> float:
    from sampan.engine.times import parse

    return parse(text) / 1e9


def test_a_new_start_begins_anew_and_keeps_the_results(engine: sampan.Engine) -> None:
    box = probed(engine, "test -e /ok", health_interval="100ms", health_retries=1)
    becomes(box, "unhealthy")
    box.stop(timeout=0)
    ended = state(box)
    # As Docker shows it: a container that nobody probes is unhealthy.
    assert (ended["Status"], box.status) == ("unhealthy", "exited")
    assert ended["FailingStreak"] >= 1
    results = ended["Log"]
    assert results
    assert engine.containers.list(all=True, filters={"health": "unhealthy"})
    box.start()
    started = state(box)
    assert started["Log"][: len(results)] == results or len(started["Log"]) == 5
    assert started["FailingStreak"] <= 1
    box.exec("touch /ok")
    becomes(box, "healthy")
    box.stop(timeout=0)
    assert (state(box)["Status"], state(box)["FailingStreak"]) == ("unhealthy", 0)


def test_a_start_that_fails_leaves_the_health_of_the_last_run(engine: sampan.Engine) -> None:
    box = probed(engine, "true")
    becomes(box, "healthy")
    box.stop(timeout=0)
    before = state(box)
    Path(box.inspect()["HostnamePath"]).unlink()
    with pytest.raises(sampan.errors.StartFailed):
        box.start()
    assert state(box) == before


# what is run, and as whom


def test_a_probe_is_as_the_containers_own_process(engine: sampan.Engine) -> None:
    script = "id -u; pwd; echo $A $HOME $HOSTNAME; grep CapEff /proc/self/status; cat /proc/self/cgroup"
    options: dict[str, Any] = {"user": "65534", "working_dir": "/tmp", "environment": ["A=b"], "hostname": "box"}
    box = probed(engine, script, **options)
    code, text = first(box)
    own = box.exec(["sh", "-c", script]).stdout
    assert (code, text) == (0, own)
    assert text.splitlines()[:3] == ["65534", "/tmp", "b /home box"]


def test_the_exec_form_needs_no_shell(engine: sampan.Engine) -> None:
    box = probed(engine, ["CMD", "echo", "$HOME;", "two  words"])
    assert first(box) == (0, "$HOME; two  words\n")


def test_the_check_of_an_image_and_what_overrides_it(engine: sampan.Engine, cli: Command) -> None:
    made = engine.containers.create("base", SLEEP, network="none")
    changes = ["HEALTHCHECK --interval=30ms --retries=1 CMD echo from the image; false"]
    made.commit("checked", changes=changes)
    config = engine.images.inspect("checked")["Config"]["Healthcheck"]
    assert config == {"Test": ["CMD-SHELL", "echo from the image; false"], "Interval": 30_000_000, "Retries": 1}
    try:
        box = engine.containers.create("checked", SLEEP)
        box.start()
        becomes(box, "unhealthy")
        assert first(box) == (1, "from the image\n")
        assert box.inspect()["Config"]["Healthcheck"] == config
        other = cli("create", "--health-retries", "9", "--health-timeout", "2s", "checked", *SLEEP).ok().out.strip()
        inherited = engine.containers.get(other).inspect()["Config"]["Healthcheck"]
        assert inherited == {**config, "Retries": 9, "Timeout": 2_000_000_000}
        none = engine.containers.get(cli("create", "--no-healthcheck", "checked", *SLEEP).ok().out.strip())
        none.start()
        assert "Health" not in none.inspect()["State"]
        for container in (box, engine.containers.get(other), none):
            container.remove(force=True)
    finally:
        engine.images.remove("checked", force=True)


def test_flags(engine: sampan.Engine, cli: Command) -> None:
    flags = ["--health-cmd", "sleep 5", "--health-interval", "20ms", "--health-timeout", "100ms", "--health-retries=1"]
    more = ["--health-start-period", "1ms", "--health-start-interval", "20ms"]
    box = engine.containers.get(cli("run", "-d", *flags, *more, "base", *SLEEP).ok().out.strip())
    becomes(box, "unhealthy")
    assert first(box) == (-1, "Health check exceeded timeout (100ms)")
    refused = cli("run", "--no-healthcheck", "--health-cmd", "x", "base", "true")
    assert refused.code == 125
    assert "--no-healthcheck conflicts with --health-* options" in refused.err
    refused = cli("create", "--health-interval", "1us", "base", "true")
    assert (refused.code, "Interval in Healthcheck cannot be less than 1ms" in refused.err) == (1, True)
    with pytest.raises(InvalidParameter, match="Timeout in Healthcheck cannot be less than 1ms"):
        engine.containers.create("base", SLEEP, healthcheck={"test": "true", "timeout": 5}, network="none")


# what goes wrong with a probe


@pytest.mark.parametrize(
    ("test", "code", "output"),
    [
        ("exit 2", 2, ""),
        ("kill -9 $$", 137, ""),
        (
            ["CMD", "nosuch"],
            -1,
            'unable to start container process: exec: "nosuch": executable file not found in $PATH',
        ),
        (["CMD", "/etc/hosts"], -1, 'unable to start container process: exec: "/etc/hosts": permission denied'),
        ("printf 'a\\377b'; exit 1", 1, "a\ufffdb"),
        (["CMD-SHELL", "echo $0 $1", "zero", "one"], 0, "zero one\n"),
    ],
)
def test_results(engine: sampan.Engine, test: str | list[str], code: int, output: str) -> None:
    assert first(probed(engine, test)) == (code, output)


def test_output_is_bounded(engine: sampan.Engine) -> None:
    box = probed(engine, "head -c 4096 /dev/zero | tr '\\0' x; test -e /more && echo more")
    assert first(box)[1] == "x" * 4096
    box.exec("touch /more")
    eventually(lambda: log(box)[-1] == (0, "x" * 4096 + "..."))


def test_a_flood_of_output_does_no_harm(engine: sampan.Engine) -> None:
    box = probed(engine, "yes", health_timeout="300ms")
    eventually(lambda: children(monitor(box))[1:], what="the probe runs")
    assert box.exec("echo here").stdout == "here\n"
    code, output = first(box)
    assert (code, output[:45], len(output)) == (-1, "Health check exceeded timeout (300ms): y\ny\ny\n", 39 + 4096 + 3)


@pytest.mark.core
def test_a_probe_that_takes_too_long_is_killed_with_what_it_started(engine: sampan.Engine) -> None:
    box = probed(engine, "test -e /enough && exit; echo part; sleep 777 & sleep 777", health_timeout="200ms")
    code, output = first(box)
    assert (code, output) == (-1, "Health check exceeded timeout (200ms): part\n")
    box.exec("touch /enough")
    eventually(lambda: "sleep 777" not in box.exec("ps").stdout, what="all of it is gone")
    eventually(lambda: children(monitor(box)) == [box.inspect()["State"]["Pid"]], what="it is reaped")


def test_what_a_probe_leaves_running_does_not_delay_its_result(engine: sampan.Engine) -> None:
    box = probed(engine, "echo said; sleep 100 & exit 3")
    begun = time.monotonic()
    assert first(box) == (3, "said\n")
    assert time.monotonic() - begun < patience(60)


def test_a_probe_that_cannot_be_killed_counts_and_delays_nobody(engine: sampan.Engine) -> None:
    """A process that a freezer of cgroup v1 holds cannot die: as one that waits for a dead disk."""
    freezer = Path("/sys/fs/cgroup/freezer")
    assert freezer.is_dir(), "this test needs the freezer of cgroup v1"
    held = freezer / f"sampan-test-held-{os.getpid()}"
    held.mkdir()
    box = probed(
        engine, "sleep 555", command=["sh", "-c", "while :; do echo tick; sleep 0.05; done"], health_timeout="2s"
    )
    try:
        # The program, and not one of the two processes that made it: those are killed where they are.
        pid = eventually(lambda: [c for c in children(monitor(box)) if b"555" in command_line(c)], what="the probe")[0]
        (held / "cgroup.procs").write_text(str(pid))
        (held / "freezer.state").write_text("FROZEN")
        becomes(box, "unhealthy")
        assert log(box)[0] == (-1, "Health check exceeded timeout (2s)")
        assert children(monitor(box))[1:] == [pid], "no other is begun beside it"
        before = len(list(box.logs()))
        eventually(lambda: len(list(box.logs())) > before, what="the log goes on")
        assert box.exec("echo here").stdout == "here\n"
    finally:
        (held / "freezer.state").write_text("THAWED")
        eventually(lambda: not (held / "cgroup.procs").read_text())
        held.rmdir()
    eventually(lambda: pid not in children(monitor(box)), what="it is reaped")
    eventually(lambda: children(monitor(box))[1:], what="and another begun")


def test_a_paused_container_is_not_probed(engine: sampan.Engine, cli: Command) -> None:
    box = probed(engine, "echo . >> /count; wc -l < /count")
    becomes(box, "healthy")
    box.pause()
    eventually(lambda: not children(monitor(box))[1:] or time.sleep(0.1) is None)
    kept = log(box)
    assert box.health == "unhealthy", "as Docker shows it"
    assert "(Paused)" in cli("ps").ok().out
    time.sleep(0.4)
    assert log(box) == kept
    box.unpause()
    eventually(lambda: log(box) != kept)
    assert box.health == "healthy"


def test_a_probe_that_is_paused_in_the_middle_says_nothing(engine: sampan.Engine) -> None:
    # Long enough for an exec and a pause on a machine with much to do.
    box = probed(engine, "test -e /later || sleep 444", health_timeout="2s", health_retries=1)
    eventually(lambda: children(monitor(box))[1:], what="the probe runs")
    box.exec("touch /later")
    box.pause()
    # Well past its timeout.
    time.sleep(2.5)
    box.unpause()
    becomes(box, "healthy")
    assert {code for code, _ in log(box)} == {0}


# those around it


def test_a_container_that_ends_during_a_probe_leaves_nothing(engine: sampan.Engine) -> None:
    for options in ({}, {"pid_mode": "host"}):
        box = probed(engine, "sleep 333", health_timeout="1h", **options)
        eventually(lambda box=box: children(monitor(box))[1:], what="the probe runs")
        shim = monitor(box)
        box.stop(timeout=0)
        eventually(lambda shim=shim: ended(shim), what="the shim has ended")
        assert log(box) == []
        box.remove()


def test_a_killed_shim_leaves_nothing_and_the_last_health_is_kept(engine: sampan.Engine, root: Root) -> None:
    box = probed(engine, "test -e /ok && sleep 222; true", health_timeout="1h")
    becomes(box, "healthy")
    box.exec("touch /ok")
    shim = monitor(box)
    probe = eventually(lambda: children(shim)[1:], what="the probe runs")[0]
    run_directory = root.run_root / box.id
    assert (run_directory / "health.json").exists()
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: ended(shim))
    assert engine.containers.get(box.id).inspect()["State"]["ExitCode"] == 255
    eventually(lambda: ended(probe), what="the probe is gone")
    assert not run_directory.exists()
    assert state(box)["Status"] == "unhealthy"
    assert log(box)[0] == (0, "")


def test_a_removed_container_takes_its_health_along(engine: sampan.Engine, root: Root, cli: Command) -> None:
    flags = ["--rm", "--health-cmd", "true", "--health-interval", "10ms"]
    cli("run", *flags, "base", "sleep", "0.2").ok()
    assert set(os.listdir(root.run_root)) <= KEPT


def test_the_health_is_read_without_the_shim(engine: sampan.Engine, cli: Command) -> None:
    box = probed(engine, "true")
    becomes(box, "healthy")
    shim = monitor(box)
    os.kill(shim, signal.SIGSTOP)
    try:
        assert "(healthy)" in cli("ps", timeout=10).ok().out
        assert cli("inspect", "-f", "{{json .State.Health.Log}}", box.name).ok().out.startswith('[{"Start":')
    finally:
        os.kill(shim, signal.SIGCONT)


def test_probes_cost_the_shim_no_memory_and_no_descriptors(engine: sampan.Engine) -> None:
    box = probed(engine, "head -c 5000 /dev/zero | tr '\\0' '\\1'; exit 1", health_interval="1ms")
    shim = monitor(box)

    def count() -> int:
        return int(state(box)["FailingStreak"])

    def most() -> tuple[int, int]:
        """In a hundred looks: pages that a child has too are not private, and a probe has descriptors while it runs."""
        looks = [
            (private_memory(shim), len(os.listdir(f"/proc/{shim}/fd"))) for _ in range(100) if not time.sleep(0.005)
        ]
        return max(memory for memory, _ in looks), min(descriptors for _, descriptors in looks)

    eventually(lambda: count() > 200, seconds=60)
    memory, descriptors = most()
    eventually(lambda: count() > 600, seconds=60)
    assert most() <= (memory + (64 << 10), descriptors)


def private_memory(pid: int) -> int:
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) << 10
    return total
