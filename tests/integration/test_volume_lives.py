"""Volumes and the containers that use them: mounted while one runs, kept or taken along when it goes, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.engine.containers import Container

from support import host
from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root

TMPFS = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m")


@pytest.fixture
def place(root: Root) -> Iterator[Path]:
    """The volumes of the session's root, of which the test leaves none."""
    yield root.root / "volumes"
    root.remove_containers()
    root.cli("volume", "prune", "-af").ok()
    assert root.cli("volume", "ls", "-q").ok().out == ""


def names(root: Root) -> list[str]:
    return root.cli("volume", "ls", "-q").ok().out.split()


def mounted(place: Path, name: str) -> int:
    return sum(mount.startswith(f"{place / name / '_data'}|") for mount in host.mounts(place))


def run(root: Root, *args: str, name: str = "box") -> str:
    return root.cli("run", "-d", "--name", name, "--network", "none", *args).ok().out.strip()


def kill_monitor(root: Root, container: Container) -> None:
    started = root.root / "containers" / container.id / "monitor.lock"
    monitor = next(pid for pid, why in host.processes(str(started.parent)).items() if "sampan-shim" in comm(pid))
    os.kill(monitor, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{monitor}"), what="the monitor is gone")


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


# Named and anonymous


def test_a_named_volume_keeps_what_one_container_wrote_for_the_next(root: Root, place: Path) -> None:
    cli = root.cli
    cli("run", "--rm", "--network", "none", "-v", "data:/x", "base", "sh", "-c", "echo kept > /x/file").ok()
    assert cli("run", "--rm", "--network", "none", "-v", "data:/x", "base", "cat", "/x/file").ok().out == "kept\n"
    assert names(root) == ["data"]
    assert (place / "data/_data/file").read_text() == "kept\n"


def test_one_that_is_used_is_not_removed(root: Root, place: Path) -> None:
    cli = root.cli
    running = run(root, "-v", "data:/x", "base", "sleep", "1000")
    stopped = cli("create", "--network", "none", "-v", "data:/x", "base").ok().out.strip()
    users = " ".join(sorted((running, stopped)))
    for flags in ((), ("-f",)):
        done = cli("volume", "rm", *flags, "data")
        assert (done.code, done.err) == (1, f"Error: remove data: volume is in use - [{users}]\n")
    assert cli("volume", "prune", "-af").ok().out == "Total reclaimed space: 0B\n"
    assert cli("volume", "ls", "-q", "-f", "dangling=false").ok().out == "data\n"
    assert cli("volume", "ls", "-q", "-f", "dangling=true").ok().out == ""
    cli("rm", "-f", running).ok()
    done = cli("volume", "rm", "data")
    assert (done.code, done.err) == (1, f"Error: remove data: volume is in use - [{stopped}]\n")
    # Named: it does not go with the container, whatever is asked for.
    cli("rm", "-v", stopped).ok()
    assert names(root) == ["data"]
    assert cli("volume", "rm", "data").ok().out == "data\n"


def test_rm_leaves_the_anonymous_ones_and_rm_v_does_not(root: Root, place: Path) -> None:
    cli = root.cli
    for flags, left in (((), 1), (("-v",), 0)):
        made = cli("create", "--network", "none", "-v", "/x", "-v", "named:/y", "base").ok().out.strip()
        assert len(names(root)) == 2
        cli("rm", *flags, made).ok()
        assert len(names(root)) == 1 + left
        cli("volume", "prune", "-af").ok()
    # Asked for by its name, an anonymous one is as good as any other.
    anonymous = cli("volume", "create").ok().out.strip()
    cli("rm", "-v", cli("create", "--network", "none", "-v", f"{anonymous}:/x", "base").ok().out.strip()).ok()
    assert names(root) == [anonymous]


def test_an_anonymous_volume_goes_with_the_last_container_that_has_it(root: Root, place: Path) -> None:
    cli = root.cli
    run(root, "-v", "/x", "base", "sh", "-c", "echo one > /x/file; exec sleep 1000", name="one")
    (name,) = names(root)
    cli("create", "--network", "none", "--name", "two", "--volumes-from", "one", "base", "cat", "/x/file").ok()
    cli("rm", "-fv", "one").ok()
    assert names(root) == [name]
    assert cli("start", "-a", "two").ok().out == "one\n"
    cli("rm", "-v", "two").ok()
    assert names(root) == []


def test_rm_of_the_command_line_takes_anonymous_volumes_along(root: Root, place: Path) -> None:
    root.cli("run", "--rm", "--network", "none", "-v", "/x", "-v", "named:/y", "base", "true").ok()
    assert names(root) == ["named"]
    # Detached: the reaper does it.
    run(root, "--rm", "-v", "/x", "base", "true")
    eventually(lambda: names(root) == ["named"], what="the anonymous volume is gone")


def test_of_a_container_that_was_never_made_nothing_is_left(root: Root, place: Path) -> None:
    done = root.cli("create", "--network", "none", "-v", "/x", "--mount", "type=image,src=nix,dst=/y", "base")
    assert done.code != 0
    assert "nix" in done.err
    assert names(root) == []


# With the driver's options


def test_a_tmpfs_is_there_while_a_container_runs(root: Root, place: Path) -> None:
    cli = root.cli
    cli("volume", "create", *TMPFS, "data").ok()
    done = cli(
        "run", "--rm", "--network", "none", "-v", "data:/x", "base", "sh", "-c", "df -k /x; echo gone > /x/f"
    ).ok()
    assert "1024" in done.out
    assert mounted(place, "data") == 0
    assert os.listdir(place / "data/_data") == []
    run(root, "-v", "data:/x", "base", "sh", "-c", "echo here > /x/file; exec sleep 1000", name="one")
    assert mounted(place, "data") == 1
    # A second one sees the same, and its end does not unmount it.
    eventually(lambda: (place / "data/_data/file").exists(), what="the file")
    assert cli("run", "--rm", "--network", "none", "-v", "data:/x", "base", "cat", "/x/file").ok().out == "here\n"
    assert mounted(place, "data") == 1
    cli("stop", "-t", "0", "one").ok()
    assert mounted(place, "data") == 0


def test_a_bind_volume(root: Root, place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs\n")
    options = ("-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind")
    root.cli("volume", "create", *options, "data").ok()
    assert (
        root.cli("run", "--rm", "--network", "none", "-v", "data:/x", "base", "cat", "/x/file").ok().out == "theirs\n"
    )
    root.cli("volume", "rm", "data").ok()
    assert (tmp_path / "file").read_text() == "theirs\n"


def test_a_container_that_ends_by_itself_with_nobody_there(root: Root, place: Path) -> None:
    """The shim has the exit settled by a reaper, though the container stays."""
    root.cli("volume", "create", *TMPFS, "data").ok()
    run(root, "-v", "data:/x", "base", "sleep", "0.3")
    eventually(lambda: not mounted(place, "data"), what="the volume is unmounted")


def test_a_volume_that_cannot_be_mounted_fails_the_start(root: Root, place: Path) -> None:
    root.cli("volume", "create", "-o", "type=none", "-o", "device=/nowhere/at/all", "-o", "o=bind", "data").ok()
    done = root.cli("run", "--network", "none", "-v", "data:/x", "base", "true")
    path = place / "data/_data"
    assert done.code == 125
    assert (
        f"error while mounting volume '{path}': failed to mount local volume: mount /nowhere/at/all:{path}, "
        "flags: 0x1000: no such file or directory"
    ) in done.err
    assert mounted(place, "data") == 0


def test_when_the_program_is_not_there_the_volume_is_unmounted(root: Root, place: Path) -> None:
    root.cli("volume", "create", *TMPFS, "data").ok()
    done = root.cli("run", "--network", "none", "-v", "data:/x", "base", "no-such-program")
    assert done.code == 127
    assert mounted(place, "data") == 0


def test_after_a_killed_monitor_the_next_command_unmounts(root: Root, place: Path) -> None:
    root.cli("volume", "create", *TMPFS, "data").ok()
    run(root, "-v", "data:/x", "base", "sleep", "1000")
    with root.engine() as engine:
        kill_monitor(root, engine.containers.get("box"))
        assert mounted(place, "data") == 1
        assert engine.containers.list(all=True)[0].status == "exited"
    assert mounted(place, "data") == 0


def test_two_containers_end_at_once(root: Root, place: Path) -> None:
    """Each one's end sees the other, or is seen by it: somebody unmounts."""
    root.cli("volume", "create", *TMPFS, "data").ok()
    for _ in range(3):
        for name in ("one", "two", "three"):
            run(root, "-v", "data:/x", "base", "sleep", "1000", name=name)
        assert mounted(place, "data") == 1
        root.cli("kill", "one", "two", "three").ok()
        eventually(lambda: not mounted(place, "data"), what="the volume is unmounted")
        root.cli("rm", "one", "two", "three").ok()


def test_starts_and_ends_in_a_race(root: Root, place: Path) -> None:
    """A start beside the end of another finds the volume mounted, by whichever of the two comes last."""
    root.cli("volume", "create", *TMPFS, "data").ok()
    script = "grep -q ' /x tmpfs' /proc/mounts"
    processes = [
        root.cli.start("run", "--rm", "--network", "none", "-v", "data:/x", "base", "sh", "-c", script)
        for _ in range(8)
    ]
    assert [process.wait(patience(60)) for process in processes] == [0] * 8
    eventually(lambda: not mounted(place, "data"), what="the volume is unmounted")


def test_creates_and_removals_of_the_same_volume_in_a_race(root: Root, place: Path) -> None:
    """A container that was made has its volume, with what was in it, however many commands try to remove that one."""
    creators = [
        root.cli.start("create", "--network", "none", "-v", "data:/x", "base", "true", stdout=subprocess.DEVNULL)
        for _ in range(8)
    ]
    removers = [
        root.cli.start("volume", *verb, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for verb in (("rm", "data"), ("rm", "-f", "data"), ("prune", "-af")) * 4
    ]
    for process in creators:
        assert process.wait(patience(60)) == 0
    for process in removers:
        process.wait(patience(60))
    made = root.cli("ps", "-aq").ok().out.split()
    assert len(made) == 8
    root.cli("start", *made).ok()
    assert names(root) == ["data"]
