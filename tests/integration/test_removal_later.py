"""A process that lives long answers a removal when nobody can see the container any more, and deletes its files afterwards."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import sampan
from sampan.engine.background import Background

from support.apiserver import serving
from support.imagestore import archive
from support.patience import eventually
from support.roots import Root

pytestmark = [pytest.mark.root]


def left(root: Root) -> list[str]:
    return sorted(name for place in ("containers", "snapshots") for name in os.listdir(root.root / place))


@contextmanager
def busy(engine: sampan.Engine) -> Iterator[None]:
    """Nothing is done later, until the end."""
    done = threading.Event()
    engine._wiring.later(lambda: done.wait(60) and None)
    try:
        yield
    finally:
        done.set()


def test_it_is_gone_for_everybody_before_its_files_are(root: Root) -> None:
    before = left(root)
    with root.engine() as engine:
        engine.attend()
        kept = engine.containers.run("base", "true", name="later", network="none", remove=False)
        container = engine.containers.get(kept.id)
        with busy(engine):
            container.remove()
            assert f".removing-{kept.id}" in os.listdir(root.root / "containers")
            assert kept.id in os.listdir(root.root / "snapshots")
            with pytest.raises(sampan.errors.NotFound, match="No such container: later"):
                engine.containers.get("later")
            assert kept.id not in root.cli("ps", "-aq", "--no-trunc").ok().out
            # What the files are called while they go: a command that comes by must not do the work of who answered already.
            going = root.root / "snapshots" / ".removing-0123456789abcdef"
            going.mkdir()
            # Its lock says that somebody is at work on it: another command leaves it alone, and has its name.
            root.cli("create", "--name", "later", "base", "true").ok()
            going.rmdir()
            assert f".removing-{kept.id}" in os.listdir(root.root / "containers")
            assert "No such container" in root.cli("rm", kept.id).err
            root.cli("rm", "later").ok()
        eventually(lambda: left(root) == before)
        told = [e["Action"] for e in engine.events(since=0, until="0s", filters={"container": kept.id})]
        assert told.count("destroy") == 1


def test_its_image_can_be_removed_at_once_and_its_layers_go_with_the_last_of_it(root: Root) -> None:
    layers = set(os.listdir(root.root / "layers"))
    with root.engine() as engine:
        engine.attend()
        engine.images.import_(io.BytesIO(archive({"bin/sh": b"#!" * 500})), "mine")
        container = engine.containers.create("mine", ["sh"], network="none")
        made = set(os.listdir(root.root / "layers")) - layers
        with busy(engine):
            container.remove()
            engine.images.remove("mine")
            assert made <= set(os.listdir(root.root / "layers"))
        eventually(lambda: not made & set(os.listdir(root.root / "layers")))


def test_a_process_that_is_killed_in_between_leaves_it_to_the_next_command(root: Root) -> None:
    before = left(root)
    pid = os.fork()
    if pid == 0:
        try:
            with root.engine() as engine:
                engine.attend()
                container = engine.containers.create("base", "true", name="killed", network="none")
                with busy(engine):
                    container.remove()
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert len(left(root)) > len(before)
    root.cli("ps").ok()
    assert left(root) == before
    assert (
        root.cli("events", "--since", "0", "--until", "0s", "-f", "event=destroy", "-f", "container=killed")
        .ok()
        .out.count("destroy")
        == 1
    )


def test_a_server_that_is_told_to_end_finishes_what_it_has_answered(root: Root) -> None:
    before = left(root)
    with serving(root) as server, sampan.connect(server.url) as engine:
        many = "mkdir /many && cd /many && for n in $(seq 5000); do : > $n; done"  # takes longer to delete than a signal to come
        container = engine.containers.create("base", ["sh", "-c", many], network="none")
        container.start()
        assert container.wait() == 0
        container.remove()
        assert server.process is not None
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert left(root) == before


def test_who_closes_waits_for_a_while_and_no_longer() -> None:
    background, go = Background(), threading.Event()
    assert background.wait(0)
    background(lambda: go.wait(60) and None)
    assert not background.wait(0.05)
    go.set()
    assert background.wait(60)


def test_jobs_are_done_in_their_order_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    background, done, go = Background(), [], threading.Event()
    background(lambda: go.wait(60) and None)
    for number in range(300):
        background(lambda number=number: done.append(number))  # type: ignore[misc]
    # More than may wait were done by who came with them, at once.
    assert 0 < len(done) < 100
    go.set()
    eventually(lambda: len(done) == 300)
    waited = [number for number in done if number < 200]
    assert waited == sorted(waited)
