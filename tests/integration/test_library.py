"""The library as a program uses it: `sampan.Engine`, from threads and from several processes at once.

What it promises as `sampan.connect` does is in tests/contract/test_engine.py.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import Conflict, Forbidden, InvalidParameter, NotFound, NotModified
from sampan.steps.trace import Event

from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]


def together(number: int, action: Callable[[], Any]) -> list[Any]:
    """What `action` returned or raised in each of `number` threads that began at the same time."""
    barrier = threading.Barrier(number)
    results: list[Any] = []

    def run() -> None:
        barrier.wait()
        try:
            results.append(action())
        except Exception as e:
            results.append(e)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def output(container: Container) -> bytes:
    return b"".join(entry.data for entry in container.logs())


def test_the_issues_example(root: Root, debian_image: str) -> None:
    with root.engine() as engine:
        assert engine.containers.run("base", ["uname", "-a"]).stdout.startswith("Linux ")
        box = engine.containers.create(debian_image, ["sleep", "60"], memory="128m")
        box.start()
        assert box.exec(["id"]).stdout.startswith("uid=0(root) gid=0(root)")
        assert box.inspect()["HostConfig"]["Memory"] == 128 << 20
        box.remove(force=True)
        with pytest.raises(NotFound):
            box.inspect()


# run


def test_run_that_keeps_its_container(engine: sampan.Engine) -> None:
    result = engine.containers.run("base", ["echo", "kept"], name="kept", remove=False)
    box = engine.containers.get("kept")
    assert box.id == result.id
    assert output(box) == b"kept\n"


def test_an_interrupted_run_ends_its_container(root: Root) -> None:
    script = (
        "import sampan, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "engine = sampan.Engine(*sys.argv[1:4])\n"
        "engine.containers.run('base', ['sh', '-c', 'echo up; exec sleep 1000'], name='box')\n"
    )
    argv = [sys.executable, "-c", script, str(root.root), str(root.run_root), str(root.config)]
    with root.engine() as engine, subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as program:
        try:
            # It runs: before that an interrupt ends a start, and says so where the start is.
            eventually(lambda: any(b.name == "box" and list(b.logs()) for b in engine.containers.list()), 60)
            program.send_signal(signal.SIGINT)
            _, told = program.communicate(timeout=patience(60))
        finally:
            program.kill()
        assert "KeyboardInterrupt" in told
        assert engine.containers.list(all=True) == []


_INTERRUPTED = """
import sampan, sys

engine, place = sampan.Engine(*sys.argv[1:4]), sys.argv[4]

def interrupt(frame, event, _argument):
    if event == "return" and frame.f_code.co_qualname == place:
        sys.setprofile(None)
        raise KeyboardInterrupt(place)

sys.setprofile(interrupt)
try:
    engine.containers.run("base", ["sleep", "1000"], name="box", remove=sys.argv[5] == "rm")
except KeyboardInterrupt as e:
    print(e)
print(engine.containers.list(all=True))
"""


@pytest.mark.parametrize("keeps", ["rm", "keep"])
@pytest.mark.parametrize("place", ["start", "Starter.start", "Containers.launch", "collect"])
def test_an_interrupted_run_ends_its_container_at_whatever_moment(root: Root, place: str, keeps: str) -> None:
    """As a function returns: by then what it has made is in nobody's hands."""
    script = _INTERRUPTED if place != "collect" else _INTERRUPTED.replace('"sleep", "1000"', '"true"')
    argv = [sys.executable, "-c", script, str(root.root), str(root.run_root), str(root.config), place, keeps]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=patience(60))
    assert (done.stdout, done.stderr) == (f"{place}\n[]\n", "")


# finding


def test_what_cannot_be_leaves_nothing_behind(engine: sampan.Engine) -> None:
    for options in ({"memory": "1m"}, {"working_dir": "srv"}, {"cap_add": ["X"]}, {"network_mode": "container:nosuch"}):
        with pytest.raises((InvalidParameter, NotFound)):
            engine.containers.create("base", ["true"], name="box", **options)
    assert engine.containers.list(all=True) == []


# threads and processes


def test_many_threads_with_one_engine(engine: sampan.Engine) -> None:
    results = together(8, lambda: engine.containers.run("base", ["sh", "-c", "echo $HOSTNAME"]))
    assert len({r.stdout for r in results}) == 8
    assert all(r.exit_code == 0 for r in results)


def test_one_name_wanted_by_many(engine: sampan.Engine) -> None:
    results = together(6, lambda: engine.containers.create("base", ["true"], name="wanted"))
    assert sum(isinstance(r, Container) for r in results) == 1
    assert sum(isinstance(r, Conflict) and "already in use" in str(r) for r in results) == 5


def test_one_container_started_by_many(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP)
    results = together(5, box.start)
    assert results.count(None) == 1
    assert sum(isinstance(r, NotModified) for r in results) == 4


def test_one_container_removed_by_many(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP)
    box.start()
    results = together(5, lambda: box.remove(force=True))
    assert results.count(None) == 1
    assert all(r is None or isinstance(r, (NotFound, Conflict)) for r in results)


