"""kill -9 of a commit at every recorded step: the container goes on, the image is there whole or not at all, and what is
left behind is collected."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

import pytest

import sampan
from sampan.errors import NotFound
from sampan.steps.trace import Event

from support.patience import eventually
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]

NAME = "crashed:1"


class Killer:
    """Kills its own process at the n-th event of the engine."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def __call__(self, event: Event) -> None:
        if event.stage != "engine":
            return
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1


def commit(engine: sampan.Engine) -> None:
    engine.containers.get("box").commit(NAME)


def create(engine: sampan.Engine) -> None:
    engine.containers.create(NAME, ["cat", "/f"], network="none")


def killed_at(root: Root, at: int, action: Callable[[sampan.Engine], None] = commit) -> bool:
    """Do something in a child that is killed at a step; False if it had fewer steps than that."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with root.engine(observer=Killer(at)) as engine:
                action(engine)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"step {at}: it failed"
    return os.WIFSIGNALED(status)


def stored(root: Root) -> dict[str, set[str]]:
    """What is in the store, but locks and what is made once and stays."""
    return {
        place: set(os.listdir(root.root / place)) for place in ("content/ingest", "content/sha256", "images", "layers")
    }


def test_commit(new_root: Root) -> None:
    with new_root.engine() as engine:
        box = engine.containers.create(
            "base", ["sh", "-c", "echo 1 >/f; echo ready; exec sleep 1000"], name="box", network="none"
        )
        box.start()
        eventually(lambda: list(box.logs()), what="its file is there")
        before = stored(new_root)
        at = 0
        while True:
            killed = killed_at(new_root, at)
            eventually(lambda: box.status == "running", what=f"it goes on after step {at}")
            try:
                engine.images.resolve(NAME)
                there = True
            except NotFound:
                there = False
            assert killed or there
            if there:
                assert engine.containers.run(NAME, ["cat", "/f"], network="none").stdout == "1\n", f"step {at}"
                engine.images.remove(NAME, force=True)
            for item in engine.images.list():
                # An image whose name was not written yet.
                if item["Id"] != engine.images.resolve("base").id:
                    engine.images.remove(item["Id"], force=True)
            engine.images.collect()
            assert stored(new_root) == before, f"left behind after step {at}"
            if not killed:
                break
            at += 1
        assert at > 20
        box.remove(force=True)


def test_the_next_commit_is_not_in_the_way_of_a_killed_one(new_root: Root) -> None:
    with new_root.engine() as engine:
        engine.containers.create("base", ["sh", "-c", "echo 1 >/f"], name="box", network="none").start()
        engine.containers.get("box").wait()
        for at in (0, 3, 6, 9, 12):
            assert killed_at(new_root, at)
            assert engine.containers.get("box").commit(NAME) == engine.images.resolve(NAME).id
        engine.images.collect()  # As rmi and prune do.


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long, id="every"), pytest.param(4, id="some")])
def test_the_first_container_of_a_committed_image(new_root: Root, stride: int) -> None:
    """A commit leaves the unpacking to it: killed at any step of that, the next one has the whole layer all the same."""
    with new_root.engine() as engine:
        engine.containers.create("base", ["sh", "-c", "echo 1 >/f"], name="box", network="none").start()
        engine.containers.get("box").wait()
        at = 0
        while True:
            commit(engine)
            assert not os.path.exists(f"{new_root.root}/layers/{layer_of(engine)}/diff"), f"step {at}"
            killed = killed_at(new_root, at, create)
            assert engine.containers.run(NAME, ["cat", "/f"], network="none").stdout == "1\n", f"step {at}"
            for found in engine.containers.list(all=True):
                if found.name != "box":
                    found.remove()
            engine.images.remove(NAME)
            assert engine.system.check() == [], f"step {at}"
            if not killed:
                break
            at += stride
        assert at > 10


def layer_of(engine: sampan.Engine) -> str:
    return engine.images.resolve(NAME).layers[-1].removeprefix("sha256:")
