"""kill -9 at every recorded step of what changes images, in a child that kills itself at the n-th event, for every n there is.

Each time the disk is measured as du(1) does: what the killed one left is given back by a collection, to the byte, and once all images
are removed nothing takes any room that an empty store does not take.
"""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from sampan.steps.trace import Event

from support.imagestore import Store


class Killer:
    """Kills its own process at the n-th event."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def __call__(self, _event: Event) -> None:
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1


def killed_at(directory: Path, at: int, action: Callable[[Store], object]) -> bool:
    """Run the action in a child; whether it was killed. False: it came to its end, having fewer steps than that."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action(Store(directory, Killer(at)))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the action failed"
    return os.WIFSIGNALED(status)


def at_every_step(
    place: Path,
    prepare: Callable[[Store], object],
    action: Callable[[Store], object],
    check: Callable[[Store], object],
) -> None:
    """Kill the action at every step, each time on a copy of the prepared store; check, collect, and do it again."""
    prepared = place / "prepared"
    prepared.mkdir()
    prepare(Store(prepared))
    at = 0
    while True:
        directory = place / "work"
        shutil.copytree(prepared, directory, symlinks=True)
        store = Store(directory)
        names, before = store.files(), _taken(store)
        killed = killed_at(directory, at, action)
        _holds_together(store)
        check(store)
        store.images.collect()
        assert store.files() == store.reachable(), f"left behind after step {at}"
        if store.files() == names:
            assert _taken(store) == before, f"room that is not given back after step {at}"
        check(store)
        if killed:
            # And the next attempt is not in the way of what the first one left.
            action(store)
            _holds_together(store)
        _remove_all(store)
        assert (store.files(), _taken(store)) == ([], 0), f"room that is not given back by rmi after step {at}"
        if not killed:
            break
        shutil.rmtree(directory)
        at += 1
    assert at > 3, "an action without steps was not tested"


def _taken(store: Store) -> int:
    """Bytes on the disk of all that is content, a name or a layer, and of what is on its way to be one."""
    layout = store.layout
    places = [Path(place) for place in (layout.blobs, layout.ingest, layout.images, layout.layers)]
    found: dict[tuple[int, int], int] = {}
    for top in (path for place in places for path in place.iterdir()):
        for path in (top, *top.rglob("*")):
            status = path.lstat()
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _remove_all(store: Store) -> None:
    while items := store.images.list(all=True):
        parents = {item["ParentId"] for item in items}
        store.images.remove(next(item["Id"] for item in items if item["Id"] not in parents), force=True)
    store.images.collect()


def _holds_together(store: Store) -> None:
    """Everything that has a name is whole: documents, blobs, layers."""
    for item in store.images.list():
        image = store.images.resolve(item["Id"])
        assert store.images.ensure_unpacked(image) == image.layers
        for tag in item["RepoTags"]:
            assert store.images.resolve(tag).id == image.id
    assert set(store.reachable()) <= set(store.files())
