"""kill -9 at every recorded step of what makes, mounts and removes volumes: each is whole or gone, and nothing is left.

Each scenario runs in a child that kills itself at the n-th event (before an action, or after it), for every n there
is. The parent then looks with a fresh engine, as the next command would.
"""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import sampan
from sampan.errors import NotFound
from sampan.steps.trace import Event

from support import host
from support.imagestore import disk
from support.patience import eventually
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]

Action = Callable[[sampan.Engine], object]
TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory: a killed process loses nothing that the kernel has, so no disk need be waited for."""
    with disk(tmp_path / "disk", "64m") as found:
        yield found


class Killer:
    """Kills its own process at the n-th event."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def __call__(self, event: Event) -> None:
        if event.stage != "engine":
            return
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1


class Place:
    """A root of a test's own, and what of volumes is in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.volumes = directory / "root/volumes"
        self.mounts_before = host.mounts(directory)

    def engine(self, observer: Callable[[Event], None] | None = None) -> sampan.Engine:
        return sampan.Engine(str(self.directory / "root"), str(self.directory / "run"), observer=observer)

    def names(self) -> list[str]:
        """Everything that is there, whole or not; the empty directory of the mounts' locks is none of it."""
        return sorted(
            [n for n in os.listdir(self.volumes) if n != ".mounted"]
            + [
                f"mounted {n}"
                for n in (os.listdir(self.volumes / ".mounted") if (self.volumes / ".mounted").exists() else ())
            ]
        )

    def mounts(self) -> set[str]:
        return host.mounts(self.directory) - self.mounts_before