def test_one_container_stopped_by_many_and_waited_for(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"])
    box.start()
    codes: list[int] = []
    waiters = [threading.Thread(target=lambda: codes.append(box.wait())) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    results = together(4, lambda: box.stop(timeout=20))
    for waiter in waiters:
        waiter.join()
    assert None in results
    assert all(r is None or isinstance(r, NotModified) for r in results)
    assert codes == [9, 9, 9]


def _take_one(actions: list[Callable[[], object]]) -> object:
    return actions.pop()()


def test_start_and_remove_at_once(engine: sampan.Engine) -> None:
    """One wins, and what is left is whole, whichever it was."""
    for _ in range(4):
        box = engine.containers.create("base", SLEEP)
        actions: list[Callable[[], object]] = [box.start, partial(box.remove, force=True)]
        together(2, partial(_take_one, actions))
        try:
            assert box.status in ("running", "exited", "created")
            box.remove(force=True)
        except NotFound:
            pass


def test_several_processes_on_one_root(root: Root) -> None:
    script = (
        "import sampan, sys\n"
        "with sampan.Engine(*sys.argv[1:4]) as engine:\n"
        "    for n in range(3):\n"
        "        assert engine.containers.run('base', ['echo', str(n)]).stdout == f'{n}\\n'\n"
    )
    argv = [sys.executable, "-c", script, str(root.root), str(root.run_root), str(root.config)]
    running = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


# logs


def test_logs_that_are_followed_end_with_the_container(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"])
    box.start()
    assert b"".join(e.data for e in box.logs(follow=True)) == b"1\n2\n3\n4\n5\n"
    assert next(iter(box.logs(follow=True, tail=1))).data == b"5\n"


def test_a_log_that_ends_in_the_middle_of_an_entry(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["echo", "whole"])
    box.start()
    box.wait()
    log = Path(box.inspect()["LogPath"])
    with log.open("ab") as file:
        file.write(b'{"log":"torn by a kil')
    assert output(box) == b"whole\n"
    box.start()
    box.wait()
    assert output(box) == b"whole\nwhole\n"


def test_a_tail_of_a_long_log(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["seq", "1", "20000"])
    box.start()
    box.wait()
    expected = [f"{n}\n".encode() for n in range(1, 20001)]
    for count in (1, 7, 1000, 20000, 50000):
        assert [e.data for e in box.logs(tail=count)] == expected[-count:]


def test_no_log_at_all(engine: sampan.Engine) -> None:
    box, _ = engine.containers.create_from(
        {"Image": "base", "Cmd": ["true"], "HostConfig": {"LogConfig": {"Type": "none"}}}
    )
    box.start()
    box.wait()
    with pytest.raises(Conflict, match="configured logging driver does not support reading"):
        box.logs()


# what needs no container


def test_opening_an_engine_looks_at_nothing(root: Root) -> None:
    with root.engine() as engine:
        assert engine.trace.events == []


def test_without_root_one_line_says_what_is_needed() -> None:
    # The interpreter itself may lie where only root can read: privileges are dropped once all is imported.
    script = "import os, sampan; sampan.Engine; os.setresuid(65534, 65534, 65534); sampan.Engine()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith(f"sampan.errors.{Forbidden.__name__}: sampan needs root")


def test_version_and_info_have_dockers_shape(engine: sampan.Engine) -> None:
    version, info = engine.system.version(), engine.system.info()
    assert version["ApiVersion"] == "1.51"
    assert version["Version"] == sampan.__version__
    assert info["ServerVersion"] == sampan.__version__
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    box = engine.containers.create("base", SLEEP)
    box.start()
    now = engine.system.info()
    assert now["ContainersRunning"] == info["ContainersRunning"] + 1


def test_statuses_in_words(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "exit 3"])
    assert box.summary()["Status"] == "Created"
    box.start()
    box.wait()
    assert eventually(lambda: box.summary()["Status"]).startswith("Exited (3) ")
    time.sleep(1.1)
    assert box.summary()["Status"] == "Exited (3) 1 second ago"


def test_an_interrupt_before_a_container_is_told_of_leaves_none(root: Root) -> None:
    """Ctrl-C at any step of `run --rm` up to the moment when the caller hears of the container."""

    class Interrupter:
        def __init__(self, at: int) -> None:
            self.left = at
            self.heard = False

        def __call__(self, event: Event) -> None:
            self.left -= 1
            # One interrupt only: what the first one set going is not disturbed by a second.
            if self.left == 0 and not self.heard:
                raise KeyboardInterrupt

    def heard(_container: Container, _warnings: list[str]) -> None:
        interrupter.heard = True
        raise KeyboardInterrupt

    body = {"Image": "base", "Cmd": ["true"], "HostConfig": {"AutoRemove": True, "NetworkMode": "none"}}
    before = root.state()
    at = 0
    while True:
        at += 1
        interrupter = Interrupter(at)
        with root.engine(observer=interrupter) as engine, pytest.raises(KeyboardInterrupt):
            engine.containers.launch(dict(body), created=heard)
        with root.engine() as engine:
            assert engine.containers.list(all=True) == [], f"after an interrupt at event {at}"
        # The shim that waits for its plan in vain ends a moment later.
        eventually(lambda: not before.left(), what=f"nothing is left after an interrupt at event {at}")
        if interrupter.heard:
            break
    assert at > 20, "it has come to the callback itself"
