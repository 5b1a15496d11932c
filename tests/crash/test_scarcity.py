"""Commands that may have too little of something: each works or says what is missing, and nothing is left of what did not work."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sampan
from sampan.kernel import mount

from support.command import Command, Result
from support.patience import eventually, patience
from support.registry import registry
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]

RUN = ("run", "--rm", "--network", "none", "base", "true")
LIFE = (
    RUN,
    ("run", "-d", "--name", "box", "--network", "none", "base", "sleep", "1000"),
    ("ps", "-a"),
    ("inspect", "box"),
    ("exec", "box", "true"),
    ("stop", "-t", "0", "box"),
    ("rm", "-f", "box"),
)
ABSENT = ("No such container: box", "No such object: box", "is not running", "already in use by container")


def limited(cli: Command, limit: Callable[[], object], *args: str) -> Result:
    """The command in a process that `limit` was called in."""
    done = subprocess.run(
        [cli.program, *cli.before, *args],
        env=cli.environment, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=limit, timeout=patience(60),
    )  # fmt: skip
    return Result(args, done.returncode, done.stdout, done.stderr)


def live(root: Root, limit: Callable[[], object], *wanted: str) -> int:
    """A life under the limit; how many of its commands worked. What does not says one of `wanted`."""
    before, worked = root.state(), 0
    for args in LIFE:
        done = limited(root.cli, limit, *args)
        for word in ("Traceback", "unexpected", "bug", "Errno"):
            assert word not in done.err, done
        if done.code == 0:
            worked += 1
        else:
            assert any(word in done.err for word in (*wanted, *ABSENT)), done
    with root.engine() as engine:
        for container in engine.containers.list(all=True):
            container.remove(force=True)
        assert engine.system.check() == []
    assert before.left() == []
    return worked


def test_few_open_files(root: Root) -> None:
    """From as many as the interpreter needs (its own start, with 4, is nobody's to explain) to enough."""
    worked = {}
    for number in (5, 9, 18, 22, 64):

        def limit(number: int = number) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))

        worked[number] = live(root, limit, "too many open files")
    assert worked[64] == len(LIFE)
    assert worked[5] < len(LIFE), "this limit was none"


@pytest.fixture
def pids() -> Iterator[Path]:
    """A group of the controller pids, which limits those who join it."""
    mounts = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    parent = next(path for path in mounts if (path / "cgroup.procs").exists())
    group = parent / f"sampan-test-pids-{os.getpid()}"
    group.mkdir()
    assert (group / "pids.max").exists(), "this test needs the controller pids"
    yield group
    group.rmdir()


def test_few_processes(root: Root, pids: Path) -> None:
    def join() -> None:
        (pids / "cgroup.procs").write_text("0")

    worked = {}
    for number in (1, 2, 3):
        (pids / "pids.max").write_text(str(number))
        worked[number] = live(root, join, "the limit of processes is reached", "could it not fork")
    assert worked[3] == len(LIFE)
    assert worked[1] < len(LIFE), "this limit was none"


def test_few_processes_for_a_pull_and_for_many_at_once(root: Root, pids: Path, tmp_path: Path) -> None:
    """Threads count as processes: where there are not enough, that is said, or fewer do the work."""

    def join() -> None:
        (pids / "cgroup.procs").write_text("0")

    with registry(tmp_path / "registry") as found:
        name = f"{found.host}/few:1"
        with tarfile.open(tmp_path / "few.tar", "w") as archive:
            archive.add(__file__, "of-this-test-alone")
        root.cli("import", str(tmp_path / "few.tar"), name).ok()
        root.cli("push", name).ok()
        root.cli("rmi", name).ok()
        before, worked = root.state(), {}
        for number in (1, 2, 3, 4, 8):
            (pids / "pids.max").write_text(str(number))
            done = limited(root.cli, join, "pull", name)
            for word in ("Traceback", "unexpected", "bug", "Errno"):
                assert word not in done.err, done
            worked[number] = done.code == 0
            if done.code:
                assert "the limit of processes is reached" in done.err, done
                assert before.left() == []
            else:
                root.cli("rmi", name).ok()
        assert worked[8]
        assert not worked[1], "this limit was none"
    for box in ("one", "two", "three"):
        root.cli("create", "--name", box, "base", "true").ok()
    (pids / "pids.max").write_text("1")
    assert limited(root.cli, join, "rm", "one", "two", "three").ok().out.split() == ["one", "two", "three"]


@pytest.mark.parametrize("free", [0, 1, 2])
def test_a_run_root_that_is_full(root: Root, tmp_path: Path, free: int) -> None:
    """No room for the directory of a container, or for the socket in it."""
    place = tmp_path / "run"
    place.mkdir()
    mount.mount("none", str(place), "tmpfs", 0, "mode=711,nr_inodes=100,size=1m")
    try:
        cli = Command({**root.cli.environment, "SAMPAN_RUN_ROOT": str(place)}, before=root.cli.before)
        cli(*RUN).ok()  # what is kept there for all containers is there now
        kept = sorted(os.listdir(place))
        used = 1 + sum(len(directories) + len(files) for _, directories, files in os.walk(place))
        mount.mount("none", str(place), "tmpfs", mount.MS_REMOUNT, f"mode=711,nr_inodes={used + free},size=1m")
        done = cli(*RUN)
        if free < 2:
            assert done.code == 125
            assert f"make the socket: {place}" in done.err
            assert "no space left on device" in done.err
            failed = cli("run", "-d", "--name", "box", "--network", "none", "base", "true")
            assert failed.code == 125
            (state,) = (one["State"] for one in json.loads(cli("inspect", "box").ok().out))
            assert (state["Status"], state["ExitCode"]) == ("created", 128)
            assert "no space left on device" in state["Error"]
            cli("rm", "box").ok()
        else:
            assert (done.code, done.err) == (0, "")
        assert sorted(os.listdir(place)) == kept
        assert cli("system", "check").ok()
    finally:
        mount.umount(str(place))


def test_a_clock_that_was_set_back(root: Root, cli: Command, engine: sampan.Engine) -> None:
    """What is on disk is of tomorrow then: nothing counts time from it that could become negative, and no end is put off."""
    box = engine.containers.create("base", ["sleep", "1000"], name="box", restart_policy="always", network="none")
    box.start()
    directory = root.root / "containers" / box.id
    for path in (directory / "record.json", directory / "starts/1/started"):
        document = json.loads(path.read_text())
        field = "created" if path.name == "record.json" else "started"
        document[field] = "2099" + document[field][4:]
        path.write_text(json.dumps(document))
    assert "Less than a second ago" in cli("ps").ok().out
    cli("ps", "--filter", "since=box").ok()
    assert json.loads(cli("inspect", "box").ok().out)[0]["State"]["StartedAt"].startswith("2099")
    monitor = json.loads((directory / "starts/1/started").read_text())["monitor"]
    os.kill(monitor, 9)  # whoever finds it lost computes how long it ran

    def restarted() -> bool:
        return box.status == "running" and box.inspect()["RestartCount"] == 1

    eventually(restarted, what="its restart is made at once, and not in the year 2099")
    with engine.events(since="10m", until="0s", filters={"container": box.id, "event": "die"}) as events:
        (died,) = list(events)
    assert died["Actor"]["Attributes"]["execDuration"] == "0"
    box.stop(timeout=0)
    assert engine.system.check() == []
