"""A Ctrl-C in the moment before a wait begins: the kernel interrupts nothing then, and Python has noted only that it came."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.patience import patience

# The moment cannot be hit from outside. A signal that another thread takes is the same to the one that waits: noted, and
# no system call of it interrupted.
PROGRAM = """
import signal, socket, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

ours, theirs = socket.socketpair()

class Attachment:
    exit = None
    def fileno(self):
        return ours.fileno()
    def receive(self):
        raise AssertionError("nothing is to be received")
    def close(self):
        ours.close()

def watched():
    from sampan.kernel.inotify import DirectoryWatch
    watch = DirectoryWatch(sys.argv[2])
    return lambda: [watch.wait(None) for _ in range(100)]

def ended():
    from sampan.runtime import handle
    return lambda: handle._poll(ours.fileno(), None)

def collected():
    from sampan.engine import results
    return lambda: results.collect(Attachment(), None)

def outcome():
    from sampan.engine.parallel import Outcome
    return Outcome(threading.Event()).wait

def read_ahead():
    from sampan.store.ahead import ReadAhead
    silent = threading.Event()
    class Source:
        def read(self, size):
            silent.wait()
            return b""
    def read():
        with ReadAhead(Source(), silent.set) as ahead:
            ahead.read(1)
    return read

def downloaded():
    from sampan.engine.pulling import Download
    return Download(None, None).wait_for_blob

def stages():
    from sampan.engine import buildparallel
    from sampan.engine.buildcancel import Cancellation
    cancellation, over = Cancellation(), threading.Event()
    class Planned:
        needs = ()
        def __init__(self, index):
            self.index, self.stage = index, self
    def make(planned):
        with cancellation.ending(over.set):
            over.wait()
        cancellation.check()
    return lambda: buildparallel.build([Planned(0), Planned(1)], make, {}, cancellation, 2)

wait = globals()[sys.argv[1]]()
threading.Thread(target=interrupt, daemon=True).start()
try:
    wait()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.thorough
def test_a_wait_without_an_end_notices_an_interrupt_that_came_too_early(tmp_path: Path) -> None:
    running = {
        wait: subprocess.Popen([sys.executable, "-c", PROGRAM, wait, str(tmp_path)], stdout=-1, stderr=-1)
        for wait in ("watched", "ended", "collected", "outcome", "read_ahead", "downloaded", "stages")
    }
    try:
        said = {wait: process.communicate(timeout=patience(60)) for wait, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert said == dict.fromkeys(running, (b"interrupted\n", b""))
