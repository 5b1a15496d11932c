"""`boot`: what is started again after a reboot, and what is not; and the unit file of docs/boot.md."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.kernel.files import FileLock

from support.command import SAMPAN
from support.patience import eventually
from support.reboot import reboot
from support.roots import Root

SLEEP = ["sleep", "1000"]
UNIT = Path(__file__).parents[2] / "docs/boot.md"


def made(engine: sampan.Engine, name: str, policy: str, command: list[str] = SLEEP, **options: object) -> Container:
    box = engine.containers.create("base", command, name=name, restart_policy=policy, **options)
    box.start()
    return box


def statuses(engine: sampan.Engine) -> dict[str, str]:
    return {box.name: box.status for box in engine.containers.list(all=True)}


@pytest.mark.root
@pytest.mark.parametrize("in_order", [False, True], ids=["power cut", "shutdown"])
def test_what_is_started_again(root: Root, engine: sampan.Engine, in_order: bool) -> None:
    for policy in ("no", "always", "unless-stopped", "on-failure"):
        made(engine, f"ran-{policy}", policy)
        made(engine, f"stopped-{policy}", policy).stop(timeout=0)
    made(engine, "succeeded", "on-failure", ["true"]).wait()
    made(engine, "tried", "on-failure:1", ["false"])
    eventually(lambda: engine.containers.get("tried").status == "exited")
    engine.containers.create("base", SLEEP, name="fresh", restart_policy="always")
    reboot(root, in_order=in_order)
    booted = root.cli("boot").ok()
    # Docker's table: `always` also what was stopped, `on-failure` by the exit code, which a kill leaves as 137.
    started = ["ran-always", "ran-unless-stopped", "ran-on-failure", "stopped-always", "stopped-on-failure"]
    assert sorted(booted.out.split()) == sorted(started)
    found = statuses(engine)
    assert sorted(name for name, status in found.items() if status == "running") == sorted(started)
    assert found["fresh"] == "created"
    assert {engine.containers.get(name).inspect()["RestartCount"] for name in started} == {0}
    # Once more, and nothing happens.
    before = {name: engine.containers.get(name).inspect()["State"]["Pid"] for name in started}
    assert root.cli("boot").ok().out == ""
    assert {name: engine.containers.get(name).inspect()["State"]["Pid"] for name in started} == before


@pytest.mark.root
def test_a_restart_that_was_waited_for_when_the_power_went(root: Root, engine: sampan.Engine) -> None:
    box = made(
        engine,
        "box",
        "always",
        ["sh", "-c", "test $(wc -l < /count) -gt 4 && exec sleep 1000; echo x >> /count; exit 1"],
    )
    eventually(lambda: box.status == "restarting" and box.inspect()["RestartCount"] >= 4, 30)
    counted = box.inspect()["RestartCount"]
    reboot(root)
    # Nobody but `boot` judges what another boot has left.
    assert (box.status, box.inspect()["RestartCount"]) == ("exited", counted)
    assert root.cli("boot").ok().out == "box\n"
    eventually(lambda: box.status == "running", 20)


@pytest.mark.root
def test_one_that_fails_stops_no_other(root: Root, engine: sampan.Engine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    made(engine, "bad", "always", mounts=[{"Type": "bind", "Source": str(source), "Target": "/w"}])
    made(engine, "good", "always")
    reboot(root)
    source.rmdir()
    booted = root.cli("boot")
    assert (booted.code, booted.out) == (1, "good\n")
    lines = booted.err.splitlines()
    assert lines[0].startswith("Error: bad: ")
    assert str(source) in lines[0]
    assert lines[-1] == "Error: failed to start containers: bad"
    source.mkdir()
    assert root.cli("boot").ok().out == "bad\n"


@pytest.mark.root
def test_who_joins_another_one_comes_after_it(root: Root, engine: sampan.Engine) -> None:
    """Also if it was made later than the one that joins it was started, and however many there are."""
    for chain in range(3):
        donor = made(engine, f"donor{chain}", "always")
        for link in range(3):
            donor = made(engine, f"joined{chain}-{link}", "always", network_mode=f"container:{donor.name}")
    reboot(root)
    assert len(root.cli("boot").ok().out.split()) == 12
    assert set(statuses(engine).values()) == {"running"}


@pytest.mark.root
def test_with_rm_it_is_removed(root: Root, engine: sampan.Engine) -> None:
    engine.containers.create("base", SLEEP, auto_remove=True).start()
    reboot(root)
    assert root.cli("boot").ok().out == ""
    assert statuses(engine) == {}


@pytest.mark.root
def test_many_are_started_at_the_same_time(root: Root, engine: sampan.Engine) -> None:
    """A start that has to wait for something (here for its record lock) keeps no other one waiting."""
    names = [f"box{n}" for n in range(8)]
    boxes = [made(engine, name, "unless-stopped") for name in names]
    reboot(root)
    with FileLock.acquire(str(root.root / "containers" / boxes[0].id / "record.lock"), 0), root.engine() as after:
        booting = root.cli.start("boot", stdout=subprocess.PIPE)
        eventually(lambda: list(statuses(after).values()).count("running") == 7, 20, "all others run")
    out, _ = booting.communicate()
    assert (booting.returncode, out.decode().split()) == (0, names)


def unit() -> str:
    text = UNIT.read_text()
    return text.partition("```ini\n")[2].partition("```")[0]


def test_the_unit_file(tmp_path: Path) -> None:
    parsed = configparser.ConfigParser(strict=True)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(unit())
    assert parsed.sections() == ["Unit", "Service", "Install"]
    assert (parsed["Service"]["Type"], parsed["Service"]["RemainAfterExit"]) == ("oneshot", "yes")
    assert parsed["Service"]["ExecStart"].endswith("/sampan boot")
    analyze = shutil.which("systemd-analyze")
    if analyze:
        # It wants to find the program.
        file = tmp_path / "sampan.service"
        file.write_text(unit().replace("/usr/local/bin/sampan", SAMPAN))
        done = subprocess.run([analyze, "verify", file], capture_output=True, text=True, check=False)
        assert (done.returncode, [line for line in done.stderr.splitlines() if "sampan" in line]) == (0, [])
