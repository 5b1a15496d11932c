"""Attaching to a container that does not run yet: from the first byte on, several at once, with standard input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import Conflict, NotFound, StartFailed
from sampan.runtime import waiting

from support.box import collect
from support.patience import eventually, patience
from support.roots import Root

pytestmark = [pytest.mark.root]

ECHO = ["sh", "-c", 'echo first; while read x; do echo $x; [ "$x" != end ] || break; done; echo last >&2; exit 3']


def places(root: Root, box: Container) -> Path:
    return root.run_root / ".waiting" / box.id


def test_several_before_the_start_hear_every_byte_and_feed_it(engine: sampan.Engine, root: Root) -> None:
    box = engine.containers.create("base", ECHO, stdin_open=True)
    clients = [box.attach(stdin=True) for _ in range(3)]
    only_err = box.attach(stdout=False)
    clients[0].send(b"sent before it ran\n")
    box.start()
    late = box.attach(stdin=True)
    eventually(lambda: "sent before" in "".join(entry.data.decode() for entry in box.logs()))
    late.send(b"end\n")
    for client in clients:
        output = collect(client)
        assert (output.out, output.err) == (b"first\nsent before it ran\nend\n", b"last\n")
        assert client.exit == {"exit_code": 3, "oom_killed": False}
    assert (collect(only_err).out, collect(late).err) == (b"", b"last\n")
    assert not places(root, box).parent.exists(), "nothing is left of those who waited"


def test_the_end_of_standard_input_and_the_bytes_before_it_wait_too(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "cat | wc -c"], stdin_open=True, stdin_once=True)
    client = box.attach(stdin=True)
    client.send(b"x" * 50_000)
    client.close_stdin()
    assert box.start() is None
    assert collect(client).ok() == b"50000\n"


def test_a_terminal(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "stty size; read x; echo got $x"], tty=True, stdin_open=True)
    client = box.attach(stdin=True)
    client.resize(33, 99)
    client.send(b"typed\n")
    box.start()
    output = collect(client)
    assert output.code == 0
    assert b"got typed\r\n" in output.out


def test_a_flood_from_the_first_byte_on(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["seq", "1", "200000"])
    clients = [box.attach() for _ in range(4)]
    box.start()
    numbers = b"".join(b"%d\n" % n for n in range(1, 200001))
    assert box.wait() == 0
    for client in clients:
        assert collect(client).out == numbers


def test_the_start_of_a_container_that_has_run_before(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "echo run >> /runs; wc -l < /runs"])
    box.start()
    box.wait()
    client = box.attach()
    starting = box.start(attach=True)
    assert starting is not None
    assert collect(starting).ok() == b"2\n"
    assert collect(client).ok() == b"2\n"


def test_one_that_leaves_or_is_killed_or_stopped_is_in_nobodys_way(engine: sampan.Engine, root: Root) -> None:
    box = engine.containers.create("base", ["sh", "-c", "echo out; sleep 1000"])
    box.attach().close()
    assert not places(root, box).exists()
    script = "import sys, sampan; e = sampan.Engine(*sys.argv[1:3]); a = e.containers.get(sys.argv[3]).attach(); print(flush=True)\n"
    script += "import time\nfor kind, body in a: print(kind, body, flush=True)"
    others = []
    for _ in range(2):
        argv = [sys.executable, "-c", script, str(root.root), str(root.run_root), box.id]
        others.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
        assert others[-1].stdout is not None
        assert others[-1].stdout.readline() == b"\n"
    killed, stopped = others
    stopped.send_signal(signal.SIGSTOP)
    killed.kill()
    killed.communicate()
    client = box.attach()
    assert len(list(places(root, box).iterdir())) == 3
    begun = time.monotonic()
    box.start()
    assert time.monotonic() - begun < patience(5)
    assert not places(root, box).exists()
    stopped.send_signal(signal.SIGCONT)
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == b"32 b'out\\n'\n"
    box.kill()
    assert collect(client).code == 137
    stopped.communicate(timeout=patience(20))
    assert stopped.returncode == 0


def test_a_start_that_fails_and_a_removal_are_the_end(engine: sampan.Engine, root: Root) -> None:
    box = engine.containers.create("base", ["nosuch"])
    client = box.attach()
    with pytest.raises(StartFailed):
        box.start()
    output = collect(client)
    assert (output.out, output.exit) == (b"", None)
    again = box.attach()
    box.remove()
    assert collect(again).exit is None, "with Docker it waits without end"
    assert not places(root, box).exists()
    with pytest.raises(NotFound):
        box.attach()


def test_the_monitors_death_is_the_end(engine: sampan.Engine, root: Root) -> None:
    box = engine.containers.create("base", ["sleep", "1000"])
    client = box.attach()
    box.start()
    pid = int(Path(f"/proc/{box.inspect()['State']['Pid']}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    assert collect(client).exit is None


def test_only_if_it_runs(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sleep", "1000"])
    with pytest.raises(Conflict, match="You cannot attach to a stopped container, start it first"):
        box.attach(running=True)
    box.start()
    box.attach(running=True).close()


def test_what_is_no_connection_of_somebody_who_waits(engine: sampan.Engine, root: Root) -> None:
    """Files of another boot, of a number that has become something else, and what is none at all."""
    box = engine.containers.create("base", ["true"])
    client = box.attach()
    directory = places(root, box)
    (good,) = directory.iterdir()
    pid, started, fd, inode = good.name.split(".")
    for name in (f"{pid}.1.{fd}.{inode}", f"{pid}.{started}.{fd}.1", f"{pid}.{started}.0.{inode}", "nonsense", "1.2.3"):
        (directory / name).touch()
    box.start()
    assert collect(client).code == 0
    assert not directory.exists()


def test_so_many_and_no_more(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["echo", "heard"])
    clients = [box.attach() for _ in range(waiting.MOST)]
    with pytest.raises(Conflict, match="100 clients wait for the start of container"):
        box.attach()
    box.start()
    assert {collect(client).ok() for client in clients} == {b"heard\n"}


def test_in_the_middle_of_starts_nobody_is_forgotten(engine: sampan.Engine) -> None:
    """Whoever comes while it is being started is taken by that start or attached after it, and hears its end."""
    box = engine.containers.create("base", ["sh", "-c", "echo up; sleep 0.05"])
    done = threading.Event()
    codes: list[object] = []

    def attach() -> None:
        while not done.is_set():
            try:
                client = box.attach()
            except Conflict:
                continue  # it has ended between the look and the connection
            codes.append((output := collect(client)).exit or output.out)

    threads = [threading.Thread(target=attach) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        box.start()
        box.wait()
    done.set()
    _let_go(threads, lambda: box.start())
    assert len(codes) >= 5
    assert all(code == {"exit_code": 0, "oom_killed": False} for code in codes)


def _let_go(threads: list[threading.Thread], start: Callable[[], object]) -> None:
    """One more start for those who wait."""
    while any(thread.is_alive() for thread in threads):
        start()
        for thread in threads:
            thread.join(0.5)