def killed_at(place: Place | Root, at: int, action: Action) -> bool:
    """Run the action in a child; whether it was killed. False: it came to its end, having fewer steps than that."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with place.engine(observer=Killer(at)) as engine:
                action(engine)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the action failed"
    return os.WIFSIGNALED(status)


def at_every_step(directory: Path, prepare: Action, action: Action, check: Callable[[Place, str], None]) -> int:
    """Kill the action at every step, each time in a new root; look, then do it again. The number of steps."""
    at = 0
    while True:
        place = Place(directory / "work")
        with place.engine() as engine:
            prepare(engine)
        killed = killed_at(place, at, action)
        check(place, f"step {at}")
        with place.engine() as engine:
            if killed:
                # The next attempt is not in the way of what the first one left.
                action(engine)
            engine.volumes.prune({"all": True})
            assert engine.volumes.list() == []
        assert place.names() == [], f"left behind after step {at}"
        assert place.mounts() == set(), f"left behind after step {at}"
        shutil.rmtree(place.directory)
        if not killed:
            return at
        at += 1


def whole(engine: sampan.Engine, name: str) -> bool:
    """Whether the volume is there; it is usable then."""
    for volume in engine.volumes.list():
        assert not volume.broken
        if volume.name == name:
            assert os.path.isdir(volume.path)
            assert volume.inspect()["Name"] == name
            return True
    return False


def nothing(_engine: sampan.Engine) -> None:
    pass


def test_create(place: Path) -> None:
    def check(at: Place, when: str) -> None:
        with at.engine() as engine:
            there = whole(engine, "data")
            # The look itself has taken away what was half made.
            assert at.names() == (["data"] if there else []), when

    def create(engine: sampan.Engine) -> None:
        engine.volumes.create("data", labels={"a": "b"})

    assert at_every_step(place, nothing, create, check) >= 8


def test_create_of_an_anonymous_one(place: Path) -> None:
    def check(at: Place, when: str) -> None:
        with at.engine() as engine:
            names = [volume.name for volume in engine.volumes.list() if not volume.broken]
            assert at.names() == names, when
            # It is found again: nobody knows its name, and prune takes it.
            assert engine.volumes.prune()["VolumesDeleted"] == names, when

    assert at_every_step(place, nothing, lambda e: e.volumes.create(), check) >= 8


def test_remove(place: Path) -> None:
    def prepare(engine: sampan.Engine) -> None:
        volume = engine.volumes.create("data")
        for i in range(3):
            (Path(volume.path) / f"d{i}").mkdir()
            (Path(volume.path) / f"d{i}/file").write_text("x")

    def check(at: Place, when: str) -> None:
        with at.engine() as engine:
            if whole(engine, "data"):
                # Not one file of it is gone.
                assert len(list((at.volumes / "data/_data").rglob("*"))) == 6, when
            else:
                assert at.names() == [], when

    assert at_every_step(place, prepare, lambda e: e.volumes.remove("data", force=True), check) >= 4


def test_remove_of_one_that_is_mounted(place: Path) -> None:
    """What is mounted in a volume is not deleted with it, wherever its removal is killed and finished."""
    precious = place / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep me")

    def prepare(engine: sampan.Engine) -> None:
        engine.volumes.create("data", driver_opts={"type": "none", "device": str(precious), "o": "bind"})
        engine.volumes.mount("data")

    def check(at: Place, when: str) -> None:
        with at.engine() as engine:
            # Nobody uses it: the look unmounts it, whether the removal got there or not.
            whole(engine, "data")
            assert at.mounts() == set(), when
        assert (precious / "file").read_text() == "keep me", when

    assert at_every_step(place, prepare, lambda e: e.volumes.remove("data", force=True), check) >= 8


def test_mount(place: Path) -> None:
    """A command that is killed while it mounts or unmounts a volume leaves a mark by which the next one finds it."""

    def check(at: Place, when: str) -> None:
        with at.engine() as engine:
            assert whole(engine, "data"), when
            assert at.mounts() == set(), when
            assert at.names() == ["data"], when

    def mount_and_release(engine: sampan.Engine) -> None:
        engine.volumes.mount("data")
        engine.volumes.release(["data"])

    def prepare(engine: sampan.Engine) -> None:
        engine.volumes.create("data", driver_opts=TMPFS)

    assert at_every_step(place, prepare, mount_and_release, check) >= 6


def test_prune(place: Path) -> None:
    def prepare(engine: sampan.Engine) -> None:
        engine.volumes.create("kept")
        for _ in range(3):
            engine.volumes.create()

    def check(at: Place, when: str) -> None:
        with at.engine() as engine:
            assert whole(engine, "kept"), when
            left = [volume.name for volume in engine.volumes.list()]
            assert at.names() == left, when

    assert at_every_step(place, prepare, lambda e: e.volumes.prune(), check) >= 12


# With containers


def with_anonymous_volume(engine: sampan.Engine, auto_remove: bool = False) -> str:
    body = {"Name": "box", "Image": "base", "Cmd": ["true"], "Volumes": {"/x": {}}}
    host = {"NetworkMode": "none", "AutoRemove": auto_remove}
    return engine.containers.create_from({**body, "HostConfig": host})[0].id


def look(root: Root) -> tuple[int, int]:
    """How many containers and volumes the next command finds."""
    with root.engine() as engine:
        return len(engine.containers.list(all=True)), len(engine.volumes.list())


def in_steps(root: Root, prepare: Action, action: Action, check: Callable[[tuple[int, int], str], None]) -> int:
    at = 0
    killed = True
    while killed:
        with root.engine() as engine:
            prepare(engine)
        killed = killed_at(root, at, action)
        check(look(root), f"step {at}")
        with root.engine() as engine:
            for container in engine.containers.list(all=True):
                container.remove(force=True, volumes=True)
        # A shim whose client was killed settles its container's exit itself, at the same time as we look.
        eventually(lambda: look(root) == (0, 0), what=f"all is gone, step {at}")
        eventually(lambda: os.listdir(root.root / "volumes") in ([], [".mounted"]), what=f"nothing is left, step {at}")
        at += 1
    return at


def test_a_container_that_is_removed_with_its_volumes(root: Root) -> None:
    """Once the container is gone so is its volume, also if the command that removed both was killed in between."""

    def check(found: tuple[int, int], when: str) -> None:
        assert found in ((1, 1), (0, 0)), when

    def remove(engine: sampan.Engine) -> None:
        engine.containers.get("box").remove(volumes=True)

    assert in_steps(root, with_anonymous_volume, remove, check) >= 20


def test_a_removal_with_volumes_that_was_killed_does_not_speak_for_the_next_one_without(root: Root) -> None:
    def check(found: tuple[int, int], when: str) -> None:
        if found == (1, 1):
            with root.engine() as engine:
                engine.containers.get("box").remove()
                assert len(engine.volumes.list()) == 1, when
                engine.volumes.prune()
        assert look(root) == (0, 0), when

    def remove(engine: sampan.Engine) -> None:
        engine.containers.get("box").remove(volumes=True)

    assert in_steps(root, with_anonymous_volume, remove, check) >= 20


def test_a_container_that_is_made_with_an_anonymous_volume(root: Root) -> None:
    """A container without its volume, or a volume whose container never came to be: there is neither."""

    def check(found: tuple[int, int], when: str) -> None:
        assert found in ((1, 1), (0, 0)), when

    assert in_steps(root, nothing, with_anonymous_volume, check) >= 30


def test_a_container_whose_making_fails(root: Root) -> None:
    """Its anonymous volume is there already; whoever is killed while it is taken back leaves it to the next command."""

    def check(found: tuple[int, int], when: str) -> None:
        assert found == (0, 0), when

    def fail(engine: sampan.Engine) -> None:
        mounts = [{"Type": "image", "Source": "nix", "Target": "/y"}]
        body = {"Image": "base", "HostConfig": {"NetworkMode": "none", "Binds": ["/x"], "Mounts": mounts}}
        with pytest.raises(NotFound):
            engine.containers.create_from(body)

    assert in_steps(root, nothing, fail, check) >= 20


def test_a_container_whose_exit_removes_it(root: Root) -> None:
    """--rm, settled by a command that is killed on the way: the next one finishes, with the volume."""

    def check(found: tuple[int, int], when: str) -> None:
        eventually(lambda: found in ((1, 1), (0, 0)) or look(root) in ((1, 1), (0, 0)), what=f"both or none, {when}")

    def run(engine: sampan.Engine) -> None:
        container = engine.containers.get("box")
        container.start()
        # On a busy machine its shim's reaper may have removed it by now.
        with suppress(NotFound):
            container.wait()

    assert in_steps(root, lambda e: with_anonymous_volume(e, auto_remove=True), run, check) >= 20
