"""kill -9 at steps of a whole life of containers, images and volumes: what cleans gives the disk back as it was."""

from __future__ import annotations

import io
import os
import signal
import traceback

import pytest

import sampan
from sampan.errors import SampanError
from sampan.steps.trace import Event

from support import imagearchives
from support.disk import disk
from support.imagestore import archive
from support.patience import eventually
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(900)]


ARCHIVE = imagearchives.tar(imagearchives.docker(["loaded:latest"], archive({"g": b"2" * 20000}), archive({"h": b"3"})))


def life(engine: sampan.Engine) -> None:
    """Something of everything that takes room, made and taken away again."""
    engine.images.import_(io.BytesIO(archive({"bin": None, "f": b"1" * 30000})), "mine")
    engine.volumes.create("named")
    volume = engine.volumes.create()
    # What the image has at /etc is copied into the volume.
    box = engine.containers.create(
        "base", ["sh", "-c", "head -c 20000 /dev/zero > /f"], name="box", volumes=["named:/etc"]
    )
    box.start()
    box.wait()
    made = box.commit("made")
    other = engine.containers.create("made", ["true"], name="other")
    engine.images.remove("made", force=True)
    other.remove()
    box.remove()
    engine.containers.run("base", ["true"])
    engine.images.load(io.BytesIO(ARCHIVE))
    engine.images.save(["loaded"], io.BytesIO())
    engine.images.remove("loaded")
    engine.images.remove("mine")
    engine.volumes.remove("named")
    engine.volumes.remove(volume.name)
    assert made


class Killer:
    """Kills its own process at the n-th event of the engine; -1 counts only."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def __call__(self, event: Event) -> None:
        if event.stage == "engine":
            if self.seen == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.seen += 1


def killed_at(root: Root, at: int) -> bool:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with root.engine(observer=Killer(at)) as engine:
                life(engine)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the action failed"
    return os.WIFSIGNALED(status)


def clean(root: Root) -> None:
    """What a user does who wants all back: containers, then volumes, then images but `base`."""
    with root.engine() as engine:
        for container in engine.containers.list(all=True):
            container.remove(force=True, volumes=True)
        engine.volumes.prune({"all": "true"})
        for item in engine.images.list():
            if item["RepoTags"] != ["base:latest"]:
                engine.images.remove(item["Id"], force=True)
        engine.images.collect()


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long, id="every"), pytest.param(23, id="some")])
def test_the_disk_is_as_it_was_after_a_kill_at_any_step(new_root: Root, stride: int) -> None:
    counter = Killer(-1)
    with new_root.engine() as engine:
        engine.containers.run("base", ["true"])
        engine.volumes.create("first").remove()
        clean(new_root)
        before = disk(new_root)
        with new_root.engine(observer=counter) as counting:
            life(counting)
        assert disk(new_root) == before, "without a kill"
        assert counter.seen > 150
        for at in range(0, counter.seen, stride):
            assert killed_at(new_root, at)
            clean(new_root)
            after = disk(new_root)
            assert after == before, f"after a kill at event {at}"
            # And nothing that takes no room is left either. A monitor may be at its end still.
            eventually(lambda: engine.system.check() == [], what=f"all fits after event {at}")


def test_check_alone_gives_back_what_a_kill_left(new_root: Root) -> None:
    """Without a command that happens to clean: --repair finds all that is garbage by proof."""
    counter = Killer(-1)
    with new_root.engine() as engine:
        engine.containers.run("base", ["true"])
        with new_root.engine(observer=counter) as counting:
            life(counting)
        for at in range(5, counter.seen, 41):
            assert killed_at(new_root, at)

            def mended() -> bool:
                return all(finding.repaired for finding in engine.system.check(repair=True))

            eventually(mended, what=f"all is repaired after event {at}")
            assert engine.system.check(deep=True) == [], f"after event {at}"
            try:
                clean(new_root)
            except SampanError as e:
                pytest.fail(f"after event {at}: {e}")
